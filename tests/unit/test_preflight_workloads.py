"""What the plan says of Jobs, of pods that ask not to be disturbed, and of controllers of other kinds."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import _covers_evictions, _pod, _rules_of, _service
from eks_rolling.documents.finding import Severity
from eks_rolling.observed.kubernetes import (
    STRATEGY_ANNOTATION,
    Budget,
    Container,
    CronJob,
    Owner,
    Pod,
    Selector,
    Service,
    Toleration,
    Volume,
    Workload,
)
from eks_rolling.payloads import RollRequest
from eks_rolling.redis.groups import DeclarationProblem
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.settings import Autoscaler, AutoscalerMode, Settings
from tests.unit.test_preflight import AUTOSCALER, CLEAN, WEB, WEB_POD, found

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


def test_a_stand_in_of_no_declared_group_blocks_as_any_pod_that_asks_not_to_be_disturbed() -> None:
    """R1: nobody migrates it, and it may be the only one that has its data."""
    pod = replace(WEB_POD, annotations=ASKS, labels={**WEB_POD.labels, LABEL: "cache"})
    (finding,) = found(replace(CLEAN, pods=(pod,)))
    assert (finding.code, finding.severity) == ("do-not-disturb", Severity.BLOCKS)
    wrong = DeclarationProblem("StatefulSet shop/cache", "its part is none", "correct it", group="shop/cache")
    assert "do-not-disturb" not in {f.code for f in found(replace(CLEAN, pods=(pod,), redis_problems=(wrong,)))}


@pytest.mark.parametrize(
    "scaler",
    [
        {"owner": AUTOSCALER.owner},
        {
            "owner": Owner("Deployment", "kube-system", "ca-aws-cluster-autoscaler"),
            "containers": (Container("registry.k8s.io/autoscaling/cluster-autoscaler:v1.36.0"),),
        },
    ],
)
def test_what_the_autoscalers_own_pods_say_to_it_blocks_no_roll(scaler: dict[str, Any]) -> None:
    """Setup guides annotate cluster-autoscaler's pods so that it does not evict itself; charts name it otherwise."""
    scaler_pod = replace(WEB_POD, namespace="kube-system", name="ca-1", annotations=ASKS, **scaler)
    goes_on = Settings(cluster="demo", autoscaler=Autoscaler(mode=AutoscalerMode.ANNOTATE))
    (finding,) = (f for f in found(replace(CLEAN, pods=(scaler_pod,)), settings=goes_on) if f.code == "do-not-disturb")
    assert finding.severity is Severity.NOTE


def test_a_budget_over_a_daemonset_that_serves_is_looked_at() -> None:
    """N5: its pods are evicted, too."""
    owner = Owner("DaemonSet", "kube-system", "ingress")
    pod = Pod("kube-system", "i-1", uid="i", node="node-1", owner=owner, labels={"app": "i"})
    service = Service("kube-system", "ingress", selector=Selector((("app", "i"),)))
    never = Budget("kube-system", "i", "b2", Selector((("app", "i"),)), 0, 0, 0, 0, max_unavailable="1")
    seen = found(replace(CLEAN, pods=(pod,), services=(service,), budgets=(never,)))
    assert {f.object for f in seen if f.code.startswith("budget-")} == {"budget kube-system/i"}


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


def test_a_static_pod_that_serves_blocks_until_a_person_accepts_that() -> None:
    """N5: its kubelet runs it by itself, and no eviction ends it."""
    owner = Owner("Node", "kube-system", "node-1")
    pod = Pod("kube-system", "vip-node-1", uid="v", node="node-1", owner=owner, mirror=True, labels={"app": "vip"})
    leads = Service("kube-system", "vip", selector=Selector((("app", "vip"),)))
    view = replace(CLEAN, pods=(WEB_POD, pod), services=(leads,))
    (finding,) = found(view)
    assert (finding.code, finding.severity) == ("serving-static-pod", Severity.BLOCKS)
    assert finding.object == "pod kube-system/vip-node-1"
    assert found(replace(view, services=())) == []
    assert found(replace(view, pods=(WEB_POD, replace(pod, node="elsewhere")))) == []


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"priority": 1000}, True),
        ({"priority": 1000, "preemptionPolicy": "Never"}, False),
        ({"priority": 0}, False),
        # coredns and the like: in every cluster.
        ({"priority": 2_000_000_000}, False),
    ],
)
def test_pods_that_others_give_way_to_are_told_of(spec: dict[str, Any], told: bool) -> None:
    strong = _pod({"metadata": {"namespace": "shop", "name": "s", "uid": "s"}, "spec": spec})
    view = replace(CLEAN, pods=(replace(strong, owner=WEB, node="node-1", labels={"app": "web"}),))
    assert [(f.code, f.object) for f in found(view)] == ([("may-preempt", str(WEB))] if told else [])


GATE = {"readinessGates": [{"conditionType": "target-health.elbv2.k8s.aws/k8s-shop-web-1"}]}
SLEEPS = {"lifecycle": {"preStop": {"sleep": {"seconds": 15}}}}
BY_ADDRESS = {"service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip"}


