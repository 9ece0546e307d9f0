"""A node whose kubelet has stopped, and an instance that never joined, are replaced in the lab."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.view import LineView
from tests.e2e.conftest import SETTINGS, small_spec
from tests.e2e.rolled import kubectl
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("dead")]

KUBELET = "lab/kubelet"
ABSENT: Any = {"ResourceId": "workers-b", "ResourceType": "auto-scaling-group", "Key": KUBELET}
"""The tag of the second group with which its new instances never join; the stubs want a TypedDict."""


@pytest.fixture(scope="module")
def lab_with_dead_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Three nodes, of which a silent one is found out soon, and is dead a minute later."""
    spec = small_spec().model_copy(update={"cluster": "dead", "node_monitor_grace_seconds": 20})
    settings = {**SETTINGS, "on_change": "off", "dead_nodes": {"replace": True, "silent_seconds": 60}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec, "dead") as lab:
            deploy(lab, settings)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                yield operator


@pytest.mark.long
def test_what_is_dead_is_replaced_and_everything_runs_again(lab_with_dead_nodes: Operator, view: LineView) -> None:
    """N2 as docs/concepts.md has it of dead nodes, N5, R2. Clients ask while it is rolled."""
    operator = lab_with_dead_nodes
    rolls = operator.rolls
    before = operator.settled_state()
    unjoined = launch_without_a_node(operator)
    # In the zone with two: the other node of the pods' Services stays.
    dead = next(n for n in before.nodes if n.instance in members(operator, "workers-a"))
    rolls.ec2.create_tags(Resources=[dead.instance], Tags=[{"Key": KUBELET, "Value": "stopped"}])
    until(lambda: ready(operator, dead.name) == "Unknown", "the control plane misses the kubelet", within_seconds=90)
    rolls.publish_version("workers")
    until(lambda: silent_enough(operator), "it counts as dead", within_seconds=120)
    with operator.traffic():
        outcome = operator.follow(rolls.start({}), view.show, within_seconds=420)
    assert outcome.succeeded, outcome.reason
    assert [outcome.report[part] for part in ("left_behind", "orphans", "gaps")] == [[], [], []]
    assert "1 instance that never joined" in outcome.reason
    codes = {f["code"] for f in outcome.report["findings"]}
    assert {"dead-node", "never-joined"} <= codes
    operator.wait_for_workloads(within_seconds=120)
    after = operator.settled_state()
    assert {n.version for n in after.nodes} == {operator.newest_version()}
    assert not {n.instance for n in after.nodes} & {unjoined, *(n.instance for n in before.nodes)}
    assert len(after.nodes) == len(before.nodes) + 1
    # Nobody is sent to a pod of the dead node; what its workers had begun and not done, others do again.
    verdict = operator.judge(None)
    assert verdict.requests > 0
    assert (verdict.failed, verdict.errors, verdict.jobs["lost"]) == (0, {}, 0)


def launch_without_a_node(operator: Operator) -> str:
    """Has the second group launch one instance more, which never joins; its id."""
    autoscaling, there = operator.rolls.autoscaling, members(operator, "workers-b")
    tags: Any = [{**ABSENT, "Value": "absent", "PropagateAtLaunch": True}]
    autoscaling.create_or_update_tags(Tags=tags)
    autoscaling.update_auto_scaling_group(AutoScalingGroupName="workers-b", MaxSize=4, DesiredCapacity=2)
    (new,) = until(lambda: members(operator, "workers-b") - there, "the group launches one more")
    autoscaling.delete_tags(Tags=[ABSENT])
    return str(new)


def members(operator: Operator, group: str) -> set[str]:
    described = operator.rolls.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    return {
        i["InstanceId"] for i in described["AutoScalingGroups"][0]["Instances"] if i["LifecycleState"] == "InService"
    }


def ready(operator: Operator, node: str) -> str:
    conditions = json.loads(kubectl(operator, "get", "node", node, "-o", "json"))["status"]["conditions"]
    return next(str(c["status"]) for c in conditions if c["type"] == "Ready")


def silent_enough(operator: Operator) -> bool:
    """Whether a plan finds nothing in the way any more."""
    execution = operator.rolls.start({"dry_run": True})
    until(lambda: not operator.rolls.progress(execution).running, "the plan is made")
    return bool(operator.rolls.outcome(execution).report["outcome"] == "dry-run")
