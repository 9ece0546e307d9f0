"""What kubelets and tenants may write into objects, and an API server passes on [T1]: no list fails for one of them,
and none speaks for another.

`tests/contract/test_identities.py` has a real API server take them.
"""

from typing import Any

import pytest

from eks_rolling.clients.kubernetes import OURS, _budget, _lease, _node, _pod, _workload
from eks_rolling.clients.manifests import quantity
from eks_rolling.observed.kubernetes import Lease, Node, Owner, Pod, epoch
from eks_rolling.observed.marks import NODE_MOVING
from eks_rolling.payloads import Hold
from eks_rolling.roll import lock, returns
from eks_rolling.roll.orphans import OrphanScan, orphans
from eks_rolling.roll.pending_change import CHANGES, FIRST, LAST, SEEN, PendingChange
from eks_rolling.settings import DeadNodes
from eks_rolling.steps.evict import AskAll, DropBudgets, EvictPods, NodeToEmpty, _awaited_owners, decide

ODD_TIMES = (
    "0000-12-31T10:00:00Z", "10000-01-01T13:59:59Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "x",
)  # fmt: skip
"""What an API server makes of times near the ends of its years, given with an offset; and none."""

META: dict[str, Any] = {"name": "x", "namespace": "tenant-x", "uid": "u", "resourceVersion": "1"}


@pytest.mark.parametrize("when", ODD_TIMES)
def test_a_time_that_nobodys_clock_says_is_none(when: str) -> None:
    assert epoch(when) == 0.0


@pytest.mark.parametrize("when", ODD_TIMES)
def test_a_kubelet_that_writes_an_odd_time_is_read_and_not_taken_for_dead_by_it(when: str) -> None:
    """R5: a list of nodes that fails for one of them would keep every node's taint."""
    condition = {"type": "Ready", "status": "Unknown", "lastTransitionTime": when}
    node = _node({"metadata": META, "status": {"conditions": [condition]}})
    assert not node.dead(DeadNodes(replace=True), now=1e9)


@pytest.mark.parametrize("when", ODD_TIMES)
def test_a_tenants_lease_with_an_odd_time_is_read_told_and_taken_over(when: str) -> None:
    lease = _lease({"metadata": META, "spec": {"holderIdentity": "roll-0/node", "renewTime": when}})
    assert lease.expired(1e9)
    (told,) = orphans(OrphanScan("demo", 1e9, leases=(lease,)))
    assert told.kind == "lock"


CONTROLLERS = (
    ("Deployment", "../../../../shop/secrets"),
    ("StatefulSet", "Not A Name"),
    ("Kind | Deployment shop/web=9999@1", "x"),
    ("Kind", "x=0:11111111,22222222,33333333,44444444 | Deployment shop/web"),
    ("ReplicaSet", "-7d4b9"),
    ("", "x"),
    ("K" * 64, "x"),
)


def of_controller(kind: str, name: str, group: str = "tenant.example") -> Pod:
    reference = {"kind": kind, "name": name, "controller": True, "uid": "u", "apiVersion": f"{group}/v1"}
    labels = {"pod-template-hash": "7d4b9"}
    return _pod({"metadata": META | {"ownerReferences": [reference], "labels": labels}, "spec": {}})


@pytest.mark.parametrize(("kind", "name"), CONTROLLERS)
def test_a_pod_of_a_controller_that_cannot_be_there_is_a_pod_without_one(kind: str, name: str) -> None:
    """Its name would become part of a request, and of a record that others are found in."""
    assert of_controller(kind, name).owner is None


@pytest.mark.parametrize(
    ("kind", "name", "group"),
    [("Deployment", "web", "apps"), ("My-Kind", "a.b-c", "tenant.example"), ("DaemonSet", "0", "apps")],
)
def test_other_controllers_are_read_as_before(kind: str, name: str, group: str) -> None:
    assert of_controller(kind, name, group).owner == Owner(kind, "tenant-x", name)


RECORDS = (
    "K //x=1:", "Deployment default/..=1:11111111", "StatefulSet ../../x=1:", "Deployment default/-x=9@1",
    "Deployment default/Web=9@1", "Deployment default/web/x", "| | =1:",
)  # fmt: skip


@pytest.mark.parametrize("said", RECORDS)
def test_a_record_on_a_node_that_names_nothing_is_passed_over(said: str) -> None:
    """A kubelet writes what it likes on its own Node, and the step that reads it asks for what is named there."""
    assert returns.read(said) == {}
    assert _awaited_owners(Node("node", annotations={NODE_MOVING: said})) == {}


