"""What the plan says of Jobs, of pods that ask not to be disturbed, and of controllers of other kinds."""

from dataclasses import replace

import pytest

from eks_rolling.documents.finding import Severity
from eks_rolling.observed.kubernetes import Owner, Pod, Selector, Service, Toleration
from eks_rolling.payloads import RollRequest
from tests.unit.test_preflight import CLEAN, WEB_POD, found

JOB = Owner("Job", "shop", "import")
ASKS = {"karpenter.sh/do-not-disrupt": "true"}
IMPORT = Pod("shop", "import-1", uid="j", node="node-1", owner=JOB, ends=True)
CLONE = Pod("shop", "c-1", uid="c", node="node-1", owner=Owner("CloneSet", "shop", "c"))


@pytest.mark.parametrize(
    ("pod", "code", "severity", "subject"),
    [
        (IMPORT, "batch-pod", Severity.HOLDS, "Job shop/import"),
        (replace(IMPORT, annotations=ASKS), "do-not-disturb", Severity.HOLDS, "Job shop/import"),
        (replace(WEB_POD, annotations=ASKS), "do-not-disturb", Severity.BLOCKS, "Deployment shop/web"),
        (CLONE, "uncounted-controller", Severity.NOTE, "CloneSet shop/c"),
    ],
)
def test_each_is_told_once_with_a_remedy(pod: Pod, code: str, severity: Severity, subject: str) -> None:
    others = (replace(pod, name="another", uid="another"),)
    (finding,) = found(replace(CLEAN, pods=(pod, *others)))
    assert (finding.code, finding.severity, finding.object) == (code, severity, subject)
    assert finding.remedy


@pytest.mark.parametrize("tolerations", [(), (Toleration(operator="Exists"),)])
def test_a_daemonset_that_serves_is_told_of(tolerations: tuple[Toleration, ...]) -> None:
    """N5."""
    owner = Owner("DaemonSet", "kube-system", "ingress")
    pod = Pod("kube-system", "i-1", uid="i", node="node-1", owner=owner, labels={"app": "i"}, tolerations=tolerations)
    leads = Service("kube-system", "ingress", selector=Selector((("app", "i"),)))
    view = replace(CLEAN, pods=(WEB_POD, pod), services=(leads,))
    (finding,) = found(view)
    assert (finding.code, finding.severity, finding.object) == ("serving-daemonset", Severity.NOTE, str(owner))
    assert ("tolerates our taint" in finding.reason) is bool(tolerations)
    for other in (replace(leads, namespace="other"), replace(leads, for_its_node=True), replace(leads, selector=None)):
        assert found(replace(view, services=(other,))) == []
    agent = replace(pod, node_critical=True)
    assert found(replace(view, pods=(WEB_POD, agent), services=(replace(leads, headless=True),))) == []


def test_one_object_is_accepted_and_another_is_not() -> None:
    export = replace(IMPORT, name="export-1", uid="e", owner=Owner("Job", "shop", "export"))
    view = replace(CLEAN, pods=(IMPORT, export))
    severities = {f.object: f.severity for f in found(view, RollRequest(accept=("batch-pod:Job shop/import",)))}
    assert severities == {"Job shop/import": Severity.NOTE, "Job shop/export": Severity.HOLDS}


def test_what_can_not_be_accepted_is_not_by_object_either() -> None:
    view = replace(CLEAN, pods=(replace(WEB_POD, grace_seconds=9999.0),))
    codes = [f.code for f in found(view, RollRequest(accept=("long-grace:pod shop/web-1",)))]
    assert codes == ["long-grace", "unknown-code"]


def test_a_job_that_has_ended_is_not_told_of() -> None:
    assert found(replace(CLEAN, pods=(replace(IMPORT, phase="Succeeded", ready=False),))) == []
