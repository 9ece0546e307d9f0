"""What is evicted next, and what is waited for."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import _budget, _workload
from eks_rolling.observed.kubernetes import (
    STRATEGY_ANNOTATION,
    Budget,
    Node,
    Owner,
    Pod,
    Selector,
    Service,
    Strategy,
    Workload,
    placeholders,
)
from eks_rolling.observed.marks import HARD_TAINT, NODE_ROLL
from eks_rolling.payloads import Hold, HoldKind, NodeTask
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.steps.evict import (
    Cordon,
    Decision,
    DropBudgets,
    Empty,
    EvictPods,
    MakeBudgets,
    Moving,
    NodeToEmpty,
    Restart,
    decide,
    describe_budgets,
    observe,
    restart_mark,
)
from tests.model.situations import settings, shards
from tests.world import PodState

NODE = Node("old", taints=(HARD_TAINT,), annotations={NODE_ROLL: "roll-1"})
WEB = Owner("Deployment", "shop", "web")
DB = Owner("StatefulSet", "shop", "db")


def pod(name: str, owner: Owner | None = WEB, **more: Any) -> Pod:
    labels = {"app": owner.name} if owner else {}
    return replace(Pod("shop", name, uid=f"uid-{name}", node="old", owner=owner, labels=labels), **more)


def budget(owner: Owner = WEB, allowed: int = 1, **more: Any) -> Budget:
    made = Budget(
        owner.namespace,
        owner.name,
        uid=f"uid-{owner.name}",
        selector=Selector((("app", owner.name),)),
        allowed=allowed,
        healthy=2 + allowed,
        desired_healthy=2,
        expected=3,
    )
    return replace(made, **more)


def workload(owner: Owner = WEB, **more: Any) -> Workload:
    return replace(Workload(owner, desired=3, ready=3, selector=Selector((("app", owner.name),))), **more)


def seen(*pods: Pod, budgets: tuple[Budget, ...] = (), node: Node = NODE, **more: Any) -> NodeToEmpty:
    workloads: dict[Owner, Workload | None] = {p.owner: workload(p.owner) for p in pods if p.owner}
    return replace(NodeToEmpty(node, pods, budgets, workloads), **more)


def evicted(decision: Decision) -> list[str]:
    assert isinstance(decision, EvictPods), decision
    return [p.name for p in decision.pods]


def reason(decision: Decision) -> str:
    assert isinstance(decision, Hold), decision
    return decision.reason


def test_as_many_pods_go_as_the_budget_allows() -> None:
    """N1."""
    pods = [pod("web-1"), pod("web-2"), pod("web-3")]
    assert evicted(decide(seen(*pods, budgets=(budget(allowed=2),)))) == ["web-1", "web-2"]


def test_a_stand_in_is_left_to_the_migration_of_its_group() -> None:
    """C1: it may be the only master of its shard."""
    stand_in = pod("redis-0-stand-in", None, labels={LABEL: "shards"})
    words = "it stands in for a pod of Redis group shards, whose migration ends it"
    assert reason(decide(seen(stand_in, stand_ins=frozenset({stand_in.uid})))) == f"pod shop/redis-0-stand-in: {words}"


def test_only_with_its_label_a_pod_stands_in_for_nobody() -> None:
    """N1: anybody may write the label; then its eviction is asked for like any other's."""
    world = shards(new_version=False)
    node = next(iter(world.nodes_by_name))
    made_of = [("real", "shards", "Running"), ("forged", "nothing", "Running"), ("ended", "shards", "Failed")]
    for name, group, phase in made_of:
        made = Pod("default", name, f"uid-{name}", node, labels={LABEL: group}, phase=phase, resource_version="1")
        world.pods_by_name["default", name] = PodState(made, world.time)
    found = observe(NodeTask(roll="roll-1", node=node, instance="i-1", group="ng-a"), world.clients(settings()))
    assert found.stand_ins == {"uid-real"}


def test_an_exhausted_budget_holds_and_is_named_with_its_numbers() -> None:
    """N1."""
    held = reason(decide(seen(pod("web-1"), budgets=(budget(allowed=0),))))
    assert held == "pod shop/web-1: budget shop/web needs 2 healthy pods and has 2"


def test_a_pod_that_is_not_ready_is_asked_for_even_when_the_budget_is_exhausted() -> None:
    """The API decides it (unhealthyPodEvictionPolicy); to wait for ever would be wrong where it allows."""
    assert evicted(decide(seen(pod("web-1", ready=False), budgets=(budget(allowed=0),)))) == ["web-1"]


def test_a_budget_that_nobody_has_looked_at_yet_holds() -> None:
    assert "has not been processed by its controller yet" in reason(
        decide(seen(pod("web-1"), budgets=(budget(observed=False),)))
    )


def test_two_budgets_on_a_pod_hold_and_both_are_named() -> None:
    budgets = (budget(), budget(name="all"))
    assert "budgets shop/web and shop/all both cover it" in reason(decide(seen(pod("web-1"), budgets=budgets)))


