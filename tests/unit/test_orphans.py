"""What is left behind, and what belongs to a living roll."""

import re
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.documents.remedies import back_in_service
from eks_rolling.observed.aws import Group, GroupInstance, InstanceState
from eks_rolling.observed.kubernetes import Budget, Lease, Node, Owner, Pod, Workload
from eks_rolling.observed.marks import (
    AUTOSCALER_PAUSED_AT,
    AUTOSCALER_REPLICAS,
    GROUP_MAXIMUM,
    GROUP_RESUME,
    INSTANCE_PROTECTED,
    INSTANCE_REPLACES,
    NODE_CORDONED,
    NODE_LAUNCH,
    NODE_ROLL,
    NODE_UNFIT,
    SOFT_TAINT,
    SURPLUS,
    LaunchMark,
    token_of,
)
from eks_rolling.redis.stand_in import FOR_POD, LABEL
from eks_rolling.roll.lock import NAME
from eks_rolling.roll.orphans import CERTAINLY_DEAD, OrphanScan, autoscaler_paused_seconds, orphans
from eks_rolling.roll.proofs import prove
from tests.model.situations import settings
from tests.world import World

LOCK = Lease(f"kube-system/{NAME}", "roll-1", renewed=1000.0, duration=180.0)
OURS = {"kubernetes.io/cluster/demo": "owned"}
MEMBER = OURS | {"aws:autoscaling:groupName": "workers"}
CLEAN = OrphanScan(
    "demo",
    now=5000.0,
    groups=(Group("workers", maximum=3, instances=(GroupInstance("i-1", "a"),), tags=OURS),),
    states={"i-1": InstanceState("i-1", "running", MEMBER)},
    nodes=(Node("n-1", instance="i-1"),),
    pods=(Pod("shop", "web-1"),),
    budgets=(Budget("shop", "web"),),
    autoscaler=Workload(Owner("Deployment", "kube-system", "cluster-autoscaler")),
    leases=(replace(LOCK, holder=""),),
)


def node(**more: Any) -> OrphanScan:
    return replace(CLEAN, nodes=(replace(CLEAN.nodes[0], **more),))


def group(*instances: GroupInstance, **tags: str) -> OrphanScan:
    changed = replace(CLEAN.groups[0], instances=instances or CLEAN.groups[0].instances, tags=OURS | tags)
    return replace(CLEAN, groups=(changed,))


def tagged(**tags: str) -> OrphanScan:
    return replace(CLEAN, states={"i-1": InstanceState("i-1", "running", MEMBER | tags, launched=3600.0)})


PAUSED = Workload(
    Owner("Deployment", "kube-system", "cluster-autoscaler"),
    desired=0,
    annotations={AUTOSCALER_REPLICAS: "2", AUTOSCALER_PAUSED_AT: "3600"},
)
LAUNCH = str(LaunchMark(3600.0, token=token_of("roll-0", "i-1", 1)))

