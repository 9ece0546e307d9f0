"""Corner cases of what Redis answers; the rest is tested on real servers."""

from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from eks_rolling.clients import redis
from eks_rolling.clients.redis import read_cluster_node, read_sentinel, read_server
from eks_rolling.errors import NotFound, Permanent
from eks_rolling.observed.redis import Address, Endpoint, Follower, Login, Role, Server
from tests.redis_client import ClosingClient

ENDPOINT = Endpoint(Address("10.0.0.1"), Login("shop"), "shop/redis-0")
INFO = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n# Replication\r\nrole:master\r\nmaster_repl_offset:12\r\n"


def read(text: str = "", settings: dict[str, str] | None = None, *, open_: bool | None = None) -> Server:
    return read_server(ENDPOINT, INFO + text, settings or {}, open_, ())


def test_the_least_that_info_may_hold() -> None:
    seen = read()
    assert seen == Server(ENDPOINT.address, (7, 0, 15), "redis", "abc", Role.MASTER, 12)


def test_a_version_may_have_a_suffix_and_a_fork_its_own() -> None:
    assert read("redis_version:7.4.0-rc1\r\n").version == (7, 4, 0)
    valkey = read("server_name:valkey\r\nredis_version:7.2.4\r\nvalkey_version:9.0.1\r\n")
    assert (valkey.flavor, valkey.version) == ("valkey", (9, 0, 1))


def test_followers_of_every_kind() -> None:
    seen = read(
        "slave0:ip=10.0.0.2,port=6379,state=online,offset=10,lag=1\r\n"
        "slave1:ip=fd00::2,port=6380,state=wait_bgsave,offset=0,lag=0\r\n"
        "slave2:ip=redis-2.redis.shop.svc,port=6379,state=online,offset=12,lag=0,io-thread=0,type=replica\r\n"
        "slave3:ip=10.0.0.9,port=6379,state=send_bulk_and_stream,offset=0,lag=0,type=rdb-channel\r\n"
        "slaves_waiting_psync:0\r\n"
    )
    assert seen.followers == (
        Follower(Address("10.0.0.2"), online=True, offset=10, lag=1),
        Follower(Address("fd00::2", 6380), online=False, offset=0),
        Follower(Address("redis-2.redis.shop.svc"), online=True, offset=12),
    )


@pytest.mark.parametrize(
    ("left", "in_progress", "expected"), [("1024", "1", 1024), ("0", "1", 0), ("-1", "1", None), ("5", "0", None)]
)
def test_bytes_left_of_a_synchronization(left: str, in_progress: str, expected: int | None) -> None:
    seen = read(
        "role:slave\r\nmaster_host:redis-master\r\nmaster_port:6379\r\nmaster_link_status:down\r\nslave_repl_offset:1\r\n"
        f"master_sync_in_progress:{in_progress}\r\nmaster_sync_left_bytes:{left}\r\nslave_priority:7\r\n"
    )
    assert (seen.role, seen.offset, seen.master) == (Role.REPLICA, 1, Address("redis-master"))
    assert (seen.syncing, seen.sync_left, seen.link_up) == (in_progress == "1", expected, False)
    assert seen.priority == 7, "INFO tells a replica's where CONFIG is renamed"


def test_connections_closed_over_the_buffer_limit_are_read_where_the_version_counts_them() -> None:
    assert read("role:master\r\nclient_output_buffer_limit_disconnections:4\r\n").over_limit == 4
    assert read("role:master\r\n").over_limit == 0


def test_a_snapshot_that_failed_is_read() -> None:
    assert read("rdb_last_bgsave_status:err\r\n").save_failed
    assert not read("rdb_last_bgsave_status:ok\r\n").save_failed


def test_what_a_server_announces_and_whether_it_takes_writes_as_a_replica() -> None:
    settings = {"replica-announce-ip": "redis-0", "replica-announce-port": "31000", "replica-read-only": "no"}
    seen = read("replica_announced:0\r\n", settings)
    assert (seen.announced, seen.announced_port, seen.hidden, seen.read_only) == ("redis-0", 31000, True, False)
    assert (read().announced_port, read().hidden, read().read_only) == (0, False, None)


@pytest.mark.parametrize(
    ("where", "announced", "port"),
    [
        ("10.0.0.1:6379@16379", "0", 16379),
        (":6379@7000", None, 7000),
        ("10.0.0.1:6379@31001,redis-0,shard-id=abc", "31001", None),
    ],
)
def test_where_a_node_of_a_cluster_hears_the_others(where: str, announced: str | None, port: int | None) -> None:
    """One that announces another port hears them at its own all the same, wherever that is."""
    table = f"id-1 {where} myself,master - 0 0 1 connected 0-16383\n"
    settings = {} if announced is None else {"cluster-announce-bus-port": announced}
    assert read_cluster_node(read(), "cluster_state:ok\r\n", table, settings).bus_port == port


