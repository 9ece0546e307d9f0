"""The step that has a replacement launched by a raised desired capacity, where AWS chooses the zone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.errors import Conflict
from eks_rolling.observed.aws import InstanceState
from eks_rolling.observed.kubernetes import Node
from eks_rolling.observed.marks import (
    GROUP_MAXIMUM,
    GROUP_RESUME,
    INSTANCE_REPLACES,
    INTERFERING_PROCESSES,
    NODE_LAUNCH,
    NODE_ROLL,
    SOFT_TAINT,
    SURPLUS,
    LaunchMark,
)
from eks_rolling.payloads import Hold, NodeTask, Status
from eks_rolling.roll import lock
from eks_rolling.roll.arrangements import close_strays
from eks_rolling.settings import Settings
from eks_rolling.steps import await_ready, launch_replacement
from tests.world import ZONES, World

SETTINGS = Settings(cluster="demo")
Watcher = Callable[["Launching"], None]


class Launching:
    """A group with so many nodes in each of its two zones; the last node of the second zone is to be replaced."""

    def __init__(self, *sizes: int) -> None:
        self.world = World()
        self.world.group("ng", ZONES, maximum=sum(sizes), mixed_purchasing=True)
        self.names = [self.world.add_node("ng", z) for z, size in zip(ZONES, sizes, strict=True) for _ in range(size)]
        self.world.deployment("web", 2)
        self.world.ready()
        self.world.new_template_version("ng")
        self.clients = self.world.clients(SETTINGS)
        lock.acquire(self.clients, "roll-1", lock.lock_name(SETTINGS.namespace))
        self.change(
            suspended=INTERFERING_PROCESSES,
            maximum=100,
            tags=self.world.groups_by_name["ng"].tags | {GROUP_RESUME: "-", GROUP_MAXIMUM: f"{sum(sizes)} to 100"},
        )
        node = self.node
        marked = replace(node, taints=(SOFT_TAINT,), annotations=node.annotations | {NODE_ROLL: "roll-1"})
        self.world.nodes_by_name[node.name] = marked
        self.task = NodeTask(roll="roll-1", instance=node.instance, node=node.name, group="ng")
        self.before = set(self.world.machines)

    @property
    def node(self) -> Node:
        return self.world.nodes_by_name[self.names[-1]]

    def change(self, **more: Any) -> None:
        self.world.groups_by_name["ng"] = replace(self.world.groups_by_name["ng"], **more)

    def looks(self, watcher: Watcher = lambda _: None, most: int = 200) -> str:
        """The replacement that the step ends with."""
        for _ in range(most):
            watcher(self)
            try:
                result = launch_replacement.run(self.task, self.clients)
            except Conflict:
                continue
            if result.status is Status.DONE:
                return str(result.output["replacement"])
            self.last = result.reason
            self.world.advance(result.wait_seconds)
        raise AssertionError(self.last)

    def raises(self) -> int:
        return sum(1 for e in self.world.effects if e.startswith("desired of ng"))

    def came(self) -> dict[str, str]:
        """What came since the beginning, each with what its tag says."""
        after = {i: m for i, m in self.world.machines.items() if i not in self.before}
        return {i: m.tags.get(INSTANCE_REPLACES, "") for i, m in after.items()}


@pytest.mark.parametrize(("sizes", "raises"), [((1, 6), 7), ((1, 1), 2), ((6, 1), 1)])
def test_what_comes_in_another_zone_is_nobodys_setting_back_of_the_capacity(
    sizes: tuple[int, int], raises: int
) -> None:
    """R2: AWS fills the zone that has fewer first, and each of those instances answered its request."""
    launching = Launching(*sizes)
    new = launching.looks()
    assert launching.world.machines[new].zone == launching.node.zone
    assert sorted(launching.came().values()) == sorted([launching.task.instance, *[SURPLUS] * (raises - 1)])
    assert launching.raises() == raises


@pytest.mark.parametrize("late", [5, 20, 60])
def test_a_tag_that_is_shown_late_has_nothing_more_launched(late: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: EC2 is eventually consistent. What came in another zone is the group's own until its tag is seen."""
    launching, written = Launching(1, 1), dict[str, float]()
    world = launching.world
    tag, instances = world.tag_instance, world.instances

    def tagging(instance: str, tags: Mapping[str, str]) -> None:
        tag(instance, tags)
        written.setdefault(instance, world.time)

    def shown(ids: Sequence[str]) -> dict[str, InstanceState]:
        young = {i for i, at in written.items() if world.time < at + late}
        return {i: replace(s, tags={}) if i in young else s for i, s in instances(ids).items()}

    monkeypatch.setattr(world, "tag_instance", tagging)
    monkeypatch.setattr(world, "instances", shown)
    new = launching.looks()
    assert launching.came() == {new: launching.task.instance, next(i for i in launching.came() if i != new): SURPLUS}
    assert launching.raises() == 2


