"""Worlds in which one kind of action never has its effect, or is undone: a roll ends in bounded time and says why.

Each client method is replaced by one that is accepted and does nothing, for the whole of a roll.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.protocols import Eviction, EvictionStatus
from eks_rolling.errors import LockLost, Refused, Transient
from eks_rolling.migration import handover, next_action
from eks_rolling.migration.next_action import Next
from eks_rolling.migration.repetition import MOST_HANDOVERS, MOST_TRIES, TRIES
from eks_rolling.observed.kubernetes import STRATEGY_ANNOTATION, Budget, Owner, Pod, Selector, Strategy
from eks_rolling.observed.marks import HARD_TAINT, NODE_CORDONED
from eks_rolling.payloads import RedisActionTask, StepResult
from eks_rolling.redis.actions import Done, RedisStep
from eks_rolling.redis.groups import Part, RedisGroup, RefreshBy, declared
from eks_rolling.redis.sentinel import RedisPod, Refresh, SentinelGroupState, SentinelPod, Switch
from eks_rolling.roll import lock
from eks_rolling.steps.launch_replacement import MOST_AGAIN
from tests.asl import Execution
from tests.model.situations import cache, outdated, settings, shards, shop, watch_unavailable
from tests.model.test_roll import engine_for
from tests.world import World

RESTARTS = {STRATEGY_ANNOTATION: str(Strategy.RESTART)}

LONGEST = 8 * 3600.0
"""Seconds: the longest deadline of a step that the worlds below meet, for one node after the other, and a restore."""


class Ignored:
    """A method that is accepted, and does nothing; counts how often it was tried on what, and with what: a node of a
    Redis Cluster meets all others at one try."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()

    def __call__(self, *args: object, **kwargs: object) -> None:
        self.tried[f"{args[0]} {args[2:]}"] += 1


