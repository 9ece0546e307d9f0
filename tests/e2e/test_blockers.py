"""Everything that can be in a roll's way, seeded into a real cluster one by one.

The plan names exactly it, with object and remedy; where it blocks, a roll that is started ends blocked and has changed
nothing; a hold is shown to hold, and to end.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.roll.returns import MOST_RETURNS
from lab.application import deploy
from lab.cluster_state import ClusterState
from lab.kube import Json
from lab.lifecycle import running_lab
from lab.operator import operator_of
from lab.spec import Delays, GroupSpec, LabSpec
from tests.e2e.seeds import ZONES, Ground, Seed
from tests.e2e.undeclared import all_shapes, unlike
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("blockers")]

A, B, IDLE = "workers-a", "workers-b", "spare"
TAG = "kubernetes.io/cluster/blockers"
BLOCKS, HOLDS, NOTE = "blocks", "holds", "note"
BROKEN = "/run/broken"
"""A pod that has this file is not Ready."""


def spec() -> LabSpec:
    """Two nodes in one zone and one in another, room for replacements, six vCPUs of eleven in use."""
    return LabSpec(
        cluster="blockers",
        zones=ZONES,
        groups=(
            GroupSpec(name=A, launch_template="workers", zones=ZONES[:1], size=2, max=5),
            GroupSpec(name=B, launch_template="workers", zones=ZONES[1:], size=1, max=4),
        ),
        manifests=("tests/e2e/blockers.yaml",),
        delays=Delays(boot=1.0, node_removal=1.0),
        vcpu_quota=11,
    )


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec(), "blockers") as lab:
            deploy(lab, {"canary": False, "bake_seconds": 1, "on_change": "off"})
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                operator.rolls.publish_version("workers")
                ground = Ground.of(operator)
                yield ground
                ground.kube.close()


def node_in(ground: Ground, zone: str) -> str:
    nodes = ground.kube.list("/api/v1/nodes", labelSelector=f"topology.kubernetes.io/zone={zone}")
    return min(str(n["metadata"]["name"]) for n in nodes)


# Seeds


def two_budgets(ground: Ground) -> Any:
    return ground.budget("web-again", "web", maxUnavailable=1)


@contextmanager
def never(ground: Ground) -> Iterator[None]:
    with ground.workload("strict", 2), ground.budget("strict", "strict", maxUnavailable=0):
        yield


@contextmanager
def exhausted(ground: Ground) -> Iterator[None]:
    probe = {"readinessProbe": {"exec": {"command": ["test", "!", "-e", BROKEN]}, "periodSeconds": 1}}
    apart = [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "shaky"}}}]
    pods: dict[str, Any] = {
        "container": {"image": "busybox:1", "command": ["sleep", "1000"], **probe},
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}},
    }
    with ground.workload("shaky", 2, **pods), ground.budget("shaky", "shaky", maxUnavailable=1):
        unready(ground, "shaky")
        yield


def unready(ground: Ground, app: str) -> None:
    """Breaks one pod, and waits until its budget has noticed."""
    pod = ground.pod_of(app)["metadata"]["name"]
    inside = [
        sys.executable,
        "-m",
        "lab.node.exec",
        str(ground.operator.lab.paths.root),
        f"shop/{pod}",
        "touch",
        BROKEN,
    ]
    done = ground.operator.lab.run(inside, capture_output=True)
    assert done.returncode == 0, done.stderr
    path = ground.path("PodDisruptionBudget", app)
    until(lambda: ground.kube.get(path)["status"]["disruptionsAllowed"] == 0, f"budget {app} is exhausted")


@contextmanager
def lacking(ground: Ground) -> Iterator[None]:
    probe = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
    with ground.workload("half", 2, ready=0, container={"image": "busybox:1", "command": ["sleep", "1000"], **probe}):
        until(lambda: ground.kube.list(ground.path("Pod"), labelSelector="app=half"), "pods of half")
        until(
            lambda: all(
                p["status"].get("podIP") for p in ground.kube.list(ground.path("Pod"), labelSelector="app=half")
            ),
            "pods of half run",
        )
        yield


@contextmanager
def bare(ground: Ground) -> Iterator[None]:
    spec = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "pause:1"}]}
    with ground.made("Pod", "bare", spec=spec):
        until(lambda: ground.kube.get(ground.path("Pod", "bare"))["spec"].get("nodeName"), "bare is on a node")
        yield


@contextmanager
def local_volume(ground: Ground) -> Iterator[None]:
    """A ReplicaSet of one, bound to a volume of its node; it need not start."""
    node = node_in(ground, ZONES[0])
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]
    common: Json = {"accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand"}
    path = "/api/v1/persistentvolumes"
    ground.kube.create(
        path,
        {
            "metadata": {"name": "disk"},
            "spec": common
            | {
                "capacity": {"storage": "1Gi"},
                "local": {"path": "/mnt/disk"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        },
    )
    claim = common | {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": "disk"}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    try:
        with (
            ground.made("PersistentVolumeClaim", "data", spec=claim),
            ground.workload("keeper", 1, kind="ReplicaSet", ready=0, volumes=volumes),
        ):
            until(lambda: ground.pod_of("keeper")["spec"].get("nodeName"), "keeper is on its node")
            yield
    finally:
        ground.kube.delete(f"{path}/disk")


@contextmanager
def by_hand(ground: Ground) -> Iterator[None]:
    """A label that somebody put on one node of two, and a workload that needs it."""
    node = node_in(ground, ZONES[0])
    labels = {"metadata": {"labels": {"disk": "fast"}}}, {"metadata": {"labels": {"disk": None}}}
    with ground.patched_node(node, *labels), ground.workload("fast", 2, nodeSelector={"disk": "fast"}):
        yield


def spread(ground: Ground) -> Any:
    rule = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "even"}},
    }
    return ground.workload("even", 6, topologySpreadConstraints=[rule])


@contextmanager
def no_room(ground: Ground) -> Iterator[None]:
    needs = {"resources": {"requests": {"cpu": "64"}}}
    with ground.workload("huge", 1, kind="ReplicaSet", ready=0, container=needs):
        until(
            lambda: any(c["type"] == "PodScheduled" for c in ground.pod_of("huge")["status"].get("conditions", ())),
            "huge is Pending",
        )
        yield


def autoscaler(replicas: int) -> Seed:
    @contextmanager
    def scaled(ground: Ground) -> Iterator[None]:
        path = ground.path("Deployment", "cluster-autoscaler", "kube-system")
        pods = ground.path("Pod", namespace="kube-system")
        ground.kube.patch(path, {"spec": {"replicas": replicas}})
        until(lambda: len(ground.kube.list(pods, labelSelector="app=cluster-autoscaler")) == replicas, "scaled")
        try:
            yield
        finally:
            ground.kube.patch(path, {"spec": {"replicas": 1}})
            until(lambda: ground.kube.get(path)["status"].get("readyReplicas") == 1, "the autoscaler is back")

    return scaled


@contextmanager
def no_autoscaler(ground: Ground) -> Iterator[None]:
    path = ground.path("Deployment", "cluster-autoscaler", "kube-system")
    before = ground.kube.get(path)
    ground.kube.delete(path, {"propagationPolicy": "Foreground"})
    pods = ground.path("Pod", namespace="kube-system")
    until(lambda: not ground.kube.list(pods, labelSelector="app=cluster-autoscaler"), "the autoscaler is gone")
    try:
        yield
    finally:
        body = {"metadata": {"name": "cluster-autoscaler"}, "spec": before["spec"]}
        until(lambda: not _there(ground, path), "the autoscaler's Deployment is gone")
        ground.kube.create(path.rpartition("/")[0], body)
        until(lambda: ground.kube.get(path)["status"].get("readyReplicas") == 1, "the autoscaler is back")


def _there(ground: Ground, path: str) -> bool:
    return any(i["metadata"]["name"] == path.rpartition("/")[2] for i in ground.kube.list(path.rpartition("/")[0]))


@contextmanager
def cordoned(ground: Ground) -> Iterator[None]:
    cordon = {"spec": {"unschedulable": True}}, {"spec": {"unschedulable": None}}
    with ground.patched_node(node_in(ground, ZONES[0]), *cordon):
        yield


@contextmanager
def of_karpenter(ground: Ground) -> Iterator[None]:
    label = "karpenter.sh/nodepool"
    labels = {"metadata": {"labels": {label: "default"}}}, {"metadata": {"labels": {label: None}}}
    with ground.patched_node(node_in(ground, ZONES[0]), *labels):
        yield


@contextmanager
def idle_and_suspended(ground: Ground) -> Iterator[None]:
    with ground.idle_group(IDLE), ground.suspended(IDLE, "Launch"):
        yield


@contextmanager
def idle_and_weighted(ground: Ground) -> Iterator[None]:
    with ground.idle_group(IDLE), weighted(IDLE)(ground):
        yield


RESTART = {"eks-rolling.io/strategy": "restart"}
TYPE, OTHER_TYPE = "m6i.large", "m7i.large"
TYPE_LABEL = "node.kubernetes.io/instance-type"


def weighted(group: str) -> Seed:
    return lambda ground: ground.overridden(group, {"InstanceType": TYPE, "WeightedCapacity": "4"})


def port_of_its_node(ground: Ground) -> Any:
    port = {"ports": [{"containerPort": 8443, "hostPort": 8443}]}
    return ground.workload("ported", 2, annotations=RESTART, container=port)


@contextmanager
def volume_of_one_node_at_a_time(ground: Ground) -> Iterator[None]:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    volumes = [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}]
    with (
        ground.made("PersistentVolumeClaim", "kept", spec=claim),
        ground.workload("keeps", 1, annotations=RESTART, volumes=volumes),
    ):
        yield


def deregistered(ground: Ground) -> Any:
    """The new version's image is gone."""
    image = "ami-that-was-withdrawn"
    ground.operator.rolls.ec2.deregister_image(ImageId=image)
    return ground.new_version("workers", ImageId=image)


