"""Who may write what a roll reads: tried on a real control plane with each party's own credentials [T1].

docs/threat-model.md has a row for each of these tests: what the party can write, and what a roll makes of it.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import yaml

from eks_rolling.clients.kubernetes import OURS, KubernetesClient
from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.finding import Finding, Severity
from eks_rolling.observed.kubernetes import ROLL_TAINT_KEY, Owner
from eks_rolling.observed.marks import (
    EXCLUDE_LABEL,
    NODE_ANNOTATIONS,
    NODE_LAUNCH,
    NODE_ROLL,
    NODE_TARGETS,
    token_of,
)
from eks_rolling.payloads import RestoreTask, RollRequest, Status
from eks_rolling.plan.permissions import needed_to_restart
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.steps import restore
from eks_rolling.steps.plan import decide, observe
from lab.controlplane.pki import kubelet_certificate
from lab.kube import ConflictError, ForbiddenError, InvalidError, Json, NotFoundError
from lab.paths import REPOSITORY
from tests.blocking_kube import BlockingKube
from tests.cluster import POD_SPEC, Cluster
from tests.fake_kubelet import node, node_ready
from tests.lab_fixtures import ControlPlane
from tests.model.situations import settings
from tests.world import World

pytestmark = pytest.mark.lab

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
LOCKS = LEASES.format("kube-system")
ROLES = "/apis/rbac.authorization.k8s.io/v1"
TARGETS = json.dumps([["arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/0123", 80, False]])
ADDRESS = "203.0.113.9"
_instances = itertools.count(1)

Attempt = Callable[[BlockingKube], object]


def refused(who: BlockingKube, attempts: dict[str, Attempt]) -> None:
    """Every one of these is forbidden: by the authorizers, or by admission."""
    allowed = []
    for what, attempt in attempts.items():
        try:
            attempt(who)
        except ForbiddenError:
            continue
        allowed.append(what)
    assert allowed == []


def mark(key: str, value: str | None) -> Json:
    return {"metadata": {"annotations": {key: value}}}


# A kubelet, with the certificate of its node


@dataclass(frozen=True)
class Kubelet:
    """The kubelet of one node, which it has registered itself."""

    kube: BlockingKube
    node: str
    instance: str

    @property
    def path(self) -> str:
        return f"/api/v1/nodes/{self.node}"


class Kubelets:
    """What a test starts of them; all is gone at its end."""

    def __init__(self, control_plane: ControlPlane, cluster: Cluster, stack: contextlib.ExitStack) -> None:
        self._plane = control_plane
        self._cluster = cluster
        self._stack = stack

    def join(self, name: str, instance: str = "") -> Kubelet:
        """A kubelet whose node says that it is on that instance."""
        full = f"{self._cluster.name}-{name}"
        instance = instance or f"i-{next(_instances):017x}"
        access = replace(
            self._plane.kube.access, token=None, certificate=kubelet_certificate(self._plane.lab.paths, full)
        )
        kube = BlockingKube(access, self._plane.loop)
        self._stack.callback(kube.close)
        body = node(full, "a", pods=9, labels={"tests/pool": self._cluster.name}, annotations={})
        body["spec"]["providerID"] = f"aws:///a/{instance}"
        kube.create("/api/v1/nodes", body)
        self._stack.callback(self._gone, full)
        kube.patch(f"/api/v1/nodes/{full}/status", node_ready(), kind="strategic")
        return Kubelet(kube, full, instance)

    def _gone(self, name: str) -> None:
        with contextlib.suppress(NotFoundError):
            self._plane.kube.delete(f"/api/v1/nodes/{name}")


@pytest.fixture
def kubelets(control_plane: ControlPlane, cluster: Cluster) -> Iterator[Kubelets]:
    with contextlib.ExitStack() as stack:
        yield Kubelets(control_plane, cluster, stack)


@pytest.fixture
def lock(control_plane: ControlPlane) -> Iterator[str]:
    """The roll's lock, held by nobody."""
    control_plane.kube.create(LOCKS, {"metadata": {"name": "eks-rolling"}, "spec": {}})
    yield f"{LOCKS}/eks-rolling"
    with contextlib.suppress(NotFoundError):
        control_plane.kube.delete(f"{LOCKS}/eks-rolling")


def clients_of(control_plane: ControlPlane, world: World) -> Clients:
    """The real cluster, as the client that is deployed sees it, and an account in memory."""
    access = control_plane.kube.access
    real = KubernetesClient(access.server, access.authority or "", lambda: access.token or "")
    return replace(world.clients(settings()), kubernetes=real)


