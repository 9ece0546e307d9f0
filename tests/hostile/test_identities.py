"""What a kubelet may write about its own Node, turned against other nodes: whom its claims bind."""

from dataclasses import replace

import pytest

from eks_rolling.documents.finding import Severity
from eks_rolling.observed.kubernetes import Node, Owner, Pod
from eks_rolling.observed.marks import (
    AUTOSCALER_REPLICAS,
    EXCLUDE_LABEL,
    HARD_TAINT,
    NODE_ANNOTATIONS,
    NODE_LAUNCH,
    NODE_MOVING,
    NODE_SERVING,
    NODE_TARGETS,
    NODE_UNFIT,
    SCALE_DOWN_DISABLED,
)
from eks_rolling.payloads import RollRequest
from eks_rolling.redis.stand_in import FOR_ID, FOR_POD, FOR_ROLE, LABEL
from eks_rolling.roll.returns import MOST_OF_A_NAMESPACE
from eks_rolling.steps.plan import PlanOutcome, decide, leftovers, observe
from tests.hostile.test_objects import RECORDS
from tests.hostile.worlds import engine_for
from tests.model.situations import outdated, settings, shards, shop
from tests.world import World

TARGETS = '[["arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/1", 80, false]]'


def liar(world: World, instance: str) -> Node:
    """A node of no group that says it is on that instance: ready, and with nothing on it."""
    truthful = next(n for n in world.nodes_by_name.values() if n.instance == instance)
    marks = truthful.annotations
    return world._set_node(replace(truthful, name="liar", annotations=dict(marks)))


def planned(world: World) -> tuple[str, dict[str, tuple[Severity, str]]]:
    view = observe(RollRequest(), world.clients(settings()))
    plan = decide(view, RollRequest(), settings())
    return plan.outcome, {f.code: (f.severity, f.object) for f in plan.findings}


def test_a_node_that_claims_anothers_instance_blocks_the_plan() -> None:
    """N2: emptying the liar and terminating the instance would end pods that nobody looked at."""
    world = shop((2, 1))
    victim = min(world.machines)
    liar(world, victim)
    outcome, said = planned(world)
    assert outcome == PlanOutcome.BLOCKED
    assert said["instance-claimed-twice"] == (Severity.BLOCKS, f"instance {victim}")
    assert "not-joined" not in said


@pytest.mark.parametrize("at", ["taint", "launch ", "evict", "unschedulable=True"])
def test_a_node_that_claims_anothers_instance_in_mid_roll_has_nothing_terminated(at: str) -> None:
    """N2, by the world after every effect; R2. The roll waits, or ends with both names."""
    world = shop((2, 1))
    before = world.snapshot()
    claimed: list[str] = []

    def lie(current: World) -> None:
        marked = [n.instance for n in current.nodes_by_name.values() if n.annotations and n.name != "liar"]
        if not claimed and marked and any(at in e for e in current.effects):
            claimed.append(marked[0])
            liar(current, marked[0])

    world.watchers.append(lie)
    roll = engine_for(world).run("roll", "roll-1", {})
    assert claimed
    assert roll.status == "FAILED"
    assert "liar" in roll.cause
    assert f"all say that they are on {claimed[0]}" in roll.cause
    assert world.machines[claimed[0]].alive
    assert world.snapshot()["workloads"] == before["workloads"]


def test_a_restore_gives_back_no_replacement_that_two_nodes_claim() -> None:
    """N2: the pods are on one of them."""
    world = shop((2, 1))

    def lie(current: World) -> None:
        new = [n for n in current.nodes_by_name.values() if current.machines[n.instance].template.endswith(":2")]
        if new and "liar" not in current.nodes_by_name and new[0].ready:
            liar(current, new[0].instance)

    world.watchers.append(lie)
    roll = engine_for(world).run("roll", "roll-1", {})
    assert roll.status == "FAILED"
    new = world.nodes_by_name["liar"].instance
    assert world.machines[new].alive


@pytest.mark.parametrize("name", ["redis-a-0-stand-in", "other"])
def test_a_mirror_pod_is_no_stand_in(name: str) -> None:
    """Any kubelet may create one in any namespace, with any labels: who connected to it would tell it the password. One
    that has a stand-in's name is named."""
    world = shards()
    marks = {FOR_POD: "redis-a-0", FOR_ID: "0" * 40, FOR_ROLE: "master"}
    (node, *_) = world.nodes_by_name
    forged = Pod(
        "default", name, uid="forged", node=node, owner=Owner("Node", "", node), mirror=True,
        labels={LABEL: "shards"}, annotations=marks, address="203.0.113.9",
    )  # fmt: skip
    state = next(iter(world.pods_by_name.values()))
    world.pods_by_name["default", name] = replace(state, pod=forged)
    roll = engine_for(world).run("roll", "roll-1", {})
    if name == "other":
        assert roll.status == "SUCCEEDED", roll.cause
    else:
        assert "Pod default/redis-a-0-stand-in has the name of a stand-in and is none" in roll.cause
    assert world.redis.lost() == set()
    assert not [e for e in world.effects if "203.0.113.9" in e or "forged" in e]


@pytest.mark.parametrize("key", [NODE_LAUNCH, NODE_TARGETS])
@pytest.mark.parametrize("value", [TARGETS, "oops", f"{'0' * 20}-{'1' * 20}-1@1", "desired:3:raised@1"])
def test_a_mark_that_no_roll_wrote_is_told_by_the_plan(key: str, value: str) -> None:
    """T1. What the lock proves is not."""
    world = shop((2, 1))
    node = next(iter(world.nodes_by_name.values()))
    world._set_node(replace(node, annotations={key: value}))
    outcome, said = planned(world)
    assert outcome == PlanOutcome.ROLL
    assert said["forged-mark"] == (Severity.NOTE, f"node {node.name}")