@contextmanager
def newer_kubelet(ground: Ground) -> Iterator[None]:
    """A node of the new version that says so."""
    with ground.one_more_node(A) as node:
        ground.kube.patch(f"/api/v1/nodes/{node}/status", {"status": {"nodeInfo": {"kubeletVersion": "v9.99.0"}}})
        yield


@contextmanager
def primary(ground: Ground) -> Iterator[None]:
    """The one pod of a kind that its operator knows, behind a budget of one that no drain gets past."""
    with ground.made("ConfigMap", "pg"):
        uid = ground.kube.get(ground.path("ConfigMap", "pg"))["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "pg", "uid": uid, "controller": True}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "pg", "image": "pause:1"}]}
        metadata = {"labels": {"app": "pg"}, "ownerReferences": [owner]}
        with ground.made("Pod", "pg-1", metadata=metadata, spec=spec):
            until(lambda: ground.pod_of("pg")["spec"].get("nodeName"), "pg-1 is on a node")
            with ground.budget("pg-primary", "pg", minAvailable=1):
                yield


@contextmanager
def for_its_type(ground: Ground) -> Iterator[None]:
    """A workload for the old type, where new nodes are of another one."""
    with (
        ground.workload("typed", 2, nodeSelector={TYPE_LABEL: TYPE}),
        ground.new_version("workers", InstanceType=OTHER_TYPE),
    ):
        yield


@contextmanager
def for_its_architecture(ground: Ground) -> Iterator[None]:
    label = "kubernetes.io/arch"
    has = ground.kube.get(f"/api/v1/nodes/{node_in(ground, ZONES[0])}")["metadata"]["labels"][label]
    with (
        ground.workload("built", 2, nodeSelector={label: has}),
        ground.new_version("workers", InstanceType={"amd64": "m6g.large", "arm64": "m7i.large"}[has]),
    ):
        yield


@contextmanager
def daemons_for_their_type(ground: Ground) -> Iterator[None]:
    labels = {"app": "typed-agent"}
    pod = {"nodeSelector": {TYPE_LABEL: TYPE}, "containers": [{"name": "agent", "image": "pause:1"}]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    with ground.made("DaemonSet", "typed-agent", spec=spec):
        path = ground.path("DaemonSet", "typed-agent")
        until(lambda: ground.kube.get(path).get("status", {}).get("numberReady") == 3, "the agents are Ready")
        with ground.new_version("workers", InstanceType=OTHER_TYPE):
            yield


@contextmanager
def bound_by_its_driver(ground: Ground) -> Iterator[None]:
    """A volume that its CSI driver keeps on one node, by a label of its own; its pod need not start."""
    key, node = "topology.topolvm.io/node", node_in(ground, ZONES[0])
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [node]}]}]
    common: Json = {"accessModes": ["ReadWriteOnce"], "storageClassName": "topolvm"}
    volume = common | {
        "capacity": {"storage": "1Gi"},
        "csi": {"driver": "topolvm.io", "volumeHandle": "1"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        "persistentVolumeReclaimPolicy": "Retain",
    }
    claim = common | {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": "of-node"}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "of-node"}}]
    # As the driver's chart says it: nothing attaches, so that nothing stays attached either.
    driver = {"metadata": {"name": "topolvm.io"}, "spec": {"attachRequired": False}}
    ground.kube.create("/apis/storage.k8s.io/v1/csidrivers", driver)
    ground.kube.create("/api/v1/persistentvolumes", {"metadata": {"name": "of-node"}, "spec": volume})
    try:
        with (
            ground.patched_node(node, {"metadata": {"labels": {key: node}}}, {"metadata": {"labels": {key: None}}}),
            ground.made("PersistentVolumeClaim", "of-node", spec=claim),
            ground.workload("bound", 1, kind="ReplicaSet", ready=0, volumes=volumes),
        ):
            until(lambda: ground.pod_of("bound")["spec"].get("nodeName"), "bound is on its node")
            yield
    finally:
        ground.kube.delete("/api/v1/persistentvolumes/of-node")
        ground.kube.delete("/apis/storage.k8s.io/v1/csidrivers/topolvm.io")


@contextmanager
def autoscaler_of_a_chart(ground: Ground) -> Iterator[None]:
    name = "ca-aws-cluster-autoscaler"
    with no_autoscaler(ground), ground.workload(name, 2, namespace="kube-system", image="cluster-autoscaler:1.36"):
        yield


def declared(ground: Ground) -> Any:
    annotations = {"eks-rolling.io/redis-group": "cache", "eks-rolling.io/redis-role": "leader"}
    return ground.workload("cache", 2, kind="StatefulSet", annotations=annotations)


def nothing(_: Ground) -> Any:
    return ExitStack()


def rare(*case: Any) -> Any:
    """One for which `make test` has no time: another of its kind is tried there, or the same in tests/unit."""
    return pytest.param(*case, marks=pytest.mark.long)


BLOCKERS: list[Any] = [
    ("unknown-group", "group elsewhere", nothing, {"groups": [A, "elsewhere"]}),
    ("unknown-node", "node elsewhere", nothing, {"nodes": ["elsewhere"]}),
    ("unknown-code", "accept everything", nothing, {"accept": ["everything"]}),
    ("managed-node-group", f"group {A}", lambda g: g.tagged(A, "eks:nodegroup-name", "workers"), {"groups": [A]}),
    ("foreign-group", f"group {A}", lambda g: g.tagged(A, TAG, None), {"groups": [A]}),
    ("tag-not-propagated", f"group {A}", lambda g: g.tagged(A, TAG, "owned"), {}),
    ("launch-suspended", f"group {A}", lambda g: g.suspended(A, "Launch"), {}),
    ("terminate-suspended", f"group {B}", lambda g: g.suspended(B, "Terminate"), {}),
    ("instance-refresh", f"group {A}", lambda g: g.refreshed(A), {}),
    ("warm-pool", f"group {A}", lambda g: g.warm_pool(A), {}),
    ("no-addresses", f"group {B}", lambda g: g.small_subnet(B, 0), {}),
    ("zone-not-served", "node of b", lambda g: g.group(B, VPCZoneIdentifier=g.subnet_in(ZONES[0])), {}),
    ("karpenter-node", "node of a", of_karpenter, {}),
    ("two-budgets", "pod of web", two_budgets, {}),
    ("budget-never-allows", "budget shop/strict", never, {}),
    ("bare-pod", "pod shop/bare", bare, {}),
    ("local-volume", "pod of keeper", local_volume, {}),
    ("redis-in-memory", "Deployment shop/store", lambda g: g.workload("store", 2, image="redis:7"), {}),
    (
        "redis-in-memory",
        "Deployment shop/mirror",
        lambda g: g.workload("mirror", 2, container={"ports": [{"name": "tcp-redis", "containerPort": 7000}]}),
        {},
    ),
    (
        "redis",
        "Deployment shop/watch",
        lambda g: g.workload("watch", 2, container={"ports": [{"containerPort": 26379}]}),
        {},
    ),
    ("redis-declaration", "StatefulSet shop/cache", declared, {}),
    (
        "unknown-strategy",
        "Deployment shop/odd",
        lambda g: g.workload("odd", 2, annotations={"eks-rolling.io/strategy": "replace"}),
        {},
    ),
    (
        "restart-without-surge",
        "Deployment shop/stop",
        lambda g: g.workload(
            "stop", 2, annotations={"eks-rolling.io/strategy": "restart"}, strategy={"type": "Recreate"}
        ),
        {},
    ),
    ("would-stay-pending", "Deployment shop/fast", by_hand, {}),
    ("spread-stuck", "Deployment shop/even", spread, {}),
    (
        "long-grace",
        "pod of slow",
        lambda g: g.workload("slow", 2, terminationGracePeriodSeconds=7200),
        {},
    ),
    ("group-feature", f"group {A}", weighted(A), {}),
    ("restart-not-twice", "Deployment shop/ported", port_of_its_node, {}),
    rare("restart-not-twice", "Deployment shop/keeps", volume_of_one_node_at_a_time, {}),
    ("kubelet-newer", f"group {A}", newer_kubelet, {"surge": 1}),
    rare("budget-never-allows", "budget shop/pg-primary", primary, {}),
    ("would-stay-pending", "Deployment shop/typed", for_its_type, {}),
    rare("would-stay-pending", "Deployment shop/built", for_its_architecture, {}),
    rare("local-volume", "pod of bound", bound_by_its_driver, {}),
    rare("image-gone", f"group {A}", deregistered, {}),
    rare(
        "do-not-disturb",
        "Deployment shop/asks",
        lambda g: g.workload("asks", 2, pod_annotations={"karpenter.sh/do-not-disrupt": "true"}),
        {},
    ),
]

OTHERS: list[Any] = [
    ("budget-exhausted", HOLDS, "budget shop/shaky", exhausted, {}),
    ("not-ready", HOLDS, "Deployment shop/half", lacking, {}),
    ("quota", HOLDS, "quota L-1216C47A", nothing, {"surge": 3}),
    ("maximum-raised", NOTE, f"group {A}", lambda g: g.group(A, MaxSize=2), {}),
    ("few-addresses", NOTE, f"group {A}", lambda g: g.small_subnet(A, 1), {}),
    ("cordoned", NOTE, "node of a", cordoned, {}),
    ("single-replica", NOTE, "Deployment shop/lonely", lambda g: g.workload("lonely", 1), {}),
    (
        "local-storage",
        NOTE,
        "Deployment shop/scratch",
        lambda g: g.workload("scratch", 2, volumes=[{"name": "scratch", "emptyDir": {}}]),
        {},
    ),
    (
        "tolerates-everything",
        HOLDS,
        "Deployment shop/brave",
        lambda g: g.workload("brave", 2, tolerations=[{"operator": "Exists"}]),
        {},
    ),
    ("other-node-actor", NOTE, "Deployment kube-system/kured",
     lambda g: g.workload("kured", 2, namespace="kube-system"), {}),
    ("no-autoscaler", NOTE, "Deployment kube-system/cluster-autoscaler", no_autoscaler, {}),
    ("autoscaler-at-zero", NOTE, "Deployment kube-system/cluster-autoscaler", autoscaler(0), {}),
    ("already-pending", NOTE, "pod of huge", no_room, {}),
    ("idle-group", NOTE, f"group {IDLE}", lambda g: g.idle_group(IDLE), {}),
    ("launch-suspended", NOTE, f"group {IDLE}", idle_and_suspended, {}),
    rare("group-feature", NOTE, f"group {IDLE}", idle_and_weighted, {}),
    rare("several-types", NOTE, f"group {A}",
         lambda g: g.overridden(A, {"InstanceType": TYPE}, {"InstanceType": OTHER_TYPE}), {}),
    ("autoscaler-elsewhere", HOLDS, "Deployment kube-system/ca-aws-cluster-autoscaler", autoscaler_of_a_chart, {}),
    rare("daemonset-left-out", NOTE, "DaemonSet shop/typed-agent", daemons_for_their_type, {}),
    rare("hook-outlasts-deadline", HOLDS, f"lifecycle hook long of {A}", lambda g: g.hooked(A, "long", 7200), {}),
    rare("image-unknown", NOTE, f"group {A}",
     lambda g: g.new_version("workers", ImageId="resolve:ssm:/nowhere"), {}),
]  # fmt: skip


def named(case: Any) -> str:
    """The finding's code."""
    return str((case.values if hasattr(case, "values") else case)[0])


def findings(plan: Json) -> dict[tuple[str, str], list[Json]]:
    """Code and severity -> findings."""
    found: dict[tuple[str, str], list[Json]] = {}
    for finding in plan["findings"]:
        found.setdefault((finding["code"], finding["severity"]), []).append(finding)
    return found


def is_about(ground: Ground, subject: str, finding: Json) -> bool:
    """Whether it is the finding's object; "pod of APP" and "node of a" stand for names that nobody knows before."""
    if finding["object"] == subject:
        return True
    what, _, name = subject.partition(" of ")
    if what == "node":
        return bool(finding["object"] == f"node {node_in(ground, ZONES['ab'.index(name)])}")
    return str(finding["object"]).startswith(f"pod shop/{name}-")


def state_of(ground: Ground) -> ClusterState:
    """What a roll would change; pods come and go by the tests themselves."""
    state = ground.operator.settled_state()
    return replace(state, nodes=tuple(replace(node, pods=0) for node in state.nodes))


def test_about_a_clean_cluster_a_plan_has_nothing_to_say(ground: Ground) -> None:
    plan = ground.plan({})
    assert plan["findings"] == []
    assert (plan["outcome"], len(plan["nodes"])) == ("dry-run", 3)
    assert [n["zone"] for n in plan["nodes"]] == [ZONES[0], ZONES[0], ZONES[1]]
    assert all([c["what"] for c in n["changes"]] == ["ImageId"] for n in plan["nodes"])
    moving = [m for n in plan["nodes"] for m in n["moves"]]
    assert {m["owner"] for m in moving} == {"Deployment shop/web", "Deployment kube-system/cluster-autoscaler"}
    assert {m["budget"] for m in moving if m["owner"].endswith("web")} == {"shop/web"}
    assert [m["stays_pending"] for m in moving] == [""] * 4
    assert [(q["limit"], q["used"], q["needed"]) for q in plan["quotas"]] == [(11, 6, 4)]
    assert plan["estimate"]["seconds"] > 0


@pytest.mark.drawn(keep=14)
@pytest.mark.parametrize(("code", "subject", "seed", "request_"), BLOCKERS, ids=[named(b) for b in BLOCKERS])
def test_a_roll_is_blocked_by_it_alone_and_changes_nothing(
    ground: Ground, code: str, subject: str, seed: Seed, request_: Json
) -> None:
    """N4, R2."""
    with seed(ground):
        before = state_of(ground)
        outcome = ground.roll(request_)
        after = state_of(ground)
        found = findings(ground.operator.rolls.document(outcome.roll, "plan.json"))
        assert list(found) == [(code, BLOCKS)], found
        assert all(f["remedy"] and f["reason"] for f in found[code, BLOCKS])
        assert any(is_about(ground, subject, f) for f in found[code, BLOCKS]), found
        assert (outcome.status, outcome.report["outcome"]) == ("FAILED", "blocked")
        assert before == after


@pytest.mark.drawn(keep=8)
@pytest.mark.parametrize(("code", "severity", "subject", "seed", "request_"), OTHERS, ids=[named(o) for o in OTHERS])
def test_the_plan_names_it_alone_and_would_go_on(
    ground: Ground, code: str, severity: str, subject: str, seed: Seed, request_: Json
) -> None:
    with seed(ground):
        plan = ground.plan(request_)
        found = findings(plan)
        assert list(found) == [(code, severity)], found
        assert all(f["remedy"] and f["reason"] for f in found[code, severity])
        assert any(is_about(ground, subject, f) for f in found[code, severity]), found
        assert plan["outcome"] == "dry-run"


def test_a_volume_whose_zone_gets_no_replacement_is_named_beside_the_zone(ground: Ground) -> None:
    claims = [
        {
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    ]
    zone = {"topology.kubernetes.io/zone": ZONES[1]}
    set_of_one: dict[str, Any] = {
        "metadata": {"annotations": {}},
        "spec": {
            "replicas": 1,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "volumeClaimTemplates": claims,
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {
                    "nodeSelector": zone,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "db", "image": "pause:1"}],
                },
            },
        },
    }
    with ground.made("StatefulSet", "db", **set_of_one):
        path = ground.path("StatefulSet", "db")
        until(lambda: ground.kube.get(path)["status"].get("readyReplicas") == 1, "db is Ready")
        with ground.group(B, VPCZoneIdentifier=ground.subnet_in(ZONES[0])):
            found = findings(ground.plan({}))
    (finding,) = found["volume-zone", BLOCKS]
    assert finding["object"] == "StatefulSet shop/db"
    assert f"its volume is in {ZONES[1]}" in finding["reason"]
    assert ("zone-not-served", BLOCKS) in found


