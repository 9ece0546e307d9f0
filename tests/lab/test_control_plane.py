"""What a roll counts on in Kubernetes, seen on the lab's own control plane: pods only pretend to run."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.addresses import AWS_PORT
from lab.kube import (
    ConflictError,
    ForbiddenError,
    Items,
    Json,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
)
from tests.blocking_kube import BlockingKube
from tests.cluster import Cluster, condition, is_bound, is_ready, lives, taints
from tests.fake_kubelet import NOT_READY, node_ready
from tests.lab_fixtures import ControlPlane

pytestmark = pytest.mark.lab

NOT_READY_TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


# Nodes


def test_a_new_node_is_tainted_until_it_is_ready(cluster: Cluster) -> None:
    node = cluster.register_node("a")
    name = node["metadata"]["name"]
    assert taints(node) == [NOT_READY_TAINT]

    cluster.kube.patch(f"/api/v1/nodes/{name}/status", node_ready(), kind="strategic")
    cluster.kube.wait_for(
        "the taint lifted",
        "/api/v1/nodes",
        lambda nodes: True if nodes and not taints(nodes[0]) else None,
        fieldSelector=f"metadata.name={name}",
    )


def test_a_noschedule_taint_moves_only_new_pods(cluster: Cluster) -> None:
    old = cluster.add_node()
    cluster.add_deployment("web", 2)
    cluster.taint(old, "NoSchedule")
    new = cluster.add_node()

    cluster.kube.patch(cluster.path("apps/v1/deployments/web"), {"spec": {"replicas": 4}})
    pods = cluster.wait_for_ready("web", 4)

    assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted([old, old, new, new])


def test_a_prefernoschedule_taint_steers_new_pods_to_other_nodes(cluster: Cluster) -> None:
    tainted, other = cluster.add_node(), cluster.add_node()
    cluster.taint(tainted, "PreferNoSchedule")

    cluster.add_deployment("web", 6)

    assert {pod["spec"]["nodeName"] for pod in cluster.pods("web")} == {other}


def test_pods_land_on_a_prefernoschedule_node_when_nothing_else_fits(cluster: Cluster) -> None:
    tainted, other = cluster.add_node(), cluster.add_node(pods=2)
    cluster.taint(tainted, "PreferNoSchedule")

    cluster.add_deployment("web", 3)

    assert sorted(pod["spec"]["nodeName"] for pod in cluster.pods("web")) == sorted([tainted, other, other])


def test_a_pod_gone_before_it_ran_leaves_its_name_to_the_next(cluster: Cluster) -> None:
    cluster.add_node()
    for _ in range(3):
        cluster.add_pod("brief")
        cluster.wait_for_pod("brief", "bound", is_bound)
        cluster.kube.delete(cluster.path("v1/pods/brief"), {"gracePeriodSeconds": 0})

    cluster.add_pod("brief")

    cluster.wait_for_pod("brief", "ready", is_ready)


@pytest.mark.slow
def test_pods_of_a_deleted_node_are_collected_after_a_minute(cluster: Cluster) -> None:
    name = cluster.add_node()
    cluster.add_pod("left")
    cluster.wait_for_pod("left", "ready", is_ready)

    cluster.kube.delete(f"/api/v1/nodes/{name}")

    cluster.kube.wait_for(
        "the pod collected", cluster.path("v1/pods"), lambda pods: None if any(map(lives, pods)) else True, seconds=120
    )


# Evictions


@pytest.fixture
def full_budget(cluster: Cluster) -> str:
    """Two ready pods, of which the budget wants two; the name of one of them."""
    cluster.add_node()
    cluster.add_deployment("web", 2)
    cluster.add_budget("web", "web", minAvailable=2)
    cluster.wait_for_budget("web", lambda status: status["currentHealthy"] == 2)
    return str(cluster.pods("web")[0]["metadata"]["name"])


def test_an_eviction_that_the_budget_forbids_gets_429_and_no_retry_after(cluster: Cluster, full_budget: str) -> None:
    refusal = cluster.refusal(full_budget)

    assert isinstance(refusal, TooManyRequestsError)
    assert refusal.reason == "TooManyRequests"
    assert refusal.retry_after is None
    (cause,) = refusal.body["details"]["causes"]
    assert cause["reason"] == "DisruptionBudget"
    assert cause["message"] == "The disruption budget web needs 2 healthy pods and has 2 currently"


def test_an_eviction_under_a_budget_not_yet_observed_gets_429_and_retry_after(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    cluster.add_node()
    cluster.add_deployment("web", 2)
    with paused(control_plane, "kube-controller-manager"):
        cluster.add_budget("web", "web", observed=False, minAvailable=1)
        refusal = cluster.refusal(cluster.pods("web")[0]["metadata"]["name"])

    assert isinstance(refusal, TooManyRequestsError)
    assert refusal.retry_after == 10
    assert refusal.body["details"]["retryAfterSeconds"] == 10
    assert "still being processed by the server" in refusal.body["details"]["causes"][0]["message"]


def test_a_granted_eviction_deletes_the_pod_and_its_owner_replaces_it(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_deployment("web", 2)
    cluster.add_budget("web", "web", maxUnavailable=1)
    evicted = cluster.pods("web")[0]["metadata"]["name"]

    answer = cluster.evict(evicted)

    assert answer["status"] == "Success"
    pods = cluster.wait_for_ready("web", 2)
    assert evicted not in {pod["metadata"]["name"] for pod in pods}


def test_evicting_a_pod_under_two_budgets_is_an_internal_error(cluster: Cluster, full_budget: str) -> None:
    cluster.add_budget("second", "web", maxUnavailable=1)

    refusal = cluster.refusal(full_budget)

    assert isinstance(refusal, ServerError)
    assert refusal.code == 500
    assert "more than one PodDisruptionBudget" in refusal.body["message"]


def test_evicting_a_pod_that_is_gone_is_not_found(cluster: Cluster) -> None:
    assert isinstance(cluster.refusal("gone"), NotFoundError)


def test_a_dry_run_eviction_is_answered_but_evicts_nothing(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_pod("bare")
    cluster.wait_for_pod("bare", "ready", is_ready)

    answer = cluster.evict("bare", dryRun=["All"])

    assert answer["status"] == "Success"
    assert lives(cluster.pod("bare"))


def test_an_eviction_meant_for_another_uid_is_a_conflict(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_pod("bare")
    cluster.wait_for_pod("bare", "ready", is_ready)

    refusal = cluster.refusal("bare", preconditions={"uid": "00000000-0000-0000-0000-000000000000"})

    assert isinstance(refusal, ConflictError)
    assert lives(cluster.pod("bare"))


def test_an_unready_pod_is_kept_while_too_few_are_healthy(cluster: Cluster) -> None:
    add_unready_pod(cluster)
    cluster.add_budget("web", "web", minAvailable=1)

    assert isinstance(cluster.refusal("broken"), TooManyRequestsError)


def test_an_unready_pod_may_always_go_under_always_allow(cluster: Cluster) -> None:
    add_unready_pod(cluster)
    cluster.add_budget("web", "web", minAvailable=1, unhealthyPodEvictionPolicy="AlwaysAllow")

    assert cluster.evict("broken")["status"] == "Success"


def test_a_pending_pod_may_always_be_evicted(cluster: Cluster) -> None:
    cluster.add_pod("waiting", {"app": "web"})
    cluster.add_budget("web", "web", minAvailable=1)

    assert cluster.evict("waiting")["status"] == "Success"


def add_unready_pod(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_pod("broken", {"app": "web"}, annotations={NOT_READY: "true"})
    cluster.wait_for_pod("broken", "running", lambda pod: pod["status"]["phase"] == "Running")


@contextlib.contextmanager
def paused(control_plane: ControlPlane, part: str) -> Iterator[None]:
    control_plane.lab.signal(part, signal.SIGSTOP)
    try:
        yield
    finally:
        control_plane.lab.signal(part, signal.SIGCONT)


def test_every_eviction_is_in_the_audit_log_with_who_asked_for_it(
    cluster: Cluster, control_plane: ControlPlane, full_budget: str
) -> None:
    cluster.refusal(full_budget)

    records = map(json.loads, control_plane.lab.paths.audit_log.read_text().splitlines())
    evictions = [
        (record["user"]["username"], record["verb"], record["objectRef"]["name"], record["responseStatus"]["code"])
        for record in records
        if record.get("objectRef", {}).get("subresource") == "eviction"
        and record["objectRef"]["namespace"] == cluster.name
    ]
    assert evictions == [("lab:admin", "create", full_budget, 429)]


# StatefulSets and pods that pose as theirs


def test_an_evicted_stateful_pod_comes_back_under_its_name(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_stateful_set("db", 2)
    before = cluster.pod("db-0")["metadata"]["uid"]

    cluster.evict("db-0")

    cluster.wait_for_pod("db-0", "ready anew", lambda pod: pod["metadata"]["uid"] != before and is_ready(pod))


def test_a_stateful_sets_labels_on_another_pod_raise_what_its_budget_allows(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_stateful_set("db", 2)
    cluster.add_budget("db", "db", maxUnavailable=1)
    cluster.wait_for_budget("db", lambda status: status["disruptionsAllowed"] == 1)

    cluster.add_pod("stand-in", {"app": "db"})

    status = cluster.wait_for_budget("db", lambda status: status["currentHealthy"] == 3)
    assert (status["expectedPods"], status["disruptionsAllowed"]) == (2, 2)
    assert "ownerReferences" not in cluster.pod("stand-in")["metadata"]
    assert cluster.kube.get(cluster.path("apps/v1/statefulsets/db"))["status"]["replicas"] == 2


def test_labels_of_its_own_keep_another_pod_out_of_the_budget(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_stateful_set("db", 2)
    cluster.add_pod("stand-in", {"app": "db-stand-in"})
    cluster.wait_for_pod("stand-in", "ready", is_ready)

    cluster.add_budget("db", "db", maxUnavailable=1)

    status = cluster.wait_for_budget("db", lambda status: status["currentHealthy"] == 2)
    assert (status["expectedPods"], status["disruptionsAllowed"]) == (2, 1)


def test_another_pod_with_a_stateful_sets_labels_deadlocks_its_spread_constraint(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    node_a = cluster.add_node("a")
    cluster.add_node("b")
    volume_in_zone(cluster, "a", claim="data-db-0")
    volume_in_zone(cluster, "b", claim="data-db-1")
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "db"}},
    }
    cluster.add_stateful_set("db", 2, claims=[claim_template()], topologySpreadConstraints=[spread])
    cluster.add_pod("stand-in", {"app": "db"}, nodeName=node_a)
    cluster.add_budget("db", "db", maxUnavailable=1)
    cluster.wait_for_budget("db", lambda status: status["disruptionsAllowed"] == 2)

    with paused(control_plane, "kube-controller-manager"):
        cluster.evict("db-0")
        cluster.evict("db-1")
        cluster.wait_for_ready("db", 1)

    # Its volume holds db-0 in zone a, where the stand-in already counts; db-1 waits for db-0.
    stuck = cluster.wait_for_pod("db-0", "unschedulable", is_unschedulable)
    assert "didn't match pod topology spread constraints" in condition(stuck, "PodScheduled")["message"]
    assert {pod["metadata"]["name"] for pod in cluster.pods("db")} == {"db-0", "stand-in"}
    assert isinstance(cluster.refusal("stand-in"), TooManyRequestsError)


def test_an_orphan_named_like_an_ordinal_is_adopted_and_scaled_away(cluster: Cluster) -> None:
    cluster.add_node()
    cluster.add_stateful_set("db", 1)

    created = cluster.add_pod("db-7", {"app": "db"})

    # On its way out it has an owner; often it is gone before anybody can look.
    cluster.kube.wait_for(
        "db-7 adopted and deleted",
        cluster.path("v1/pods"),
        lambda pods: all("ownerReferences" in p["metadata"] and not lives(p) for p in pods) or None,
        fieldSelector="metadata.name=db-7",
    )
    assert "ownerReferences" not in created["metadata"]


# Volumes


def test_a_claim_that_waits_for_its_consumer_gets_its_volume_in_the_pods_zone_and_holds_the_pod_there(
    cluster: Cluster,
) -> None:
    node_a = cluster.add_node("a")
    provisioner = f"{cluster.name}.example.com"
    cluster.kube.create(
        "/apis/storage.k8s.io/v1/storageclasses",
        {"metadata": {"name": cluster.name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"},
    )
    cluster.create("apps/v1/statefulsets", stateful_set_with_claim(cluster, "db"))

    expected = {
        "volume.kubernetes.io/selected-node": node_a,
        "volume.kubernetes.io/storage-provisioner": provisioner,
    }
    claim = cluster.kube.wait_for(
        f"the annotations {expected} on the claim",
        cluster.path("v1/persistentvolumeclaims"),
        lambda claims: next((claim for claim in claims if expected.items() <= annotations(claim).items()), None),
    )
    provision(cluster, claim, zone="a", provisioner=provisioner)
    cluster.wait_for_pod("db-0", "ready", is_ready)

    cluster.add_node("b")
    cluster.taint(node_a, "NoSchedule")
    before = cluster.pod("db-0")["metadata"]["uid"]
    cluster.evict("db-0")

    stuck = cluster.wait_for_pod(
        "db-0", "unschedulable", lambda pod: pod["metadata"]["uid"] != before and is_unschedulable(pod)
    )
    reason = condition(stuck, "PodScheduled")["message"]
    assert "untolerated taint" in reason
    assert "PersistentVolume's node affinity" in reason

    cluster.taint(node_a, "")
    assert cluster.wait_for_pod("db-0", "bound", is_bound)["spec"]["nodeName"] == node_a


def test_volumes_are_attached_only_to_nodes_annotated_for_it(cluster: Cluster) -> None:
    driver = f"{cluster.name}.example.com"
    cluster.kube.create(
        "/apis/storage.k8s.io/v1/csidrivers", {"metadata": {"name": driver}, "spec": {"attachRequired": True}}
    )
    plain = cluster.add_node()
    annotated = cluster.add_node(annotations={"volumes.kubernetes.io/controller-managed-attach-detach": "true"})
    for number, name in enumerate((plain, annotated)):
        claim = f"data-{number}"
        volume_in_zone(cluster, "a", claim=claim, csi={"driver": driver, "volumeHandle": f"{cluster.name}-{number}"})
        cluster.create("v1/persistentvolumeclaims", claim_of(cluster, claim))
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
        cluster.add_pod(f"pod-{number}", volumes=[volume], nodeSelector={"kubernetes.io/hostname": name})
        cluster.wait_for_pod(f"pod-{number}", "bound", is_bound)

    def of_this_driver(attachments: Items) -> Items | None:
        return [one for one in attachments if one["spec"]["attacher"] == driver] or None

    path = "/apis/storage.k8s.io/v1/volumeattachments"
    made = cluster.kube.wait_for("a volume attachment", path, of_this_driver)
    assert [one["spec"]["nodeName"] for one in made] == [annotated]


def claim_template() -> Json:
    return {"metadata": {"name": "data"}, "spec": claim_spec("")}


def claim_spec(storage_class: str) -> Json:
    return {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Gi"}},
    }


def claim_of(cluster: Cluster, name: str) -> Json:
    return {"metadata": {"name": name}, "spec": {**claim_spec(""), "volumeName": f"{cluster.name}-{name}"}}


def volume_in_zone(cluster: Cluster, zone: str, *, claim: str, csi: Json | None = None) -> None:
    """A volume reserved for a claim of the test's namespace, usable only in a zone."""
    create_volume(cluster, f"{cluster.name}-{claim}", zone, {"namespace": cluster.name, "name": claim}, "", csi)