def test_a_temporary_budget_gives_way_to_one_that_came_later() -> None:
    ours, theirs = budget(name="eks-rolling-web", ours=True), budget()
    decision = decide(seen(pod("web-1"), budgets=(ours, theirs)))
    assert decision == DropBudgets((ours,))


def test_a_workload_without_a_budget_gets_a_temporary_one_before_its_first_pod_goes() -> None:
    assert decide(seen(pod("web-1"))) == MakeBudgets((workload(),))


@pytest.mark.parametrize("owner", [None, Owner("Job", "shop", "import"), Owner("Rollout", "shop", "web")])
def test_pods_whose_owner_no_budget_can_count_are_evicted_without_one(owner: Owner | None) -> None:
    assert evicted(decide(seen(pod("p", owner), workloads={}))) == ["p"]


def test_of_an_owner_nobody_can_count_one_pod_goes_at_a_time() -> None:
    custom = Owner("Rollout", "shop", "web")
    assert evicted(decide(seen(pod("a", custom), pod("b", custom), workloads={}))) == ["a"]


def test_pods_with_volumes_go_one_at_a_time() -> None:
    cache = Owner("StatefulSet", "shop", "cache")
    pods = [pod("db-0", DB, claims=("data",)), pod("cache-0", cache), pod("web-1")]
    budgets = (budget(DB), budget(cache), budget())
    assert evicted(decide(seen(*pods, budgets=budgets))) == ["db-0", "web-1"]


def test_the_next_pod_with_a_volume_waits_until_the_last_one_is_ready_elsewhere() -> None:
    moving = (Moving(workload(DB, ready=2)),)
    cache = pod("cache-0", Owner("StatefulSet", "shop", "cache"))
    held = reason(decide(seen(cache, budgets=(budget(cache.owner or WEB),), moving=moving)))
    assert held == "pod shop/cache-0: pods with volumes go one at a time"


def test_whoever_was_whole_is_waited_for_and_whoever_was_not_is_not() -> None:
    pods = [pod("web-1"), pod("api-1", Owner("Deployment", "shop", "api"))]
    api = workload(Owner("Deployment", "shop", "api"), ready=1)
    observed = seen(*pods, budgets=(budget(), budget(api.owner)))
    decision = decide(replace(observed, workloads=observed.workloads | {api.owner: api}))
    assert isinstance(decision, EvictPods)
    assert decision.moving == frozenset({WEB})


def test_a_deployment_that_asks_for_it_is_restarted_and_not_evicted() -> None:
    asking = workload(annotations={STRATEGY_ANNOTATION: Strategy.RESTART})
    observed = seen(pod("web-1"), workloads={WEB: asking})
    assert decide(observed) == Restart(asking)
    restarted = replace(asking, restarted_for=restart_mark(NODE))
    assert "is restarting" in reason(decide(replace(observed, workloads={WEB: restarted})))


def test_daemon_mirror_and_finished_pods_stay() -> None:
    """N2."""
    stay = [
        pod("daemon", Owner("DaemonSet", "kube-system", "proxy")),
        pod("static", Owner("Node", "", "old"), mirror=True),
        pod("done", Owner("Job", "shop", "import"), phase="Succeeded"),
    ]
    assert decide(seen(*stay)) == Cordon()


def test_an_empty_node_is_cordoned_and_then_waits_for_what_left_it() -> None:
    cordoned = replace(NODE, unschedulable=True)
    assert decide(seen()) == Cordon()
    pending = pod("web-2", ready=False, unschedulable_because="0/3 nodes are available")
    late = Moving(workload(ready=2), (pod("web-1"), pending))
    assert reason(decide(seen(node=cordoned, moving=(late,)))) == (
        "Deployment shop/web: 2 of 3 pods are Ready again (pod shop/web-2 cannot be scheduled: 0/3 nodes are available)"
    )
    assert isinstance(decide(seen(node=cordoned, moving=(Moving(workload()),))), Empty)


def test_a_pod_that_is_ending_is_waited_for_by_name() -> None:
    assert reason(decide(seen(pod("web-1", deleting_until=5.0)))) == "pod shop/web-1 is ending"


def test_a_hold_by_a_budget_is_told_from_one_by_pods() -> None:
    by_budget = decide(seen(pod("web-1"), budgets=(budget(allowed=0),)))
    ending = decide(seen(pod("web-1", deleting_until=9.0), budgets=(budget(),)))
    assert isinstance(by_budget, Hold)
    assert isinstance(ending, Hold)
    assert (by_budget.kind, ending.kind) == (HoldKind.BUDGET, HoldKind.PODS)


def test_the_report_is_told_of_budgets_of_pods_here_and_of_those_that_left() -> None:
    db = budget(DB, allowed=0)
    elsewhere = budget(Owner("Deployment", "other", "web"))
    left = Moving(workload(DB, ready=3))
    observed = seen(pod("web-1"), budgets=(budget(), db, elsewhere), moving=(left,))
    assert describe_budgets(observed) == {"shop/db": [0, 2, 2, 3, 0], "shop/web": [1, 3, 2, 3, 0]}