def test_of_every_shape_of_redis_that_nobody_declared_the_plan_says_what_would_be_lost(ground: Ground) -> None:
    """S1, N4: nothing rolls silently, whatever is accepted for all at once."""
    with all_shapes(ground):
        # A server that has just been started may not answer yet.
        wrong: list[str] = []

        def said() -> bool:
            wrong[:] = unlike(ground.plan({}))
            return not wrong

        try:
            until(said, "the plan says it of all of them", within_seconds=30, pause=1.0)
        finally:
            print(*wrong, sep="\n")
        before = state_of(ground)
        outcome = ground.roll({"accept": ["redis", "redis-in-memory"]})
        assert (outcome.status, outcome.report["outcome"]) == ("FAILED", "blocked")
        assert before == state_of(ground)


def is_broken(pod: Json) -> bool:
    return any((c["type"], c["status"]) == ("Ready", "False") for c in pod["status"]["conditions"])


def test_an_exhausted_budget_holds_the_roll_with_that_reason_until_it_allows_again(ground: Ground) -> None:
    """N1. Among the last in this file: it replaces a node."""
    with exhausted(ground):
        healthy, broken = sorted(ground.kube.list(ground.path("Pod"), labelSelector="app=shaky"), key=is_broken)
        execution = ground.operator.rolls.start({"nodes": [healthy["spec"]["nodeName"]]})

        def held() -> bool:
            flying = ground.operator.rolls.nodes_in_flight()
            return any("shaky" in p.reason and "budget" in p.reason for p in flying)

        until(held, "the roll waits for the budget", within_seconds=240)
        time.sleep(1)
        assert ground.operator.rolls.progress(execution).running
        ground.kube.delete(ground.path("Pod", broken["metadata"]["name"]))
        outcome = ground.operator.follow(execution, lambda _: None, within_seconds=240)
    assert (outcome.status, outcome.report["replaced"]) == ("SUCCEEDED", 1)


