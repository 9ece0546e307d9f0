"""Credentials, permissions, TLS and what is not there, on real servers and sentinels."""

import gc
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from eks_rolling.clients.redis import SENTINEL_WRITES, SERVER_WRITES, RedisClient
from eks_rolling.errors import AccessDenied, BadRequest, NotFound, Permanent, Transient
from eks_rolling.migration.handover import NOBODY
from eks_rolling.observed.redis import Address, Endpoint, Login, Role, Sentinel, Server, Silent, Stranger
from tests.contract.redis_certificates import Authority
from tests.contract.redis_servers import NAME, Real, at, group, sentinel, sentinels, server, until
from tests.contract.redis_sides import granted
from tests.redis_client import ClosingClient

pytestmark = pytest.mark.lab

PASSWORD = "correct-horse"
AUTH = Login("shop", auth="redis-auth")
Secrets = dict[str, dict[str, str]]


@pytest.fixture
def secrets() -> Secrets:
    return {"redis-auth": {"password": PASSWORD}}


@pytest.fixture
def real(tmp_path: Path, secrets: Secrets) -> Iterator[Real]:
    side = Real(tmp_path, secrets)
    yield side
    side.end()


def read(client: object, address: Address, login: Login = AUTH) -> Server:
    assert isinstance(client, ClosingClient)
    seen = client.server(Endpoint(address, login, "shop/redis-0"))
    assert isinstance(seen, Server), seen
    return seen


def watch(client: object, address: Address, login: Login = AUTH) -> Sentinel:
    assert isinstance(client, ClosingClient)
    seen = client.sentinel(Endpoint(address, login, "shop/sentinel-0"), NAME)
    assert isinstance(seen, Sentinel), seen
    return seen


def denial(act: Callable[[], object]) -> str:
    """The sentence of AccessDenied; no password is in it or in what led to it."""
    with pytest.raises(AccessDenied) as caught:
        act()
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).count(". ") == 0
    return str(caught.value)


# Passwords


def test_a_password_is_used_and_a_wrong_one_named(real: Real, secrets: Secrets) -> None:
    master = real.add_server(None, f"requirepass {PASSWORD}", f"masterauth {PASSWORD}")
    assert read(real.redis, master).can_follow is True
    assert "requires a password" in denial(lambda: real.redis.server(at(master)))
    wrong = ClosingClient(lambda *_: {"password": "wrong"})
    said = denial(lambda: wrong.server(Endpoint(master, AUTH, "shop/redis-0")))
    assert said.startswith("shop/redis-0 does not accept the credentials in Secret shop/redis-auth")
    denial(lambda: wrong.unpause(Endpoint(master, AUTH)))
    denial(lambda: wrong.offset(Endpoint(master, AUTH)))
    assert PASSWORD not in repr(real.redis)


@pytest.mark.parametrize("key", ["password", "redis-password", "valkey-password", "auth"])
def test_the_password_is_found_under_the_keys_that_charts_use(real: Real, secrets: Secrets, key: str) -> None:
    """Those of bitnami/redis, bitnami/valkey and redis-ha."""
    secrets["redis-auth"] = {"unlike": "a secret", key: PASSWORD}
    assert read(real.redis, real.add_server(None, f"requirepass {PASSWORD}")).role is Role.MASTER


def test_a_key_that_is_alone_in_its_secret_is_the_password(real: Real, secrets: Secrets) -> None:
    """Charts let people choose its name (auth.existingSecretPasswordKey)."""
    secrets["redis-auth"] = {"cache.primary.pw": PASSWORD}
    assert read(real.redis, real.add_server(None, f"requirepass {PASSWORD}")).role is Role.MASTER
    secrets["redis-auth"] = {"bundle.pem": "-----BEGIN-----\nabc\n-----END-----\n"}
    with pytest.raises(NotFound, match="has no key password"):
        ClosingClient(lambda *_: secrets["redis-auth"]).server(Endpoint(Address("127.0.0.1", 1), AUTH))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_password_that_was_written_with_the_end_of_its_line_is_used_without(
    real: Real, secrets: Secrets, end: str
) -> None:
    """`kubectl create secret --from-file`; the charts' scripts read it as a file, and drop the end."""
    secrets["redis-auth"] = {"password": PASSWORD + end}
    assert read(real.redis, real.add_server(None, f"requirepass {PASSWORD}")).role is Role.MASTER
    denial(lambda: real.redis.server(Endpoint(real.add_server(None, "requirepass another"), AUTH, "shop/redis-0")))