def provision(cluster: Cluster, claim: Json, *, zone: str, provisioner: str) -> None:
    """Does what a CSI provisioner does for a claim whose consumer has been given a node."""
    metadata = claim["metadata"]
    reference = {key: metadata[key] for key in ("namespace", "name", "uid")}
    csi = {"driver": provisioner, "volumeHandle": metadata["uid"]}
    create_volume(cluster, f"pvc-{metadata['uid']}", zone, reference, cluster.name, csi)


def create_volume(cluster: Cluster, name: str, zone: str, claim: Json, storage_class: str, csi: Json | None) -> None:
    term = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}
    source = {"csi": csi} if csi else {"hostPath": {"path": "/none"}}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        **source,
    }
    cluster.kube.create("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": spec})


def stateful_set_with_claim(cluster: Cluster, name: str) -> Json:
    body = cluster.workload(name, 1)
    claim = {"metadata": {"name": "data"}, "spec": claim_spec(cluster.name)}
    body["spec"] |= {"serviceName": name, "volumeClaimTemplates": [claim]}
    return body


def annotations(item: Json) -> Json:
    found: Json = item["metadata"].get("annotations", {})
    return found


def is_unschedulable(pod: Json) -> bool:
    return condition(pod, "PodScheduled").get("reason") == "Unschedulable"