def plan_of(control_plane: ControlPlane, world: World, about: str) -> dict[str, Finding]:
    """What a plan of the cluster says about one object, by code."""
    asked = RollRequest()
    plan = decide(observe(asked, clients_of(control_plane, world)), asked, settings())
    return {f.code: f for f in plan.findings if f.object == about}


def account(*nodes: int) -> World:
    """An account with a group, and as many instances of an old version."""
    world = World()
    world.group("ng", ["zone-a"], maximum=9)
    for _ in nodes:
        world.add_node("ng", "zone-a")
    world.new_template_version("ng")
    world.planned = set(world.machines)
    return world


def test_a_kubelet_marks_its_own_node_and_nothing_in_the_account_follows(
    kubelets: Kubelets, control_plane: ControlPlane, lock: str
) -> None:
    """T1, R1: it can write every mark; what a roll did not prove is told by the plan, and ignored by the restore."""
    world = account(1)
    (instance,) = world.machines
    own = kubelets.join("own", instance)
    own.kube.patch(own.path, {"metadata": {"annotations": {**dict.fromkeys(NODE_ANNOTATIONS, "forged")}}})
    own.kube.patch(own.path, {"spec": {"unschedulable": True}, "metadata": {"labels": {EXCLUDE_LABEL: "true"}}})
    request = f"{token_of('roll-0', instance, 1)}@{world.time - 60:.0f}"
    own.kube.patch(own.path, {"metadata": {"annotations": {NODE_TARGETS: TARGETS, NODE_LAUNCH: request}}})

    said = plan_of(control_plane, world, f"node {own.node}")
    assert said["forged-mark"].severity is Severity.NOTE
    assert {key for key in (NODE_TARGETS, NODE_LAUNCH) if key in said["forged-mark"].reason} != set()

    clients, before = clients_of(control_plane, world), list(world.effects)
    result = restore.run(RestoreTask(roll="by-hand"), clients)
    while result.status is not Status.DONE:
        world.advance(result.wait_seconds)
        result = restore.run(RestoreTask(roll="by-hand"), clients)
    assert world.effects == before
    assert [said for said in result.output["left_behind"] if own.node in said and NODE_TARGETS in said]
    assert [said for said in result.output["left_behind"] if own.node in said and "that no roll made" in said]


def test_a_kubelet_writes_no_taint_no_guarded_label_no_other_node_and_none_of_our_leases(
    kubelets: Kubelets, control_plane: ControlPlane, cluster: Cluster, lock: str
) -> None:
    """T1: what the roll's own roles alone may write."""
    own, other = kubelets.join("own"), kubelets.join("other")
    taint = {"key": ROLL_TAINT_KEY, "effect": "NoSchedule"}
    control_plane.kube.patch(other.path, {"spec": {"taints": [taint]}})
    body = node(f"{cluster.name}-third", "a", pods=9, labels={}, annotations={})
    refused(
        own.kube,
        {
            "taint itself": lambda k: k.patch(own.path, {"spec": {"taints": [taint]}}),
            "a guarded label": lambda k: k.patch(
                own.path, {"metadata": {"labels": {"node-restriction.kubernetes.io/tier": "a"}}}
            ),
            "an owner": lambda k: k.patch(
                own.path,
                {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "y"}]}},
            ),
            "leave": lambda k: k.delete(own.path),
            "another node's mark": lambda k: k.patch(other.path, mark(NODE_TARGETS, TARGETS)),
            "another node's taint": lambda k: k.patch(other.path, {"spec": {"taints": []}}),
            "another node's cordon": lambda k: k.patch(other.path, {"spec": {"unschedulable": True}}),
            "another node's status": lambda k: k.patch(f"{other.path}/status", node_ready(), kind="strategic"),
            "another node": lambda k: k.create("/api/v1/nodes", body),
            "look at the lock": lambda k: k.get(lock),
            "abort the roll": lambda k: k.patch(lock, mark("eks-rolling.io/abort", "now")),
            "a proof": lambda k: k.patch(lock, mark(f"proof.eks-rolling.io/{own.instance}.targets", "0" * 40)),
            "the lock, anew": lambda k: k.create(LOCKS, {"metadata": {"name": "eks-rolling-next"}}),
            "a group's Lease": lambda k: k.create(
                LEASES.format(cluster.name), {"metadata": {"name": "eks-rolling-redis-cache"}}
            ),
            "another's heartbeat": lambda k: k.create(
                LEASES.format("kube-node-lease"), {"metadata": {"name": other.node}}
            ),
        },
    )
    refused(other.kube, {"untaint itself": lambda k: k.patch(other.path, {"spec": {"taints": []}})})
    after = control_plane.kube.get(other.path)
    assert (after["spec"]["taints"], after["metadata"].get("annotations", {}).get(NODE_TARGETS)) == ([taint], None)
    with pytest.raises(InvalidError, match="providerID"):
        own.kube.patch(own.path, {"spec": {"providerID": f"aws:///a/{other.instance}"}})


