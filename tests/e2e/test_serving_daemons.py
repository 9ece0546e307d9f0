"""DaemonSets that serve: clients see nothing of a roll, whether nodes end their pods at shutdown or kill them [N5]."""

from collections.abc import Iterator

import pytest

from lab import demo
from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.spec import TargetGroupSpec
from lab.view import LineView
from tests.e2e.conftest import SETTINGS, small_spec
from tests.e2e.rolled import assert_rolled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("serving")]


@pytest.fixture(scope="module")
def serving_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Three nodes, each with a pod of two DaemonSets under one Service. Clients ask its endpoints and a target group of
    its pods' addresses. The nodes of the first zone shut down gracefully, the other's do not."""
    small = small_spec()
    first, *others = small.groups
    groups = (first.model_copy(update={"shutdown_grace_seconds": 5.0}), *others)
    pods = TargetGroupSpec(
        name="pods",
        pods_of="shop/ingress",
        node_port=8080,
        listener_port=8001,
        health_path="/healthz",
        deregistration_delay_seconds=2,
    )
    traffic = small.traffic.model_copy(update={"service": "ingress", "requests_per_second": 60.0})
    manifests = (*small.manifests, "tests/e2e/serving.yaml")
    targets = (*small.target_groups, pods)
    changes = {"cluster": "serving", "traffic": traffic, "manifests": manifests}
    spec = small.model_copy(update=changes | {"groups": groups, "target_groups": targets})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec, "serving") as lab:
            deploy(lab, SETTINGS)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                yield operator


@pytest.mark.long
def test_no_request_through_a_serving_daemonset_fails(serving_lab: Operator, view: LineView) -> None:
    """N5, whether the DaemonSet tolerates our taint or not; the plan tells of both."""
    played = demo.play(serving_lab, view, quiet_seconds=2)
    assert_rolled(played)
    assert {row.route for row in played.verdict.http} >= {"endpoints", "load balancer pods"}
    findings = played.outcome.report["findings"]
    told = {f["object"] for f in findings if f["code"] == "serving-daemonset"}
    assert told == {"DaemonSet shop/ingress", "DaemonSet shop/tolerant"}