def test_keys_of_all_databases_count() -> None:
    assert read("db0:keys=12,expires=3,avg_ttl=0\r\ndb11:keys=5,expires=0,avg_ttl=0,subexpiry=0\r\n").keys == 17
    assert read("dbfilename:dump.rdb\r\n").keys == 0


def test_a_pause_is_seen_where_info_tells() -> None:
    assert read("paused_reason:client_pause\r\npaused_actions:write\r\npaused_timeout_milliseconds:90\r\n").paused
    assert not read("paused_reason:none\r\npaused_actions:none\r\npaused_timeout_milliseconds:0\r\n").paused
    assert not read("paused_reason:failover_in_progress\r\npaused_actions:write\r\n").paused


@pytest.mark.parametrize(
    ("settings", "open_", "expected"),
    [
        ({}, True, None),
        ({"masterauth": "x", "requirepass": "x"}, False, True),
        ({"masterauth": "", "requirepass": ""}, None, True),
        ({"masterauth": "", "requirepass": "x"}, None, False),
        ({"masterauth": "", "requirepass": ""}, False, False),
        ({"masterauth": "", "requirepass": ""}, True, True),
    ],
)
def test_whether_it_can_follow(settings: dict[str, str], open_: bool | None, expected: bool | None) -> None:
    assert read(settings=settings, open_=open_).can_follow is expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"save": "", "appendonly": "no"}, False),
        ({"save": "60 1", "appendonly": "no"}, True),
        ({"save": "", "appendonly": "yes"}, True),
    ],
)
def test_whether_it_persists(settings: dict[str, str], expected: bool | None) -> None:
    assert read(settings=settings).persists is expected


def test_what_is_no_server_is_said_to_be_none() -> None:
    with pytest.raises(Permanent, match=r"shop/redis-0 is a sentinel, not a Redis server"):
        read_server(ENDPOINT, "redis_version:7.0.15\r\nredis_mode:sentinel\r\n", {}, None, ())


def sentinel_replies(**changes: Any) -> list[Any]:
    master = {"ip": "10.0.0.1", "port": "6379", "flags": "master,s_down,failover_in_progress", "quorum": "2"}
    master |= {
        "down-after-milliseconds": "5000",
        "failover-timeout": "60000",
        "config-epoch": "4",
        "info-refresh": "2500",
    }
    replica = {"ip": "10.0.0.2", "port": "6379", "flags": "s_down,slave,disconnected", "master-host": "?"}
    replica |= {"master-port": "0", "master-link-status": "err", "slave-priority": "0"}
    flat = {name: [word for pair in item.items() for word in pair] for name, item in (("m", master), ("r", replica))}
    replies: dict[str, Any] = {
        "master": flat["m"], "current": ["10.0.0.1", "6379"], "replicas": [flat["r"]], "sentinels": [],
        "quorum": "OK 3 usable Sentinels.", "own_id": "me", "names": ["resolve-hostnames", "yes"],
        "periods": ["INFO-PERIOD", "10000", "PING-PERIOD", "1000"],
    }  # fmt: skip
    return list((replies | changes).values())


def test_a_sentinel_that_does_not_know_its_replica_yet() -> None:
    seen = read_sentinel(ENDPOINT, sentinel_replies(), ())
    assert (seen.epoch, seen.quorum, seen.down_after_ms, seen.failover_timeout_ms) == (4, 2, 5000, 60000)
    assert (seen.failing_over, seen.info_age) == (True, 2.5)
    assert (seen.resolves_names, seen.announces_names) == (True, False)
    (replica,) = seen.replicas
    assert (replica.master, replica.link_ok, replica.priority) == (None, False, 0)
    assert not replica.alive


def test_a_sentinel_counts_the_replicas_that_it_lists_to_nobody() -> None:
    master = sentinel_replies()[0]
    assert read_sentinel(ENDPOINT, sentinel_replies(master=[*master, "num-slaves", "2"]), ()).known_replicas == 2
    assert read_sentinel(ENDPOINT, sentinel_replies(), ()).known_replicas is None


