"""Worlds in which one kind of action never has its effect, or is undone: a roll ends in bounded time and says why.

Each client method is replaced by one that is accepted and does nothing, for the whole of a roll.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.protocols import Eviction, EvictionStatus
from eks_rolling.migration import handover
from eks_rolling.migration.repetition import MOST_HANDOVERS, MOST_TRIES
from eks_rolling.observed.kubernetes import STRATEGY_ANNOTATION, Budget, Owner, Pod, Selector, Strategy
from eks_rolling.observed.marks import HARD_TAINT
from tests.asl import Execution
from tests.model.situations import cache, outdated, shards, shop, watch_unavailable
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