def test_a_secret_without_a_password_is_named() -> None:
    client = ClosingClient(lambda *_: {"pasword": PASSWORD, "user": "shop"})
    with pytest.raises(NotFound, match="Secret shop/redis-auth has no key password"):
        client.server(Endpoint(Address("127.0.0.1", 1), AUTH))


def test_a_changed_password_is_read_again(real: Real, secrets: Secrets) -> None:
    master = real.add_server(None, f"requirepass {PASSWORD}")
    read(real.redis, master)
    secrets["redis-auth"] = {"password": "another"}
    real.cli(master, "-a", PASSWORD, "CONFIG", "SET", "requirepass", "another")
    real.cli(master, "-a", "another", "CLIENT", "KILL", "TYPE", "normal")
    assert read(real.redis, master).role is Role.MASTER


def test_a_server_that_wants_no_password_does_not_mind_one(real: Real) -> None:
    assert read(real.redis, real.add_server()).role is Role.MASTER


def test_auth_under_another_name_does_not_tell_the_password(real: Real) -> None:
    master = real.add_server(None, 'rename-command AUTH ""', f"requirepass {PASSWORD}")
    denial(lambda: real.redis.server(Endpoint(master, AUTH)))


def test_without_masterauth_a_server_cannot_follow(real: Real) -> None:
    assert read(real.redis, real.add_server(None, f"requirepass {PASSWORD}")).can_follow is False
    closed = real.add_server(None, "user default off", f"user tool on >{PASSWORD} allcommands")
    client = ClosingClient(lambda *_: {"username": "tool", "password": PASSWORD})
    assert read(client, closed).can_follow is False


def test_sentinels_take_the_servers_password_their_own_or_none(real: Real, secrets: Secrets) -> None:
    master = real.add_server(None, f"requirepass {PASSWORD}")
    auth = f"sentinel auth-pass {NAME} {PASSWORD}"
    none = real.add_sentinel(master, auth)
    same = real.add_sentinel(master, auth, f"requirepass {PASSWORD}")
    own = real.add_sentinel(master, auth, "requirepass of-sentinels")
    assert watch(real.redis, none).current == master
    assert watch(real.redis, same).current == master
    assert "does not accept" in denial(lambda: real.redis.sentinel(Endpoint(own, AUTH), NAME))

    secrets["redis-auth"] = {"password": PASSWORD, "sentinel-password": "of-sentinels"}
    assert watch(real.redis, own).current == master
    assert read(real.redis, master).role is Role.MASTER
    assert watch(real.redis, none).current == master

    user = ClosingClient(lambda *_: {"username": "tool", "password": PASSWORD})
    assert watch(user, none).current == master
    assert "does not accept" in denial(lambda: user.sentinel(Endpoint(own, AUTH), NAME))


# Permissions


def permissions() -> tuple[list[str], list[str]]:
    """What deploy/README.md grants on servers and on sentinels."""
    servers, watchers, _ = ([word for word in line.split() if word[0] in "+&"] for line in granted())
    return servers, watchers


def user(real: Real, address: Address, name: str, granted: list[str]) -> Endpoint:
    """A user of that name, whose name is the name of the Secret too."""
    assert real.cli(address, "ACL", "SETUSER", name, "on", f">{PASSWORD}", *granted) == "OK"
    return Endpoint(address, Login("shop", auth=name))


def by_name() -> ClosingClient:
    return ClosingClient(lambda _, name: {"username": name, "password": PASSWORD})