def test_pods_that_come_back_are_asked_a_few_times_and_hold_the_roll_until_they_are_kept_off(ground: Ground) -> None:
    """Among the last in this file: it replaces a node. Its pods tolerate everything, and prefer it to all others."""
    # The test before may have replaced this very node.
    ground.operator.rolls.publish_version("workers")
    node = node_in(ground, ZONES[1])
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    at_home = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
    drawn: dict[str, Any] = {"tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": at_home}}
    with ground.workload("brave", 1, **drawn):
        assert ground.pod_of("brave")["spec"]["nodeName"] == node
        pods = len(ground.kube.list("/api/v1/pods", fieldSelector=f"spec.nodeName={node}"))
        execution = ground.operator.rolls.start({"nodes": [node]})

        def held() -> bool:
            assert ground.operator.rolls.progress(execution).running, ground.operator.rolls.outcome(execution)
            return any("come back to the node" in p.reason for p in ground.operator.rolls.nodes_in_flight())

        until(held, "the roll waits for pods that come back", within_seconds=240)
        there = ground.pod_of("brave")["metadata"]["uid"]
        # Long enough for it to be asked again, if it were.
        time.sleep(5)
        assert ground.operator.rolls.progress(execution).running
        assert ground.pod_of("brave")["metadata"]["uid"] == there
        kept_off = {"spec": {"template": {"spec": {"tolerations": None, "affinity": None}}}}
        ground.kube.patch(ground.path("Deployment", "brave"), kept_off)
        outcome = ground.operator.follow(execution, lambda _: None, within_seconds=240)
    assert (outcome.status, outcome.report["replaced"]) == ("SUCCEEDED", 1)
    assert ("tolerates-everything", HOLDS) in findings(ground.operator.rolls.document(outcome.roll, "plan.json"))
    assert outcome.report["evicted"] <= pods + MOST_RETURNS
