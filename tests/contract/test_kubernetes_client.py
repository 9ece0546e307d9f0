"""What steps count on in the cluster: the same cases on the world in memory and on a real API server."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import KubernetesClient
from eks_rolling.clients.protocols import EvictionStatus
from eks_rolling.errors import AccessDenied, Conflict, NotFound, Transient
from eks_rolling.observed.kubernetes import (
    RESTARTED_FOR,
    Budget,
    Lease,
    Owner,
    Selector,
    Taint,
    Workload,
    minor_version,
    on_nodes_that_are,
)
from eks_rolling.observed.marks import SOFT_TAINT, with_roll_taint
from eks_rolling.observed.network import Block, NetworkPolicy, Peer, Rule
from eks_rolling.observed.redis import Role
from eks_rolling.redis.groups import GROUP
from eks_rolling.redis.stand_in import marks
from tests.cluster import Cluster
from tests.contract.kubernetes_sides import InMemory, Real, Side, node_called, pods_of, until
from tests.lab_fixtures import ControlPlane
from tests.world import UNSCHEDULABLE

REAL = pytest.param("real", marks=[pytest.mark.lab, pytest.mark.xdist_group("control_plane")])
"""Among all tests of that server, of which there is one then."""


@pytest.fixture(params=["in memory", REAL])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "in memory":
        return InMemory()
    return Real(request.getfixturevalue("cluster"))


# Nodes


def test_a_node_is_read_as_it_was_written_and_other_taints_stay(side: Side) -> None:
    name = side.add_node()
    others = (Taint("dedicated", "PreferNoSchedule", "batch"),)
    node = node_called(side, name)
    if isinstance(side, InMemory):
        side.world.nodes_by_name[name] = node = replace(node, taints=others)
    else:
        node = side.kubernetes.update_node(node, taints=others)
    written = side.kubernetes.update_node(
        node, taints=with_roll_taint(node, SOFT_TAINT), annotations={"eks-rolling.io/roll": "r"}, labels={"x": "y"}
    )
    assert written == node_called(side, name)
    assert written.taints == (*others, SOFT_TAINT)
    assert written.annotations["eks-rolling.io/roll"] == "r"

    cleared = side.kubernetes.update_node(
        written, taints=others, annotations={"eks-rolling.io/roll": None}, labels={"x": None}, unschedulable=True
    )
    assert "eks-rolling.io/roll" not in cleared.annotations
    assert "x" not in cleared.labels
    assert cleared.unschedulable
    until(side, lambda: UNSCHEDULABLE in node_called(side, name).taints, "the controller's own taint")
    assert not side.kubernetes.update_node(node_called(side, name), unschedulable=False).unschedulable
    until(side, lambda: node_called(side, name).taints == others, "the controller's taint is gone")


def test_a_node_that_somebody_changed_meanwhile_is_not_written(side: Side) -> None:
    stale = node_called(side, side.add_node())
    side.kubernetes.update_node(stale, annotations={"a": "1"})
    with pytest.raises(Conflict):
        side.kubernetes.update_node(stale, annotations={"a": "2"})
    assert node_called(side, stale.name).annotations["a"] == "1"


def test_a_node_that_is_not_there_is_none_and_cannot_be_written(side: Side) -> None:
    assert side.kubernetes.node("nobody") is None
    node = replace(node_called(side, side.add_node()), name="nobody")
    with pytest.raises(NotFound):
        side.kubernetes.update_node(node, annotations={"a": "1"})


# Evictions


def test_an_evicted_pod_goes_and_its_owner_makes_another(side: Side) -> None:
    side.add_node()
    web = side.add_deployment("web", 2)
    gone = pods_of(side, web)[0]
    assert side.kubernetes.evict(gone).status is EvictionStatus.EVICTED
    until(side, lambda: gone.uid not in {p.uid for p in pods_of(side, web)}, "the pod is gone")
    until(side, lambda: (side.kubernetes.workload(web) or pytest.fail("no web")).all_ready, "two pods again")


def test_a_pod_that_is_gone_or_another_is_gone_for_the_one_who_asks(side: Side) -> None:
    side.add_node()
    pod = pods_of(side, side.add_deployment("web", 1))[0]
    assert side.kubernetes.evict(replace(pod, uid="00000000-0000-0000-0000-000000000000")).status is (
        EvictionStatus.GONE
    )
    assert side.kubernetes.evict(replace(pod, name="nobody")).status is EvictionStatus.GONE
    assert pods_of(side, pod.owner or Owner("", "", ""))[0].uid == pod.uid


def test_a_budget_refuses_in_its_own_words(side: Side) -> None:
    side.add_node()
    web = side.add_deployment("web", 2)
    side.add_budget("web", "web", 1)
    first, second = pods_of(side, web)
    assert side.kubernetes.evict(first).status is EvictionStatus.EVICTED
    refused = side.kubernetes.evict(second)
    assert refused.status is EvictionStatus.REFUSED
    # Why, in numbers, follows once the disruption controller has seen the eviction.
    assert refused.reason.startswith("The disruption budget web ")


def test_a_pod_under_two_budgets_can_not_be_evicted(side: Side) -> None:
    side.add_node()
    pod = pods_of(side, side.add_deployment("web", 2))[0]
    side.add_budget("one", "web", 1)
    side.add_budget("two", "web", 1)
    answer = side.kubernetes.evict(pod)
    assert answer.status is EvictionStatus.FORBIDDEN_BY_TWO_BUDGETS
    assert "more than one PodDisruptionBudget" in answer.reason


# Budgets


def budgets(side: Side) -> dict[str, Budget]:
    return {b.name: b for b in side.kubernetes.budgets() if b.namespace == side.namespace}


def test_a_temporary_budget_allows_one_pod_at_a_time_and_is_known_as_ours(side: Side) -> None:
    side.add_node()
    web = side.kubernetes.workload(side.add_deployment("web", 3))
    assert web
    side.kubernetes.create_budget(web, "eks-rolling-web", {"eks-rolling.io/roll": "r"})
    side.kubernetes.create_budget(web, "eks-rolling-web", {"eks-rolling.io/roll": "another"})
    until(side, lambda: budgets(side)["eks-rolling-web"].allowed == 1, "the budget was looked at")
    made = budgets(side)["eks-rolling-web"]
    assert made.ours
    assert (made.expected, made.healthy, made.desired_healthy) == (3, 3, 2)
    assert all(made.covers(pod) for pod in pods_of(side, web.owner))

    side.kubernetes.delete_budget(replace(made, uid="00000000-0000-0000-0000-000000000000"))
    assert "eks-rolling-web" in budgets(side)
    side.kubernetes.delete_budget(made)
    side.kubernetes.delete_budget(made)
    assert "eks-rolling-web" not in budgets(side)


# Workloads


def updated(side: Side, owner: Owner, **change: Any) -> Workload:
    """Changes the workload as a step does, that comes again where somebody else, the controller for one, has written
    since it looked. What it saw when it changed it."""
    while True:
        seen = side.kubernetes.workload(owner)
        assert seen
        with contextlib.suppress(Conflict):
            side.kubernetes.update_workload(seen, **change)
            return seen


def test_replicas_and_annotation_change_together_or_not_at_all(side: Side) -> None:
    """R1."""
    side.add_node()
    owner = side.add_deployment("autoscaler", 1)
    # The controller writes the status, too, until the pod is Ready.
    until(side, lambda: (side.kubernetes.workload(owner) or pytest.fail("it is gone")).all_ready, "its pod is Ready")
    stale = updated(side, owner, replicas=0, annotations={"original": "1"})
    with pytest.raises(Conflict):
        side.kubernetes.update_workload(stale, replicas=5, annotations={"original": "5"})
    until(side, lambda: (side.kubernetes.workload(owner) or stale).current == 0, "it is scaled down")
    down = side.kubernetes.workload(owner)
    assert down
    assert (down.desired, down.annotations["original"]) == (0, "1")
    updated(side, owner, replicas=1, annotations={"original": None})
    up = side.kubernetes.workload(owner)
    assert up
    assert "original" not in up.annotations


def test_a_restart_starts_the_new_pod_before_it_stops_the_old_one(side: Side) -> None:
    side.add_node()
    owner = side.add_deployment("single", 1)
    before = pods_of(side, owner)[0]

    def asked() -> bool:
        workload = side.kubernetes.workload(owner)
        assert workload
        assert workload.surges
        try:
            side.kubernetes.update_workload(workload, template_annotations={RESTARTED_FOR: "r/node"})
        except Conflict:
            # The controller wrote its status in between; the workflow runs the step again.
            return False
        return True

    until(side, asked, "the restart is asked for")
    ready_counts = []

    def moved() -> bool:
        pods = pods_of(side, owner)
        ready_counts.append(sum(1 for p in pods if p.ready and not p.deleting))
        return before.uid not in {p.uid for p in pods}

    until(side, moved, "the old pod is gone")
    assert min(ready_counts) == 1
    restarted = side.kubernetes.workload(owner)
    assert restarted
    assert restarted.restarted_for == "r/node"


def test_workloads_of_every_kind_are_counted_and_others_are_none(side: Side) -> None:
    side.add_node()
    web, db = side.add_deployment("web", 2), side.add_stateful_set("db", 1)
    # The controllers count a moment after the pods are Ready.
    for owner, desired in ((web, 2), (db, 1)):
        until(side, lambda o=owner: (w := side.kubernetes.workload(o)) and w.all_ready, f"{owner} is counted")
        workload = side.kubernetes.workload(owner)
        assert workload
        assert (workload.desired, workload.ready, workload.all_ready) == (desired, desired, True)
    assert {web, db} <= {w.owner for w in side.kubernetes.workloads()}
    assert side.kubernetes.workload(Owner("Job", side.namespace, "web")) is None
    assert side.kubernetes.workload(Owner("Deployment", side.namespace, "nobody")) is None


@pytest.mark.lab
def test_a_daemonset_goes_on_counting_a_node_that_is_gone_and_is_whole_on_those_there_are(cluster: Cluster) -> None:
    """Nobody tells its controller of the node; the pod there was ending when the node went."""
    stays, goes = cluster.add_node(), cluster.add_node()
    body = cluster.workload("edge", 0)
    del body["spec"]["replicas"]
    cluster.create("apps/v1/daemonsets", body)
    pods = {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in cluster.wait_for_ready("edge", 2)}
    side, owner = Real(cluster), Owner("DaemonSet", cluster.name, "edge")
    kubernetes = side.kubernetes

    def counted() -> Workload:
        return next(w for w in kubernetes.workloads() if w.owner == owner)

    until(side, lambda: counted().ready == 2, "both are counted")
    unready = {"conditions": [{"type": "Ready", "status": "False"}]}
    cluster.kube.patch(cluster.path(f"v1/pods/{pods[goes]}/status"), {"status": unready}, kind="strategic")
    until(side, lambda: counted().ready == 1, "the pod that ends is counted")
    cluster.kube.delete(f"/api/v1/nodes/{goes}")
    late = counted()
    assert (late.desired, late.ready, late.current) == (2, 1, 2)
    seen = on_nodes_that_are(late, kubernetes.pods_of(late), [stays])
    assert (seen.desired, seen.ready, seen.all_ready) == (1, 1, True)
    # While that node is there its pod is missed.
    assert not on_nodes_that_are(late, kubernetes.pods_of(late), [stays, goes]).all_ready


def test_pods_are_listed_with_their_owner_node_and_readiness(side: Side) -> None:
    name = side.add_node()
    web = side.add_deployment("web", 2)
    listed = [p for p in side.kubernetes.pods_on(name) if p.owner == web]
    assert len(listed) == 2
    workload = side.kubernetes.workload(web)
    assert workload
    assert {p.uid for p in side.kubernetes.pods_of(workload)} == {p.uid for p in listed}
    assert all(p.ready and p.node == name and not p.deleting and not p.stays_with_node for p in listed)
    assert sorted(p.uid for p in listed) == [p.uid for p in sorted(pods_of(side, web), key=lambda p: p.uid)]


# Leases


def test_nodes_without_a_driver_state_no_limit_of_volumes(side: Side) -> None:
    name = side.add_node()
    if isinstance(side, InMemory):
        assert side.kubernetes.volume_limits()[name] == {"ebs.csi.aws.com": 25}
    else:
        assert name not in side.kubernetes.volume_limits()


def test_the_version_of_the_control_plane_can_be_read(side: Side) -> None:
    assert minor_version(side.kubernetes.server_version())


@pytest.mark.lab
def test_limits_of_volumes_are_those_of_the_csi_node(cluster: Cluster) -> None:
    name = cluster.add_node()
    drivers = [{"name": "ebs.csi.aws.com", "nodeID": "i-1", "allocatable": {"count": 25}}, {"name": "x", "nodeID": "1"}]
    cluster.kube.create("/apis/storage.k8s.io/v1/csinodes", {"metadata": {"name": name}, "spec": {"drivers": drivers}})
    try:
        assert Real(cluster).kubernetes.volume_limits()[name] == {"ebs.csi.aws.com": 25}
    finally:
        cluster.kube.delete(f"/apis/storage.k8s.io/v1/csinodes/{name}")


@pytest.mark.lab
def test_what_nodes_have_and_pods_need_is_read_as_the_server_defaults_it(cluster: Cluster) -> None:
    node = cluster.add_node(pods=29)
    rule = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "even"}},
    }
    cluster.add_deployment("even", 1, topologySpreadConstraints=[rule])
    kubernetes = Real(cluster).kubernetes
    seen = node_called(Real(cluster), node)
    assert seen.allocatable == {"cpu": 4000, "memory": 16 << 30, "pods": 29}
    assert seen.created > 0
    (pod,) = [p for p in kubernetes.pods() if p.namespace == cluster.name]
    assert pod.requests == {"cpu": 50, "memory": 32 << 20}
    assert pod.needs is not None
    assert pod.needs.labels == (("tests/pool", cluster.name),)
    assert [(s.key, s.max_skew, s.honors_taints) for s in pod.needs.spread] == [("kubernetes.io/hostname", 1, False)]
    assert pod.grace_seconds == 1


def test_of_two_who_write_a_lease_at_once_one_loses(side: Side) -> None:
    """R4."""
    name = f"{side.namespace}/eks-rolling"
    assert side.kubernetes.lease(name) is None
    made = side.kubernetes.put_lease(Lease(name, "roll-1", renewed=1_700_000_000.5, duration=60))
    with pytest.raises(Conflict):
        side.kubernetes.put_lease(Lease(name, "roll-2", renewed=1_700_000_000.5, duration=60))
    renewed = side.kubernetes.put_lease(replace(made, renewed=1_700_000_010.25, annotations={"a": "b"}))
    with pytest.raises(Conflict):
        side.kubernetes.put_lease(replace(made, holder="roll-2"))
    assert side.kubernetes.lease(name) == renewed
    assert (renewed.holder, renewed.renewed, renewed.duration) == ("roll-1", 1_700_000_010.25, 60)
    freed = side.kubernetes.put_lease(replace(renewed, holder="", annotations={}))
    assert freed.holder == ""


# Only where there is a server


@pytest.mark.lab
def test_an_unreachable_server_is_named_with_what_to_look_at() -> None:
    client = KubernetesClient("https://127.0.0.1:9", "", lambda: "token")
    with pytest.raises(Transient, match=r"https://127.0.0.1:9 cannot be reached.*security group"):
        client.nodes()


@pytest.mark.lab
def test_a_token_that_is_not_accepted_asks_for_an_access_entry(control_plane: ControlPlane) -> None:
    access = control_plane.kube.access
    client = KubernetesClient(access.server, access.authority or "", lambda: "nobody")
    with pytest.raises(AccessDenied, match="give the function's role an EKS access entry"):
        client.nodes()


# What migrating Redis needs


def test_a_pod_is_deleted_under_its_uid_only(side: Side) -> None:
    """N1."""
    side.add_node()
    owner = side.add_stateful_set("redis", 1)
    until(side, lambda: [p for p in pods_of(side, owner) if p.ready], "the pod is Ready")
    (pod,) = pods_of(side, owner)
    side.kubernetes.delete_pod(replace(pod, uid="00000000-0000-0000-0000-000000000000"))
    assert not any(p.deleting for p in pods_of(side, owner))
    side.kubernetes.delete_pod(pod)
    until(side, lambda: [p for p in pods_of(side, owner) if p.uid != pod.uid], "another pod of that name")
    side.kubernetes.delete_pod(pod)
    assert not any(p.deleting for p in pods_of(side, owner))


def test_a_pods_annotation_is_written_only_on_the_pod_that_was_looked_at(side: Side) -> None:
    """R1."""
    side.add_node()
    owner = side.add_stateful_set("redis", 1)
    until(side, lambda: [p for p in pods_of(side, owner) if p.ready], "the pod is Ready")
    (stale,) = pods_of(side, owner)
    answered = side.kubernetes.annotate_pod(stale, {"a": "1", "b": "2"})
    (pod,) = pods_of(side, owner)
    assert {k: pod.annotations.get(k) for k in "ab"} == {"a": "1", "b": "2"}
    assert (answered.annotations, answered.uid) == (pod.annotations, pod.uid)
    with pytest.raises(Conflict):
        side.kubernetes.annotate_pod(stale, {"a": "3"})
    side.kubernetes.annotate_pod(pod, {"a": None})
    assert "a" not in pods_of(side, owner)[0].annotations


def test_stateful_sets_are_those_of_the_namespace(side: Side) -> None:
    side.add_node()
    owner = side.add_stateful_set("redis", 2)
    side.add_deployment("web", 1)
    (found,) = side.kubernetes.stateful_sets(side.namespace)
    assert (found.owner, found.desired) == (owner, 2)
    assert side.kubernetes.stateful_sets("nowhere") == []


def test_a_secret_is_read_decoded_and_a_missing_one_is_named(side: Side) -> None:
    side.add_secret("redis-auth", {"password": "correct horse"})
    assert side.kubernetes.secret(side.namespace, "redis-auth") == {"password": "correct horse"}
    with pytest.raises(NotFound, match="nothing"):
        side.kubernetes.secret(side.namespace, "nothing")


def annotated_set(side: Side, name: str, replicas: int) -> Workload:
    """A StatefulSet of a Redis group, its pods Ready."""
    owner = side.add_stateful_set(name, replicas)
    until(side, lambda: sum(p.ready for p in pods_of(side, owner)) == replicas, "its pods are Ready")
    updated(side, owner, annotations={GROUP: "shards"})
    annotated = side.kubernetes.workload(owner)
    assert annotated is not None
    return annotated


def test_a_stand_in_is_created_once_and_found_by_its_label(side: Side) -> None:
    """R3, C3."""
    side.add_node()
    workload = annotated_set(side, "redis", 1)
    (pod,) = pods_of(side, workload.owner)
    said = marks(pod.name, "id-1", Role.MASTER)
    for _ in range(2):
        side.kubernetes.create_stand_in(workload, pod, "", said)
    (found,) = side.kubernetes.stand_ins(side.namespace, "shards")
    assert (found.name, found.owner) == ("redis-0-stand-in", None)
    assert said.items() <= found.annotations.items()
    assert workload.selector is not None
    assert not workload.selector.matches(found.labels)
    assert side.kubernetes.stand_ins(side.namespace, "others") == []
    assert [p.name for p in side.kubernetes.pods_of(workload)] == [pod.name]


def test_a_stand_in_is_not_made_of_a_set_that_is_another_by_now(side: Side) -> None:
    side.add_node()
    workload = annotated_set(side, "redis", 1)
    (pod,) = pods_of(side, workload.owner)
    with pytest.raises(NotFound):
        side.kubernetes.create_stand_in(replace(workload, owner=replace(workload.owner, name="gone")), pod, "", {})
    with pytest.raises(Conflict):
        side.kubernetes.create_stand_in(replace(workload, uid="another"), pod, "", {})
    assert side.kubernetes.stand_ins(side.namespace, "shards") == []


@pytest.mark.lab
def test_a_stand_in_weakens_no_budget_and_stands_in_nobodys_way(cluster: Cluster) -> None:
    """C3: the budget allows no more than before, and the pod comes back though its spread rule is tight."""
    side = Real(cluster)
    for _ in range(3):
        cluster.add_node()
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "redis"}},
    }
    cluster.add_stateful_set("redis", 3, topologySpreadConstraints=[spread])
    cluster.add_budget("redis", "redis", maxUnavailable=1)
    cluster.create(
        "v1/services",
        {"metadata": {"name": "redis"}, "spec": {"selector": {"app": "redis"}, "ports": [{"port": 6379}]}},
    )
    owner = Owner("StatefulSet", side.namespace, "redis")
    updated(side, owner, annotations={GROUP: "shards"})
    workload = side.kubernetes.workload(owner)
    assert workload is not None
    pod = pods_of(side, owner)[0]

    def allowed() -> int:
        (budget,) = [b for b in side.kubernetes.budgets() if b.name == "redis" and b.namespace == side.namespace]
        return budget.allowed

    def endpoints() -> set[str]:
        slices = cluster.kube.list(cluster.path("discovery.k8s.io/v1/endpointslices"))
        return {e["targetRef"]["name"] for s in slices for e in s.get("endpoints") or ()}

    until(side, lambda: allowed() == 1, "the budget has counted")
    side.kubernetes.create_stand_in(workload, pod, "", marks(pod.name, "id-1", Role.MASTER))
    until(side, lambda: side.kubernetes.stand_ins(side.namespace, "shards")[0].ready, "the stand-in is Ready")
    assert allowed() == 1
    assert not [name for name in endpoints() if name.endswith("stand-in")]
    side.kubernetes.delete_pod(pod)
    until(side, lambda: allowed() == 0, "one of three is away")
    until(side, lambda: sum(p.ready and p.uid != pod.uid for p in pods_of(side, owner)) == 3, "the pod is back")
    until(side, lambda: allowed() == 1, "as before")


@pytest.mark.lab
def test_network_policies_are_read_as_the_api_server_keeps_them(cluster: Cluster) -> None:
    """It fills in what is left out: `policyTypes`, protocols."""
    cluster.create(
        "networking.k8s.io/v1/networkpolicies",
        {
            "metadata": {"name": "redis"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "redis"}},
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 6379}]},
                    {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
                ],
            },
        },
    )
    side = Real(cluster)
    (found,) = [p for p in side.kubernetes.network_policies() if p.namespace == side.namespace]
    assert found == NetworkPolicy(
        side.namespace,
        "redis",
        Selector((("app", "redis"),)),
        ingress=(
            Rule((Peer(Selector((("app", "web"),))),), ((6379, 6379),)),
            Rule((Peer(block=Block("10.0.0.0/8", ("10.1.0.0/16",))),)),
        ),
    )
