"""What steps count on in Redis and Sentinel: the same cases in memory and on real servers."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from eks_rolling.errors import Conflict, Refused, Transient
from eks_rolling.observed.redis import Address, Endpoint, KnownReplica, Role, Sentinel, Silent
from tests.contract.redis_sides import (
    LOGIN,
    NAME,
    InMemory,
    Processes,
    Side,
    processes,
    sentinel,
    server,
    until,
    wait_until_whole,
)

# Real groups take ten seconds until every sentinel knows everybody, so each worker has one for the tests that leave it
# as it was; those that do not start their own.
pytestmark = pytest.mark.xdist_group("redis")


@pytest.fixture(scope="module")
def shared() -> Iterator[Processes]:
    with processes() as side:
        side.start()
        wait_until_whole(side)
        yield side


@pytest.fixture(params=["in memory", "real"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "in memory":
        found = InMemory()
        wait_until_whole(found)
        return found
    real: Processes = request.getfixturevalue("shared")
    return real


def test_a_master_lists_its_replicas_by_their_own_addresses(side: Side) -> None:
    master = server(side, 0)
    assert (master.role, master.master, master.failover, master.flavor) == (Role.MASTER, None, "no-failover", "redis")
    assert {f.address for f in master.followers} == {s.address for s in side.servers[1:]}
    assert all(f.online for f in master.followers)
    assert (master.can_follow, master.persists, master.min_replicas_to_write) == (True, False, 0)
    assert (master.priority, master.announced, master.denied, master.paused) == (100, "", frozenset(), False)


def test_a_replica_tells_whom_it_follows_and_how_far_it_is(side: Side) -> None:
    side.write(side.servers[0], 3)
    until(side, lambda: server(side, 1).offset == server(side, 0).offset, "the replica has it all")
    replica = server(side, 1)
    assert (replica.role, replica.master, replica.link_up) == (Role.REPLICA, side.servers[0].address, True)
    assert (replica.syncing, replica.loading, replica.followers) == (False, False, ())
    assert side.redis.offset(side.servers[1]) == (Role.REPLICA, replica.offset)
    assert side.redis.hand_over_state(side.servers[0]) == "no-failover"


def test_a_sentinel_names_the_master_and_lists_replicas_and_other_sentinels(side: Side) -> None:
    view, master = sentinel(side, 0), side.servers[0].address
    assert (view.current, view.master) == (master, master)
    assert view.flags == {"master"}
    assert {r.address for r in view.replicas} == {s.address for s in side.servers[1:]}
    assert {r.name for r in view.replicas} == {str(s.address) for s in side.servers[1:]}
    assert all(r.alive and r.link_ok and r.priority == 100 and r.master == master for r in view.replicas)
    assert {s.run_id for s in view.sentinels} == {sentinel(side, n).run_id for n in (1, 2)}
    assert all(s.alive for s in view.sentinels)
    assert (view.quorum, view.quorum_ok, view.down_after_ms, view.failover_timeout_ms) == (2, True, 5000, 30_000)
    assert side.redis.current_master(side.sentinels[0], NAME) == master


def test_a_name_that_is_not_monitored_is_unknown(side: Side) -> None:
    view = side.redis.sentinel(side.sentinels[0], "other")
    assert isinstance(view, Sentinel)
    assert not view.known


def test_nobody_at_an_address_is_silence_in_reads_and_transient_in_writes(side: Side) -> None:
    nobody = Endpoint(replace(side.servers[0].address, host="127.0.0.99"), LOGIN, "default/x-0")
    for answer in (side.redis.server(nobody), side.redis.sentinel(nobody, NAME)):
        assert isinstance(answer, Silent)
        assert "refused" in answer.reason
    with pytest.raises(Transient, match=r"default/x-0 does not answer: .*refused"):
        side.redis.unpause(nobody)


def test_a_priority_is_seen_by_the_sentinels_within_ten_seconds(side: Side) -> None:
    target = side.servers[2]
    side.redis.set_priority(target, server(side, 2), 1)
    try:
        assert server(side, 2).priority == 1

        def seen() -> bool:
            views = [sentinel(side, n) for n in range(3)]
            return all(r.priority == 1 for v in views for r in v.replicas if r.address == target.address)

        until(side, seen, "every sentinel has seen it", 12)
        assert all(0 <= r.info_age < 11 for n in range(3) for r in sentinel(side, n).replicas)
    finally:
        side.redis.set_priority(target, server(side, 2), 100)


@pytest.mark.parametrize("changed", [{"run_id": "another"}, {"role": Role.REPLICA}])
def test_a_server_that_is_not_what_was_looked_at_is_not_written_to(side: Side, changed: dict[str, str]) -> None:
    stale, master = replace(server(side, 0), **changed), side.servers[0]  # type: ignore[arg-type]
    writes: list[Callable[[], None]] = [
        lambda: side.redis.set_priority(master, stale, 1),
        lambda: side.redis.pause_writes(master, stale, 1000),
        lambda: side.redis.hand_over(master, stale, side.servers[1].address),
        lambda: side.redis.follow(master, stale, side.servers[1].address),
    ]
    for write in writes:
        with pytest.raises(Conflict):
            write()
    assert (server(side, 0).priority, side.blocked(master)) == (100, False)


def test_a_pause_holds_writes_and_ends_by_itself_or_when_told(side: Side) -> None:
    master = side.servers[0]
    side.redis.pause_writes(master, server(side, 0), 1500)
    began = side.now()
    assert side.blocked(master)
    until(side, lambda: not side.blocked(master), "the pause ends", 4)
    assert 1 < side.now() - began < 3
    side.redis.pause_writes(master, server(side, 0), 60_000)
    side.redis.unpause(master)
    assert not side.blocked(master)
    side.redis.unpause(master)


def test_aborting_where_nothing_is_handed_over_is_fine(side: Side) -> None:
    side.redis.abort_hand_over(side.servers[0])


def test_a_hand_over_to_what_is_no_replica_is_refused(side: Side) -> None:
    with pytest.raises(Transient, match="is not a replica"):
        side.redis.hand_over(side.servers[0], server(side, 0), Address("127.0.0.99"))
    assert server(side, 0).role is Role.MASTER


def test_a_reset_sentinel_finds_the_others_soon_and_the_replicas_within_ten_seconds(side: Side) -> None:
    side.redis.reset(side.sentinels[1], NAME)
    view = sentinel(side, 1)
    assert (view.replicas, view.current) == ((), side.servers[0].address)
    until(side, lambda: len(sentinel(side, 1).sentinels) == 2, "it knows the other sentinels", 6)
    until(side, lambda: len(sentinel(side, 1).replicas) == 2, "it lists the replicas", 14)
    assert sentinel(side, 1).quorum_ok


# What changes the group for good: each with a group of its own


@pytest.fixture(params=["in memory", "real"])
def own(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "in memory":
        found = InMemory()
        wait_until_whole(found)
        yield found
        return
    with processes() as real:
        real.start()
        wait_until_whole(real)
        yield real


def test_the_switch_hands_over_then_leads_the_sentinels(own: Side) -> None:
    """S1: the old master is read-only from the hand-over on; the sentinels follow one that leads."""
    old, new = own.servers[0], own.servers[1]
    own.write(old, 5)
    until(own, lambda: server(own, 1).offset == server(own, 0).offset, "in sync")
    own.redis.set_priority(new, server(own, 1), 1)
    until(own, lambda: all(_priority(own, n, new.address) == 1 for n in range(3)), "every sentinel has seen it", 12)
    before = server(own, 0)
    own.redis.pause_writes(old, before, 3000)
    own.redis.hand_over(old, before, new.address)
    until(own, lambda: own.redis.offset(new)[0] is Role.MASTER, "the target is master", 3)
    until(own, lambda: own.redis.hand_over_state(old) == "no-failover", "the hand-over is over", 3)
    assert own.redis.offset(old)[0] is Role.REPLICA
    assert own.redis.current_master(own.sentinels[0], NAME) == old.address

    own.redis.fail_over(own.sentinels[2], NAME)
    assert sentinel(own, 2).failing_over
    with pytest.raises(Refused, match="over now: INPROG"):
        own.redis.fail_over(own.sentinels[2], NAME)
    for number in range(3):
        until(own, lambda n=number: own.redis.current_master(own.sentinels[n], NAME) == new.address, "led", 5)  # type: ignore[misc]
    own.redis.disconnect_clients(old)
    own.redis.unpause(old)
    until(own, lambda: all(sentinel(own, n).flags == {"master"} for n in range(3)), "the failover is over", 8)
    until(own, lambda: all(sentinel(own, n).master == new.address for n in range(3)), "SENTINEL MASTER too", 8)
    until(own, lambda: _follows(own, 0, new.address) and _follows(own, 2, new.address), "all follow the new master")
    assert server(own, 1).followers


def _priority(side: Side, number: int, address: Address) -> int:
    return next(r.priority for r in sentinel(side, number).replicas if r.address == address)


def _follows(side: Side, number: int, address: Address) -> bool:
    found = server(side, number)
    return found.link_up and found.master == address


def test_a_dead_master_is_replaced_after_down_after_and_the_dead_address_stays_listed(own: Side) -> None:
    dead = own.servers[0]
    own.kill(dead)
    until(own, lambda: own.redis.current_master(own.sentinels[0], NAME) != dead.address, "another master", 20)
    until(own, lambda: all(sentinel(own, n).flags == {"master"} for n in range(3)), "the failover is over")
    views = [sentinel(own, n) for n in range(3)]
    assert len({v.current for v in views}) == 1
    assert all(dead.address in {r.address for r in v.replicas} for v in views)
    until(own, lambda: not _entry(own, dead.address).alive, "it is known to be down", 15)


def _entry(side: Side, address: Address) -> KnownReplica:
    return next(r for r in sentinel(side, 0).replicas if r.address == address)


def test_a_sentinel_that_is_gone_stays_listed_until_a_reset(own: Side) -> None:
    gone, run_id = own.sentinels[2], sentinel(own, 2).run_id
    own.kill(gone)
    until(own, lambda: not next(s for s in sentinel(own, 0).sentinels if s.run_id == run_id).alive, "down", 15)
    assert sentinel(own, 0).quorum_ok
    own.redis.reset(own.sentinels[0], NAME)
    until(own, lambda: len(sentinel(own, 0).sentinels) == 1, "only the living one is known", 6)


def test_nothing_to_promote_is_refused(own: Side) -> None:
    for endpoint in own.servers[1:]:
        own.kill(endpoint)
    until(own, lambda: not any(r.alive for r in sentinel(own, 0).replicas), "both are known to be down", 15)
    with pytest.raises(Refused, match="NOGOODSLAVE"):
        own.redis.fail_over(own.sentinels[0], NAME)


def test_programs_are_there() -> None:
    """Never skipped: without them half of this file would test nothing."""
    assert shutil.which("redis-server"), os.environ.get("PATH")