def test_a_kubelet_touches_the_pods_of_its_own_node_alone(
    kubelets: Kubelets, control_plane: ControlPlane, cluster: Cluster
) -> None:
    """S1: a pod of a Redis group, its password and its Deployment are out of reach of another node's kubelet."""
    own, other = kubelets.join("own"), kubelets.join("other")
    cluster.create("v1/secrets", {"metadata": {"name": "redis-auth"}, "stringData": {"password": "secret"}})
    cluster.create("apps/v1/deployments", cluster.workload("web", 0))
    cluster.add_pod("mine", nodeName=own.node)
    cluster.add_pod("theirs", nodeName=other.node)
    theirs, secret = cluster.path("v1/pods/theirs"), cluster.path("v1/secrets/redis-auth")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "theirs"}}
    address = {"status": {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}}
    bound = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "theirs",
                                         "uid": cluster.pod("theirs")["metadata"]["uid"]}}}  # fmt: skip
    refused(
        own.kube,
        {
            "delete": lambda k: k.delete(theirs),
            "evict": lambda k: k.create(f"{theirs}/eviction", eviction),
            "readdress": lambda k: k.patch(f"{theirs}/status", address, kind="strategic"),
            "its token": lambda k: k.create(cluster.path("v1/serviceaccounts/default/token"), bound),
            "its password": lambda k: k.get(secret),
            "all passwords": lambda k: k.list(cluster.path("v1/secrets")),
            "a pod of its own making": lambda k: k.create(
                cluster.path("v1/pods"),
                {"metadata": {"name": "new"}, "spec": {**POD_SPEC, "nodeName": own.node}},
            ),
            "a Deployment": lambda k: k.patch(cluster.path("apps/v1/deployments/web"), mark("a", "b")),
            "a budget": lambda k: k.create(
                cluster.path("policy/v1/poddisruptionbudgets"), {"metadata": {"name": "x"}, "spec": {}}
            ),
        },
    )
    own.kube.create(cluster.path("v1/pods/mine/eviction"), {**eviction, "metadata": {"name": "mine"}})


def test_a_kubelet_that_claims_anothers_instance_blocks_its_plan(
    kubelets: Kubelets, control_plane: ControlPlane
) -> None:
    """N2: it can, when its Node is made; neither is believed then."""
    world = account(1)
    (instance,) = world.machines
    kubelets.join("truthful", instance)
    kubelets.join("liar", instance)
    said = plan_of(control_plane, world, f"instance {instance}")
    assert {code: f.severity for code, f in said.items()} == {"instance-claimed-twice": Severity.BLOCKS}


def test_a_kubelet_can_make_a_mirror_pod_anywhere_and_it_is_no_stand_in(
    kubelets: Kubelets, control_plane: ControlPlane, cluster: Cluster
) -> None:
    """S1: whoever connected to it would tell it the group's password."""
    own = kubelets.join("own")
    uid = own.kube.get(own.path)["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": own.node, "uid": uid, "controller": True}
    spec = {"nodeName": own.node, "containers": [{"name": "main", "image": "lab/none"}]}
    metadata = {
        "name": "redis-0-stand-in",
        "labels": {LABEL: "cache"},
        "annotations": {"kubernetes.io/config.mirror": "0", "eks-rolling.io/stands-in-for": "redis-0"},
        "ownerReferences": [owner],
    }
    own.kube.create(cluster.path("v1/pods"), {"metadata": metadata, "spec": spec})
    address = {"status": {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}}
    own.kube.patch(cluster.path("v1/pods/redis-0-stand-in/status"), address, kind="strategic")
    clients = clients_of(control_plane, account())
    assert clients.kubernetes.stand_ins(cluster.name, "cache") == []


BEFORE_ALL_DATES = "0001-01-01T00:00:00{}+14:00"
"""A time that the API server takes, and passes on as one of the year 0."""


