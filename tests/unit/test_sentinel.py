"""What a Sentinel group needs next: the half-state table, each row with the action that it calls for."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eks_rolling.clients.protocols import Eviction, EvictionStatus
from eks_rolling.errors import Transient
from eks_rolling.migration.handover import NOBODY
from eks_rolling.migration.sentinel import perform
from eks_rolling.observed.kubernetes import Owner, Pod
from eks_rolling.observed.redis import (
    Address,
    Endpoint,
    Follower,
    KnownReplica,
    KnownSentinel,
    Login,
    Role,
    Sentinel,
    Server,
    Silent,
)
from eks_rolling.redis.actions import Done, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import Part, PartSet, RedisGroup, RefreshBy
from eks_rolling.redis.sentinel import (
    HURRIED_SECONDS,
    INFO_SECONDS,
    NOWHERE,
    Action,
    AskAsBefore,
    AskSooner,
    Follow,
    MovePod,
    RedisPod,
    Refresh,
    RepointSentinels,
    SentinelGroupState,
    SentinelPod,
    Switch,
    TakeBack,
    decide,
)

LOGIN = Login("default")
MASTER = PartSet(Owner("StatefulSet", "default", "m"), Part.MASTER, ("m-0",), 6379, LOGIN)
REPLICAS = PartSet(Owner("StatefulSet", "default", "r"), Part.REPLICA, ("r-0", "r-1"), 6379, LOGIN)
SENTINELS = PartSet(Owner("StatefulSet", "default", "s"), Part.SENTINEL, ("s-0", "s-1", "s-2"), 26379, LOGIN)
GROUP = RedisGroup("default", "cache", "mymaster", (MASTER, REPLICAS, SENTINELS))

HOST = {
    "m-0": "10.0.0.1",
    "r-0": "10.0.1.1",
    "r-1": "10.0.1.2",
    "s-0": "10.0.2.1",
    "s-1": "10.0.2.2",
    "s-2": "10.0.2.3",
}
OLD, NEW = "old", "new"


def at(name: str) -> Address:
    return Address(HOST[name])


def group(acting: str = "m-0", *, node: str = "", old: tuple[str, ...] = (), waited: float = 0.0) -> SentinelGroupState:
    """A group in which everything is well, `acting` is master, and the pods of `old` are on the node being emptied."""
    members = []
    for part_set in (MASTER, REPLICAS):
        for name in part_set.pods:
            followers = tuple(Follower(at(o), True, 1000) for o in ("m-0", "r-0", "r-1") if o != name)
            is_master = name == acting
            server = Server(
                at(name),
                (7, 0, 15),
                "redis",
                run_id=f"run-{name}",
                role=Role.MASTER if is_master else Role.REPLICA,
                offset=1000,
                followers=followers if is_master else (),
                master=None if is_master else at(acting),
                link_up=not is_master,
            )
            pod = Pod("default", name, f"uid-{name}", OLD if name in old else NEW, address=HOST[name])
            members.append(RedisPod(name, part_set.part, pod, Endpoint(at(name), LOGIN), server, leaving=name in old))
    watchers = []
    for name in SENTINELS.pods:
        view = Sentinel(
            Address(HOST[name], 26379),
            run_id=f"id-{name}",
            current=at(acting),
            master=at(acting),
            flags=frozenset({"master"}),
            replicas=tuple(
                KnownReplica(at(o), frozenset({"slave"}), master=at(acting))
                for o in ("m-0", "r-0", "r-1")
                if o != acting
            ),
            sentinels=tuple(
                KnownSentinel(Address(HOST[o], 26379), f"id-{o}", frozenset({"sentinel"}))
                for o in SENTINELS.pods
                if o != name
            ),
            quorum=2,
            down_after_ms=5000,
        )
        pod = Pod("default", name, f"uid-{name}", OLD if name in old else NEW, address=HOST[name])
        watchers.append(SentinelPod(name, pod, Endpoint(view.address, LOGIN), view))
    return SentinelGroupState(GROUP, tuple(members), tuple(watchers), node or (OLD if old else ""), waited)


def server(seen: SentinelGroupState, name: str, **changes: Any) -> SentinelGroupState:
    """The group with something else about one server."""

    def change(member: RedisPod) -> RedisPod:
        assert isinstance(member.server, Server)
        return replace(member, server=replace(member.server, **changes))

    return replace(seen, members=tuple(change(m) if m.name == name else m for m in seen.members))


def member(seen: SentinelGroupState, name: str, **changes: Any) -> SentinelGroupState:
    return replace(seen, members=tuple(replace(m, **changes) if m.name == name else m for m in seen.members))


def views(seen: SentinelGroupState, change: Callable[[Sentinel], Sentinel], *names: str) -> SentinelGroupState:
    """The group with something else about the views of some sentinels (none named: all)."""

    def changed(watcher: SentinelPod) -> SentinelPod:
        assert isinstance(watcher.view, Sentinel)
        return replace(watcher, view=change(watcher.view)) if not names or watcher.name in names else watcher

    return replace(seen, watchers=tuple(changed(w) for w in seen.watchers))


def without(seen: SentinelGroupState, name: str) -> SentinelGroupState:
    """A pod that was deleted and is not there yet; nobody follows from it any more."""
    seen = member(seen, name, pod=None, endpoint=None, server=None)
    for other in seen.members:
        if isinstance(other.server, Server):
            kept = tuple(f for f in other.server.followers if f.address != at(name))
            seen = server(seen, other.name, followers=kept)
    return seen


def back_empty(seen: SentinelGroupState) -> SentinelGroupState:
    """The master pod is back on a new node: a master of its own, with nothing in it."""
    seen = without(seen, "m-0")
    fresh = Address("10.0.0.9")
    pod = Pod("default", "m-0", "uid-new", NEW, address=fresh.host)
    answer = Server(fresh, (7, 0, 15), "redis", "run-new", Role.MASTER, 0)
    return member(seen, "m-0", pod=pod, endpoint=Endpoint(fresh, LOGIN), server=answer)


def expect(seen: SentinelGroupState, kind: type[Action], step: RedisStep | None, words: str) -> Any:
    action = decide(seen)
    assert isinstance(action, kind), action
    assert getattr(action, "step", None) == step
    assert words in action.reason
    return action


def test_a_normal_group_away_from_the_node_needs_nothing() -> None:
    expect(group(), Settled, None, "m-0 is master, 2 in sync, 3 sentinels agree")


def test_replicas_go_first_then_sentinels_then_the_master() -> None:
    seen = group(old=("m-0", "r-1", "s-2"))
    assert expect(seen, MovePod, RedisStep.MOVE_REPLICA, "replica r-1 moves").pod.name == "r-1"
    assert expect(group(old=("m-0", "s-2")), MovePod, RedisStep.MOVE_SENTINEL, "sentinel s-2 moves").pod.name == "s-2"
    action = expect(group(old=("m-0",)), Switch, RedisStep.FAIL_OVER, "r-0 becomes master in place of m-0")
    assert (action.old.name, action.new.name) == ("m-0", "r-0")


def test_no_sentinel_moves_while_the_master_pod_is_not_master() -> None:
    """S1: it would resolve that pod's name and monitor the wrong server."""
    expect(group("r-0", old=("s-2",)), Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")


def test_a_stale_replica_delays_nobody_and_a_stale_sentinel_the_next_sentinel_alone() -> None:
    """One refresh of the sentinels for all that left the node. S1: who is gone still counts as a voter."""
    expect(views(group(old=("r-1", "s-2")), stale), MovePod, RedisStep.MOVE_REPLICA, "")
    expect(views(group(old=("s-2",)), stale), MovePod, RedisStep.MOVE_SENTINEL, "")
    expect(views(group(old=("s-2",)), ghost), Refresh, RedisStep.REFRESH_SENTINELS, "which is gone")
    expect(views(group(old=("m-0",)), stale), Switch, RedisStep.FAIL_OVER, "r-0 becomes master")


def test_the_next_replica_waits_until_every_sentinel_lists_the_one_that_moved() -> None:
    """S1: there is always one that a quorum of sentinels could promote."""

    def not_yet(view: Sentinel) -> Sentinel:
        return stale(replace(view, replicas=tuple(r for r in view.replicas if r.address != at("r-0"))))

    seen = views(group(old=("r-1",)), not_yet)
    expect(seen, RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-0 does not list r-0")


def can_be_told(view: Sentinel) -> Sentinel:
    return replace(view, info_period=INFO_SECONDS)


def test_sentinels_that_do_not_list_a_replica_ask_the_master_sooner_where_they_may_be_told_to() -> None:
    """S1: all of those that do not at once, for ten seconds; then it is waited for."""

    def not_yet(view: Sentinel) -> Sentinel:
        return can_be_told(replace(view, replicas=tuple(r for r in view.replicas if r.address != at("r-0"))))

    seen = views(views(group(old=("r-1",)), can_be_told), not_yet, "s-1", "s-2")
    action = expect(seen, AskSooner, RedisStep.REFRESH_SENTINELS, "sentinel s-1 does not list r-0")
    assert [w.name for w in action.watchers] == ["s-1", "s-2"]
    partly = views(seen, lambda v: replace(v, info_period=None), "s-1")
    action = expect(partly, AskSooner, RedisStep.REFRESH_SENTINELS, "sentinel s-1 does not list r-0")
    assert [w.name for w in action.watchers] == ["s-2"]
    expect(replace(seen, waited=10.0), RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-1 does not list r-0")
    others = views(seen, lambda v: replace(v, info_period=5.0))
    expect(others, RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-1 does not list r-0")


def test_a_sentinel_that_was_left_hurried_asks_as_before() -> None:
    """Before anything moves; a period that somebody else chose is theirs."""
    seen = views(group(old=("r-0",)), lambda v: replace(v, info_period=HURRIED_SECONDS), "s-1")
    assert expect(seen, AskAsBefore, RedisStep.REFRESH_SENTINELS, "s-1 was hurried").watcher.name == "s-1"
    expect(views(group(), lambda v: replace(v, info_period=5.0)), Settled, None, "")


def test_a_sentinel_that_can_be_told_to_ask_is_refreshed_whenever_it_asked_last() -> None:
    """S1: it is without replicas for a second at most."""
    seen = views(views(group(), can_be_told), lambda v: stale(replace(v, info_age=3.0)), "s-1")
    expect(seen, Refresh, RedisStep.REFRESH_SENTINELS, "s-1 lists 10.0.0.9")


def test_a_server_that_a_sentinel_lists_twice_is_listed_anew() -> None:
    """S2, S1: an election would promote one of the two entries, and the same server then be made to follow it."""

    def twice(view: Sentinel) -> Sentinel:
        entry = KnownReplica(at("r-0"), frozenset({"slave"}), name="10.0.0.99:6379")
        return replace(view, replicas=(*view.replicas, entry))

    seen = views(group(), twice, "s-2")
    expect(
        seen, Refresh, RedisStep.REFRESH_SENTINELS, "s-2 lists 10.0.1.1:6379 under its former address 10.0.0.99:6379"
    )


def test_nothing_moves_while_another_replica_is_not_in_sync() -> None:
    """S1: there is always a replica that could be promoted."""
    seen = server(group(old=("r-1",)), "r-0", syncing=True, sync_left=5_000_000)
    expect(seen, RedisHold, RedisStep.MOVE_REPLICA, "r-0 synchronizes, 5,000,000 bytes left")
    seen = server(group(old=("r-1",)), "r-0", link_up=False)
    expect(seen, RedisHold, RedisStep.MOVE_REPLICA, "r-0 has no link to m-0")
    seen = server(server(group(old=("r-1",)), "m-0", offset=3_000_000), "r-1", offset=3_000_000)
    expect(seen, RedisHold, RedisStep.MOVE_REPLICA, "r-0 is 2,999,000 bytes behind")


class Recorded:
    """Notes which pods go. The servers of `lags` get nothing of what their master writes; `away` says nothing for a
    moment."""

    def __init__(self, *lags: str, away: str = "") -> None:
        self.lags, self.away, self.gone, self.time = lags, away, list[str](), 0.0

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        if self.away and endpoint.address == at(self.away):
            raise Transient(f"{self.away} does not answer.")
        return Role.REPLICA, 900 if endpoint.address in {at(name) for name in self.lags} else 1000

    def evict(self, pod: Pod) -> Eviction:
        self.gone.append(f"{pod.name} is evicted")
        return Eviction(EvictionStatus.EVICTED)

    def delete_pod(self, pod: Pod) -> None:
        self.gone.append(f"{pod.name} is deleted")

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def perform(self, seen: SentinelGroupState) -> Done:
        clients = SimpleNamespace(redis=self, kubernetes=self, now=lambda: self.time, sleep=self.sleep)
        return perform(decide(seen), seen, cast(Any, clients))


@pytest.mark.parametrize(
    ("seen", "copy", "gone"),
    [
        (lambda: group(old=("r-1",)), "r-0", "r-1 is evicted"),
        (lambda: group("r-0", old=("m-0",)), "r-1", "m-0 is deleted"),
    ],
    ids=["a replica goes", "the master pod goes"],
)
def test_no_copy_goes_before_the_others_get_what_is_written(
    seen: Callable[[], SentinelGroupState], copy: str, gone: str
) -> None:
    """S1: right after a synchronization the master may send a replica nothing for a second."""
    silent, flows = Recorded(copy), Recorded()
    answered = silent.perform(seen())
    assert (answered.acted, silent.gone) == (False, [])
    assert answered.said.startswith(f"{copy} did not catch up with ")
    # A look that fails is no try of the action.
    assert Recorded(away=copy).perform(seen()) == Done(f"{copy} does not answer", acted=False)
    assert flows.perform(seen()).acted
    assert flows.gone == [gone]


def test_a_copy_that_goes_itself_need_not_get_anything_nor_any_where_a_sentinel_goes() -> None:
    leaving, sentinel = Recorded("r-1"), Recorded("r-0", "r-1")
    assert leaving.perform(group(old=("r-1",))).acted
    assert sentinel.perform(group(old=("s-1",))).acted
    assert [*leaving.gone, *sentinel.gone] == ["r-1 is evicted", "s-1 is evicted"]


def test_a_busy_group_is_judged_by_what_its_replicas_say_themselves() -> None:
    """S1: the master hears of them once a second only."""
    seen = group(old=("r-1",))
    for name in ("m-0", "r-0", "r-1"):
        seen = server(seen, name, offset=9_000_000)
    expect(seen, MovePod, RedisStep.MOVE_REPLICA, "replica r-1 moves")


def test_a_replica_that_stays_is_preferred_as_the_target() -> None:
    seen = member(group(old=("m-0",)), "r-0", leaving=True)
    assert expect(seen, Switch, RedisStep.FAIL_OVER, "").new.name == "r-1"


def test_a_replica_with_priority_zero_is_no_target() -> None:
    seen = server(server(group(old=("m-0",)), "r-0", priority=0), "r-1", priority=0)
    expect(seen, Stop, None, "m-0 has no replica that may become master")


def test_a_hand_over_by_somebody_else_is_waited_for() -> None:
    seen = server(group(old=("m-0",)), "m-0", failover="waiting-for-sync")
    expect(seen, RedisHold, RedisStep.FAIL_OVER, "m-0 hands over (waiting-for-sync)")
    nobody = server(seen, "m-0", role=Role.REPLICA, master=at("r-0"), followers=())
    expect(nobody, RedisHold, RedisStep.FAIL_OVER, "m-0 hands over")


def test_a_failover_in_progress_is_waited_for() -> None:
    seen = views(group(), lambda v: replace(v, flags=v.flags | {"failover_in_progress"}), "s-1")
    expect(seen, RedisHold, RedisStep.FAIL_BACK, "sentinel s-1 is failing over")


def names(*, home: tuple[str, ...], epoch: int = 3, **changes: Any) -> SentinelGroupState:
    """r-0 is master; the sentinels of `home` still name m-0, with that epoch, the others r-0 with epoch 3."""
    seen = views(group("r-0", old=("m-0",), **changes), lambda v: replace(v, epoch=3))
    return views(seen, lambda v: replace(v, current=at("m-0"), master=at("m-0"), epoch=epoch), *home)


ALL = ("s-0", "s-1", "s-2")


def test_killed_after_the_roles_changed_the_sentinels_are_told() -> None:
    """R3, S1: clients are sent to a read-only server until somebody does, so nobody who is away is waited for."""
    seen = names(home=ALL)
    action = expect(seen, RepointSentinels, RedisStep.FAIL_OVER, "r-0 is master, and the sentinels still name m-0")
    assert (action.old.name, action.new.name) == ("m-0", "r-0")
    away = replace(seen.watchers[0], view=Silent(at("s-0"), "connection refused"))
    expect(replace(seen, watchers=(away, *seen.watchers[1:])), RepointSentinels, RedisStep.FAIL_OVER, "still name m-0")
    expect(member(seen, "r-1", server=None, endpoint=None, pod=None), RepointSentinels, RedisStep.FAIL_OVER, "")


def closed(seen: SentinelGroupState, **changes: Any) -> SentinelGroupState:
    """m-0 was closed by a switch that was cut off then."""
    return server(seen, "m-0", role=Role.REPLICA, master=NOWHERE, link_up=False, followers=(), **changes)


def test_killed_after_the_old_master_was_closed_it_is_master_again() -> None:
    """R3, S1: the sentinels would elect another one after half a minute only."""
    seen = closed(group("m-0", old=("m-0",)))
    action = expect(seen, TakeBack, RedisStep.FAIL_OVER, "m-0 was closed, and nobody took over")
    assert action.old.name == "m-0"


def test_a_closed_master_is_not_taken_back_where_another_one_may_be_elected() -> None:
    """S1: two masters would take writes."""
    seen = closed(group("m-0", old=("m-0",)))
    away = replace(seen.watchers[0], view=Silent(at("s-0"), "connection refused"))
    assert isinstance(decide(replace(seen, watchers=(away, *seen.watchers[1:]))), RedisHold)
    electing = views(seen, lambda v: replace(v, flags=frozenset({"master", "failover_in_progress"})), "s-1")
    assert isinstance(decide(electing), RedisHold)


@pytest.mark.parametrize("sentinels", [ALL, ()])
def test_killed_after_the_promotion_the_closed_master_follows_the_new_one(sentinels: tuple[str, ...]) -> None:
    """R3, S1: whether the sentinels name the old one still, or have elected the new one themselves."""
    seen = closed(names(home=sentinels))
    action = expect(seen, Follow, RedisStep.FAIL_OVER, "m-0 was closed, and r-0 is master")
    assert (action.member.name, action.master.name) == ("m-0", "r-0")


def test_a_closed_master_never_follows_one_that_came_back_empty() -> None:
    """S1: the pod that was to take over restarted, and its configuration makes it a master."""
    seen = server(closed(names(home=ALL)), "r-0", offset=0)
    expect(seen, TakeBack, RedisStep.FAIL_OVER, "m-0 was closed, and nobody took over")
    expect(server(closed(names(home=("s-0",))), "r-0", offset=0), Follow, RedisStep.FAIL_OVER, "r-0 is master")
    expect(server(closed(names(home=("s-0", "s-1"))), "r-0", offset=0), RedisHold, RedisStep.FAIL_OVER, "has less")


def test_sentinels_that_were_not_told_hear_it_from_the_others() -> None:
    expect(names(home=("s-2",), epoch=2), RedisHold, RedisStep.FAIL_OVER, "s-2 do not name r-0 yet")
    expect(
        names(home=("s-2",), epoch=2, waited=6), RepointSentinels, RedisStep.FAIL_OVER, "some sentinels still name m-0"
    )


def test_sentinels_that_disagree_with_the_same_epoch_are_told_again() -> None:
    """S1: two elections at the same instant; neither side would ever take the other's word."""
    expect(names(home=("s-2",)), RepointSentinels, RedisStep.FAIL_OVER, "some sentinels still name m-0")


def test_nobody_is_told_of_a_master_whom_the_named_one_does_not_follow() -> None:
    """S1: the only master in sight may be the one that came back empty."""
    seen = server(names(home=ALL), "m-0", master=Address("10.0.0.77"))
    assert isinstance(decide(seen), RedisHold)
    few = replace(names(home=ALL), watchers=tuple(replace(w, view=None) for w in names(home=ALL).watchers[:2]))
    assert isinstance(decide(few), RedisHold)
    electing = views(names(home=ALL), lambda v: replace(v, flags=v.flags | {"failover_in_progress"}), "s-1")
    assert isinstance(decide(electing), RedisHold)


def test_the_other_one_of_a_switch_that_was_cut_off_goes_back() -> None:
    """R3, S1: it was promoted, the old master does not follow it yet, and no client was sent to it."""
    seen = server(group(old=("m-0",)), "r-0", role=Role.MASTER, followers=(), master=None)
    action = expect(seen, Follow, RedisStep.FAIL_OVER, "r-0 is a master that no sentinel names")
    assert (action.member.name, action.master.name) == ("r-0", "m-0")
    named = views(seen, lambda v: replace(v, current=at("r-0")), "s-1")
    expect(named, RedisHold, None, "m-0 and r-0 are both masters; the sentinels demote r-0")
    silent = replace(seen, watchers=(replace(seen.watchers[0], view=None), *seen.watchers[1:]))
    expect(silent, RedisHold, None, "the sentinels demote r-0")


def test_the_master_pod_on_the_old_node_goes_once_a_replica_is_master() -> None:
    """N1: the only deletion; its role has been moved away, and every sentinel says so."""
    assert (
        expect(group("r-0", old=("m-0",)), MovePod, RedisStep.MOVE_MASTER, "the master pod m-0 moves").pod.name == "m-0"
    )


def test_the_master_pod_that_is_away_is_waited_for() -> None:
    expect(without(group("r-0", node=OLD), "m-0"), RedisHold, RedisStep.MOVE_MASTER, "pod m-0 is not there yet")


def test_the_master_pod_that_is_back_and_empty_follows_at_once() -> None:
    """S1: before anything else, even while a sentinel is away."""
    seen = back_empty(group("r-0", node=OLD))
    seen = replace(seen, watchers=(replace(seen.watchers[0], view=None, endpoint=None, pod=None), *seen.watchers[1:]))
    action = expect(seen, Follow, RedisStep.ATTACH_MASTER, "m-0 came back as a master without replicas")
    assert (action.member.name, action.master.name) == ("m-0", "r-0")


def test_nobody_follows_without_a_majority_of_sentinels_that_vouches_for_the_master() -> None:
    """S1: what follows throws away what it has."""
    seen = back_empty(group("r-0"))
    gone = tuple(replace(w, view=None, endpoint=None, pod=None) for w in seen.watchers[:2])
    seen = replace(seen, watchers=(*gone, seen.watchers[2]))
    expect(seen, RedisHold, None, "too few sentinels answer to tell which one counts")


def test_half_of_the_sentinels_are_no_majority() -> None:
    """S1: two of four vouch for the master, and the two that are away may name the other one."""
    seen = back_empty(group("r-0"))
    away = replace(seen.watchers[0], view=None, endpoint=None, pod=None)
    seen = replace(seen, watchers=(away, replace(away, name="s-3"), *seen.watchers[1:]))
    expect(seen, RedisHold, None, "too few sentinels answer to tell which one counts")


def test_no_other_pod_moves_while_the_master_pod_has_not_its_data() -> None:
    seen = server(group("r-0", old=("r-1",)), "m-0", syncing=True, link_up=False, sync_left=7)
    expect(seen, RedisHold, RedisStep.ATTACH_MASTER, "m-0 synchronizes, 7 bytes left")


def stale(view: Sentinel) -> Sentinel:
    return replace(view, replicas=(*view.replicas, KnownReplica(Address("10.0.0.9"), frozenset({"slave", "s_down"}))))


def test_stale_addresses_are_forgotten_at_the_end_one_sentinel_at_a_time() -> None:
    """S2, S1."""
    expect(views(group("r-0"), stale), Switch, RedisStep.FAIL_BACK, "m-0 becomes master")
    seen = views(group(), stale, "s-1", "s-2")
    action = expect(seen, Refresh, RedisStep.REFRESH_SENTINELS, "sentinel s-1 lists 10.0.0.9:6379, where no replica is")
    assert action.watcher.name == "s-1"
    emptied = views(seen, lambda v: replace(v, replicas=()), "s-1")
    expect(emptied, RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-1 does not list r-0")


def test_a_name_that_moved_is_forgotten_before_the_fail_back() -> None:
    """S1: its entry would follow the name to the new master, and have that follow itself."""

    def resolving(view: Sentinel) -> Sentinel:
        return replace(view, resolves_names=True)

    seen = views(views(group("r-0"), resolving), stale, "s-1", "s-2")
    action = expect(seen, Refresh, RedisStep.REFRESH_SENTINELS, "sentinel s-1 lists 10.0.0.9:6379, where no replica is")
    emptied = views(seen, lambda v: replace(v, replicas=()), action.watcher.name)
    expect(emptied, RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-1 does not list m-0")
    expect(views(group("r-0"), resolving), Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")
    leaving = views(views(group("r-0", old=("m-0",)), resolving), stale)
    expect(leaving, MovePod, RedisStep.MOVE_MASTER, "the master pod m-0 moves")


def test_a_sentinel_is_refreshed_when_it_is_about_to_ask_the_master_for_its_replicas() -> None:
    """S1: until it asks it knows none; the next to ask comes first."""
    seen = views(group(), lambda v: stale(replace(v, info_age=3.0)))
    seen = views(seen, lambda v: replace(v, info_age=5.0), "s-2")
    assert expect(seen, RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-2 lists 10.0.0.9").seconds == 2.0
    due = views(seen, lambda v: replace(v, info_age=9.0), "s-2")
    assert expect(due, Refresh, RedisStep.REFRESH_SENTINELS, "").watcher.name == "s-2"
    expect(replace(seen, waited=11.0), Refresh, RedisStep.REFRESH_SENTINELS, "")


def test_sentinels_that_are_refreshed_by_a_restart_wait_for_the_master_pod() -> None:
    """S1: they resolve its name when they start."""
    restarting = replace(GROUP, refresh_by=RefreshBy.RESTART)
    seen = replace(views(group("r-0"), stale), group=restarting)
    expect(seen, Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")
    at_home = replace(views(group(), stale), group=restarting)
    assert expect(at_home, Refresh, RedisStep.REFRESH_SENTINELS, "no replica is").by is RefreshBy.RESTART


def test_sentinels_that_resolve_names_are_reset_before_the_fail_back_also_where_a_restart_is_asked_for() -> None:
    """S1: an entry made of the name would have the master follow itself."""
    seen = views(views(group("r-0"), stale), lambda v: replace(v, resolves_names=True))
    seen = replace(seen, group=replace(GROUP, refresh_by=RefreshBy.RESTART), waited=11.0)
    assert expect(seen, Refresh, RedisStep.REFRESH_SENTINELS, "where no replica is").by is RefreshBy.RESET


def ghost(view: Sentinel) -> Sentinel:
    gone = KnownSentinel(Address("10.0.2.9", 26379), "id-gone", frozenset({"sentinel", "s_down"}))
    return replace(view, sentinels=(*view.sentinels, gone))


def test_a_sentinel_that_is_gone_for_good_is_forgotten() -> None:
    seen = views(group(), ghost, "s-0")
    expect(seen, Refresh, RedisStep.REFRESH_SENTINELS, "sentinel s-0 lists a sentinel at 10.0.2.9:26379, which is gone")


def test_back_on_a_new_node_and_in_sync_the_master_pod_becomes_master_again() -> None:
    """S2: also before every sentinel lists it, since the switch tells them."""
    action = expect(group("r-0"), Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")
    assert (action.old.name, action.new.name) == ("r-0", "m-0")
    unlisted = views(group("r-0"), lambda v: replace(v, replicas=()))
    expect(unlisted, Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")


def test_a_group_whose_master_is_a_replica_pod_fails_back_before_that_pod_moves() -> None:
    expect(group("r-0", old=("r-0",)), Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")


def test_two_masters_with_replicas_ask_a_person() -> None:
    seen = server(group(waited=30), "r-0", role=Role.MASTER, followers=(Follower(at("r-1"), True, 1),))
    expect(seen, Stop, None, "m-0 and r-0 are both masters with replicas: decide which one's data counts")


def test_two_masters_right_after_a_cut_are_given_time() -> None:
    seen = server(group(), "r-0", role=Role.MASTER, followers=(Follower(at("r-1"), True, 1),))
    expect(
        seen, RedisHold, None, "m-0 and r-0 are both masters with replicas; the sentinels may be about to demote one"
    )
    failing_over = views(replace(seen, waited=30), lambda v: replace(v, flags=v.flags | {"failover_in_progress"}))
    expect(failing_over, RedisHold, None, "the sentinels may be about to demote one")


def test_an_empty_master_pod_that_the_sentinels_name_asks_a_person() -> None:
    """S1: whoever made them monitor it, following it would throw the data away."""
    seen = back_empty(group("r-0", waited=30))
    seen = views(seen, lambda v: replace(v, current=Address("10.0.0.9")))
    expect(seen, Stop, None, "the sentinels name m-0, which no replica follows")


def test_without_any_master_the_sentinels_are_waited_for() -> None:
    seen = member(group(), "m-0", server=Silent(at("m-0"), "connection refused"))
    expect(seen, RedisHold, None, "no server is master now (m-0 connection refused)")


def test_without_any_master_and_without_an_election_a_person_is_asked() -> None:
    """R3: the sentinels name a server that answers, as a replica, and wait for it for ever."""
    seen = server(group(), "m-0", role=Role.REPLICA, master=at("r-0"), followers=(), offset=900)
    expect(seen, RedisHold, None, "no server is master now; the sentinels promote one")
    late = replace(seen, waited=120)
    expect(late, Stop, None, "in 120 s: make one the master, with REPLICAOF NO ONE; r-0 has the most (1,000 bytes")
    electing = views(late, lambda v: replace(v, flags=v.flags | {"failover_in_progress"}), "s-1")
    expect(electing, RedisHold, None, "the sentinels promote one")


def test_a_second_election_is_waited_for_where_sentinels_come_to_it_soon() -> None:
    """Votes were split in the first: the next one comes after twice failover-timeout."""
    seen = server(group(), "m-0", role=Role.REPLICA, master=at("r-0"), followers=(), offset=900)
    often = views(seen, lambda v: replace(v, failover_timeout_ms=10_000))
    expect(replace(often, waited=79), RedisHold, None, "the sentinels promote one")
    expect(replace(often, waited=80), Stop, None, "promoted none in 80 s")


def test_why_nobody_is_promoted_is_said_where_it_is_known() -> None:
    """The master died, and the sentinels wait for something that they will not get."""
    dead = member(group(waited=70), "m-0", server=Silent(at("m-0"), "connection refused"))
    seen = views(dead, lambda v: replace(v, quorum_ok=False, quorum_says="NOQUORUM 1 usable Sentinels"), "s-1")
    expect(seen, RedisHold, None, "the sentinels promote one, but s-1 has no quorum (NOQUORUM 1 usable Sentinels)")
    none = views(dead, lambda v: replace(v, replicas=tuple(replace(r, priority=0) for r in v.replicas)))
    expect(none, RedisHold, None, "but s-0 knows none that may become one: every replica's priority is 0")


def test_a_replica_that_follows_somebody_else_is_corrected_after_a_while() -> None:
    wrong = {"link_up": False, "master": Address("10.0.0.77")}
    expect(server(group(), "r-0", **wrong), RedisHold, RedisStep.MOVE_REPLICA, "r-0 has no link to m-0")
    expect(server(group(waited=30), "r-0", **wrong), Follow, RedisStep.MOVE_REPLICA, "follows 10.0.0.77:6379, not m-0")


def test_a_replica_of_a_replica_is_corrected_at_once() -> None:
    """R3: a switch that was cut off before the others followed; sentinels would take failover-timeout."""
    seen = server(group("r-0", old=("m-0",)), "r-0", followers=(Follower(at("m-0"), True, 1000),))
    seen = server(seen, "r-1", master=at("m-0"))
    assert expect(seen, Follow, RedisStep.MOVE_REPLICA, "r-1 follows 10.0.0.1:6379, not r-0").master.name == "r-0"


def test_a_living_replica_that_nobody_declared_is_asked_about_and_never_reset_away() -> None:
    """S1: it would be found again after every refresh, and could be promoted."""

    def copy(view: Sentinel) -> Sentinel:
        return replace(view, replicas=(*view.replicas, KnownReplica(Address("10.9.0.1"), frozenset({"slave"}))))

    found = "sentinel s-0 lists 10.9.0.1:6379, a replica that answers and that nobody declared"
    expect(views(group(), copy), RedisHold, RedisStep.REFRESH_SENTINELS, found)
    expect(views(group(waited=30), copy), Stop, None, f"{found}: declare its StatefulSet")

    def ended(view: Sentinel) -> Sentinel:
        gone = KnownReplica(Address("10.9.0.1"), frozenset({"slave"}), silent_for=4.0)
        return replace(view, replicas=(*view.replicas, gone))

    expect(views(group(), ended), Refresh, RedisStep.REFRESH_SENTINELS, "where no replica is")


def test_a_living_sentinel_that_nobody_declared_is_asked_about_and_never_reset_away() -> None:
    """S1, S2: it would say hello again after every reset, and each time the one that was reset knows no replica."""

    def another(view: Sentinel, silent_for: float = 0.4, host: str = "10.9.0.1") -> Sentinel:
        there = KnownSentinel(Address(host, 26379), "id-x", frozenset({"sentinel"}), silent_for)
        return replace(view, sentinels=(*view.sentinels, there))

    found = "sentinel s-0 lists a sentinel at 10.9.0.1:26379 that answers and that nobody declared"
    expect(views(group(), another), RedisHold, RedisStep.REFRESH_SENTINELS, found)
    expect(views(group(old=("s-2",)), another), RedisHold, RedisStep.REFRESH_SENTINELS, found)
    expect(views(group(waited=30), another), Stop, None, f"{found}: declare its StatefulSet")
    gone = views(group(), lambda v: another(v, 4.0))
    expect(gone, Refresh, RedisStep.REFRESH_SENTINELS, "lists a sentinel at 10.9.0.1:26379, which is gone")
    # In whose name a lone sentinel was told of a master: it seems to answer until it is known not to.
    nobody = views(group(waited=30), lambda v: another(v, 0.4, NOBODY.address.host))
    expect(nobody, Refresh, RedisStep.REFRESH_SENTINELS, f"lists a sentinel at {NOBODY.address}, which is gone")


def test_a_replica_that_its_sentinels_list_to_nobody_is_not_missed() -> None:
    """S1: `replica-announced no`. They know it; it becomes master if there is no other."""
    seen = server(group(), "r-1", hidden=True)

    def unlisted(view: Sentinel) -> Sentinel:
        return can_be_told(replace(view, replicas=tuple(r for r in view.replicas if r.address != at("r-1"))))

    expect(views(seen, unlisted), Settled, None, "m-0 is master, 2 in sync")
    first = views(server(group(old=("m-0",)), "r-0", hidden=True), unlisted)
    expect(first, AskSooner, RedisStep.REFRESH_SENTINELS, "does not list r-1")
    leaving = server(group(old=("m-0", "r-1")), "r-0", hidden=True)
    leaving = replace(leaving, members=tuple(m for m in leaving.members if m.name != "r-1"))
    leaving = views(leaving, lambda v: replace(v, replicas=tuple(r for r in v.replicas if r.address == at("r-0"))))
    expect(leaving, Switch, RedisStep.FAIL_OVER, "r-0 becomes master in place of m-0")
    assert expect(server(group(old=("m-0",)), "r-0", hidden=True), Switch, RedisStep.FAIL_OVER, "").new.name == "r-1"


def test_a_replica_that_is_listed_to_nobody_and_moved_is_forgotten() -> None:
    """S2: a sentinel counts it among its replicas all the same."""

    def knows(view: Sentinel, count: int | None) -> Sentinel:
        shown = tuple(r for r in view.replicas if r.address != at("r-1"))
        return can_be_told(replace(view, replicas=shown, known_replicas=count))

    hidden = server(group(), "r-1", hidden=True)
    gone = views(views(hidden, lambda v: knows(v, 2)), lambda v: knows(v, 3), "s-1")
    words = "sentinel s-1 knows a replica that it lists to nobody and that is gone"
    assert expect(gone, Refresh, RedisStep.REFRESH_SENTINELS, words).watcher.name == "s-1"
    for count in (None, 1, 2):
        expect(views(hidden, partial(knows, count=count)), Settled, None, "m-0 is master, 2 in sync")
    # One that lives, and that nobody declared, is found again after every reset.
    followers = (Follower(at("r-0"), True, 1000), Follower(at("r-1"), True, 1000))
    living = server(gone, "m-0", followers=(*followers, Follower(Address("10.9.0.1"), True, 1000)))
    expect(living, Settled, None, "m-0 is master, 2 in sync")
    moving = replace(
        gone,
        node=OLD,
        watchers=tuple(
            replace(w, pod=replace(w.pod, node=OLD)) if w.name == "s-2" and w.pod else w for w in gone.watchers
        ),
    )
    expect(moving, MovePod, RedisStep.MOVE_SENTINEL, "sentinel s-2 moves")


def test_another_port_that_is_announced_is_the_same_server() -> None:
    """S2: node ports and forwardings (replica-announce-port)."""
    seen = server(group("r-0"), "m-0", announced="192.168.0.7", announced_port=31000)
    known = Address("192.168.0.7", 31000)

    def forwarded(view: Sentinel) -> Sentinel:
        entries = tuple(replace(r, address=known) if r.address == at("m-0") else r for r in view.replicas)
        return replace(view, replicas=entries)

    action = expect(views(seen, forwarded), Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")
    assert action.new.known_as == known

    def on_another_port(view: Sentinel) -> Sentinel:
        other = KnownReplica(Address(HOST["r-0"], 32000), frozenset({"slave"}), silent_for=9.0)
        return replace(view, replicas=(*view.replicas, other))

    home = views(server(group(), "r-0", announced_port=31000), on_another_port)
    expect(home, Refresh, RedisStep.REFRESH_SENTINELS, "lists 10.0.1.1:32000, where no replica is")


def test_where_any_server_may_be_master_the_role_leaves_once_and_stays_where_it_is() -> None:
    """S1, S2: its replicas first, then one switch, and the former master goes as a replica; no way back."""

    def anywhere(seen: SentinelGroupState) -> SentinelGroupState:
        return replace(seen, members=tuple(replace(m, part=Part.REPLICA) for m in seen.members))

    expect(anywhere(group("r-1")), Settled, None, "r-1 is master, 2 in sync")
    all_three = anywhere(group("r-0", old=("m-0", "r-0", "s-1")))
    expect(all_three, MovePod, RedisStep.MOVE_REPLICA, "replica m-0 moves")
    expect(anywhere(group("r-0", old=("r-0", "s-1"))), MovePod, RedisStep.MOVE_SENTINEL, "sentinel s-1 moves")
    action = expect(anywhere(group("r-0", old=("r-0",))), Switch, RedisStep.FAIL_OVER, "m-0 becomes master in place of")
    assert action.old.name == "r-0"
    expect(anywhere(group("m-0", old=("r-0",))), MovePod, RedisStep.MOVE_REPLICA, "replica r-0 moves")
    gone = anywhere(without(group("m-0"), "r-0"))
    expect(gone, RedisHold, RedisStep.MOVE_REPLICA, "pod r-0 is not there yet")
    expect(anywhere(views(group("m-0"), stale)), Refresh, RedisStep.REFRESH_SENTINELS, "where no replica is")
    cut_off = anywhere(server(group("r-0", old=("m-0",)), "m-0", master=NOWHERE))
    expect(cut_off, Follow, RedisStep.FAIL_OVER, "m-0 was closed, and r-0 is master")
    empty = anywhere(back_empty(group("r-0")))
    expect(empty, Follow, RedisStep.FAIL_OVER, "m-0 is a master that no sentinel names")


@pytest.mark.parametrize(("acting", "old"), [("m-0", ("m-0",)), ("r-0", ())])
def test_a_pause_of_somebody_elses_is_waited_for(acting: str, old: tuple[str, ...]) -> None:
    """S1: a switch pauses too, and would end it: clients would write while a backup, say, wants none."""
    step = RedisStep.FAIL_OVER if acting == "m-0" else RedisStep.FAIL_BACK
    seen = server(group(acting, old=old), acting, paused=True)
    expect(seen, RedisHold, step, f"writes on {acting} are paused (CLIENT PAUSE)")
    expect(server(seen, acting, paused=False), Switch, step, "becomes master in place of")
    expect(server(group(), "m-0", paused=True), Settled, None, "m-0 is master")


def test_a_master_that_would_take_writes_after_it_was_closed_is_not_switched_away_from() -> None:
    """S1: whoever reaches it as a replica gets an answer, and nobody else gets the write."""
    seen = server(group(old=("m-0",)), "m-0", read_only=False)
    expect(seen, Stop, None, "m-0 takes writes as a replica too (replica-read-only no)")
    expect(server(seen, "m-0", read_only=True), Switch, RedisStep.FAIL_OVER, "")


def test_ipv6_addresses_are_one_server_however_they_are_written() -> None:
    """S2: Sentinel writes them in brackets."""
    assert str(Address("fd00::1", 7003)) == "[fd00::1]:7003"
    seen = views(group(), lambda v: replace(v, replicas=tuple(replace(r, name=str(r.address)) for r in v.replicas)))
    expect(seen, Settled, None, "m-0 is master")


def test_an_ipv6_address_that_is_announced_in_a_longer_form_is_the_same() -> None:
    """S2: sentinels resolve what a server announces, and list its shortest form."""
    assert Address("FD00:0:0::0001") == Address("fd00::1")
    assert str(Address("redis:of:nobody")) == "[redis:of:nobody]:6379"
    seen = server(group(), "r-0", announced="FD00:0:0::1")

    def shortest(view: Sentinel) -> Sentinel:
        others = tuple(r for r in view.replicas if r.address != at("r-0"))
        return replace(view, replicas=(*others, KnownReplica(Address("fd00::1"), frozenset({"slave"}))))

    expect(views(seen, shortest), Settled, None, "m-0 is master")


def test_stable_names_are_the_pods_own() -> None:
    """S2: where sentinels announce names and servers announce none."""
    named = replace(MASTER, service="redis")
    name = Address("m-0.redis.default.svc.cluster.local")
    seen = member(group(), "m-0", part_set=named)
    seen = views(seen, lambda v: replace(v, current=name, master=name))
    expect(seen, Settled, None, "m-0 is master")


def test_a_wrong_master_name_is_named() -> None:
    seen = views(group(), lambda v: replace(v, known=False), "s-1")
    expect(seen, Stop, None, "sentinel s-1 monitors no master mymaster")


def test_a_sentinel_that_is_silent_is_named_with_its_reason() -> None:
    seen = group()
    silent = replace(seen.watchers[2], view=Silent(Address(HOST["s-2"]), "connection refused"))
    seen = replace(seen, watchers=(*seen.watchers[:2], silent))
    expect(seen, RedisHold, RedisStep.MOVE_SENTINEL, "pod s-2 does not answer: connection refused")


def test_names_are_addresses_where_they_are_announced() -> None:
    name = Address("m-0.redis")
    seen = server(group(), "m-0", announced=name.host)
    seen = views(seen, lambda v: replace(v, current=name, master=name))
    expect(seen, Settled, None, "m-0 is master")


# Room: a replica does not mind maxmemory, a master does.

SMALL, HELD = 1_000, 5_000


def holding(seen: SentinelGroupState, **limits: int) -> SentinelGroupState:
    """Everybody holds HELD bytes; the limits are by pod, with _ for -."""
    for name in ("m-0", "r-0", "r-1"):
        seen = server(seen, name, used_bytes=HELD, maxmemory=limits.get(name.replace("-", "_"), 0))
    return seen


def test_a_replica_that_would_evict_what_its_master_holds_is_passed_over() -> None:
    """S1."""
    action = decide(holding(group(old=("m-0",)), r_0=SMALL))
    assert isinstance(action, Switch)
    assert action.new.name == "r-1"


def test_without_a_replica_that_has_room_a_person_is_asked() -> None:
    """S1."""
    action = decide(holding(group(old=("m-0",)), r_0=SMALL, r_1=SMALL))
    assert isinstance(action, Stop)
    assert "r-0 may hold 1,000 bytes (maxmemory) and would have 5,000" in action.reason


def test_a_master_pod_without_room_stays_a_replica() -> None:
    """S1: the acting master goes on."""
    action = decide(holding(group("r-0"), m_0=SMALL))
    assert isinstance(action, Stop)
    assert "m-0 may hold" in action.reason
    assert "(r-0 is master meanwhile)" in action.reason


@pytest.mark.parametrize("limits", [{"m_0": SMALL, "r_0": SMALL}, {"r_0": HELD}, {"m_0": HELD, "r_0": HELD + 1}])
def test_the_same_limit_or_a_higher_one_changes_nothing(limits: dict[str, int]) -> None:
    action = decide(holding(group(old=("m-0",)), **limits))
    assert isinstance(action, Switch)
    assert action.new.name == "r-0"