MARKS = {
    "taint": (node(taints=(SOFT_TAINT,)), "taint on node", "n-1: taint", ""),
    "cordon": (
        node(unschedulable=True, annotations={NODE_CORDONED: "true", NODE_ROLL: "roll-0"}),
        "cordon on node",
        "n-1: cordon, mark of roll-0",
        "",
    ),
    "mark": (node(annotations={NODE_LAUNCH: LAUNCH}), "mark on node", "n-1: mark", "1970-01-01 01:00:00 UTC"),
    "maximum": (group(**{GROUP_MAXIMUM: "2"}), "tag on group", "workers: the maximum size was 2 and is 3", ""),
    "raised maximum": (
        group(**{GROUP_MAXIMUM: "2 to 3"}),
        "tag on group",
        "workers: the maximum size was raised from 2 to 3",
        "",
    ),
    "raised maximum that somebody set since": (
        group(**{GROUP_MAXIMUM: "2 to 4"}),
        "tag on group",
        "workers: the maximum size was raised from 2 to 4 and is 3",
        "",
    ),
    "processes": (
        group(**{GROUP_RESUME: "AZRebalance"}),
        "tag on group",
        "workers: processes AZRebalance are to be resumed",
        "",
    ),
    "replacement that came in another zone": (
        tagged(**{INSTANCE_REPLACES: SURPLUS}),
        "tag on instance",
        "i-1: launched in a zone where none was needed",
        "1970-01-01 01:00:00 UTC",
    ),
    "replacement": (
        tagged(**{INSTANCE_REPLACES: "i-0"}),
        "tag on instance",
        "i-1: launched to replace i-0",
        "1970-01-01 01:00:00 UTC",
    ),
    "protection": (
        tagged(**{INSTANCE_PROTECTED: "true"}),
        "tag on instance",
        "i-1: protected from scale-in by a roll",
        "",
    ),
    "stand-in": (
        replace(CLEAN, pods=(Pod("shop", "r-0-stand-in", labels={LABEL: "shards"}, annotations={FOR_POD: "r-0"}),)),
        "stand-in",
        "shop/r-0-stand-in, for r-0",
        "",
    ),
    "budget": (replace(CLEAN, budgets=(Budget("shop", "tmp", ours=True),)), "temporary budget", "shop/tmp", ""),
    "autoscaler": (
        replace(CLEAN, autoscaler=PAUSED),
        "autoscaler",
        "Deployment kube-system/cluster-autoscaler: at 0, was 2",
        "1970-01-01 01:00:00 UTC",
    ),
}
"""View, kind, object, since: what a roll writes, and what it means when nobody owns it."""


def test_a_clean_cluster_has_none() -> None:
    assert orphans(CLEAN) == []
    assert autoscaler_paused_seconds(CLEAN) == 0


@pytest.mark.parametrize(("state", "found"), [("running", 1), ("shutting-down", 0), ("terminated", 0)])
def test_marks_on_a_node_whose_instance_goes_are_nobodys(state: str, found: int) -> None:
    marked = node(unschedulable=True, annotations={NODE_CORDONED: "true", NODE_ROLL: "roll-0"})
    view = replace(marked, states={"i-1": InstanceState("i-1", state, MEMBER)})
    assert len(orphans(view)) == found


@pytest.mark.parametrize("name", MARKS)
def test_every_mark_without_a_living_roll_is_one_with_its_remedy(name: str) -> None:
    """R2."""
    view, kind, what, since = MARKS[name]
    (found,) = orphans(view)
    assert (found.kind, found.object, found.since) == (kind, what, since)
    remedies = {True: "the next roll finishes it: `eks-rolling start ", False: "`eks-rolling restore "}
    assert found.remedy.startswith(remedies[kind == "tag on instance" and "launched" in what])
    assert found.remedy.count("eks-rolling ") == 1


def test_one_remedy_serves_for_everything_that_a_roll_left() -> None:
    """R2: a restore would leave a replacement that pods run on, so a roll finishes that and puts back the rest."""
    views = [MARKS[name][0] for name in ("taint", "replacement", "budget")]
    view = replace(views[0], states=views[1].states, budgets=views[2].budgets)
    assert {o.remedy for o in orphans(view)} == {"the next roll finishes it: `eks-rolling start --cluster demo`"}


@pytest.mark.parametrize("proof", [True, False])
def test_only_a_request_that_a_roll_made_takes_a_roll(*, proof: bool) -> None:
    """T1, R2: a kubelet may write any annotation of its own Node, and must not choose the remedy for all else."""
    marked = node(annotations={NODE_LAUNCH: str(LaunchMark(3600.0, desired=1, raised=True))})
    world = World()
    world.put_lease(Lease(LOCK.name, "roll-1", world.time, 180.0))
    if proof:
        mark = marked.nodes[0].annotations[NODE_LAUNCH]
        prove(world.clients(settings()), "roll-1", CLEAN.nodes[0], NODE_LAUNCH, mark)
    free = replace(world.leases[LOCK.name], holder="")
    view = replace(marked, leases=(free,), budgets=MARKS["budget"][0].budgets)
    (command,) = {o.remedy.split("`")[1] for o in orphans(view)}
    assert command.split()[1] == ("start" if proof else "restore")