def test_a_client_that_is_dropped_closes_its_connections_after_refused_commands(real: Real) -> None:
    """At once, and not when garbage is collected: until then a server counts them among its clients."""
    client = RedisClient(lambda *_: {"username": "limited", "password": PASSWORD})
    limited = user(real, real.add_server(None), "limited", ["+info", "+ping", "+auth"])
    gc.collect()
    gc.disable()
    try:
        seen = client.server(limited)
        assert isinstance(seen, Server)
        assert seen.denied
        del client
        until(real, lambda: "user=limited" not in real.cli(limited.address, "CLIENT", "LIST"), "its connection ends")
    finally:
        gc.enable()


def test_the_documented_permissions_suffice_on_servers(real: Real) -> None:
    client = by_name()
    master, replica = (user(real, address, "tool", permissions()[0]) for address in group(real, 1))
    seen = client.server(master)
    assert isinstance(seen, Server)
    assert seen.denied == frozenset()
    assert seen.can_follow is True
    client.pause_writes(master, seen, 10)
    client.unpause(master)
    client.disconnect_clients(master)
    following = client.server(replica)
    assert isinstance(following, Server)
    client.promote(replica, following)
    client.follow(master, seen, replica.address)
    assert (client.offset(replica)[0], client.offset(master)[0]) == (Role.MASTER, Role.REPLICA)


def test_the_documented_permissions_suffice_on_sentinels(real: Real) -> None:
    client = by_name()
    master, *_ = group(real, 1)
    watcher = user(real, sentinels(real, master, 1, count=1)[0], "tool", permissions()[1])
    seen = client.sentinel(watcher, NAME)
    assert isinstance(seen, Sentinel)
    assert seen.denied == frozenset()
    assert client.current_master(watcher, NAME) == master
    client.announce(watcher, NAME, master, seen.epoch + 1, NOBODY)
    client.reset(watcher, NAME)


def test_each_permission_that_is_missing_on_a_server_is_named(real: Real) -> None:
    client, (master,) = by_name(), group(real, 0)
    granted = permissions()[0]
    for number, missing in enumerate(granted):
        endpoint = user(real, master, f"user-{number}", [g for g in granted if g != missing])
        command = missing.removeprefix("+").replace("|", " ").upper()
        if command == "INFO":
            assert "does not permit INFO" in denial(partial(client.server, endpoint))
            continue
        seen = client.server(endpoint)
        assert isinstance(seen, Server)
        assert seen.denied == {command}
        assert (seen.min_replicas_to_write is None) is (command == "CONFIG GET")
    seen = server(real, master)
    writes: dict[str, Callable[[Endpoint], None]] = {
        "REPLICAOF": lambda endpoint: client.follow(endpoint, seen, Address("127.0.0.1", 1)),
        "CLIENT PAUSE": lambda endpoint: client.pause_writes(endpoint, seen, 1),
        "CLIENT UNPAUSE": client.unpause,
        "CLIENT KILL": client.disconnect_clients,
    }
    assert set(writes) == set(SERVER_WRITES)
    looker = user(real, master, "looker", ["+info"])
    for command, write in writes.items():
        assert f"does not permit {command}" in denial(partial(write, looker))
    after = server(real, master)
    assert (after.role, after.failover) == (seen.role, seen.failover)


def refusals(real: Real, watcher: Address, name: str) -> int:
    """How often the user was refused a command, as the sentinel's ACL LOG counts."""
    words = real.cli(watcher, "ACL", "LOG").split()
    entries = [i for i, word in enumerate(words) if word == "count"]
    return sum(int(words[i + 1]) for i in entries if name in words[i : i + 20])