@pytest.mark.parametrize(
    ("ip", "name", "read"),
    [
        ("FD00:0:0::1", "[FD00:0:0::1]:6379", "[fd00::1]:6379"),
        ("fd00::1", "[FD00:0:0::1]:6379", "[fd00::1]:6379"),
        ("fd00::1", "[fd00::2]:6379", "[fd00::2]:6379"),
        ("redis-0", "redis-0:6379", "redis-0:6379"),
        ("redis-0", "[]", "[]"),
        ("redis-0", "redis-0:port", "redis-0:port"),
        ("redis-0", "redis-0:\u00b2", "redis-0:\u00b2"),
        ("redis-0", "redis-0:999999", "redis-0:999999"),
    ],
)
def test_the_name_of_an_entry_is_written_as_addresses_are(ip: str, name: str, read: str) -> None:
    """S2: where names are announced, sentinels list an IPv6 address in the form in which it was announced."""
    item = {"ip": ip, "port": "6379", "flags": "slave", "name": name}
    flat = [word for pair in item.items() for word in pair]
    (replica,) = read_sentinel(ENDPOINT, sentinel_replies(replicas=[flat]), ()).replicas
    assert replica.name == read


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (["INFO-PERIOD", "990"], 0.99),
        (["info-period", "10000"], 10.0),
        (["INFO-PERIOD", "soon"], None),
        (["PING-PERIOD", "1000"], None),
        ("OK", None),
        (ResponseError("ERR Unknown sentinel subcommand 'DEBUG'"), None),
        (NoPermissionError("User has no permissions"), None),
    ],
)
def test_how_often_a_sentinel_asks_is_known_where_it_tells(told: Any, seconds: float | None) -> None:
    assert read_sentinel(ENDPOINT, sentinel_replies(periods=told), ()).info_period == seconds


@pytest.mark.parametrize(
    "answer", [ResponseError("NOQUORUM 1 usable Sentinels. Not enough"), NoPermissionError("User has no permissions")]
)
def test_a_quorum_that_is_not_confirmed_is_none(answer: ResponseError) -> None:
    seen = read_sentinel(ENDPOINT, sentinel_replies(quorum=answer, names=ResponseError("unknown"), own_id=None), ())
    assert not seen.quorum_ok
    assert seen.quorum_says == str(answer)
    assert (seen.run_id, seen.resolves_names) == ("", False)


def test_probes_of_redis_6_find_what_does_not_exist() -> None:
    """It has COMMAND INFO, and no ACL DRYRUN."""
    trials = [ResponseError("Unknown subcommand or wrong number of arguments for 'DRYRUN'.")] * len(redis.SERVER_WRITES)
    known = [["client", -2], None]
    assert redis._denied_writes(redis.SERVER_WRITES, [*trials, known]) == ["REPLICAOF"]
    unable = ResponseError("unknown command 'COMMAND'")
    assert redis._denied_writes(redis.SERVER_WRITES, [*trials, unable]) == []


def test_a_sentinel_takes_a_name_literally() -> None:
    assert redis._literally("my[1]*?") == r"my\[1\]\*\?"


def test_credentials_of_sentinels_default_to_the_servers() -> None:
    def of(secret: dict[str, str]) -> tuple[str, str, bool]:
        client = ClosingClient(lambda *_: secret)
        endpoint = Endpoint(Address("10.0.0.1", 26379), Login("shop", auth="redis"))
        return client._credentials(endpoint, redis._Kind.SENTINEL)

    assert of({"password": "p"}) == ("", "p", True)
    assert of({"password": "p", "username": "u"}) == ("u", "p", True)
    assert of({"password": "p", "username": "u", "sentinel-password": "s"}) == ("", "s", False)
    assert of({"password": "p", "sentinel-password": "s", "sentinel-username": "w"}) == ("w", "s", False)


@pytest.mark.parametrize("key", ["username", "sentinel-username"])
@pytest.mark.parametrize("kind", redis._Kind)
def test_a_user_name_alone_in_a_secret_is_no_password(key: str, kind: redis._Kind) -> None:
    client = ClosingClient(lambda *_: {key: "w"})
    endpoint = Endpoint(Address("10.0.0.1"), Login("shop", auth="redis"))
    if kind is redis._Kind.SENTINEL:
        assert client._credentials(endpoint, kind) == ("w", "", True)
    else:
        with pytest.raises(NotFound, match="has no key password"):
            client._credentials(endpoint, kind)
    alone = ClosingClient(lambda *_: {"secret": "p"})
    assert alone._credentials(endpoint, kind)[:2] == ("", "p")


def test_what_does_not_answer_is_not_connected_to_for_long() -> None:
    assert redis.CONNECT_SECONDS + redis.READ_SECONDS <= 3, "a write pause"