@pytest.mark.parametrize(
    ("spec", "annotations", "told"),
    [
        ({**GATE, "containers": [{"name": "web"}]}, {}, True),
        ({**GATE, "containers": [{"name": "web", **SLEEPS}]}, {}, False),
        ({"containers": [{"name": "web"}]}, BY_ADDRESS, True),
        ({"containers": [{"name": "web"}]}, {**BY_ADDRESS, next(iter(BY_ADDRESS)): "instance"}, False),
    ],
)
def test_pods_whose_addresses_are_targets_are_told_of(
    spec: dict[str, Any], annotations: dict[str, str], told: bool
) -> None:
    """N5: a load balancer sends to them for some seconds after they were told to end."""
    labels = {"app": "web"}
    target = _pod({"metadata": {"namespace": "shop", "name": "t", "uid": "t", "labels": labels}, "spec": spec})
    metadata = {"namespace": "shop", "name": "web", "annotations": annotations}
    service = _service({"metadata": metadata, "spec": {"selector": labels}})
    view = replace(CLEAN, pods=(replace(target, owner=WEB, node="node-1"),), services=(service,))
    assert [(f.code, f.object) for f in found(view)] == ([("ip-targets", str(WEB))] if told else [])


@pytest.mark.parametrize(
    ("resources", "operations", "groups", "covered"),
    [
        (["pods/eviction"], ["CREATE"], [""], True),
        (["pods/*"], ["*"], ["*"], True),
        (["*/*"], ["CREATE", "UPDATE"], ["*"], True),
        # No subresource, no eviction.
        (["pods", "*"], ["CREATE"], [""], False),
        (["pods/eviction"], ["DELETE"], [""], False),
        (["pods/eviction"], ["CREATE"], ["apps"], False),
    ],
)
def test_a_rule_is_about_evictions_or_not(
    resources: list[str], operations: list[str], groups: list[str], covered: bool
) -> None:
    rule = {"apiGroups": groups, "apiVersions": ["v1"], "operations": operations, "resources": resources}
    for item in ({"webhooks": [{"rules": [rule]}]}, {"spec": {"matchConstraints": {"resourceRules": [rule]}}}):
        assert any(map(_covers_evictions, _rules_of(item))) is covered


def test_what_judges_evictions_and_what_starts_batch_work_is_told_of_where_a_pod_moves() -> None:
    guard = "ValidatingAdmissionPolicy guard"
    view = replace(CLEAN, judges_of_evictions=(guard,), cron_jobs=(CronJob("shop", "tick", "* * * * *"),))
    told = [(f.code, f.severity, f.object) for f in found(view)]
    assert told == [("cron-job", Severity.NOTE, "CronJob shop/tick"), ("eviction-admission", Severity.NOTE, guard)]
    assert found(replace(view, groups=())) == []


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


RESTARTS = Workload(WEB, desired=1, ready=1, annotations={STRATEGY_ANNOTATION: "restart"}, surges=True)


@pytest.mark.parametrize(
    ("pod", "shared", "told"),
    [
        (replace(WEB_POD, claims=("data",)), False, ["restart-not-twice"]),
        (replace(WEB_POD, claims=("data",)), True, []),
        (replace(WEB_POD, host_ports=(8443,)), False, ["restart-not-twice"]),
        (WEB_POD, False, []),
    ],
)
def test_a_restart_of_what_cannot_exist_twice_blocks(pod: Pod, shared: bool, told: list[str]) -> None:
    volume = Volume("shop/data", "pv-1", ("a",), driver="ebs.csi.aws.com", shared=shared)
    view = replace(CLEAN, pods=(pod,), workloads=(RESTARTS, AUTOSCALER), volumes=(volume,), budgets=())
    assert [f.code for f in found(view)] == told


@pytest.mark.parametrize(
    "scaler",
    [
        {"containers": (Container("registry.k8s.io/autoscaling/cluster-autoscaler:v1.36.0"),)},
        {
            "containers": (Container("mirror.example/ca@sha256:1"),),
            "labels": {"app.kubernetes.io/name": "aws-cluster-autoscaler"},
        },
    ],
)
def test_an_autoscaler_of_another_name_is_found_by_its_image_or_labels(scaler: dict[str, Any]) -> None:
    owner = Owner("Deployment", "kube-system", "ca-aws-cluster-autoscaler")
    pod = replace(Pod("kube-system", "ca-1", uid="ca", node="node-2", owner=owner), **scaler)
    view = replace(CLEAN, pods=(WEB_POD, pod), workloads=CLEAN.workloads[:1])
    (finding,) = found(view)
    assert (finding.code, finding.severity, finding.object) == ("autoscaler-elsewhere", Severity.HOLDS, str(owner))
    assert "autoscaler.deployment to ca-aws-cluster-autoscaler" in finding.remedy
    assert found(replace(view, workloads=CLEAN.workloads)) == []


def test_an_operators_primary_behind_a_budget_of_one_gets_a_remedy_that_fits() -> None:
    """CloudNativePG and others switch over when they are asked to, and hold the primary until then."""
    primary = replace(CLONE, owner=Owner("Cluster", "shop", "pg"), labels={"role": "primary"})
    only = Budget("shop", "pg-primary", "b", Selector((("role", "primary"),)), 0, 1, 1, 1, min_available="1")
    told = {f.code: f for f in found(replace(CLEAN, pods=(primary,), budgets=(only,)))}
    assert list(told) == ["budget-never-allows"]
    assert "before_node" in told["budget-never-allows"].remedy
    assert "strategy: restart" not in told["budget-never-allows"].remedy
