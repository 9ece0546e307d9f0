"""The switch of a master under Sentinel: which commands are sent, in which order, and when none is [S1]."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied, Conflict, Transient
from eks_rolling.migration.handover import NOBODY, switch, tell
from eks_rolling.observed.redis import (
    Address,
    Endpoint,
    KnownReplica,
    KnownSentinel,
    Login,
    Role,
    Sentinel,
    Server,
    Silent,
)
from eks_rolling.redis.actions import RedisStep
from eks_rolling.redis.groups import Part, RedisGroup
from eks_rolling.redis.sentinel import NOWHERE, RedisPod, SentinelGroupState, SentinelPod, Switch
from eks_rolling.settings import Settings

LOGIN = Login("shop")


def pod(name: str, role: Role = Role.REPLICA, **changes: Any) -> RedisPod:
    endpoint = Endpoint(Address(name), LOGIN, name)
    server = Server(endpoint.address, (7, 0, 15), "redis", name, role, 12)
    return RedisPod(name, Part.REPLICA, None, endpoint, replace(server, **changes))


def view(name: str, **changes: Any) -> Sentinel:
    peers = [n for n in ("s-0", "s-1", "s-2") if n != name]
    return replace(
        Sentinel(
            Address(name, 26379),
            f"id-{name}",
            current=Address("old"),
            flags=frozenset({"master"}),
            replicas=(KnownReplica(Address("new"), frozenset({"slave"})),),
            sentinels=tuple(KnownSentinel(Address(n, 26379), f"id-{n}", frozenset({"sentinel"})) for n in peers),
            epoch=7,
        ),
        **changes,
    )


OLD, NEW, THIRD = pod("old", Role.MASTER), pod("new"), pod("third")


@dataclass
class Redis:
    """Does as it is told, and records it."""

    views: dict[str, Sentinel | Silent] = field(default_factory=lambda: {n: view(n) for n in ("s-0", "s-1", "s-2")})
    reached: int = 12
    """How far the target gets."""
    fails: dict[str, Exception] = field(default_factory=dict)
    """Command and host -> what it raises, once."""
    deaf: set[str] = field(default_factory=set)
    """Sentinels that an election of the same epoch has reached before: they do not take the first hello."""
    sent: list[str] = field(default_factory=list)
    now: float = 0.0
    raced: int = 0
    """Bytes that the old master takes just before it is paused, of which the target gets none."""
    slipped: int = 0
    """Bytes that the old master takes before it is closed, because its pause has ended."""
    closed: bool = False

    def _send(self, what: str) -> None:
        self.sent.append(what)
        if error := self.fails.pop(what, None):
            raise error

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        host = endpoint.address.host
        if host != "old":
            return Role.REPLICA, self.reached
        if self.closed:
            return Role.REPLICA, 12 + self.raced + self.slipped
        return Role.MASTER, 12 + (self.raced if self.sent else 0)

    def sentinel(self, endpoint: Endpoint, _name: str) -> Sentinel | Silent:
        return self.views[endpoint.address.host]

    def current_master(self, endpoint: Endpoint, _name: str) -> Address | None:
        found = self.views[endpoint.address.host]
        if isinstance(found, Silent):
            raise Transient("no answer")
        return found.current

    def pause_writes(self, endpoint: Endpoint, _expected: Server, milliseconds: int) -> None:
        self._send(f"pause {endpoint} {milliseconds}")

    def promote(self, endpoint: Endpoint, _expected: Server) -> None:
        self._send(f"promote {endpoint}")

    def follow(self, endpoint: Endpoint, _expected: Server, master: Address) -> None:
        self._send(f"{endpoint} follows {master.host}")
        self.closed = self.closed or master == NOWHERE

    def announce(self, endpoint: Endpoint, name: str, master: Address, epoch: int, by: KnownSentinel) -> None:
        self._send(f"tell {endpoint} of {name} at {master} in {epoch} by {by.run_id}")
        host = endpoint.address.host
        found = self.views[host]
        if host in self.deaf:
            self.deaf.discard(host)
            assert isinstance(found, Sentinel)
            self.views[host] = replace(found, epoch=epoch)
        elif isinstance(found, Sentinel):
            self.views[host] = replace(found, current=master, epoch=epoch)

    def disconnect_clients(self, endpoint: Endpoint) -> None:
        self._send(f"disconnect {endpoint}")

    def unpause(self, endpoint: Endpoint) -> None:
        self._send(f"unpause {endpoint}")


def state(redis: Redis) -> SentinelGroupState:
    watchers = tuple(
        SentinelPod(name, None, Endpoint(Address(name, 26379), LOGIN, name), found)
        for name, found in redis.views.items()
    )
    return SentinelGroupState(RedisGroup("shop", "cache", "main", ()), (OLD, NEW, THIRD), watchers)


def clients(redis: Redis) -> Clients:
    def sleep(seconds: float) -> None:
        redis.now += seconds

    nothing = cast(Any, None)
    return Clients(nothing, nothing, cast(Any, redis), Settings(cluster="demo"), lambda: redis.now, sleep, nothing)


def switched(redis: Redis, new: RedisPod = NEW) -> str:
    return switch(Switch(OLD, new, "new becomes master", RedisStep.FAIL_OVER), state(redis), clients(redis)).said


TOLD = [f"tell s-{n} of main at new:6379 in 8 by id-s-{1 if n == 0 else 0}" for n in range(3)]
CLOSED = ["pause old 3000", f"old follows {NOWHERE.host}"]
CHANGED = [*CLOSED, "promote new", "old follows new"]


def test_no_sentinel_is_told_before_the_old_master_is_a_replica() -> None:
    redis = Redis()
    assert switched(redis) == "new becomes master (writes stood still for 0.00 s)"
    assert redis.sent == [*CHANGED, *TOLD, "disconnect old", "unpause old", "third follows new"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (Silent(Address("s-1"), "connection refused"), "sentinel s-1 does not answer"),
        (view("s-1", flags=frozenset({"master", "failover_in_progress"})), "sentinel s-1 is failing over"),
        (view("s-1", current=Address("third")), "sentinel s-1 does not name old any more"),
    ],
)
def test_nothing_is_paused_where_a_sentinel_is_not_as_before(changed: Sentinel | Silent, said: str) -> None:
    """Whoever cannot be told could elect another one."""
    redis = Redis()
    redis.views["s-1"] = changed
    assert said in switched(redis)
    assert redis.sent == []


def test_nothing_is_paused_where_a_sentinel_may_not_be_told() -> None:
    redis = Redis()
    redis.views["s-2"] = view("s-2", denied=frozenset({"PUBLISH"}))
    with pytest.raises(AccessDenied, match="s-2 does not know or permit PUBLISH"):
        switched(redis)
    with pytest.raises(AccessDenied, match="new does not know or permit REPLICAOF"):
        switched(Redis(), pod("new", denied=frozenset({"REPLICAOF"})))
    assert redis.sent == []


def test_writes_go_on_where_the_target_does_not_catch_up() -> None:
    late = Redis()
    late.reached = 11
    assert "did not catch up within 2.5 s" in switched(late)
    assert late.sent == []


def test_a_master_is_not_closed_for_a_target_that_falls_behind_under_the_pause() -> None:
    redis = Redis(raced=1)
    assert "did not catch up within 0.5 s; writes continue" in switched(redis)
    assert redis.sent == ["pause old 3000", "unpause old"]


def test_a_write_that_slipped_in_after_the_pause_is_not_thrown_away() -> None:
    """S1: a server that stood still until its pause was over takes it before it is closed."""
    redis = Redis(slipped=1)
    assert "did not catch up within 0.5 s; writes continue" in switched(redis)
    assert redis.sent == [*CLOSED, "promote old", "unpause old"]


def test_a_close_that_fails_leaves_nobody_paused() -> None:
    redis = Redis()
    redis.fails[CHANGED[1]] = Transient("no answer")
    with pytest.raises(Transient):
        switched(redis)
    assert redis.sent == [*CLOSED, "unpause old"]


def test_a_promotion_that_is_refused_makes_the_old_one_master_again() -> None:
    redis = Redis()
    redis.fails["promote new"] = Conflict("it was restarted")
    with pytest.raises(Conflict):
        switched(redis)
    assert redis.sent == [*CLOSED, "promote new", "promote old", "unpause old"]


@pytest.mark.parametrize("step", [2, 3])
def test_nobody_is_made_master_again_where_another_one_may_be_master(step: int) -> None:
    """S1: the next look tells."""
    redis = Redis()
    redis.fails[CHANGED[step]] = Transient("no answer")
    with pytest.raises(Transient):
        switched(redis)
    assert redis.sent == CHANGED[: step + 1]


def test_a_pause_is_half_of_down_after_at_most() -> None:
    redis = Redis()
    redis.views["s-0"] = view("s-0", down_after_ms=2000)
    switched(redis)
    assert redis.sent[0] == "pause old 1000"


def test_a_sentinel_that_took_another_ones_word_in_the_same_epoch_is_told_again() -> None:
    redis = Redis(deaf={"s-1"})
    assert switched(redis).startswith("new becomes master")
    assert [s.partition(" of ")[0] for s in redis.sent if s.startswith("tell")] == [
        "tell s-0",
        "tell s-1",
        "tell s-2",
    ] * 2
    assert "tell s-1 of main at new:6379 in 9 by id-s-0" in redis.sent


def test_who_does_not_answer_keeps_nobody_from_being_told() -> None:
    redis = Redis()
    redis.fails[TOLD[0]] = Transient("s-0 does not answer")
    redis.deaf = {"s-0"}
    switched(redis)
    assert set(TOLD) <= set(redis.sent)


def test_a_sentinel_whose_pod_has_no_address_yet_keeps_nobody_from_being_told() -> None:
    redis = Redis()
    seen = state(redis)
    first, *others = seen.watchers
    seen = replace(seen, watchers=(replace(first, endpoint=None), *others))
    assert tell(OLD, NEW, seen, clients(redis))
    assert [s.split()[1] for s in redis.sent if s.startswith("tell")] == [w.name for w in others]


def test_a_server_that_refuses_to_cut_its_clients_off_is_not_left_paused() -> None:
    redis = Redis()
    redis.fails["disconnect old"] = AccessDenied("no permission")
    with pytest.raises(AccessDenied):
        switched(redis)
    assert redis.sent[-1] == "unpause old"


def test_a_sentinel_is_told_of_the_address_that_it_writes_itself() -> None:
    name = Address("new.redis.shop", 6390)
    redis = Redis()
    new = pod("new", announced=name.host)
    new = replace(new, endpoint=Endpoint(Address("new", 6390), LOGIN, "new"))
    listed = (KnownReplica(name, frozenset({"slave"})),)
    redis.views = {
        "s-0": view("s-0", replicas=listed),
        "s-1": view("s-1", replicas=(), announces_names=True),
        "s-2": view("s-2", replicas=()),
    }
    tell(OLD, new, state(redis), clients(redis))
    told = [s.split()[5] for s in redis.sent if s.startswith("tell")]
    assert told == [str(name), str(name), "new:6390"]


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize(
    ("announced", "resolves", "told"),
    [
        ("", False, "new:31000"),
        ("192.168.0.7", False, "192.168.0.7:31000"),
        ("FD00:0:0::7", False, "[fd00::7]:31000"),
        ("new.redis.shop", True, None),
        ("new.redis.shop", False, "new:31000"),
    ],
)
def test_a_replica_that_no_sentinel_lists_is_told_by_what_it_announces(
    announced: str, *, resolves: bool, told: str | None, hidden: bool
) -> None:
    """S1: under another address it would be the master and a replica of it, and be made to follow itself."""
    redis = Redis()
    redis.views = {n: view(n, replicas=(), resolves_names=resolves) for n in redis.views}
    tell(OLD, pod("new", announced=announced, announced_port=31000, hidden=hidden), state(redis), clients(redis))
    # A name that it resolves is what it has of one that it will never list; another one it lists in a moment.
    expected = told or ("new.redis.shop:31000" if hidden else "new:31000")
    assert {s.split()[5] for s in redis.sent if s.startswith("tell")} == {expected}


def test_a_sentinel_without_peers_is_told_in_the_name_of_a_colleague_or_of_nobody() -> None:
    redis = Redis()
    redis.views = {"s-0": view("s-0", sentinels=()), "s-1": view("s-1")}
    switched(redis)
    assert TOLD[0] in redis.sent
    alone = Redis()
    alone.views = {"s-0": view("s-0", sentinels=())}
    switched(alone)
    assert f"tell s-0 of main at new:6379 in 8 by {NOBODY.run_id}" in alone.sent
