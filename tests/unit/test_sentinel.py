"""What a Sentinel group needs next: the half-state table, each row with the action that it calls for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

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
from eks_rolling.redis.actions import RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import Part, PartSet, RedisGroup, RefreshBy
from eks_rolling.redis.sentinel import (
    AbortHandover,
    Action,
    Follow,
    MovePod,
    RedisPod,
    Refresh,
    RepointSentinels,
    SentinelGroupState,
    SentinelPod,
    SetPromotionPriority,
    Switch,
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


def steered(seen: SentinelGroupState, name: str) -> SentinelGroupState:
    """`name` has priority 1, remembers 100, and every sentinel has seen it."""
    seen = member(server(seen, name, priority=1), name, original_priority=100)

    def see(view: Sentinel) -> Sentinel:
        return replace(
            view, replicas=tuple(replace(r, priority=1) if r.address == at(name) else r for r in view.replicas)
        )

    return views(seen, see)


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
    assert (
        expect(group(old=("m-0",)), SetPromotionPriority, RedisStep.FAIL_OVER, "will be promoted").member.name == "r-0"
    )


def test_no_sentinel_moves_while_the_master_pod_is_not_master() -> None:
    """S1: it would resolve that pod's name and monitor the wrong server."""
    expect(group("r-0", old=("s-2",)), SetPromotionPriority, RedisStep.FAIL_BACK, "m-0 will be promoted")


def test_a_replica_moves_before_the_former_ones_address_is_forgotten_but_nothing_else_does() -> None:
    """One refresh of the sentinels for all that left the node."""
    expect(views(group(old=("r-1", "s-2")), stale), MovePod, RedisStep.MOVE_REPLICA, "")
    expect(views(group(old=("s-2",)), stale), MovePod, RedisStep.MOVE_SENTINEL, "")
    expect(views(group(old=("s-2",)), ghost), Refresh, RedisStep.REFRESH_SENTINELS, "which is gone")
    expect(views(group(old=("m-0",)), stale), Refresh, RedisStep.REFRESH_SENTINELS, "where no replica is")