def test_each_permission_that_is_missing_on_a_sentinel_is_named(real: Real) -> None:
    client, (master,) = by_name(), group(real, 0)
    (watcher,) = sentinels(real, master, 0, count=1)
    granted = permissions()[1]
    needed = {"MASTER", "GET-MASTER-ADDR-BY-NAME", "REPLICAS", "SENTINELS"}
    for number, missing in enumerate(granted):
        endpoint = user(real, watcher, f"user-{number}", [g for g in granted if g != missing])
        command = missing.removeprefix("+").replace("|", " ").upper()
        if missing.startswith("&"):
            command = "PUBLISH"
        if command.removeprefix("SENTINEL ") in needed:
            said = denial(partial(client.sentinel, endpoint, NAME))
            assert f"does not permit {command}" in said
            continue
        seen = client.sentinel(endpoint, NAME)
        assert isinstance(seen, Sentinel)
        # Without these it is slower, and the plan does not know of other masters, that is all.
        optional = command in {"SENTINEL DEBUG", "SENTINEL MASTERS"}
        assert seen.denied == (set() if optional else {command})
        assert seen.info_period == (None if command == "SENTINEL DEBUG" else 10.0)
        if optional:
            assert isinstance(client.sentinel(endpoint, NAME), Sentinel)
            assert refusals(real, watcher, f"user-{number}") == 1, "it is asked once, and not at each look"
    looker = user(real, watcher, "looker", [])
    assert set(SENTINEL_WRITES) == {"PUBLISH", "SENTINEL RESET"}
    assert "does not permit PUBLISH" in denial(lambda: client.announce(looker, NAME, master, 9, NOBODY))
    assert "does not permit SENTINEL RESET" in denial(lambda: client.reset(looker, NAME))
    assert "does not permit SENTINEL DEBUG" in denial(lambda: client.ask_every(looker, 1.0))


def test_renamed_commands_are_named_and_do_not_hide_the_rest(real: Real) -> None:
    master = real.add_server(None, 'rename-command CONFIG ""', 'rename-command REPLICAOF "swap"')
    seen = server(real, master)
    assert seen.denied == {"CONFIG GET", "REPLICAOF"}
    assert (seen.min_replicas_to_write, seen.persists, seen.can_follow) == (None, None, None)
    assert (seen.role, seen.announced, seen.priority) == (Role.MASTER, "", 100)
    assert "does not know REPLICAOF" in denial(lambda: real.redis.promote(at(master), seen))


# TLS


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tls(tmp_path: Path, authority: Authority, secrets: Secrets) -> list[str]:
    """Options of a server that demands client certificates; a client's are in the Secret redis-tls."""
    certificate, key = authority.issue("redis")
    files = {"ca.crt": authority.certificate, "redis.crt": certificate, "redis.key": key}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    certificate, key = authority.issue("eks-rolling")
    secrets["redis-tls"] = {"ca.crt": authority.certificate, "tls.crt": certificate, "tls.key": key}
    return [
        "port 0",
        f"tls-cert-file {tmp_path / 'redis.crt'}",
        f"tls-key-file {tmp_path / 'redis.key'}",
        f"tls-ca-cert-file {tmp_path / 'ca.crt'}",
        "tls-auth-clients yes",
        "tls-replication yes",
    ]


TLS = Login("shop", tls="redis-tls")