def ends(world: World) -> Execution:
    """A roll, which must end in time although nobody changes anything."""
    began = world.time
    roll = engine_for(world).run("roll", "roll-1", {}, limit_seconds=int(LONGEST))
    assert world.time - began < LONGEST
    return roll


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("method", ["follow", "announce", "reset"])
def test_what_sentinel_groups_do_not_do_is_tried_a_few_times(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: writes stand still at each try of a handover."""
    world, ignored = cache(), Ignored()
    world.baseline = None
    monkeypatch.setattr(world.redis, method, ignored)
    roll = ends(world)
    paused = sum(e.startswith("CLIENT PAUSE") for e in world.effects)
    # Sentinels that are not told hear of a new master by themselves, and forget by themselves.
    assert "default/" in roll.cause or roll.status == "SUCCEEDED"
    assert paused <= 2 * MOST_HANDOVERS


def test_a_replica_that_never_catches_up_under_a_pause_is_tried_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: each try lets writes stand still; two nodes' rolls would do so for hours."""
    world = cache()
    world.baseline = None
    monkeypatch.setattr(handover, "_has_all", lambda *_: False)
    roll = ends(world)
    paused = sum(e.startswith("CLIENT PAUSE") for e in world.effects)
    assert roll.status == "FAILED"
    assert f"Redis group default/cache: tried {MOST_HANDOVERS} times without lasting effect" in roll.cause
    assert "did not catch up within 0.5 s" in roll.cause
    assert paused == MOST_HANDOVERS
    assert world.redis.lost() == set()


@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("method", ["meet", "replicate", "take_over", "forget"])
def test_what_redis_clusters_do_not_do_is_tried_a_few_times(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1."""
    world, ignored = shards(), Ignored()
    world.baseline = None
    monkeypatch.setattr(world.redis, method, ignored)
    roll = ends(world)
    assert "default/" in roll.cause or roll.status == "SUCCEEDED"
    assert max(ignored.tried.values()) <= 2 * MOST_TRIES


def prefers_old_nodes(world: World, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pods tolerate every taint, and they go to the emptiest node, which is the old one."""
    world.workloads_by_owner[owner].tolerant = True
    place = world._place

    def placed(pod: Pod) -> str:
        old = [n.name for n in world.nodes_by_name.values() if HARD_TAINT in n.taints and not n.unschedulable]
        return old[0] if pod.owner == owner and old else place(pod)

    monkeypatch.setattr(world, "_place", placed)


def evictions_of(world: World, owner: Owner) -> int:
    return sum(e.startswith(f"evict {owner.namespace}/{owner.name}-") for e in world.effects)


def test_pods_that_come_back_are_asked_a_few_times_and_then_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world = shop((2, 1))
    world.baseline = None
    owner = world.deployment("tolerant", 3)
    world.ready()
    prefers_old_nodes(world, owner, monkeypatch)
    roll = engine_for(world).run("roll", "roll-1", {}, limit_seconds=int(LONGEST))
    assert roll.status == "FAILED"
    assert f"pods of {owner} come back to the node" in roll.cause
    assert 3 <= evictions_of(world, owner) <= 12


def test_a_deployment_is_restarted_once_for_a_node_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    world = shop((3, 3))
    world.baseline = None
    owner = world.deployment("twin", 6, annotations=RESTARTS)
    world.ready()
    nodes = len(world.nodes_by_name)
    prefers_old_nodes(world, owner, monkeypatch)
    roll = engine_for(world).run("roll", "roll-1", {"surge": 3}, limit_seconds=int(LONGEST))
    assert roll.status == "FAILED"
    assert f"{owner}" in roll.cause
    restarts = [e for e in world.effects if e.startswith(f"update {owner}: ") and "restarted-for" in e]
    assert 1 <= len(restarts) <= nodes


def test_a_temporary_budget_never_takes_turns_with_the_clusters_own() -> None:
    """One Deployment's selector also matches the pods of another, which has a budget."""
    world = shop((2, 1))
    app, server = world.deployment("app", 3), world.deployment("server", 3)
    state = world.workloads_by_owner[server]
    state.labels = {"app": "app", "tier": "server"}
    state.workload = replace(state.workload, selector=Selector((("app", "app"), ("tier", "server"))))
    own = Budget("default", "server", "uid-s", Selector((("tier", "server"),)), max_unavailable="1")
    world.budgets_by_name["default", "server"] = own
    world.ready()
    most = watch_unavailable(world, app)
    roll = engine_for(world).run("roll", "roll-1", {}, limit_seconds=int(LONGEST))
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert sum("create budget eks-rolling-deployment-app" in e for e in world.effects) == 0
    assert most["most"] <= 1


NAMED = ("node-i-", "pod default/", "Deployment ", "cluster-autoscaler", "group ng-")
"""What a cause names: an object."""

KEPT: dict[str, Callable[..., Any]] = {
    "update_node": lambda node, **_: node,
    "evict": lambda _: Eviction(EvictionStatus.EVICTED),
}
"""What a method that is accepted and does nothing answers, where it answers anything."""


@pytest.mark.drawn(keep=5)
@pytest.mark.parametrize(
    "method",
    [
        "suspend", "set_maximum", "update_workload", "update_node", "evict", "create_budget", "deregister", "terminate",
        "tag_instance", "protect",
    ],
)  # fmt: skip
def test_what_nodes_groups_and_pods_do_not_do_ends_in_time_and_is_said(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step whose action it is holds for its deadline, or fails, and names the object."""
    world = shop((2, 1))
    world.baseline = None
    tried: Counter[str] = Counter()

    def ignored(*args: Any, **kwargs: Any) -> Any:
        tried[str(args[0])] += 1
        answer = KEPT.get(method)
        return answer(*args, **kwargs) if answer else None

    monkeypatch.setattr(world, method, ignored)
    roll = ends(world)
    assert tried
    assert roll.status == "SUCCEEDED" or any(word in roll.cause for word in NAMED), roll.cause
    assert max(tried.values()) <= 2500


def test_a_desired_capacity_that_somebody_sets_back_is_raised_a_few_times_and_then_said() -> None:
    """N2: to obey a lowered one AWS ends an instance of its choice, undrained."""
    world = shop((2, 1))
    world.baseline = None
    for name, group in world.groups_by_name.items():
        world.groups_by_name[name] = replace(group, mixed_purchasing=True)
    sizes = {name: group.desired for name, group in world.groups_by_name.items()}

    def somebody(current: World) -> None:
        for name, group in current.groups_by_name.items():
            current.groups_by_name[name] = replace(group, desired=sizes[name])

    world.watchers.append(somebody)
    roll = ends(world)
    raised = Counter(e for e in world.effects if e.startswith("desired of "))
    assert roll.status == "FAILED"
    assert "somebody sets the desired capacity of group ng-" in roll.cause
    assert 1 < max(raised.values()) <= 1 + MOST_AGAIN


def test_a_node_whose_step_crashed_ends_the_roll_although_the_gate_waits_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R6: the gate waits until the crashed step can have no more effects, and still knows of it afterwards."""
    world = shop((2, 1))
    world.baseline = None

    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a fault that is not ours")

    monkeypatch.setattr(world, "evict", crash)
    roll = ends(world)
    assert roll.status == "FAILED"
    assert "was not replaced" in roll.cause
    assert roll.visited.count("Pick the next nodes") <= 2


SERVERS = [RedisPod(f"redis-{name}-0", part) for name, part in (("master", Part.MASTER), ("replica", Part.REPLICA))]
REFRESHES = Refresh(SentinelPod("sentinel-0"), "lists what is gone", RefreshBy.RESET)
SWITCHES = Switch(SERVERS[0], SERVERS[1], "it is in sync", RedisStep.FAIL_OVER)


class Raising:
    """A group whose next action is always the same one, and raises; the workflow runs its step again and again."""

    def __init__(self, action: Refresh | Switch, fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = cache(new_version=False)
        self.clients = self.world.clients(settings())
        (self.group,), _ = declared(self.world.workloads())
        lock.acquire(self.clients, "roll-1", lock.lock_name(self.clients.settings.namespace))
        self.performed = 0
        self._action, self._fault = action, fault
        monkeypatch.setattr(next_action, "look", self._look)

    def _look(self, group: RedisGroup, node: str, _: Any, waits: float) -> Next:
        return Next(group, SentinelGroupState(group, (), (), node, waits), self._action, waits, self._perform)

    def _perform(self) -> Done:
        self.performed += 1
        raise self._fault

    def step(self) -> StepResult:
        given = {"roll": "roll-1", "instance": "i-1", "node": "node-1", "group": "ng-a"}
        task = RedisActionTask(**given, redis_group=str(self.group), action=self._action.step)
        return next_action.migrate(task, self.clients)


@pytest.mark.parametrize(("action", "most"), [(REFRESHES, MOST_TRIES), (SWITCHES, MOST_HANDOVERS)])
@pytest.mark.parametrize("fault", [Transient("It is away."), ValueError("malformed")], ids=lambda f: type(f).__name__)
def test_an_action_that_raises_counts_as_a_try(
    action: Refresh | Switch, most: int, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1: writes may stand still at each try, and the workflow runs a step again after a fault that passes."""
    group = Raising(action, fault, monkeypatch)
    for _ in range(most - 1):
        with pytest.raises(type(fault), match=str(fault)):
            group.step()
    with pytest.raises(Refused, match=f"tried {most} times without lasting effect.*{str(fault).rstrip('.')}"):
        group.step()
    assert group.performed == most


@pytest.mark.parametrize("actions", [1, 2, 3])
def test_what_was_done_in_an_invocation_is_not_done_in_it_for_ever(
    actions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1: a tenant takes the count of tries from its group's Lease, and undoes each action."""
    group = Raising(REFRESHES, Transient("It is away."), monkeypatch)

    def look(declared: RedisGroup, node: str, _: Any, waits: float) -> Next:
        action = replace(REFRESHES, watcher=SentinelPod(f"sentinel-{group.performed % actions}"))
        return Next(declared, SentinelGroupState(declared, (), (), node, waits), action, waits, perform)

    def perform() -> Done:
        group.performed += 1
        assert group.performed < 20
        return Done("it was refreshed")

    def tenant(current: World) -> None:
        if lease := current.leases.get(group.group.lease):
            current.leases[group.group.lease] = replace(lease, annotations={})

    monkeypatch.setattr(next_action, "look", look)
    group.world.watchers.append(tenant)
    assert group.step().status == "wait"
    assert group.performed == actions + 1


def test_a_step_that_may_not_act_any_more_has_tried_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """R4."""
    group = Raising(SWITCHES, LockLost("This roll has ended."), monkeypatch)
    with pytest.raises(LockLost):
        group.step()
    assert TRIES not in group.world.leases[group.group.lease].annotations


@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("kubelet", [False, True], ids=["a person", "a kubelet, with the mark"])
def test_a_cordon_that_somebody_takes_back_is_made_a_few_times_and_then_said(*, kubelet: bool) -> None:
    """N2: pods could be scheduled onto the node. Every look costs events, of which a history has 25,000."""
    world = shop((2, 1))
    world.baseline = None
    opened: Counter[str] = Counter()

    def somebody(current: World) -> None:
        for node in list(current.nodes_by_name.values()):
            if node.unschedulable and node.instance in current.planned:
                opened[node.name] += 1
                kept = {k: v for k, v in node.annotations.items() if not (kubelet and k == NODE_CORDONED)}
                current._set_node(replace(node, unschedulable=False, annotations=kept))

    world.watchers.append(somebody)
    roll = ends(world)
    assert roll.status == "FAILED"
    assert any(name in roll.cause for name in opened)
    assert kubelet or max(opened.values()) < 300
    assert not any(e.startswith("terminate ") for e in world.effects)