def test_of_many_budgets_the_tightest_are_told() -> None:
    owners = [Owner("Deployment", "shop", f"web-{n:02d}") for n in range(30)]
    pods = [pod(f"pod-{n:02d}", owner) for n, owner in enumerate(owners)]
    budgets = tuple(budget(owner, allowed=n % 2) for n, owner in enumerate(owners))
    assert [numbers[0] for numbers in describe_budgets(seen(*pods, budgets=budgets)).values()] == [0] * 15 + [1] * 5


SYNC_FAILED = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 1},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    "status": {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "conditions": [
            {
                "type": "DisruptionAllowed",
                "status": "False",
                "reason": "SyncFailed",
                "message": "jobs.batch does not implement the scale subresource",
            }
        ],
    },
}


def test_a_budget_that_its_controller_cannot_count_holds_with_its_words() -> None:
    """N1."""
    held = reason(decide(seen(pod("web-1"), budgets=(_budget(SYNC_FAILED),))))
    said = "budget shop/web cannot be counted by its controller: jobs.batch does not implement the scale subresource"
    assert said in held


QUOTA = 'pods "web-7d4b9-" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3'


def test_a_pod_that_no_controller_can_make_is_awaited_with_the_reason() -> None:
    """A quota leaves no room for one more."""
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA}
    metadata = {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1"}
    item = {"metadata": metadata, "spec": {"replicas": 3}, "status": {"readyReplicas": 2, "conditions": [condition]}}
    lacking = _workload("Deployment", item)
    assert Moving(lacking).lacking == f"{WEB}: 2 of 3 pods are Ready again (no pod can be made: {QUOTA})"
    ended = {**item, "status": {"readyReplicas": 3, "conditions": [condition | {"status": "False"}]}}
    assert Moving(_workload("Deployment", ended)).lacking == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, f"{WEB} is restarting"),
        ({"fault": QUOTA}, f"{WEB} is restarting, and no pod can be made: {QUOTA}"),
        ({"paused": True}, f"{WEB} asks for a restart, and is paused: resume it"),
    ],
)
def test_a_restart_that_does_not_get_on_says_why(more: dict[str, Any], said: str) -> None:
    """A restart needs room for one pod more, and somebody may pause a rollout in mid-roll."""
    asking = workload(annotations={STRATEGY_ANNOTATION: Strategy.RESTART}, restarted_for=restart_mark(NODE), **more)
    assert reason(decide(seen(pod("web-1"), workloads={WEB: asking}))) == f"pod shop/web-1: {said}"


class TestPlaceholders:
    """Pods that only keep room for others."""

    PODS = (pod("room-1", priority=-10), pod("room-2", priority=-10))

    def seen(self, *budgets: Budget) -> NodeToEmpty:
        return seen(*self.PODS, budgets=budgets, placeholders=placeholders(self.PODS, ()))

    def test_they_go_at_once_without_a_budget_of_ours_and_are_not_awaited(self) -> None:
        decision = decide(self.seen())
        assert evicted(decision) == ["room-1", "room-2"]
        assert isinstance(decision, EvictPods)
        assert decision.moving == frozenset()

    def test_a_budget_of_their_own_is_kept(self) -> None:
        """N1."""
        assert evicted(decide(self.seen(budget(allowed=1)))) == ["room-1"]

    @pytest.mark.parametrize(
        "more",
        [
            {"priority": 0},
            {"priority": 1000},
            {"claims": ("data",)},
            {"ends": True},
            {"owner": DB},
            {"owner": None},
        ],
    )
    def test_others_are_none(self, more: dict[str, Any]) -> None:
        assert placeholders([pod("room-1", **({"priority": -10} | more))], ()) == frozenset()

    def test_a_pod_of_low_priority_that_serves_is_none(self) -> None:
        """N1: its requests count as anybody's."""
        serving = Service("shop", "web", selector=Selector((("app", "web"),)))
        assert placeholders(self.PODS, [serving]) == frozenset()
        assert isinstance(decide(seen(*self.PODS)), MakeBudgets)


class TestARestartThatNoRoleLets:
    def test_several_replicas_are_evicted_and_given_a_budget_first(self) -> None:
        """N1."""
        asking = workload(annotations={STRATEGY_ANNOTATION: Strategy.RESTART})
        observed = replace(seen(pod("web-1"), workloads={WEB: asking}), not_restartable=frozenset({WEB}))
        assert decide(observed) == MakeBudgets((asking,))
        assert decide(replace(observed, budgets=(budget(),))) == EvictPods((pod("web-1"),), frozenset({WEB}))

    def test_a_single_replica_is_left_alone_until_its_eviction_is_accepted(self) -> None:
        """N1."""
        asking = workload(annotations={STRATEGY_ANNOTATION: Strategy.RESTART}, desired=1, ready=1)
        alone = replace(seen(pod("web-1"), workloads={WEB: asking}), not_restartable=frozenset({WEB}))
        alone = replace(alone, budgets=(budget(),))
        assert "asks for a restart, which no Role in its namespace lets a roll do" in reason(decide(alone))
        accepted = replace(alone, accepted=frozenset({f"restart-not-permitted:{WEB}"}))
        assert isinstance(decide(accepted), EvictPods)