def test_servers_and_sentinels_are_read_over_tls(
    real: Real, tls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    master = real.add_server(None, *tls, port="tls-port")
    replica = real.add_server(master, *tls, port="tls-port")
    watcher = real.add_sentinel(master, *tls, port="tls-port")
    until(real, lambda: read(real.redis, replica, TLS).link_up, "the replica is in sync")
    assert watch(real.redis, watcher, TLS).current == master
    real.redis.pause_writes(Endpoint(replica, TLS), read(real.redis, replica, TLS), 1)
    real.redis.announce(Endpoint(watcher, TLS), NAME, master, 1, NOBODY)
    assert not list((tmp_path / "temporary").iterdir()), "no key is left on the disk"


def test_sides_that_do_not_trust_each_other_are_not_silent(
    real: Real, tls: list[str], secrets: Secrets, authority: Authority
) -> None:
    master = real.add_server(None, *tls, port="tls-port")
    good = secrets["redis-tls"]
    secrets["redis-tls"] = {"ca.crt": authority.certificate}
    said = denial(lambda: real.redis.server(Endpoint(master, TLS)))
    assert "Secret shop/redis-tls do not trust each other" in said
    secrets["redis-tls"] = {**good, "ca.crt": Authority("another").certificate}
    said = denial(lambda: real.redis.server(Endpoint(master, TLS)))
    assert "CERTIFICATE_VERIFY_FAILED" in said
    secrets["redis-tls"] = good
    assert read(real.redis, master, TLS).role is Role.MASTER
    assert isinstance(real.redis.server(at(master)), Silent), "plain words to a TLS port"
    # A handshake is half a command to a server without TLS: it waits for the rest.
    assert isinstance(real.redis.server(Endpoint(real.add_server(), TLS)), Silent)


def test_a_secret_without_usable_certificates_is_named(secrets: Secrets) -> None:
    nobody = Endpoint(Address("127.0.0.1", 1), TLS)
    client = ClosingClient(lambda *_: {"ca.crt": "no certificate"})
    with pytest.raises(BadRequest, match="Secret shop/redis-tls holds no usable certificates"):
        client.server(nobody)
    client = ClosingClient(lambda *_: {"tls.crt": "..."})
    with pytest.raises(NotFound, match=r"Secret shop/redis-tls has no key ca\.crt"):
        client.server(nobody)


# Settings


def test_settings_that_decisions_need_are_read(real: Real) -> None:
    master = real.add_server(None, "save 60 1", "min-replicas-to-write 1", "replica-announce-ip redis-0.example")
    seen = server(real, master)
    assert (seen.persists, seen.min_replicas_to_write, seen.announced) == (True, 1, "redis-0.example")
    assert server(real, real.add_server(None, "appendonly yes", f"appenddirname {master.host}")).persists is True


def test_a_replica_under_an_announced_name_is_listed_by_it(real: Real) -> None:
    master = real.add_server()
    real.add_server(master, "replica-announce-ip redis-1.example")
    until(real, lambda: server(real, master).followers, "it is connected")
    assert [f.address for f in server(real, master).followers] == [Address("redis-1.example", 16379)]


def test_a_synchronization_is_seen_with_the_bytes_that_are_left(real: Real) -> None:
    master = real.add_server(None, "repl-diskless-sync no", "rdb-key-save-delay 0")
    real.cli(master, "CONFIG", "SET", "repl-diskless-sync", "no")
    for number in range(4):
        # Random, so that compression leaves it long.
        real.cli(master, "EVAL", "for i=1,4000 do redis.call('SET', ARGV[1]..i, string.rep(i*7919, 250)) end", "0",
                 f"{number}-")  # fmt: skip
    replica = real.add_server(None, "rdbcompression no")
    real.cli(master, "CONFIG", "SET", "rdbcompression", "no")
    real.redis.follow(at(replica), server(real, replica), master)
    seen = [server(real, replica)]
    while not seen[-1].link_up:
        seen.append(server(real, replica))
    assert any(s.syncing or s.loading or not s.link_up for s in seen)
    left = [s.sync_left for s in seen if s.sync_left is not None]
    assert left == sorted(left, reverse=True)
    assert seen[-1].sync_left is None


# Connections


def connections(real: Real, address: Address) -> int:
    return int(real.cli(address, "INFO", "stats").partition("total_connections_received:")[2].split()[0])


def test_one_connection_serves_until_it_is_broken_and_is_then_remade(real: Real) -> None:
    (master,) = group(real, 0)
    seen = server(real, master)
    before = connections(real, master)
    for _ in range(10):
        real.redis.offset(at(master))
        real.redis.pause_writes(at(master), seen, 1)
        real.redis.unpause(at(master))
    assert connections(real, master) == before + 1, "redis-cli's own"
    real.cli(master, "CLIENT", "KILL", "TYPE", "normal")
    real.redis.unpause(at(master))
    real.cli(master, "CLIENT", "KILL", "TYPE", "normal")
    assert real.redis.offset(at(master))[0] is Role.MASTER
    real.restart_server(master)
    assert server(real, master).run_id != seen.run_id


def test_clients_are_disconnected_all_but_the_one_who_asks(real: Real) -> None:
    (master,) = group(real, 0)
    other = ClosingClient(lambda *_: {})
    other.offset(at(master))
    real.redis.offset(at(master))
    before = connections(real, master)
    real.redis.disconnect_clients(at(master))
    real.redis.offset(at(master))
    assert connections(real, master) == before + 1, "redis-cli's own"
    other.offset(at(master))
    assert connections(real, master) == before + 3, "the other's is new"


def test_who_hangs_is_silent_within_seconds(real: Real) -> None:
    master = real.add_server()
    seen = server(real, master)
    real.freeze(master)
    begun = time.monotonic()
    assert isinstance(real.redis.server(at(master)), Silent)
    assert time.monotonic() - begun < 20
    with pytest.raises(Transient):
        real.redis.pause_writes(at(master), seen, 60_000)
    real.thaw(master)
    real.write(master)


def test_who_is_busy_with_a_script_is_silent_and_says_so(real: Real) -> None:
    """It answers everything with an error: it is waited for as one that does not answer, and is no fault."""
    master = real.add_server(None, "busy-reply-threshold 1")
    endless = ["redis-cli", "-h", master.host, "-p", str(master.port), "eval_ro", "while true do end", "0"]

    def said() -> str:
        found = real.redis.server(at(master))
        return found.reason if isinstance(found, Silent) else ""

    with subprocess.Popen(endless, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        until(real, lambda: said() == "it is busy with a script that does not end", "it says that it is busy")
        with pytest.raises(Transient, match="does not answer: it is busy with a script"):
            real.redis.offset(at(master))
        assert real.cli(master, "script", "kill") == "OK"
    until(real, lambda: not said(), "it answers again")


def stranger(real: Real, address: Address) -> Stranger:
    found = real.redis.stranger(at(address))
    assert isinstance(found, Stranger), found
    return found


def test_what_strangers_say_of_themselves_is_read(real: Real) -> None:
    master, replica = group(real, replicas=1, keys=5)
    told = stranger(real, master)
    assert (told.role, told.in_sync, told.keys, told.saves, told.appends) == (Role.MASTER, 1, 5, False, False)
    assert told.keeps is False
    assert told.used_bytes > 0
    assert stranger(real, replica).is_copy
    assert stranger(real, real.add_sentinel(master)).sentinel
    node = stranger(real, real.add_server(None, "cluster-enabled yes", "appendonly yes"))
    assert (node.clustered, node.appends, node.keeps) == (True, True, True)
    saving = stranger(real, real.add_server(None, "save 3600 1"))
    assert (saving.saves, saving.unsaved) == (True, 0)
    real.kill(replica)
    assert isinstance(real.redis.stranger(at(replica)), Silent)


def test_a_stranger_with_a_password_is_not_asked_again(real: Real) -> None:
    address = real.add_server(None, f"requirepass {PASSWORD}")
    with pytest.raises(AccessDenied, match="requires a password"):
        real.redis.stranger(at(address))


def test_a_server_is_no_sentinel_and_a_sentinel_no_server(real: Real) -> None:
    (master,) = group(real, 0)
    (watcher,) = sentinels(real, master, 0, count=1)
    with pytest.raises(Permanent, match="is a sentinel, not a Redis server"):
        real.redis.server(at(watcher))
    with pytest.raises(Permanent, match="does not know SENTINEL MASTER"):
        real.redis.sentinel(at(master), NAME)


def test_a_reset_means_one_name_not_a_pattern(real: Real) -> None:
    (master,) = group(real, 0)
    (watcher,) = sentinels(real, master, 0, count=1)
    with pytest.raises(NotFound):
        real.redis.reset(at(watcher), "ma*")
    assert sentinel(real, watcher).current == master
