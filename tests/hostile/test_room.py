"""What others write has to fit between two states: no Catch sees a payload that does not, and its execution just ends.

The interpreter of these tests refuses what Step Functions does (`tests/asl.py`).
"""

import json
from dataclasses import replace

import pytest

from eks_rolling.documents.finding import LONGEST
from eks_rolling.documents.report import Orphan
from eks_rolling.observed.kubernetes import STRATEGY_ANNOTATION, Lease, Pod, Workload
from eks_rolling.observed.marks import NODE_LAUNCH, NODE_TARGETS
from eks_rolling.payloads import RollRequest
from eks_rolling.redis.groups import GROUP, PART, Part, declared
from eks_rolling.redis.stand_in import FOR_POD, LABEL
from eks_rolling.steps.find_orphans import MOST, MOST_OF_A_KIND, told
from eks_rolling.steps.plan import MOST_UNREADY, not_waited_for, observe
from eks_rolling.steps.restore import ROOM
from eks_rolling.steps.restore import told as told_of_a_restore
from tests.asl import PAYLOAD_LIMIT
from tests.hostile.worlds import engine_for, with_a_replacement_that_drains_for_ever
from tests.model.situations import outdated, settings, shop
from tests.world import World

VAST = "x" * 200_000


def tenants(world: World) -> None:
    """Pods with a stand-in's label and a Redis group's Lease, in a tenant's namespace, full of words."""
    template = next(iter(world.pods_by_name.values()))
    for number in range(3):
        pod = Pod("tenant-x", f"x-{number}", f"u{number}", labels={LABEL: "x"}, annotations={FOR_POD: VAST})
        world.pods_by_name["tenant-x", pod.name] = replace(template, pod=pod, ready_at=1e12)
    world._add("StatefulSet", "tenant-x", "nothing", 0, {GROUP: "x", PART: str(Part.CLUSTER)})
    (group,) = [g for g in declared(world.workloads())[0] if g.namespace == "tenant-x"]
    world.leases[group.lease] = Lease(group.lease, VAST[:400], 1.0, 60.0, "1")


def test_what_a_tenant_says_of_stand_ins_keeps_no_orphan_from_being_found_and_no_roll_from_its_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R2: the clock's look is what finds a roll that died with nobody watching."""
    world = shop((2, 1))
    tenants(world)
    # The scheduler has no place for these.
    monkeypatch.setattr(world, "_schedule", lambda: None)
    looked = engine_for(world).run("restore", "clock-1", {"look": True})
    assert (looked.status, looked.cause) == ("SUCCEEDED", "")
    world = shop((2, 1), new_version=False)
    tenants(world)
    roll = engine_for(world).run("roll", "roll-1", {})
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    assert "x-0" in world.documents["rolls/roll-1/report.json"]


def test_what_a_tenant_makes_hides_nothing_of_the_rolls() -> None:
    theirs = [Orphan(kind="stand-in", object=f"tenant-x/{n}", remedy="none") for n in range(500)]
    ours = [Orphan(kind="tag on group", object=f"ng-{n}", remedy="restore") for n in range(5)]
    listed = told([*theirs, *ours])
    assert [o for o in listed if o.kind == "tag on group"] == ours
    assert len(listed) == MOST_OF_A_KIND + len(ours) <= MOST


@pytest.mark.parametrize("count", [3000, 20_000])
def test_thousands_of_workloads_that_are_not_ready_end_no_plan(count: int) -> None:
    """Whoever may make Deployments can make so many."""
    world = shop((2, 1), new_version=False)
    view = observe(RollRequest(), world.clients(settings()))
    broken = tuple(
        Workload(replace(view.workloads[0].owner, namespace="tenant-x", name=f"{'x' * 50}-{n}"), desired=1, ready=0)
        for n in range(count)
    )
    unready = not_waited_for(replace(view, workloads=(*view.workloads, *broken)))
    assert len(unready) == min(count, MOST_UNREADY)
    assert len(json.dumps(unready)) < PAYLOAD_LIMIT / 2


def test_a_workload_that_was_not_ready_before_holds_no_gate() -> None:
    world = shop((2, 1))
    never = world.deployment("never", 2)
    world.broken.add(never)
    world.advance(30)
    roll = engine_for(world).run("roll", "roll-1", {})
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []


def test_nodes_that_write_their_marks_again_and_again_fill_no_variable() -> None:
    """R5: a restore that waits long says the same of them at each of its looks."""
    world = with_a_replacement_that_drains_for_ever()
    long = "n" * 30_000

    def scribble(current: World) -> None:
        for node in [n for n in current.nodes_by_name.values() if n.instance in current.planned]:
            if NODE_TARGETS not in node.annotations:
                said = {NODE_TARGETS: long, NODE_LAUNCH: f"{'0' * 20}-{'1' * 20}-1@1"}
                current._set_node(replace(node, annotations=dict(node.annotations) | said))

    world.watchers.append(scribble)
    restore = engine_for(world).run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    assert world.leases["kube-system/eks-rolling"].holder == ""


def test_a_restore_tells_as_much_as_there_is_room_for() -> None:
    """R5: of a thousand nodes that could not be put back, each with its reason."""
    said = [f"node-{n}: {'x' * 400}" for n in range(1000)]
    listed = told_of_a_restore([*said, "y" * 5000, said[0]])
    assert len(json.dumps(listed)) <= ROOM + 100
    assert listed[:100] == said[:100]
    assert listed[-1] == f"and {1001 - len(listed) + 1} more"
    assert told_of_a_restore(["a", "b", "a"]) == ["a", "b"]


def test_an_annotation_full_of_words_ends_no_plan_and_keeps_nobody_from_hearing_of_it() -> None:
    """Each of its values is quoted by the finding about it."""
    world = shop((2, 1))
    for number in range(30):
        said = {STRATEGY_ANNOTATION: VAST, GROUP: VAST, PART: VAST}
        world._add("Deployment", "tenant-x", f"x-{number}", 0, said)
    roll = engine_for(world).run("roll", "roll-1", {"dry_run": True})
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    plan = world.documents["rolls/roll-1/plan.json"]
    assert len(plan) < 30 * 4 * 2 * LONGEST + 20_000
