"""What the cluster-autoscaler stand-in decides."""

from typing import Any

import pytest

from lab.images.autoscaler import Bounds, Group, Raise, Remove, decide, empty, unschedulable

BOUNDS = (Bounds("first", 0, 2), Bounds("second", 1, 2))
DISABLED = "cluster-autoscaler.kubernetes.io/scale-down-disabled"


def node(name: str, *, ready: bool = True, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"providerID": f"aws:///eu-central-1a/i-{name}"},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def pod(on: str = "", owner: str = "ReplicaSet", *, phase: str = "Running", priority: int = 0) -> dict[str, Any]:
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {
        "metadata": {"namespace": "shop", "name": "web", "ownerReferences": [{"kind": owner}]},
        "spec": {"nodeName": on, "priority": priority},
        "status": {"phase": phase, "conditions": [] if on else [waits]},
    }


def decided(
    groups: dict[str, Group], nodes: list[Any], pods: list[Any], unneeded: dict[str, float] | None = None
) -> Raise | Remove | None:
    return decide(BOUNDS, groups, nodes, pods, unneeded or {}, now=100.0, unneeded_seconds=10.0)


def groups(first: int, second: int) -> dict[str, Group]:
    """Groups of so many instances, called i-first-0 and so on."""
    sizes = {"first": first, "second": second}
    return {name: Group(name, size, tuple(f"i-{name}-{n}" for n in range(size))) for name, size in sizes.items()}


def nodes(first: int, second: int) -> list[dict[str, Any]]:
    return [node(f"{name}-{n}") for name, size in (("first", first), ("second", second)) for n in range(size)]


@pytest.mark.parametrize(
    ("first", "second", "wanted"), [(0, 1, Raise("first", 1)), (2, 1, Raise("second", 2)), (2, 2, None)]
)
def test_a_pod_without_room_raises_the_first_group_that_may_grow(first: int, second: int, wanted: Raise | None) -> None:
    assert decided(groups(first, second), nodes(first, second), [pod()]) == wanted


def test_it_waits_for_a_node_that_is_on_its_way() -> None:
    assert decided(groups(1, 1), nodes(0, 1), [pod()]) is None
    assert decided(groups(1, 1), [node("first-0", ready=False), *nodes(0, 1)], [pod()]) is None


@pytest.mark.parametrize(("priority", "seen"), [(0, True), (-10, True), (-11, False)])
def test_placeholders_below_the_cutoff_raise_nothing(priority: int, seen: bool) -> None:
    assert bool(unschedulable([pod(priority=priority)])) is seen


def test_an_empty_node_goes_once_it_has_been_so_for_long_enough_and_never_below_the_minimum() -> None:
    assert decided(groups(1, 1), nodes(1, 1), [], {"i-first-0": 91.0}) is None
    assert decided(groups(1, 1), nodes(1, 1), [], {"i-first-0": 90.0}) == Remove("first", "i-first-0")
    assert decided(groups(0, 1), nodes(0, 1), [], {"i-second-0": 0.0}) is None
    assert decided(groups(1, 1), nodes(1, 1), [pod()], {"i-first-0": 0.0}) == Raise("first", 2)


@pytest.mark.parametrize(
    ("found", "pods", "is_empty"),
    [
        (node("a"), [], True),
        (node("a"), [pod("a", "DaemonSet"), pod("a", "Job", phase="Succeeded"), pod("b")], True),
        (node("a"), [pod("a")], False),
        (node("a", ready=False), [], False),
        (node("a", annotations={DISABLED: "true"}), [], False),
        (node("a", annotations={DISABLED: "false"}), [], True),
    ],
)
def test_what_an_empty_node_is(found: dict[str, Any], pods: list[Any], is_empty: bool) -> None:
    assert empty(found, pods) is is_empty


def test_bounds_are_read_as_the_real_one_reads_them() -> None:
    assert Bounds.parse("0:2:spare") == Bounds("spare", 0, 2)
    with pytest.raises(ValueError, match="not enough values"):
        Bounds.parse("spare")
