"""Groups and workloads as accounts have them, on a real control plane: one lab, whose rolls judge several at once.

A group whose only override asks for attributes and has a launch template of its own, one whose template names its image
by a parameter, and an idle one with a launch configuration. docs/situations.md says what else is tried where.
"""

import json
import time
from collections.abc import Iterator

import pytest

from lab import demo
from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.spec import GroupSpec, OverrideSpec, image_id
from lab.view import LineView
from tests.e2e.conftest import SETTINGS, small_spec
from tests.e2e.rolled import assert_rolled, kubectl

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("workloads")]

BY_ATTRIBUTES, BY_PARAMETER, IDLE = "by-attributes", "by-parameter", "idle"
NEWER, NOT_NEWER = 2, 3
"""Versions of the override's launch template: whose image has a kubelet newer than the control plane, and has not."""


Planned = tuple[str, str]
"""A node of a plan: its group, and why it is replaced although its version is current."""


@pytest.fixture(scope="module")
def workloads_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    small = small_spec()
    first, second = small.zones
    override = OverrideSpec(allowed_types=("m7i.*",), launch_template="of-attributes")
    groups = (
        GroupSpec(name=BY_ATTRIBUTES, zones=(first,), size=2, max=4, override=override, target_groups=("web",)),
        GroupSpec(name=BY_PARAMETER, zones=(second,), size=1, max=3, image_parameter="/image", target_groups=("web",)),
        GroupSpec(name=IDLE, zones=(first,), size=0, max=2, launch_configuration=True),
    )
    manifests = (*small.manifests, "tests/e2e/workloads.yaml")
    kubelets = {image_id("of-attributes", NEWER): "v9.99.0"}
    changes = {"cluster": "workloads", "groups": groups, "manifests": manifests, "kubelets": kubelets}
    spec = small.model_copy(update=changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec, "workloads") as lab:
            deploy(lab, SETTINGS)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                yield operator


def planned(operator: Operator, view: LineView, **request: bool) -> list[Planned]:
    """The nodes of such a plan, which nothing blocks."""
    outcome = operator.follow(operator.rolls.start({"dry_run": True, **request}), view.show, within_seconds=60)
    plan = operator.rolls.document(outcome.roll, "plan.json")
    assert [f for f in plan["findings"] if f["severity"] == "blocks"] == []
    return [(node["group"], node["reason"]) for node in plan["nodes"]]


def test_nothing_is_outdated_before_a_change_and_a_request_may_force_it(
    workloads_lab: Operator, view: LineView
) -> None:
    """An instance of an override has that one's launch template, and not its group's."""
    assert planned(workloads_lab, view) == []
    assert planned(workloads_lab, view, force=True) == [
        *[(BY_ATTRIBUTES, "the request forces it")] * 2,
        (BY_PARAMETER, "the request forces it"),
    ]


def test_a_kubelet_newer_than_the_control_plane_fails_the_first_node_before_a_pod_moves(
    workloads_lab: Operator, view: LineView
) -> None:
    """R2."""
    before = workloads_lab.settled_state()
    published = time.time()
    assert workloads_lab.rolls.publish_version("of-attributes") == NEWER
    outcome = workloads_lab.follow(workloads_lab.rolls.started_since(published), view.show, within_seconds=180)
    assert (outcome.status, outcome.report["left_behind"]) == ("FAILED", [])
    assert "its kubelet (9.99) is newer than the control plane" in outcome.reason
    assert (outcome.report["replaced"], outcome.report["evicted"]) == (0, 0)
    after = workloads_lab.settled_state()
    assert {n.instance for n in after.nodes} == {n.instance for n in before.nodes}
    assert after.restored(before), (before, after)


@pytest.mark.long
def test_they_are_rolled_together_and_clients_lose_nothing(workloads_lab: Operator, view: LineView) -> None:
    """N1 to N5. Last in this file: it replaces every node."""
    pods = json.loads(kubectl(workloads_lab, "get", "pods", "-n", "shop", "-l", "app=spread", "-o", "json"))["items"]
    homes = {pod["spec"]["nodeName"] for pod in pods}
    assert len(homes) == 3
    begun = revision(workloads_lab)
    played = demo.play(workloads_lab, view, quiet_seconds=2)
    assert_rolled(played)
    assert 1 <= revision(workloads_lab) - begun < len(homes)
    plan = workloads_lab.rolls.document(played.outcome.roll, "plan.json")
    reasons = {node["group"]: node["reason"] for node in plan["nodes"]}
    assert reasons[BY_ATTRIBUTES] == ""
    assert "its launch template's parameter names" in reasons[BY_PARAMETER]
    described = workloads_lab.rolls.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    members = {g["AutoScalingGroupName"]: g["Instances"] for g in described}
    launched = {(i["InstanceType"], i["LaunchTemplate"]["LaunchTemplateName"]) for i in members[BY_ATTRIBUTES]}
    assert launched == {("m7i.large", "of-attributes")}
    assert {i["LaunchTemplate"]["Version"] for i in members[BY_ATTRIBUTES]} == {str(NOT_NEWER)}
    assert members[IDLE] == []
    assert planned(workloads_lab, view) == []


def revision(operator: Operator) -> int:
    """How often the Deployment `spread` was rolled out."""
    said = json.loads(kubectl(operator, "get", "deployment", "-n", "shop", "spread", "-o", "json"))["metadata"]
    return int(said["annotations"]["deployment.kubernetes.io/revision"])
