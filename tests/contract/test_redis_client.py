"""What steps count on in Redis and Sentinel: the same cases in memory and on real servers."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.errors import Conflict, Transient
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


def test_a_sentinel_tells_how_long_ago_it_asked_the_master(side: Side) -> None:
    """It learns of replicas then, every 10 s."""
    assert all(0 <= sentinel(side, n).info_age < 11 for n in range(3))
    until(side, lambda: sentinel(side, 0).info_age > 2, "time passes", 13)
    until(side, lambda: sentinel(side, 0).info_age < 2, "it asks again", 12)


@pytest.mark.parametrize("changed", [{"run_id": "another"}, {"role": Role.REPLICA}])
def test_a_server_that_is_not_what_was_looked_at_is_not_written_to(side: Side, changed: dict[str, Any]) -> None:
    stale, master = replace(server(side, 0), **changed), side.servers[0]
    writes: list[Callable[[], None]] = [
        lambda: side.redis.pause_writes(master, stale, 1000),
        lambda: side.redis.promote(master, stale),
        lambda: side.redis.follow(master, stale, side.servers[1].address),
    ]
    for write in writes:
        with pytest.raises(Conflict):
            write()
    assert (server(side, 0).role, side.blocked(master)) == (Role.MASTER, False)


PAUSED_SECONDS = 5.0


def test_a_pause_holds_writes_and_ends_by_itself_or_when_told(side: Side) -> None:
    master = side.servers[0]
    began = side.now()
    side.redis.pause_writes(master, server(side, 0), round(PAUSED_SECONDS * 1000))
    # On a busy machine one look takes as long as the pause.
    until(side, lambda: not side.blocked(master), "the pause ends", 10)
    assert side.now() >= began + PAUSED_SECONDS
    side.redis.pause_writes(master, server(side, 0), 60_000)
    assert side.blocked(master)
    side.redis.unpause(master)
    assert not side.blocked(master)
    side.redis.unpause(master)


def test_a_reset_sentinel_finds_the_others_soon_and_the_replicas_within_ten_seconds(side: Side) -> None:
    side.redis.reset(side.sentinels[1], NAME)
    view = sentinel(side, 1)
    assert (view.replicas, view.current) == ((), side.servers[0].address)
    until(side, lambda: len(sentinel(side, 1).sentinels) == 2, "it knows the other sentinels", 6)
    until(side, lambda: len(sentinel(side, 1).replicas) == 2, "it lists the replicas", 14)
    assert sentinel(side, 1).quorum_ok


def test_a_reset_sentinel_knows_the_others_at_once_that_it_is_told_of(side: Side) -> None:
    """And nothing else changes: the hellos have the master and the epoch that it has."""
    before = sentinel(side, 0)
    assert before.current
    side.redis.reset(side.sentinels[0], NAME)
    for peer in before.sentinels:
        side.redis.announce(side.sentinels[0], NAME, before.current, before.epoch, peer)
    after = sentinel(side, 0)
    assert {(s.run_id, s.address) for s in after.sentinels} == {(s.run_id, s.address) for s in before.sentinels}
    assert (after.current, after.master, after.epoch) == (before.current, before.master, before.epoch)
    until(side, lambda: len(sentinel(side, 0).replicas) == 2, "it lists the replicas", 14)
    until(side, lambda: all(s.alive for s in sentinel(side, 0).sentinels), "it talks to the others", 6)


def test_a_sentinel_that_is_told_to_asks_the_master_sooner_and_then_as_before(side: Side) -> None:
    assert sentinel(side, 2).info_period == 10.0
    side.redis.ask_every(side.sentinels[2], 0.99)
    assert sentinel(side, 2).info_period == 0.99
    side.redis.reset(side.sentinels[2], NAME)
    began = side.now()
    until(side, lambda: len(sentinel(side, 2).replicas) == 2, "it lists the replicas", 14)
    asked_at = side.now() - sentinel(side, 2).info_age
    side.redis.ask_every(side.sentinels[2], 10.0)
    assert asked_at - began < 2, "it asked when it was due by the new period, not by the old one"
    until(side, lambda: sentinel(side, 2).info_age > 2, "it asks every ten seconds again", 13)
    until(side, lambda: len(sentinel(side, 2).sentinels) == 2, "it knows the other sentinels", 6)


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


def change_roles(side: Side) -> None:
    old, new = side.servers[0], side.servers[1]
    side.write(old, 5)
    until(side, lambda: server(side, 1).offset == server(side, 0).offset, "in sync")
    before = server(side, 0)
    side.redis.pause_writes(old, before, 3000)
    side.redis.promote(new, server(side, 1))
    side.redis.follow(old, before, new.address)
    assert (side.redis.offset(new)[0], side.redis.offset(old)[0]) == (Role.MASTER, Role.REPLICA)


def tell(side: Side, number: int, epoch: int) -> None:
    by = sentinel(side, number).sentinels[0]
    side.redis.announce(side.sentinels[number], NAME, side.servers[1].address, epoch, by)


def test_the_switch_changes_the_roles_then_tells_the_sentinels(own: Side) -> None:
    """S1: the old master is read-only before any sentinel is told; each takes it over at once."""
    old, new = own.servers[0], own.servers[1]
    change_roles(own)
    assert own.redis.current_master(own.sentinels[0], NAME) == old.address
    for number in range(3):
        tell(own, number, 1 + sentinel(own, number).epoch)
        assert own.redis.current_master(own.sentinels[number], NAME) == new.address
    own.redis.disconnect_clients(old)
    own.redis.unpause(old)
    views = [sentinel(own, n) for n in range(3)]
    assert [(v.current, v.master) for v in views] == [(new.address, new.address)] * 3
    # A machine that stands still for the sentinels' patience may have them elect, which only raises it.
    assert all(v.epoch >= 1 for v in views)
    assert all(old.address in {r.address for r in v.replicas} for v in views)
    assert all({s.run_id for s in v.sentinels} == {o.run_id for o in views if o is not v} for v in views)
    until(own, lambda: all(sentinel(own, n).flags == {"master"} for n in range(3)), "they have reached it")
    until(own, lambda: _follows(own, 0, new.address), "the old master follows")
    # The sentinels would have it follow only after failover-timeout.
    own.redis.follow(own.servers[2], server(own, 2), new.address)
    until(own, lambda: _follows(own, 2, new.address), "the other replica follows")


def test_a_sentinel_that_is_not_told_hears_it_from_the_others(own: Side) -> None:
    """R3: one of three is enough, if whoever tells them dies."""
    new = own.servers[1].address
    change_roles(own)
    tell(own, 1, 1 + sentinel(own, 1).epoch)
    until(own, lambda: all(own.redis.current_master(s, NAME) == new for s in own.sentinels), "all name it", 6)


def test_a_hello_with_an_epoch_that_is_not_higher_changes_nothing(own: Side) -> None:
    """S1: of two who tell at the same instant one does not override the other."""
    change_roles(own)
    tell(own, 0, sentinel(own, 0).epoch)
    assert own.redis.current_master(own.sentinels[0], NAME) == own.servers[0].address


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


def test_programs_are_there() -> None:
    """Never skipped: without them half of this file would test nothing."""
    assert shutil.which("redis-server"), os.environ.get("PATH")