# Authentication


@pytest.fixture(scope="module")
def webhook(control_plane: ControlPlane) -> Iterator[None]:
    """Something that answers the API server's TokenReviews where the AWS server would."""
    script = str(Path(__file__).with_name("token_webhook.py"))
    server = control_plane.lab.popen([sys.executable, script, str(AWS_PORT)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    yield
    server.terminate()
    server.wait()
    server.stdout.close()


def test_a_token_that_the_webhook_knows_gets_what_its_groups_may_do(
    cluster: Cluster, control_plane: ControlPlane, webhook: None
) -> None:
    with as_token(control_plane, f"k8s-aws-v1.{cluster.name}") as kube:
        with pytest.raises(ForbiddenError, match=f'User "aws:{cluster.name}" cannot list resource "pods"'):
            kube.list(cluster.path("v1/pods"))

        bind_group_to_view(cluster)

        cluster.kube.wait_for(
            "the binding", cluster.path("rbac.authorization.k8s.io/v1/rolebindings"), lambda found: found or None
        )
        assert kube.list(cluster.path("v1/pods")) == []
        with pytest.raises(ForbiddenError, match="cannot delete"):
            kube.delete(cluster.path("v1/pods/any"))


def test_a_token_that_nobody_knows_is_unauthorized(control_plane: ControlPlane, webhook: None) -> None:
    with as_token(control_plane, "unheard-of") as kube, pytest.raises(UnauthorizedError):
        kube.list("/api/v1/nodes")


def bind_group_to_view(cluster: Cluster) -> None:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"group:{cluster.name}"}
    cluster.create(
        "rbac.authorization.k8s.io/v1/rolebindings",
        {"metadata": {"name": "view"}, "roleRef": role, "subjects": [group]},
    )


@contextlib.contextmanager
def as_token(control_plane: ControlPlane, token: str) -> Iterator[BlockingKube]:
    kube = control_plane.kube_as(token)
    try:
        yield kube
    finally:
        kube.close()