def test_the_next_replica_waits_until_every_sentinel_lists_the_one_that_moved() -> None:
    """S1: there is always one that a quorum of sentinels could promote."""

    def not_yet(view: Sentinel) -> Sentinel:
        return stale(replace(view, replicas=tuple(r for r in view.replicas if r.address != at("r-0"))))

    seen = views(group(old=("r-1",)), not_yet)
    expect(seen, RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-0 does not list r-0")


def test_a_server_that_a_sentinel_lists_twice_is_listed_anew_before_a_failover() -> None:
    """S1: one of the two entries would be promoted, and the same server then made to follow it."""

    def twice(view: Sentinel) -> Sentinel:
        entry = KnownReplica(at("m-0"), frozenset({"slave"}), name="10.0.0.99:6379")
        return replace(view, replicas=(*view.replicas, entry))

    seen = views(group("r-0"), twice, "s-2")
    expect(
        seen, Refresh, RedisStep.REFRESH_SENTINELS, "s-2 lists 10.0.0.1:6379 under its former address 10.0.0.99:6379"
    )


def test_nothing_moves_while_another_replica_is_not_in_sync() -> None:
    """S1: there is always a replica that could be promoted."""
    seen = server(group(old=("r-1",)), "r-0", syncing=True, sync_left=5_000_000)
    expect(seen, RedisHold, RedisStep.MOVE_REPLICA, "r-0 synchronizes, 5,000,000 bytes left")
    seen = server(group(old=("r-1",)), "r-0", link_up=False)
    expect(seen, RedisHold, RedisStep.MOVE_REPLICA, "r-0 has no link to m-0")
    behind = (Follower(at("r-0"), True, 1000), Follower(at("r-1"), True, 1000))
    seen = server(group(old=("r-1",)), "m-0", offset=3_000_000, followers=behind)
    expect(seen, RedisHold, RedisStep.MOVE_REPLICA, "r-0 is 2,999,000 bytes behind")


def test_a_replica_that_stays_is_preferred_as_the_target() -> None:
    seen = member(group(old=("m-0",)), "r-0", leaving=True)
    assert expect(seen, SetPromotionPriority, RedisStep.FAIL_OVER, "").member.name == "r-1"


def test_a_target_that_is_steered_already_stays_the_target() -> None:
    seen = steered(member(group(old=("m-0",)), "r-1", leaving=True), "r-1")
    action = expect(seen, Switch, RedisStep.FAIL_OVER, "r-1 becomes master in place of m-0")
    assert (action.old.name, action.new.name) == ("m-0", "r-1")


def test_a_replica_with_priority_zero_is_no_target() -> None:
    seen = server(server(group(old=("m-0",)), "r-0", priority=0), "r-1", priority=0)
    expect(seen, Stop, None, "m-0 has no replica that may become master")


def test_the_switch_waits_until_every_sentinel_has_seen_the_target() -> None:
    seen = member(server(group(old=("m-0",)), "r-0", priority=1), "r-0", original_priority=100)
    expect(seen, RedisHold, RedisStep.FAIL_OVER, "sentinel s-0 has not seen yet that r-0 is to be promoted")


def test_the_priority_before_is_remembered_once() -> None:
    """R1: a restarted container has its configured priority again, and the pod still says what a roll found."""
    assert expect(group(old=("m-0",)), SetPromotionPriority, RedisStep.FAIL_OVER, "").mark == 100
    again = member(group(old=("m-0",)), "r-0", original_priority=50)
    assert expect(again, SetPromotionPriority, RedisStep.FAIL_OVER, "").mark == 50


@pytest.mark.parametrize(("waited", "kind"), [(1.0, RedisHold), (6.0, AbortHandover)])
def test_a_hand_over_that_does_not_end_is_ended(waited: float, kind: type[Action]) -> None:
    seen = server(group(old=("m-0",), waited=waited), "m-0", failover="waiting-for-sync")
    expect(seen, kind, RedisStep.FAIL_OVER, "")


IN_PROGRESS = {"role": Role.REPLICA, "master": at("r-0"), "failover": "failover-in-progress", "followers": ()}


@pytest.mark.parametrize(("waited", "kind"), [(1.0, RedisHold), (6.0, AbortHandover)])
def test_a_master_that_gave_up_its_role_to_nobody_takes_it_back(waited: float, kind: type[Action]) -> None:
    """S1: nobody is master, so nobody can write."""
    seen = server(group(old=("m-0",), waited=waited), "m-0", **IN_PROGRESS)
    action = expect(seen, kind, RedisStep.FAIL_OVER, "m-0")
    assert not isinstance(action, AbortHandover) or (action.old.name, action.new and action.new.name) == ("m-0", "r-0")


def test_a_role_is_not_taken_back_from_somebody_who_does_not_answer() -> None:
    """S1: it may have taken over, which would make two masters."""
    seen = server(group(old=("m-0",), waited=6), "m-0", **IN_PROGRESS)
    seen = member(seen, "r-0", server=Silent(at("r-0"), "timed out"))
    expect(seen, RedisHold, RedisStep.FAIL_OVER, "m-0 hands over to r-0, which does not answer")


def test_a_role_is_not_taken_back_from_the_new_master() -> None:
    """S1: the old one has not heard the answer, and is a replica; the sentinels are led on."""
    seen = views(group("r-0", old=("m-0",), waited=6), lambda v: replace(v, current=at("m-0"), master=at("m-0")))
    seen = server(seen, "m-0", failover="failover-in-progress")
    expect(seen, RepointSentinels, RedisStep.FAIL_OVER, "r-0 is master, and the sentinels still name m-0")


def test_a_failover_in_progress_is_waited_for() -> None:
    seen = views(group(), lambda v: replace(v, flags=v.flags | {"failover_in_progress"}), "s-1")
    expect(seen, RedisHold, RedisStep.FAIL_BACK, "sentinel s-1 is failing over")


def test_killed_after_the_hand_over_the_sentinels_are_led_on() -> None:
    """R3: clients are sent to a read-only server until somebody does."""
    seen = views(group("r-0", old=("m-0",)), lambda v: replace(v, current=at("m-0"), master=at("m-0")))
    action = expect(seen, RepointSentinels, RedisStep.FAIL_OVER, "r-0 is master, and the sentinels still name m-0")
    assert (action.old.name, action.new.name) == ("m-0", "r-0")


def test_sentinels_that_disagree_are_waited_for() -> None:
    seen = views(group("r-0"), lambda v: replace(v, current=at("m-0")), "s-2")
    expect(seen, RedisHold, RedisStep.FAIL_BACK, "s-2 do not name r-0 yet")


def test_the_master_pod_on_the_old_node_goes_once_a_replica_is_master() -> None:
    """N1: the only deletion; its role has been moved away, and every sentinel says so."""
    assert (
        expect(group("r-0", old=("m-0",)), MovePod, RedisStep.MOVE_MASTER, "the master pod m-0 moves").pod.name == "m-0"
    )


def test_priorities_are_given_back_before_the_master_pod_goes() -> None:
    seen = steered(group("r-0", old=("m-0",)), "r-0")
    action = expect(seen, SetPromotionPriority, RedisStep.FAIL_OVER, "r-0 gets its priority 100 back")
    assert (action.priority, action.mark) == (100, None)


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


def test_no_other_pod_moves_while_the_master_pod_has_not_its_data() -> None:
    seen = server(group("r-0", old=("r-1",)), "m-0", syncing=True, link_up=False, sync_left=7)
    expect(seen, RedisHold, RedisStep.ATTACH_MASTER, "m-0 synchronizes, 7 bytes left")


def stale(view: Sentinel) -> Sentinel:
    return replace(view, replicas=(*view.replicas, KnownReplica(Address("10.0.0.9"), frozenset({"slave", "s_down"}))))


def test_stale_addresses_are_forgotten_one_sentinel_at_a_time_before_the_fail_back() -> None:
    seen = views(group("r-0"), stale, "s-1", "s-2")
    action = expect(seen, Refresh, RedisStep.REFRESH_SENTINELS, "sentinel s-1 lists 10.0.0.9:6379, where no replica is")
    assert action.watcher.name == "s-1"
    emptied = views(seen, lambda v: replace(v, replicas=()), "s-1")
    expect(emptied, RedisHold, RedisStep.REFRESH_SENTINELS, "sentinel s-1 does not list m-0")


def test_sentinels_that_are_refreshed_by_a_restart_wait_for_the_master_pod() -> None:
    """S1: they resolve its name when they start."""
    restarting = replace(GROUP, refresh_by=RefreshBy.RESTART)
    seen = replace(views(group("r-0"), stale), group=restarting)
    expect(seen, SetPromotionPriority, RedisStep.FAIL_BACK, "m-0 will be promoted")
    expect(
        replace(views(group(), stale), group=restarting), Refresh, RedisStep.REFRESH_SENTINELS, "where no replica is"
    )


def ghost(view: Sentinel) -> Sentinel:
    gone = KnownSentinel(Address("10.0.2.9", 26379), "id-gone", frozenset({"sentinel", "s_down"}))
    return replace(view, sentinels=(*view.sentinels, gone))


def test_a_sentinel_that_is_gone_for_good_is_forgotten() -> None:
    seen = views(group(), ghost, "s-0")
    expect(seen, Refresh, RedisStep.REFRESH_SENTINELS, "sentinel s-0 lists a sentinel at 10.0.2.9:26379, which is gone")


def test_back_on_a_new_node_and_in_sync_the_master_pod_becomes_master_again() -> None:
    """S2."""
    assert expect(group("r-0"), SetPromotionPriority, RedisStep.FAIL_BACK, "m-0 will be promoted").member.name == "m-0"
    action = expect(steered(group("r-0"), "m-0"), Switch, RedisStep.FAIL_BACK, "m-0 becomes master in place of r-0")
    assert (action.old.name, action.new.name) == ("r-0", "m-0")


def test_afterwards_its_priority_is_given_back() -> None:
    """R1, R2."""
    seen = member(server(group(), "m-0", priority=1), "m-0", original_priority=100)
    expect(seen, SetPromotionPriority, RedisStep.FAIL_BACK, "m-0 gets its priority 100 back")


def test_a_group_whose_master_is_a_replica_pod_fails_back_before_that_pod_moves() -> None:
    expect(group("r-0", old=("r-0",)), SetPromotionPriority, RedisStep.FAIL_BACK, "m-0 will be promoted")


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


def test_two_masters_of_which_the_sentinels_demote_one_are_waited_for() -> None:
    seen = server(group(), "r-0", role=Role.MASTER, followers=())
    expect(seen, RedisHold, None, "m-0 and r-0 are both masters; the sentinels demote r-0")


def test_an_empty_master_pod_that_the_sentinels_name_asks_a_person() -> None:
    """S1: whoever made them monitor it, following it would throw the data away."""
    seen = back_empty(group("r-0", waited=30))
    seen = views(seen, lambda v: replace(v, current=Address("10.0.0.9")))
    expect(seen, Stop, None, "the sentinels name m-0, which no replica follows")


def test_without_any_master_the_sentinels_are_waited_for() -> None:
    seen = member(group(), "m-0", server=Silent(at("m-0"), "connection refused"))
    expect(seen, RedisHold, None, "no server is master now (m-0 connection refused)")


def test_a_replica_that_follows_somebody_else_is_corrected_after_a_while() -> None:
    wrong = {"link_up": False, "master": Address("10.0.0.77")}
    expect(server(group(), "r-0", **wrong), RedisHold, RedisStep.MOVE_REPLICA, "r-0 has no link to m-0")
    expect(server(group(waited=30), "r-0", **wrong), Follow, RedisStep.MOVE_REPLICA, "follows 10.0.0.77:6379, not m-0")


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
