"""What is waited for before a pod is evicted: batch work, pods not to be disturbed, controllers of any kind."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.names import is_object_name
from eks_rolling.observed.kubernetes import Budget, Node, Owner, Pod, Selector, Workload
from eks_rolling.observed.marks import HARD_TAINT, NODE_MOVING, NODE_ROLL
from eks_rolling.payloads import Hold, NodeTask
from eks_rolling.settings import Settings
from eks_rolling.steps.evict import (
    AskAll,
    Count,
    Decision,
    EvictPods,
    MakeBudgets,
    NodeToEmpty,
    _awaited_owners,
    _written,
    budget_name,
    counted_by_pods,
    decide,
    observe,
)
from tests.world import World

NODE = Node("old", taints=(HARD_TAINT,), annotations={NODE_ROLL: "roll-1"})
JOB = Owner("Job", "shop", "import")
CLONES = Owner("CloneSet", "shop", "clones")


def pod(name: str, owner: Owner = CLONES, **more: Any) -> Pod:
    return replace(Pod("shop", name, uid=name, node="old", owner=owner, labels={"app": owner.name}), **more)


def seen(*pods: Pod, **more: Any) -> NodeToEmpty:
    return replace(NodeToEmpty(NODE, pods, batch_seconds=600), **more)


def never(**more: Any) -> Budget:
    """A budget that allows none of its three pods."""
    made = Budget("shop", "kafka", "u", Selector((("app", "clones"),)), 0, 3, 3, 3, max_unavailable="0")
    return replace(made, **more)


def held(decision: Decision) -> str:
    assert isinstance(decision, Hold), decision
    return decision.reason


def evicted(decision: Decision) -> list[str]:
    assert isinstance(decision, EvictPods), decision
    return [p.name for p in decision.pods]


def test_a_batch_pod_has_its_time_to_end_and_is_then_evicted() -> None:
    batch = pod("import-1", JOB, ends=True)
    assert held(decide(seen(batch))) == "pod shop/import-1: it ends by itself, and has 600 s to do so"
    assert evicted(decide(seen(batch, waited=600.0))) == ["import-1"]


def test_others_go_while_a_batch_pod_is_waited_for() -> None:
    assert evicted(decide(seen(pod("import-1", JOB, ends=True), pod("clone-1")))) == ["clone-1"]


@pytest.mark.parametrize("code", ["batch-pod", "batch-pod:Job shop/import"])
def test_a_batch_pod_that_is_accepted_is_evicted_at_once(code: str) -> None:
    assert evicted(decide(seen(pod("import-1", JOB, ends=True), accepted=frozenset({code})))) == ["import-1"]


def test_accepting_one_object_says_nothing_of_another() -> None:
    accepted = frozenset({"batch-pod:Job shop/export"})
    assert "it ends by itself" in held(decide(seen(pod("import-1", JOB, ends=True), accepted=accepted)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), ("karpenter.sh/do-not-disrupt", "true")],
)
def test_a_pod_that_asks_not_to_be_disturbed_is_not_until_that_is_accepted(key: str, value: str) -> None:
    asks = pod("clone-1", annotations={key: value})
    assert f"it asks not to be disturbed ({key}: {value})" in held(decide(seen(asks, waited=9999.0)))
    accepted = frozenset({"do-not-disturb:CloneSet shop/clones"})
    assert evicted(decide(seen(asks, accepted=accepted))) == ["clone-1"]


def test_a_budget_that_can_never_allow_is_asked_about_one_pod_all_the_same() -> None:
    """N1: the API has the last word, and a webhook moves the pod when it is called."""
    decision = decide(seen(pod("k-0"), pod("k-1"), budgets=(never(),)))
    assert isinstance(decision, AskAll)
    assert [p.name for p in decision.pods] == ["k-0"]
    assert "budget shop/kafka needs 3 healthy pods and has 3" in decision.hold.reason


def test_a_budget_that_is_exhausted_is_asked_about_once_that_has_lasted() -> None:
    exhausted = never(desired_healthy=2, healthy=2, max_unavailable="1")
    assert isinstance(decide(seen(pod("k-0"), budgets=(exhausted,))), Hold)
    assert isinstance(decide(seen(pod("k-0"), budgets=(exhausted,), waited=61.0)), AskAll)


def test_a_pod_whose_turn_has_not_come_is_not_asked_for() -> None:
    waiting = pod("k-1", claims=("data",))
    assert isinstance(decide(seen(pod("k-0", claims=("x",), deleting_until=9.0), waiting, budgets=(never(),))), Hold)


def clones(ready: int, missing: int = 0, owner: Owner = CLONES) -> list[Pod]:
    pods = [pod(f"{owner.name}-{n}", owner) for n in range(ready)]
    return [*pods, *(pod(f"{owner.name}-x{n}", owner, ready=False) for n in range(missing))]


def count(
    pods: list[Pod], last: Count | None = None, budgets: tuple[Budget, ...] = (), now: float = 1000.0
) -> Workload:
    return counted_by_pods(CLONES, pods, budgets, last or Count(), now)


def test_a_controller_of_an_unknown_kind_is_counted_by_its_pods() -> None:
    workload = count(clones(7, 1))
    assert (workload.desired, workload.ready, workload.all_ready) == (8, 7, False)
    assert workload.selector == Selector((("app", "clones"),))


def test_a_pod_that_is_gone_and_not_made_again_yet_is_missing() -> None:
    workload = count(clones(7), Count(8, 990.0))
    assert (workload.desired, workload.all_ready) == (8, False)


def test_its_budget_remembers_how_many_it_had_for_other_nodes_too() -> None:
    ours = Budget("shop", "eks-rolling-cloneset-clones", min_available="7", ours=True)
    assert count(clones(7), budgets=(ours,), now=100.0).desired == 8


def test_a_controller_whose_present_pods_have_long_been_ready_was_scaled_down() -> None:
    workload = count(clones(4), Count(8, 100.0))
    assert (workload.desired, workload.all_ready) == (4, True)


def test_labels_that_others_have_too_are_no_selector() -> None:
    other = pod("web-1", Owner("Deployment", "shop", "web"), labels={"app": "clones"})
    assert count([*clones(3), other]).selector is None


@pytest.mark.parametrize(
    "label",
    [
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "controller-revision-hash",
        "pod-template-hash",
        "apps.kubernetes.io/pod-index",
    ],
)
def test_labels_of_a_pods_place_or_revision_are_in_no_selector(label: str) -> None:
    """All pods are in one zone by chance: a successor elsewhere would not count, and no other could ever be evicted."""
    pods = [replace(p, labels=p.labels | {label: "one"}) for p in clones(3)]
    assert count(pods).selector == Selector((("app", "clones"),))
    alone = [replace(p, labels={label: "one"}) for p in clones(3)]
    assert count(alone).selector is None


def test_it_gets_a_budget_over_its_own_labels_before_its_first_pod_goes() -> None:
    workload = count(clones(8))
    assert decide(seen(*clones(2), workloads={CLONES: workload})) == MakeBudgets((workload,))


def test_without_such_labels_its_next_pod_waits_until_all_are_ready() -> None:
    waiting = replace(count(clones(7, 1)), selector=None)
    reason = held(decide(seen(*clones(2), workloads={CLONES: waiting})))
    assert "7 of 8 pods of CloneSet shop/clones are Ready" in reason
    assert evicted(decide(seen(*clones(2), workloads={CLONES: replace(waiting, ready=8)}))) == ["clones-0"]


def test_what_left_is_waited_for_and_not_what_was_asked_for_since() -> None:
    """A Deployment of 3 that was scaled to 20 meanwhile, for whose other pods there is no room."""
    world = World()
    world.group("ng", ["zone-a"], maximum=3)
    node = world.add_node("ng", "zone-a")
    web = world.deployment("web", 20)
    world.room_for[web] = 5
    world.ready()
    marked = replace(world.nodes_by_name[node], annotations={NODE_ROLL: "roll-1", NODE_MOVING: f"{web}=3@0"})
    world.nodes_by_name[node] = marked
    task = NodeTask(roll="roll-1", instance=marked.instance, node=node, group="ng")
    (moving,) = observe(task, world.clients(Settings(cluster="demo"))).moving
    assert moving.lacking == ""
    world.nodes_by_name[node] = replace(marked, annotations={NODE_ROLL: "roll-1", NODE_MOVING: f"{web}=7@0"})
    (moving,) = observe(task, world.clients(Settings(cluster="demo"))).moving
    assert "5 of 7 pods are Ready again" in moving.lacking


def test_a_controller_that_bears_the_name_of_a_kind_of_kubernetes_own_is_counted_by_its_pods() -> None:
    """N1: OpenKruise's StatefulSet, which apps/v1 does not have."""
    owner = Owner("StatefulSet.apps.kruise.io", "shop", "clones")
    assert awaited({owner: 4}) == {owner: 4}
    waiting = counted_by_pods(owner, clones(3, 1, owner), (), Count(), 1000.0)
    decision = decide(seen(*clones(2, 0, owner), workloads={owner: replace(waiting, selector=None)}))
    assert "3 of 4 pods of StatefulSet.apps.kruise.io shop/clones are Ready" in held(decision)