def test_what_a_roll_records_is_read_back() -> None:
    pods = [Pod("shop", f"web-{n}", uid=f"u{n}", owner=Owner("Deployment", "shop", "web")) for n in range(2)]
    bare = Pod("shop", "bare", uid="b")
    noted = returns.noted({}, [*pods, bare], [*pods, bare])
    assert returns.read(returns.written(noted)) == noted


def budget_of(spec: dict[str, Any]) -> Any:
    covers = {"selector": {"matchLabels": {"app": "x"}}}
    return _budget({"metadata": META | {"labels": OURS}, "spec": spec | covers})


@pytest.mark.parametrize(
    ("spec", "ours"),
    [
        ({"maxUnavailable": 1}, True),
        ({"minAvailable": 3}, True),
        ({"minAvailable": "50%"}, False),
        ({"maxUnavailable": "1%"}, False),
        ({"maxUnavailable": 0}, False),
        ({}, False),
    ],
)
def test_a_tenants_budget_with_our_label_is_ours_only_if_a_roll_could_have_made_it(
    spec: dict[str, Any], *, ours: bool
) -> None:
    """The step that empties a node counts with what stands in ours."""
    budget = budget_of(spec)
    assert budget.ours is ours
    owner = Owner("Deployment", "tenant-x", "x")
    pod = Pod("tenant-x", "x-1", uid="u1", node="node", owner=owner, labels={"app": "x"})
    workload = _workload("Deployment", {"metadata": META, "spec": {"replicas": 1, "selector": {}}})
    decision = decide(NodeToEmpty(Node("node"), (pod,), (budget,), {owner: workload}))
    # One of ours that asks for as many as there are goes.
    assert isinstance(decision, DropBudgets | Hold | AskAll | EvictPods)


@pytest.mark.parametrize("share", ["9" * 5000 + "%", "9" * 19 + "%", "5", "%"])
@pytest.mark.parametrize("field", ["maxSurge", "maxUnavailable"])
def test_a_share_with_digits_without_end_is_no_surge(field: str, share: str) -> None:
    """Python reads no number of so many digits; the API server takes it as it is."""
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0} | {field: share}}
    workload = _workload("Deployment", {"metadata": META, "spec": {"replicas": 3, "strategy": strategy}})
    assert workload.surges is False


@pytest.mark.parametrize(
    ("name", "text", "amount"),
    [("cpu", "100n", 0), ("cpu", "1500u", 2), ("memory", "1n", 0), ("cpu", "2e3", 2_000_000)],
)
def test_every_suffix_of_a_quantity_is_known(name: str, text: str, amount: int) -> None:
    assert quantity(name, text) == amount


# The lock, which people annotate with kubectl


@pytest.mark.parametrize("said", ["soon", "nan", "-inf", "1e400", "9" * 5000, ""])
def test_a_lock_with_a_pause_of_no_known_beginning_is_paused_from_now_on(said: str) -> None:
    lease = Lease("kube-system/eks-rolling", "roll-1", 1000.0, 60.0, "1", {lock.PAUSE: "", lock.PAUSED_AT: said})
    assert lock.pause_look(lease, 2000.0) == lock.LOOK_SECONDS
    assert isinstance(lock.decide(lease, "roll-1", 2000.0, lease.name, 60.0), lock.Take)


@pytest.mark.parametrize("said", ["{", "null", "7", '"batch-pod"', '{"batch-pod": 1}', "[" * 5000, "[[1], null]"])
def test_a_lock_that_accepts_nothing_legible_accepts_nothing(said: str) -> None:
    assert lock.accepted(Lease("kube-system/eks-rolling", annotations={lock.ACCEPTED: said})) == frozenset()


@pytest.mark.parametrize("said", ["soon", "nan", "inf", "1e400", "9" * 5000, "-1", ""])
def test_a_count_of_changes_that_no_step_wrote_is_none(said: str) -> None:
    lease = Lease("kube-system/eks-rolling-next", annotations={CHANGES: said, SEEN: said, FIRST: said, LAST: said})
    memory = PendingChange(lease)
    assert (memory.changes, memory.seen, memory.first, memory.last) == (0, 0, 0.0, 0.0)
    arrived = memory.arrival(1000.25)
    assert (arrived.changes, arrived.last) == (1, 1000.25)
