"""Dead nodes and instances that never joined: what the plan says, and what each decision makes of them."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import _node
from eks_rolling.documents.finding import Severity
from eks_rolling.observed.aws import Group, GroupInstance, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import Node, Owner, Pod, Workload, lost_with, nameless
from eks_rolling.observed.marks import NODE_ROLL
from eks_rolling.payloads import Hold, RollRequest
from eks_rolling.plan.checks.redis_sentinel import RedisView
from eks_rolling.redis.groups import GROUP as GROUP_OF_REDIS
from eks_rolling.redis.groups import PART, Part, declared
from eks_rolling.settings import DeadNodes, Settings
from eks_rolling.steps import await_ready
from eks_rolling.steps.await_ready import Side
from eks_rolling.steps.evict import Cordon, Empty, EvictPods, Moving, NodeToEmpty
from eks_rolling.steps.evict import decide as empty
from eks_rolling.steps.plan import decide as plan
from eks_rolling.steps.replace_unjoined import (
    AskTargets,
    Leave,
    LeaveAlone,
    Over,
    Terminate,
    Unjoined,
    Wait,
    decide,
    lacking,
)
from eks_rolling.steps.terminate import BeforeTermination, forbidden
from tests.unit.test_preflight import CLEAN, GROUP, NODE, SETTINGS, WEB_POD, found

NOW = 10_000.0
REPLACED = DeadNodes(replace=True)
ON = SETTINGS.model_copy(update={"dead_nodes": REPLACED})
DEAD = Node("node-1", instance="i-1", zone="a", ready=False, silent_since=NOW - 700)
ENDED = replace(WEB_POD, ready=False, deleting_until=NOW - 300)


def codes(settings: Settings, *nodes: Node, **more: Any) -> dict[str, Severity]:
    view = replace(CLEAN, **{"nodes": nodes, "pods": CLEAN.pods if nodes else (), "now": NOW, **more})
    return {f.code: f.severity for f in found(view, settings=settings) if f.object.startswith(("node", "instance"))}


@pytest.mark.parametrize(
    ("node", "settings", "code", "severity"),
    [
        (DEAD, ON, "dead-node", Severity.NOTE),
        (DEAD, SETTINGS, "node-not-ready", Severity.BLOCKS),
        (replace(DEAD, silent_since=NOW - 500), ON, "node-not-ready", Severity.BLOCKS),
        # Its kubelet reports that it is not well: it can end pods yet.
        (replace(DEAD, silent_since=0.0), ON, "node-not-ready", Severity.BLOCKS),
    ],
)
def test_the_plan_says_what_becomes_of_a_node_that_is_not_ready(
    node: Node, settings: Settings, code: str, severity: Severity
) -> None:
    assert codes(settings, node) == {code: severity}


def test_pods_of_a_declared_redis_group_on_a_dead_node_block() -> None:
    cache = Owner("StatefulSet", "shop", "cache")
    shards = Workload(cache, desired=3, ready=2, annotations={GROUP_OF_REDIS: "shards", PART: str(Part.CLUSTER)})
    (group,), _ = declared([shards])
    pod = replace(WEB_POD, owner=cache)
    seen = codes(ON, DEAD, pods=(pod,), workloads=(shards,), redis=(RedisView(group),))
    assert seen["dead-node-redis"] is Severity.BLOCKS
    assert "dead-node" not in seen


def test_what_never_joined_is_replaced_by_its_group_unless_a_node_without_a_name_for_its_instance_may_be_on_it() -> (
    None
):
    assert codes(ON) == {"never-joined": Severity.NOTE}
    assert codes(SETTINGS) == {"not-joined": Severity.BLOCKS}
    assert codes(ON, Node("stranger")) == {"not-joined": Severity.BLOCKS}
    fargate = Node("fargate-ip-10-0-0-1", labels={"eks.amazonaws.com/compute-type": "fargate"})
    assert codes(ON, fargate, pods=()) == {"never-joined": Severity.NOTE}
    assert nameless([NODE, fargate, Node("stranger")]) == ["stranger"]


@pytest.mark.parametrize(
    ("pod", "node", "lost"),
    [
        (ENDED, DEAD, True),
        (replace(ENDED, deleting_until=NOW + 5), DEAD, False),
        (replace(ENDED, deleting_until=None), DEAD, False),
        (ENDED, replace(DEAD, ready=True, silent_since=0.0), False),
        (ENDED, replace(DEAD, silent_since=NOW - 599), False),
        (replace(ENDED, node="another"), DEAD, False),
    ],
)
def test_a_pod_is_given_up_once_its_own_time_is_over_and_its_node_is_dead(pod: Pod, node: Node, lost: bool) -> None:
    """N2."""
    assert (pod.uid in lost_with(node, [pod], REPLACED, NOW)) == lost
    assert lost_with(node, [pod], DeadNodes(), NOW) == frozenset()


def test_what_was_given_up_counts_as_gone_and_nobody_waits_for_its_successor() -> None:
    cordoned = replace(DEAD, unschedulable=True)
    database = Workload(Owner("StatefulSet", "shop", "db"), desired=1, ready=0)
    stuck = replace(ENDED, uid="u2", name="db-0", owner=database.owner, claims=("data",))
    seen = NodeToEmpty(DEAD, (ENDED, stuck), dead=True, lost=frozenset({"u1", "u2"}), moving=(Moving(database),))
    assert isinstance(empty(seen), Cordon)
    assert isinstance(empty(replace(seen, node=cordoned)), Empty)
    # Another's successor is waited for as ever.
    other = Moving(Workload(Owner("Deployment", "shop", "other"), desired=2, ready=1))
    assert not isinstance(empty(replace(seen, node=cordoned, moving=(other,))), Empty)


def test_pods_with_volumes_of_a_dead_node_do_not_wait_for_those_that_are_given_up() -> None:
    stuck = replace(ENDED, uid="u2", claims=("data",))
    next_one = replace(WEB_POD, uid="u3", name="web-2", ready=False, claims=("more",), owner=None)
    decision = empty(NodeToEmpty(DEAD, (stuck, next_one), dead=True, lost=frozenset({"u2"})))
    assert decision == EvictPods((next_one,), frozenset())


def test_a_dead_node_is_terminated_with_what_was_given_up_and_its_volumes_and_with_nothing_else() -> None:
    """N2."""
    node = replace(DEAD, unschedulable=True, annotations={NODE_ROLL: "roll-1"})
    group = replace(GROUP, desired=2)
    new = Node("node-2", instance="i-2")
    seen = BeforeTermination(
        InstanceState("i-1", "running"), node, new, (ENDED,), ("pv-1",), (), group, dead=True, lost=frozenset({"u1"})
    )
    assert forbidden(seen, "roll-1") == ""
    assert forbidden(replace(seen, lost=frozenset()), "roll-1") == "pods are on it: shop/web-1"
    assert forbidden(replace(seen, dead=False), "roll-1") == "volumes are attached: pv-1"
    assert "not in the plan" in forbidden(seen, "roll-2")


def test_the_replacement_of_a_dead_node_gets_the_daemonsets_that_ran_there() -> None:
    daemon = Pod("kube-system", "proxy-1", owner=Owner("DaemonSet", "kube-system", "proxy"), ready=False)
    new = Side(Node("node-2", instance="i-2"))
    decide_ready = await_ready.decide("i-2", InstanceState("i-2", "running"), Side(DEAD, pods=(daemon,)), new)
    assert isinstance(decide_ready, Hold)
    assert "DaemonSet kube-system/proxy is not Ready on node node-2 yet" in decide_ready.reason


def test_the_moment_at_which_a_kubelet_fell_silent_is_read() -> None:
    def node(status: str) -> Node:
        ready = {"type": "Ready", "status": status, "lastTransitionTime": "1970-01-01T00:01:00Z"}
        metadata = {"name": "n", "uid": "u", "resourceVersion": "1"}
        return _node({"metadata": metadata, "status": {"conditions": [ready]}})

    assert (node("Unknown").silent_since, node("Unknown").ready) == (60.0, False)
    assert (node("False").silent_since, node("True").silent_since) == (0.0, 0.0)


SPARE = replace(GROUP, desired=1)
UNJOINED = Unjoined("i-1", SPARE, InstanceState("i-1", "running", launched=NOW - 700), joined=False, targets=())
TARGET = TargetRegistration("arn:aws:elasticloadbalancing:x:1:targetgroup/web/1", "i-1", 80, "unhealthy")


def lifecycle(said: str) -> Group:
    return replace(SPARE, instances=(replace(SPARE.instances[0], lifecycle=said),))


@pytest.mark.parametrize(
    ("change", "decision"),
    [
        ({}, Terminate),
        ({"joined": True}, Over),
        ({"group": None}, Over),
        ({"state": None}, Over),
        ({"state": InstanceState("i-1", "terminated")}, Over),
        ({"state": InstanceState("i-1", "shutting-down")}, Wait),
        ({"state": InstanceState("i-1", "running", launched=NOW - 500)}, Wait),
        ({"group": lifecycle("Standby")}, LeaveAlone),
        ({"lost_nodes": ("node-1",)}, Wait),
        ({"targets": None}, AskTargets),
        ({"group": lifecycle("Terminating:Wait")}, Wait),
        ({"group": replace(SPARE, suspended=frozenset({"Launch"}))}, Wait),
        ({"nameless": ("stranger",)}, Wait),
        ({"targets": (TARGET,)}, Leave),
        ({"targets": (replace(TARGET, state="draining"),)}, Wait),
        ({"targets": (replace(TARGET, state="healthy"),)}, LeaveAlone),
        ({"targets": (replace(TARGET, state="unused"),)}, Terminate),
    ],
)
def test_an_instance_is_replaced_by_its_group_only_where_nothing_can_be_on_it(
    change: dict[str, Any], decision: type
) -> None:
    """N2, N4."""
    assert type(decide(replace(UNJOINED, **change), 600, 700, NOW)) is decision


def test_an_old_instance_is_looked_at_for_as_long_as_a_young_one() -> None:
    """N2: its node may have been deleted a moment ago."""
    old = replace(UNJOINED, state=InstanceState("i-1", "running", launched=NOW - 30 * 86400))
    assert decide(old, 600, 0, NOW) == Wait("i-1 may yet join, for 600 s more")
    assert isinstance(decide(old, 600, 599, NOW), Wait)
    assert isinstance(decide(old, 600, 600, NOW), Terminate)


def test_the_plan_blocks_while_pods_are_bound_to_a_node_that_is_not_there() -> None:
    """N2: what they are may run on the instance."""
    assert codes(ON, pods=(WEB_POD,)) == {"not-joined": Severity.BLOCKS}
    assert codes(ON, pods=(replace(WEB_POD, phase="Succeeded"),)) == {"never-joined": Severity.NOTE}
    assert codes(ON, pods=(replace(WEB_POD, node=""),)) == {"never-joined": Severity.NOTE}


def test_what_a_person_left_out_is_not_said_to_be_replaced() -> None:
    view = replace(CLEAN, nodes=(), pods=(), now=NOW)
    (finding,) = [f for f in found(view, settings=ON) if f.code == "never-joined"]
    assert "accept not-joined:instance i-1" in finding.remedy
    accepting = RollRequest(accept=("not-joined:instance i-1",))
    said = {f.code: f.reason for f in plan(view, accepting, ON).findings}
    assert "never-joined" not in said
    assert said["not-joined"].endswith("(accepted)")


def test_its_successor_is_waited_for_until_it_is_ready() -> None:
    new = GroupInstance("i-2", "a", template="lt-1:2")
    group = replace(SPARE, instances=(new,))
    states = {"i-2": InstanceState("i-2", "running", launched=NOW)}
    coming, there = Node("node-2", instance="i-2", ready=False), Node("node-2", instance="i-2")
    assert lacking([replace(group, instances=())], [], {}, NOW - 60) == "group ng has 0 of 1 instance"
    assert lacking([group], [], states, NOW - 60) == "i-2 of group ng: no Ready node yet"
    assert lacking([group], [coming], states, NOW - 60) == "i-2 of group ng: no Ready node yet"
    assert lacking([group], [there], states, NOW - 60) == ""
    # One that was there before, and is not well, is another matter.
    assert lacking([group], [coming], states, NOW + 60) == ""