def test_a_maximum_size_that_a_person_has_to_raise_is_named_at_once() -> None:
    """Not only once every tag must be known."""
    launching = Launching(1, 2)
    launching.change(maximum=3)
    world, node = launching.world, launching.node
    states = world.instances(sorted(launching.before))
    marked = replace(node, annotations={NODE_LAUNCH: str(LaunchMark(world.time, desired=2))})
    (group,) = world.groups(["ng"])
    decided = launch_replacement.decide(group, states, marked, states[node.instance], "roll-1", world.time)
    assert decided == Hold("group ng is at its maximum size 3; raise it")
    higher = replace(group, maximum=4)
    waits = launch_replacement.decide(higher, states, marked, states[node.instance], "roll-1", world.time)
    assert waits == Hold("the tags of instances of group ng are not known everywhere yet")


@pytest.mark.parametrize(("theirs_in", "raises"), [(ZONES[0], 2), (ZONES[1], 1)])
@pytest.mark.parametrize("delay", [0, 20])
def test_what_somebody_asked_for_while_a_replacement_is_waited_for_stays_theirs(
    theirs_in: str, raises: int, delay: float
) -> None:
    """N4, R2: of two that come at once, one is the roll's: the one in the node's zone, if there is any."""
    launching = Launching(1, 2)
    launching.world.delays.scale_out = delay
    launched = list[str]()

    def scale_out(current: Launching) -> None:
        mark = LaunchMark.on(current.node)
        if not launched and mark is not None and mark.raised:
            current.change(desired=current.world.groups_by_name["ng"].desired + 1)
            launched.append(current.world._launch("ng", theirs_in).id)
            # AWS answers the roll's request in the other zone than the node's, which has fewer.
            current.world.advance(delay + 5)

    new = launching.looks(scale_out)
    assert launched
    assert launching.world.machines[new].zone == launching.node.zone
    assert (list(launching.came().values()).count(""), launching.raises()) == (1, raises)


def test_a_step_that_dies_before_it_notes_that_its_request_was_answered_elsewhere_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R3."""
    launching, died = Launching(1, 3), list[str]()
    update = launching.world.update_node

    def dying(node: Node, **change: Any) -> Node:
        if not died and SURPLUS in launching.came().values():
            died.append(node.name)
            raise Conflict("the node changed meanwhile")
        return update(node, **change)

    monkeypatch.setattr(launching.world, "update_node", dying)
    new = launching.looks()
    assert died == [launching.node.name]
    assert launching.world.machines[new].zone == launching.node.zone
    assert launching.raises() == len(launching.came())


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_request_whose_notes_are_lost_several_times_in_a_row_is_not_made_once_more(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: a kubelet writes its Node at the same moment, say, once an instance came in another zone."""
    launching, left = Launching(1, 1), [lost]
    launching.world.delays.scale_out = 20
    update = launching.world.update_node

    def contended(node: Node, **change: Any) -> Node:
        if left[0] and SURPLUS in launching.came().values():
            left[0] -= 1
            raise Conflict("the node changed meanwhile")
        return update(node, **change)

    monkeypatch.setattr(launching.world, "update_node", contended)
    launching.looks()
    assert left == [0]
    assert sorted(launching.came().values()) == sorted([launching.task.instance, SURPLUS])


def test_a_node_that_goes_while_it_is_closed_keeps_no_other_open() -> None:
    """R5: it ended another node's wait, and with it the roll."""
    launching = Launching(1, 1)
    launching.looks()
    launching.world.advance(120)
    (stray,) = [i for i, value in launching.came().items() if value == SURPLUS]
    node = next(n for n in launching.world.nodes() if n.instance == stray)
    gone, states = replace(node, name="gone"), launching.world.instances([stray])
    close_strays(states, [replace(gone, unschedulable=False), replace(node, unschedulable=False)], launching.clients)
    assert launching.world.nodes_by_name[node.name].unschedulable


def test_a_replacement_that_ec2_still_shows_as_surplus_is_not_closed_again() -> None:
    """R2: its tag was just written; the node would stay closed while pods are evicted to it."""
    launching = Launching(1, 1)
    new = launching.looks()
    launching.world.advance(120)
    launching.world.machines[new].tags[INSTANCE_REPLACES] = SURPLUS
    await_ready.run(launching.task.model_copy(update={"replacement": new}), launching.clients)
    closed = {n.instance for n in launching.world.nodes() if n.unschedulable}
    assert (new in closed, len(closed)) == (False, 1)
