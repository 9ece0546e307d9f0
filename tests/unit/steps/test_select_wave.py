"""Which nodes of the plan are replaced next."""

from typing import Any

from eks_rolling.observed.aws import Group, GroupInstance
from eks_rolling.observed.kubernetes import Node
from eks_rolling.steps.select_wave import decide

IDS = ("i-1", "i-2", "i-3", "i-4")
GROUP = Group("ng", instances=tuple(GroupInstance(i, "a", template="lt-1:1") for i in IDS))
NODES = [Node(f"node-{i}", instance=i) for i in IDS]


def wave(size: int, **more: Any) -> tuple[list[str], int]:
    found, left = decide([GROUP], NODES, IDS, {"ng": {"": "lt-1:2"}}, size, **more)
    return [task["instance"] for task in found], left


def test_a_wave_is_the_first_ones_of_the_plan_dead_nodes_before_all() -> None:
    assert wave(2) == (["i-1", "i-2"], 4)
    assert wave(2, dead={"i-3"}) == (["i-3", "i-1"], 4)


def test_of_those_in_one_place_one_goes_at_a_time() -> None:
    """R2: each needs another of them to stay, or its replacement to be there."""
    assert wave(4, places={"i-3": "i-1", "i-4": "i-1"}) == (["i-1", "i-2"], 4)
    assert wave(4, places={"i-4": "i-3"}) == (["i-1", "i-2", "i-3"], 4)
    # Whatever comes first: a wave is never empty while a node is left.
    assert wave(4, places={"i-4": "i-3"}, dead={"i-4"}) == (["i-4", "i-1", "i-2"], 4)
    assert wave(1, places=dict.fromkeys(IDS[1:], "i-1")) == (["i-1"], 4)
    assert wave(4, places=dict.fromkeys(IDS, "i-0")) == (["i-1"], 4)