def test_a_kubelet_that_writes_a_time_without_a_date_spoils_no_list(
    kubelets: Kubelets, control_plane: ControlPlane
) -> None:
    """R5: of its own Node's conditions it may write any time."""
    own = kubelets.join("own")
    condition = {"type": "Ready", "status": "Unknown", "reason": "x", "message": "x"}
    written = condition | {"lastTransitionTime": BEFORE_ALL_DATES.format("")}
    answer = own.kube.patch(f"{own.path}/status", {"status": {"conditions": [written]}}, kind="strategic")
    (ready,) = [c for c in answer["status"]["conditions"] if c["type"] == "Ready"]
    assert ready["lastTransitionTime"].startswith("0000-12-31")
    names = {n.name for n in clients_of(control_plane, account()).kubernetes.nodes()}
    assert own.node in names


# A tenant: a ServiceAccount that may edit its namespace


@pytest.fixture
def tenant(control_plane: ControlPlane, cluster: Cluster) -> Iterator[BlockingKube]:
    kube = cluster.kube
    cluster.create("v1/serviceaccounts", {"metadata": {"name": "tenant"}})
    cluster.create(
        "rbac.authorization.k8s.io/v1/rolebindings",
        {
            "metadata": {"name": "tenant"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": cluster.name}],
        },
    )
    answer = kube.create(cluster.path("v1/serviceaccounts/tenant/token"), {"spec": {}})
    who = control_plane.kube_as(answer["status"]["token"])
    yield who
    who.close()


def test_a_tenant_writes_no_lease_of_the_roll_no_role_no_node_and_nothing_of_its_neighbours(
    tenant: BlockingKube, control_plane: ControlPlane, cluster: Cluster, kubelets: Kubelets, lock: str
) -> None:
    """T1."""
    there = kubelets.join("any")
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "eks-rolling-redis-look"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = {"metadata": {"name": "x"}, "roleRef": reference, "subjects": [group]}
    role = {"metadata": {"name": "x"}, "rules": []}
    apps = "/apis/apps/v1/namespaces/kube-system/deployments"
    refused(
        tenant,
        {
            "look at the lock": lambda k: k.get(lock),
            "abort the roll": lambda k: k.patch(lock, mark("eks-rolling.io/abort", "now")),
            "a proof": lambda k: k.patch(lock, mark(f"proof.eks-rolling.io/{there.instance}.targets", "0" * 40)),
            "take the lock": lambda k: k.create(LOCKS, {"metadata": {"name": "eks-rolling-launch"}}),
            "mark a node": lambda k: k.patch(there.path, mark(NODE_ROLL, "roll-1")),
            "untaint a node": lambda k: k.patch(there.path, {"spec": {"taints": []}}),
            "look at nodes": lambda k: k.list("/api/v1/nodes"),
            "cluster-autoscaler": lambda k: k.create(apps, {"metadata": {"name": "cluster-autoscaler"}, "spec": {}}),
            "a Role": lambda k: k.create(cluster.path("rbac.authorization.k8s.io/v1/roles"), role),
            "a RoleBinding": lambda k: k.create(cluster.path("rbac.authorization.k8s.io/v1/rolebindings"), binding),
            "a ClusterRole": lambda k: k.create(f"{ROLES}/clusterroles", role),
            "a ClusterRoleBinding": lambda k: k.create(f"{ROLES}/clusterrolebindings", binding),
            "a neighbour's Secret": lambda k: k.get("/api/v1/namespaces/default/secrets/redis-auth"),
            "a neighbour's StatefulSet": lambda k: k.patch(
                "/apis/apps/v1/namespaces/default/statefulsets/redis", mark("eks-rolling.io/redis-group", "x")
            ),
            "a volume": lambda k: k.create("/api/v1/persistentvolumes", {"metadata": {"name": "x"}}),
        },
    )


def test_a_tenants_declarations_concern_its_own_workloads_alone(
    tenant: BlockingKube, control_plane: ControlPlane, cluster: Cluster
) -> None:
    """T1: it can write every annotation of its own, and the plan names each that means nothing or lacks a Role."""
    web = Owner("Deployment", cluster.name, "web")
    annotations = {"eks-rolling.io/strategy": "restart", "eks-rolling.io/original-replicas": "9"}
    body = cluster.workload("web", 2)
    body["metadata"]["annotations"] = annotations
    tenant.create(cluster.path("apps/v1/deployments"), body)
    data = cluster.workload("data", 0)
    data["metadata"]["annotations"] = {
        "eks-rolling.io/redis-group": "x",
        "eks-rolling.io/redis-role": "cluster",
        "eks-rolling.io/redis-auth": "../../shop/secrets/redis-auth",
    }
    data["spec"] |= {"serviceName": "data"}
    tenant.create(cluster.path("apps/v1/statefulsets"), data)

    world = account()
    view = observe(RollRequest(), clients_of(control_plane, world))
    assert needed_to_restart(web) in view.not_granted
    assert not view.restarts(view.workload(web))
    said = plan_of(control_plane, world, str(web))
    assert said["unknown-annotation"].severity is Severity.NOTE
    assert "original-replicas" in said["unknown-annotation"].reason
    declared = plan_of(control_plane, world, f"StatefulSet {cluster.name}/data")
    assert declared["redis-declaration"].severity is Severity.NOTE


def test_a_tenants_odd_objects_spoil_no_list(
    tenant: BlockingKube, control_plane: ControlPlane, cluster: Cluster
) -> None:
    """T1, R5: what the API server takes is read, and names nobody else's objects."""
    reference = {"apiVersion": "tenant.example/v1", "kind": "Deployment", "name": "../../x = | y", "uid": "u"}
    tenant.create(
        cluster.path("v1/pods"),
        {"metadata": {"name": "odd", "ownerReferences": [reference | {"controller": True}]}, "spec": POD_SPEC},
    )
    deployment = cluster.workload("odd", 0)
    rolling = {"maxSurge": "9" * 5000 + "%", "maxUnavailable": 0}
    deployment["spec"] |= {"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}
    tenant.create(cluster.path("apps/v1/deployments"), deployment)
    budget = {"minAvailable": "50%", "selector": {"matchLabels": {"app": "odd"}}}
    tenant.create(
        cluster.path("policy/v1/poddisruptionbudgets"), {"metadata": {"name": "odd", "labels": OURS}, "spec": budget}
    )
    lease = {"holderIdentity": "roll-0/settle", "renewTime": BEFORE_ALL_DATES.format(".000000")}
    answer = tenant.create(LEASES.format(cluster.name), {"metadata": {"name": "eks-rolling-redis-x"}, "spec": lease})
    assert answer["spec"]["renewTime"].startswith("0000-12-31")

    seen = clients_of(control_plane, account()).kubernetes
    (pod,) = (p for p in seen.pods() if p.namespace == cluster.name)
    (workload,) = (w for w in seen.workloads() if w.owner.namespace == cluster.name)
    (found,) = (b for b in seen.budgets() if b.namespace == cluster.name)
    read = seen.lease(f"{cluster.name}/eks-rolling-redis-x")
    assert (pod.owner, workload.surges, found.ours) == (None, False, False)
    assert read is not None
    assert read.expired(1.0)


def test_a_tenant_that_is_granted_the_role_is_restarted_and_what_nobody_granted_is_not(
    control_plane: ControlPlane, cluster: Cluster
) -> None:
    """N1: asked of the authorizers by the plan for the group, and by the step for itself, by name."""
    cluster.create("apps/v1/deployments", cluster.workload("web", 1))
    role = {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"], "verbs": ["patch"]}
    cluster.create("rbac.authorization.k8s.io/v1/roles", {"metadata": {"name": "restart"}, "rules": [role]})
    cluster.create(
        "rbac.authorization.k8s.io/v1/rolebindings",
        {
            "metadata": {"name": "restart"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "restart"},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "eks-rolling-restart"},
                {"kind": "ServiceAccount", "name": "step", "namespace": cluster.name},
            ],
        },
    )
    cluster.create("v1/serviceaccounts", {"metadata": {"name": "step"}})
    token = cluster.kube.create(cluster.path("v1/serviceaccounts/step/token"), {"spec": {}})["status"]["token"]
    access = control_plane.kube.access
    step = KubernetesClient(access.server, access.authority or "", lambda: token)
    asked = clients_of(control_plane, account()).kubernetes

    def both(name: str) -> tuple[bool, bool]:
        verb = needed_to_restart(Owner("Deployment", cluster.name, name))
        own = step.may(verb.verb, verb.resource, group=verb.api_group, namespace=verb.namespace, name=verb.name)
        return asked.group_may(verb), own

    # The authorizers hear of a new Role a moment later.
    cluster.kube.wait_for("the Role", cluster.path("rbac.authorization.k8s.io/v1/rolebindings"),
                          lambda _: True if both("web") == (True, True) else None)  # fmt: skip
    assert both("other") == (False, False)


def test_what_a_tenant_makes_in_our_name_is_its_own_loss(
    tenant: BlockingKube, control_plane: ControlPlane, cluster: Cluster
) -> None:
    """A budget with our label is left out of the plan and removed by a restore; its group's Lease is its own."""
    budget = {
        "metadata": {"name": "eks-rolling-deployment-web", "labels": OURS},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    tenant.create(cluster.path("policy/v1/poddisruptionbudgets"), budget)
    tenant.create(LEASES.format(cluster.name), {"metadata": {"name": "eks-rolling-redis-x"},
                                                "spec": {"holderIdentity": "roll-0/settle"}})  # fmt: skip
    seen = clients_of(control_plane, account()).kubernetes
    (found,) = (b for b in seen.budgets() if b.namespace == cluster.name)
    lease = seen.lease(f"{cluster.name}/eks-rolling-redis-x")
    assert lease is not None
    assert lease.holder == "roll-0/settle"
    assert found.ours
    seen.delete_budget(found)
    assert not [b for b in seen.budgets() if b.namespace == cluster.name]


# A person who operates rolls: what deploy/iam/operator-rbac.yaml grants


@pytest.fixture
def operator(control_plane: ControlPlane, cluster: Cluster) -> Iterator[BlockingKube]:
    """A ServiceAccount in the place of the group eks-rolling:operators, with the Roles of the files that ship."""
    kube = cluster.kube
    cluster.create("v1/serviceaccounts", {"metadata": {"name": "operator"}})
    account = {"kind": "ServiceAccount", "name": "operator", "namespace": cluster.name}
    shipped = [*_documents("deploy/iam/operator-rbac.yaml"), *_documents("deploy/rbac.yaml")]
    made = []
    for item in shipped:
        bound = item.get("subjects", [{}])[0].get("name")
        name, namespace = item["metadata"]["name"], item["metadata"].get("namespace")
        wanted = (bound or name) in {"eks-rolling:operators", "eks-rolling-operators"} or (
            item["kind"] == "ClusterRole" and name == "eks-rolling-look"
        )
        if not wanted:
            continue
        path = f"{ROLES}/namespaces/{namespace}" if namespace else ROLES
        body = {**item, "subjects": [account]} if bound else item
        kind = f"{item['kind'].lower()}s"
        with contextlib.suppress(ConflictError):
            kube.create(f"{path}/{kind}", body)
        made.append(f"{path}/{kind}/{name}")
    token = kube.create(cluster.path("v1/serviceaccounts/operator/token"), {"spec": {}})["status"]["token"]
    who = control_plane.kube_as(token)
    yield who
    who.close()
    for path in made:
        with contextlib.suppress(NotFoundError):
            kube.delete(path)


def _documents(file: str) -> list[Json]:
    return list(yaml.safe_load_all((REPOSITORY / file).read_text()))


def test_an_operator_steers_a_roll_by_its_lock_and_writes_nothing_else(
    operator: BlockingKube, control_plane: ControlPlane, cluster: Cluster, kubelets: Kubelets, lock: str
) -> None:
    """T1: pause, abort, and even proofs; no node, so that a proof alone puts nothing anywhere."""
    there = kubelets.join("any")
    operator.list("/api/v1/nodes")
    lease = operator.get(lock)
    steered = {"eks-rolling.io/pause": "now", f"proof.eks-rolling.io/{there.instance}.targets": "0" * 40}
    lease["metadata"]["annotations"] = steered
    operator.replace(lock, lease)
    assert control_plane.kube.get(lock)["metadata"]["annotations"] == steered
    refused(
        operator,
        {
            "mark a node": lambda k: k.patch(there.path, mark(NODE_TARGETS, TARGETS)),
            "cordon a node": lambda k: k.patch(there.path, {"spec": {"unschedulable": True}}),
            "another Lease": lambda k: k.create(LOCKS, {"metadata": {"name": "eks-rolling-next"}}),
            "do away with the lock": lambda k: k.delete(lock),
            "evict": lambda k: k.create(cluster.path("v1/pods/any/eviction"), {"metadata": {"name": "any"}}),
            "a budget": lambda k: k.create(cluster.path("policy/v1/poddisruptionbudgets"), {"metadata": {"name": "x"}}),
            "a Secret": lambda k: k.get(cluster.path("v1/secrets/redis-auth")),
            "a workload": lambda k: k.create(cluster.path("apps/v1/deployments"), cluster.workload("web", 1)),
        },
    )