def awaited(counts: dict[Owner, int]) -> dict[Owner, int]:
    """What a node's record of them is read as."""
    text = _written({o: Count(pods, 7.0) for o, pods in counts.items()})
    read = _awaited_owners(Node("n", annotations={NODE_MOVING: text}))
    return {o: c.pods for o, c in read.items()}


def test_a_budget_of_ours_has_a_name_that_an_object_may_have() -> None:
    short, long = Owner("Deployment", "shop", "web"), Owner("Deployment", "shop", "w" * 242)
    assert budget_name(short) == "eks-rolling-deployment-web"
    names = {budget_name(long), budget_name(replace(long, name="w" * 241 + "x"))}
    assert len(names) == 2
    assert all(is_object_name(name) for name in names)


@pytest.mark.parametrize("least", ["50%", "-1", "1" * 7, ""])
def test_a_budget_of_ours_that_somebody_has_changed_says_nothing_of_how_many_pods_there_were(least: str) -> None:
    """T1: whoever owns the namespace may write it, and may give our label to budgets of theirs."""
    changed = never(name=budget_name(CLONES), min_available=least, ours=True, allowed=1, desired_healthy=1)
    assert count(clones(3), budgets=(changed,)).desired == 3
    workloads = {CLONES: count(clones(3))}
    assert evicted(decide(seen(*clones(1), workloads=workloads, budgets=(changed,)))) == ["clones-0"]


def test_a_pod_that_has_ended_and_is_kept_by_a_finalizer_keeps_no_other_waiting() -> None:
    """N2: its containers are gone, its volume is not in use."""
    kept = pod("k-0", claims=("x",), deleting_until=9.0, phase="Failed", ready=False)
    following = pod("k-1", owner=Owner("CloneSet", "shop", "others"), claims=("y",))
    assert evicted(decide(seen(kept, following))) == ["k-1"]
    assert isinstance(decide(seen(replace(kept, phase="Running"), following)), Hold)