def test_a_group_that_runs_more_than_its_old_maximum_says_so_and_takes_no_roll_for_that() -> None:
    """R2: cluster-autoscaler, say, has used the room. No roll lowers what others asked for."""
    raised = replace(CLEAN.groups[0], desired=3, maximum=3, tags=OURS | {GROUP_MAXIMUM: "2 to 3"})
    (found,) = orphans(replace(CLEAN, groups=(raised,)))
    assert found.object == "workers: the maximum size was raised from 2 to 3 while the desired capacity is 3"
    assert "eks-rolling restore" in found.remedy
    (found,) = orphans(replace(CLEAN, groups=(replace(raised, desired=2),)))
    assert found.object == "workers: the maximum size was raised from 2 to 3"
    assert "eks-rolling restore" in found.remedy


@pytest.mark.parametrize("name", MARKS)
def test_marks_belong_to_the_roll_that_holds_the_lock_and_to_nobody_once_it_is_silent(name: str) -> None:
    view = replace(MARKS[name][0], leases=(LOCK,))
    assert orphans(replace(view, now=1100.0)) == []
    assert [o.kind for o in orphans(replace(view, now=1181.0))] == sorted([MARKS[name][1], "lock"])


def test_a_roll_that_has_ended_owns_nothing_whatever_its_lock_says() -> None:
    view = replace(MARKS["taint"][0], leases=(LOCK,), now=1100.0, ended="roll-1")
    assert [o.kind for o in orphans(view)] == ["lock", "taint on node"]


def test_a_lock_of_the_dead_is_named_with_its_holder_and_when_it_was_heard_of_last() -> None:
    redis = Lease("shop/eks-rolling-redis-cache", "roll-1/settle", renewed=3600.0, duration=60.0)
    waiting = Lease("kube-system/eks-rolling-next", "roll-2", renewed=3600.0, duration=60.0)
    found = orphans(replace(CLEAN, leases=(LOCK, waiting, redis)))
    assert [(o.object, o.since) for o in found] == [
        ("kube-system/eks-rolling, held by roll-1", "1970-01-01 00:16:40 UTC"),
        ("kube-system/eks-rolling-next, held by roll-2", "1970-01-01 01:00:00 UTC"),
        ("shop/eks-rolling-redis-cache, held by roll-1/settle", "1970-01-01 01:00:00 UTC"),
    ]


@pytest.mark.parametrize(
    ("silent", "dead"), [(179, ""), (181 + CERTAINLY_DEAD / 2, ""), (181 + CERTAINLY_DEAD, "roll-1")]
)
def test_a_roll_is_taken_for_dead_only_after_a_long_silence(silent: float, dead: str) -> None:
    assert replace(CLEAN, leases=(LOCK,), now=1000.0 + silent).dead == dead


def test_a_lock_that_nobody_holds_is_nobodys_death() -> None:
    assert replace(CLEAN, now=10_000.0).dead == ""


@pytest.mark.parametrize("now", [1100.0, 5000.0])
def test_a_detached_instance_is_one_whether_a_roll_lives_or_not(now: float) -> None:
    view = replace(
        CLEAN,
        now=now,
        leases=(LOCK if now < 1180 else replace(LOCK, holder=""),),
        nodes=(*CLEAN.nodes, Node("n-2", instance="i-2")),
        states={**CLEAN.states, "i-2": InstanceState("i-2", "running", OURS)},
    )
    (found,) = orphans(view)
    assert (found.kind, found.object) == ("detached instance", "n-2 (i-2)")
    assert "`aws autoscaling attach-instances --instance-ids i-2 --auto-scaling-group-name GROUP`" in found.remedy
    assert "`aws ec2 terminate-instances --instance-ids i-2`" in found.remedy
    assert found.by_hand == found.remedy