SCRIBBLES = (
    "|", "=", "x", "a b/c=z@y", "Deployment default/web=1", "Deployment default/web=9@x", "Pod ../..=1@1",
    "Deployment default/web=99999999999999@1", "🙂 a/b=1@1",
)  # fmt: skip


@pytest.mark.parametrize("said", [*SCRIBBLES, *RECORDS])
def test_a_nodes_record_of_whom_it_awaits_is_no_crash(said: str) -> None:
    """A kubelet writes what it likes on its own Node."""
    world = shop((2, 1))

    def scribble(current: World) -> None:
        for node in list(current.nodes_by_name.values()):
            if node.annotations and node.annotations.get(NODE_MOVING) != said and len(current.effects) < 60:
                current._set_node(replace(node, annotations=dict(node.annotations) | {NODE_MOVING: said}))

    world.watchers.append(scribble)
    roll = engine_for(world).run("roll", "roll-1", {})
    assert roll.status == "SUCCEEDED", roll.cause
    assert outdated(world) == []


def test_addresses_that_a_node_says_served_on_it_hold_that_node_alone() -> None:
    """N5: nobody's targets are deregistered for it. Its own last connections and its termination wait for them, and say
    so; at their deadline the roll ends, and everything is as before."""
    world = shop((2, 1))
    before = world.snapshot()
    victim = min(world.machines)
    node = next(n.name for n in world.nodes_by_name.values() if n.instance == victim)
    others = [m for m in world.machines if m != victim]
    left: list[str] = []

    def forge(current: World) -> None:
        mine = current.nodes_by_name.get(node)
        if mine and mine.annotations and NODE_SERVING not in mine.annotations:
            current._set_node(replace(mine, annotations=dict(mine.annotations) | {NODE_SERVING: ",".join(others)}))
        if mine:
            left.extend(e for e in current.effects if e.startswith("deregister") and any(o in e for o in others))

    world.watchers.append(forge)
    roll = engine_for(world).run("roll", "roll-1", {"nodes": [node]})
    assert roll.status == "FAILED"
    assert node in roll.cause
    assert left == []
    assert world.machines[victim].alive
    assert world.snapshot()["workloads"] == before["workloads"]


VALUES = ("true", "x", "9.9.9.9,10.0.0.1", "Deployment default/web=3@1", "roll-0")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("key", sorted({*NODE_ANNOTATIONS, NODE_UNFIT} - {NODE_LAUNCH, NODE_TARGETS}))
def test_a_mark_without_proof_concerns_its_node_alone(key: str, value: str) -> None:
    """T1: a restore takes it away or says it, and does at most what a kubelet may: a cordon, a label, an annotation."""
    world = shop((2, 1), new_version=False)
    world.baseline = None
    victim = world.nodes_by_name[min(world.nodes_by_name)]
    labels = dict(victim.labels) | {EXCLUDE_LABEL: "true"}
    forged = dict(victim.annotations) | {SCALE_DOWN_DISABLED: "true", key: value}
    world._set_node(replace(victim, unschedulable=True, labels=labels, annotations=forged))
    restored = engine_for(world).run("restore", "by-hand", {"roll": "by-hand"})
    assert restored.status == "SUCCEEDED", restored.cause
    assert {e.partition(":")[0].split()[0] for e in world.effects} <= {"lease", "node", "update"}
    assert not [e for e in world.effects if not e.startswith("lease") and victim.name not in e]


def test_an_annotation_of_a_tenant_makes_no_roll_restore() -> None:
    """What a roll records on cluster-autoscaler is looked for there alone."""
    world = shop((2, 1), new_version=False)
    web = world.workloads_by_owner[Owner("Deployment", "default", "web")]
    web.workload = replace(web.workload, annotations={AUTOSCALER_REPLICAS: "9"})
    assert not leftovers(observe(RollRequest(), world.clients(settings())), settings())
    roll = engine_for(world).run("roll", "roll-1", {})
    assert roll.status == "SUCCEEDED"
    assert world.effects == []


@pytest.mark.parametrize("owner", [None, "ReplicaSet tenant-x/r", "Kind tenant-x/{}"])
@pytest.mark.parametrize("moment", ["evict ", "unschedulable=True"])
def test_pods_that_a_tenant_binds_to_a_node_by_name_hold_it_and_nothing_is_terminated_under_them(
    moment: str, owner: str | None
) -> None:
    """N2. Taints and cordons bind the scheduler alone; each pod that goes is followed by another, which says that it
    belongs to nobody, to one controller, or to another one each time."""
    world = shop((2, 1))
    began = world.time
    (template, *_) = world.pods_by_name.values()
    made: list[str] = []

    def bind(current: World) -> None:
        node = next((n for n in current.nodes_by_name.values() if n.annotations and HARD_TAINT in n.taints), None)
        key = ("tenant-x", "squatter")
        if node and key not in current.pods_by_name and any(moment in e for e in current.effects):
            made.append(node.instance)
            of = Owner.parse(owner.format(len(made))) if owner else None
            pod = Pod(*key, uid=f"squatter-{len(made)}", node=node.name, phase="Running", ready=True, owner=of)
            current.pods_by_name[key] = replace(template, pod=pod)

    world.watchers.append(bind)
    roll = engine_for(world).run("roll", "roll-1", {})
    assert made
    assert roll.status == "FAILED"
    assert "tenant-x" in roll.cause
    assert world.machines[made[0]].alive
    assert len([e for e in world.effects if e == "evict tenant-x/squatter"]) <= 2 * MOST_OF_A_NAMESPACE
    assert world.time - began < 8 * 3600