@pytest.mark.parametrize(
    ("labels", "state"),
    [
        ({"karpenter.sh/nodepool": "default"}, InstanceState("i-2", "running", OURS)),
        ({"eks.amazonaws.com/nodegroup": "managed"}, InstanceState("i-2", "running", OURS)),
        ({}, InstanceState("i-2", "running", MEMBER)),
        ({}, InstanceState("i-2", "running", {})),
        ({}, InstanceState("i-2", "shutting-down", OURS)),
    ],
    ids=["karpenter", "managed", "another group", "another's", "ending"],
)
def test_nodes_that_never_were_in_a_group_of_ours_are_left_alone(labels: dict[str, str], state: InstanceState) -> None:
    view = replace(
        CLEAN,
        nodes=(*CLEAN.nodes, Node("n-2", instance="i-2", labels=labels)),
        states={**CLEAN.states, "i-2": state},
    )
    assert orphans(view) == []


def test_an_instance_in_standby_is_one() -> None:
    (found,) = orphans(group(GroupInstance("i-1", "a", lifecycle="Standby")))
    assert (found.kind, found.object) == ("standby instance", "i-1 of workers")
    assert "`aws autoscaling exit-standby --instance-ids i-1 --auto-scaling-group-name workers`" in found.by_hand


def test_a_groups_name_is_one_word_of_a_command_whatever_it_is() -> None:
    """T1."""
    assert back_in_service("i-1", "a; rm -rf ~").endswith("--auto-scaling-group-name 'a; rm -rf ~'`")


def test_how_long_the_autoscaler_is_paused_counts_under_a_living_roll_too() -> None:
    view = replace(CLEAN, autoscaler=PAUSED, leases=(LOCK,))
    assert autoscaler_paused_seconds(view) == 1400.0
    assert autoscaler_paused_seconds(replace(view, autoscaler=replace(PAUSED, desired=1))) == 0


@pytest.mark.parametrize("said", ["999999000000", "soon", "nan", "1e300", "-1", "²", ""])
def test_a_time_that_no_calendar_has_is_none(said: str) -> None:
    """T1: one node's mark, or a word on a Deployment, must not keep all else from being found."""
    marked = node(annotations={NODE_LAUNCH: f"desired:2@{said}", NODE_ROLL: "roll-0"})
    paused = replace(PAUSED, annotations=PAUSED.annotations | {AUTOSCALER_PAUSED_AT: said})
    view = replace(marked, autoscaler=paused)
    assert [o.since for o in orphans(view)] == ["", ""]
    assert autoscaler_paused_seconds(view) == 0


@pytest.mark.parametrize(
    ("node", "state", "told"),
    [
        ({}, "running", True),
        ({"unschedulable": False}, "running", False),
        ({"annotations": {}}, "running", False),
        ({}, "shutting-down", False),
    ],
    ids=["closed", "opened by somebody", "no mark", "ending"],
)
def test_a_node_on_which_nothing_must_run_is_one_until_it_goes(node: dict[str, Any], state: str, *, told: bool) -> None:
    unfit = replace(Node("n-2", instance="i-2", unschedulable=True, annotations={NODE_UNFIT: "true"}), **node)
    states = {**CLEAN.states, "i-2": InstanceState("i-2", state, MEMBER)}
    view = replace(CLEAN, nodes=(*CLEAN.nodes, unfit), states=states)
    found = [o for o in orphans(view) if o.kind == "unfit node"]
    assert bool(found) is told
    for each in found:
        assert re.findall("`([a-z]+) [^`]*(?:n-2|i-2) ", each.by_hand) == ["kubectl", "aws"]
        # AWS refuses the second one there.
        assert each.by_hand.endswith("if the group is at its minimum size, lower that by one first")
    # A living roll may be about to end it.
    living = replace(view, leases=(replace(LOCK, renewed=4990.0),))
    assert [o for o in orphans(living) if o.kind == "unfit node"] == []
