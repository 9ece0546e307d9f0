"""Rolls that ended while a replacement was in use, and versions that changed before the next one: however many of them,
the first roll that nobody ends leaves each group of the size that it had.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.observed.aws import LaunchTemplate
from eks_rolling.observed.marks import INSTANCE_REPLACES
from eks_rolling.roll.lock import ABORT
from tests.asl import Execution, Stopped
from tests.model import test_dead_nodes
from tests.model.situations import by_zone, shop
from tests.model.test_remedies import leaves_nothing
from tests.model.test_roll import SMALL, engine_for
from tests.world import World

Json = dict[str, Any]

LOCK = "kube-system/eks-rolling"


def several(sizes: tuple[int, int] = SMALL, *, serial: bool = False) -> World:
    world = shop(sizes, new_version=False)
    for name, group in world.groups_by_name.items():
        world.groups_by_name[name] = replace(group, mixed_purchasing=serial)
    return world


def new_version(world: World) -> None:
    for group in world.groups_by_name:
        world.new_template_version(group)
    world.planned = {m.id for m in world.machines.values()}


When = Callable[[str, World], bool]
"""Whether a roll is to end before a step."""


def never(_: str, __: World) -> bool:
    return False


def later(steps: int) -> When:
    """Before the next one after so many."""
    seen: list[str] = []

    def end(step: str, _: World) -> bool:
        seen.append(step)
        return len(seen) > steps

    return end


def roll(world: World, name: str, request: Json, end: When = never) -> Execution:
    """A roll that a person aborts."""
    engine = engine_for(world)
    world.planned = {m.id for m in world.machines.values()}

    def abort(step: str) -> None:
        lease = world.leases.get(LOCK)
        asked = lease is not None and (lease.holder != name or ABORT in lease.annotations)
        if lease is not None and not asked and end(step, world):
            world.leases[LOCK] = replace(lease, annotations=lease.annotations | {ABORT: "lunch"})

    engine.before_call = abort
    return engine.run("roll", name, request)


def once_in_use(step: str, world: World) -> bool:
    """At an eviction, when a pod runs already on what was launched by this roll."""
    newest = max((m for m in world.machines.values() if m.alive), key=lambda m: (m.launched, m.id))
    on_it = world.pods_on(f"node-{newest.id}")
    fresh = newest.template == newest_of(world)[newest.group]
    return step == "evict" and fresh and any(not p.stays_with_node for p in on_it)


def newest_of(world: World) -> dict[str, str]:
    """Group -> what it launches now."""
    found = {}
    for name, group in world.groups_by_name.items():
        assert group.template
        latest = world.templates[group.template.id][0]
        number = latest if group.template.version == "$Latest" else group.template.version
        found[name] = f"{group.template.id}:{number}"
    return found


def outdated_ones(world: World) -> list[str]:
    newest = newest_of(world)
    return [m.id for m in world.machines.values() if m.alive and m.template != newest[m.group]]


def spare_ones(world: World) -> list[str]:
    return [m.id for m in world.machines.values() if m.alive and INSTANCE_REPLACES in m.tags]


def finishes(world: World, before: Json, zones: Json, name: str = "roll-9", request: Json | None = None) -> None:
    execution = roll(world, name, request or {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    leaves_nothing(world, before)
    assert (outdated_ones(world), by_zone(world), spare_ones(world)) == ([], zones, [])


@pytest.mark.heavy
@pytest.mark.parametrize("surge", [1, 3])
@pytest.mark.parametrize("serial", [False, True], ids=["by name", "serially"])
def test_a_third_version_leaves_no_instance_too_many(surge: int, *, serial: bool) -> None:
    """R2, N3: it outdates both the old node and the replacement that an aborted roll had to leave."""
    world = several(serial=serial)
    before, zones = world.snapshot(), by_zone(world)
    new_version(world)
    assert roll(world, "roll-1", {}, once_in_use).error == "Aborted"
    assert len(spare_ones(world)) == 1
    new_version(world)
    finishes(world, before, zones, request={"surge": surge})


@pytest.mark.heavy
@pytest.mark.parametrize("serial", [False, True], ids=["by name", "serially"])
def test_rolls_aborted_one_after_the_other_for_one_version_each_add_nothing_up(*, serial: bool) -> None:
    """R2: one node has several replacements beside it then."""
    world = several(serial=serial)
    before, zones = world.snapshot(), by_zone(world)
    for number in range(1, 4):
        new_version(world)
        assert roll(world, f"roll-{number}", {}, once_in_use).error == "Aborted"
    assert len(spare_ones(world)) > 2
    new_version(world)
    finishes(world, before, zones)


@pytest.mark.heavy
def test_replacements_left_in_several_groups_and_of_several_nodes_of_one_are_taken_away() -> None:
    """R2."""
    world = several((2, 2))
    before, zones = world.snapshot(), by_zone(world)
    new_version(world)
    for number, node in enumerate(list(world.nodes_by_name), 1):
        assert roll(world, f"roll-{number}", {"nodes": [node]}, once_in_use).error == "Aborted"
    assert Counter(world.machines[i].group for i in spare_ones(world)) == {"ng-a": 2, "ng-b": 2}
    new_version(world)
    finishes(world, before, zones, request={"surge": 4})


@pytest.mark.heavy
@pytest.mark.parametrize("maximum", [3, 9])
def test_a_maximum_that_somebody_sets_meanwhile_stays(maximum: int) -> None:
    """R1: of the group that has a replacement too many."""
    world = several()
    before, zones = world.snapshot(), by_zone(world)
    new_version(world)
    assert roll(world, "roll-1", {"surge": 2}, once_in_use).error == "Aborted"
    (spare,) = spare_ones(world)
    group = world.groups_by_name[world.machines[spare].group]
    world.groups_by_name[group.name] = replace(group, maximum=maximum)
    new_version(world)
    own = before["groups"][group.name]
    before["groups"][group.name] = (own[0], maximum, *own[2:])
    finishes(world, before, zones)


@pytest.mark.heavy
def test_a_version_that_was_taken_back_twice_leaves_no_instance_too_many() -> None:
    """R2: the node that is current again keeps its place, whatever was launched for it."""
    world = several()
    before, zones = world.snapshot(), by_zone(world)
    for number in range(1, 3):
        new_version(world)
        assert roll(world, f"roll-{number}", {}, once_in_use).error == "Aborted"
    name_version(world, 1)
    finishes(world, before, zones)


def name_version(world: World, number: int) -> None:
    """Every group names that version of its template."""
    for name, group in world.groups_by_name.items():
        assert group.template
        world.groups_by_name[name] = replace(group, template=LaunchTemplate(group.template.id, str(number)))


@pytest.mark.heavy
@pytest.mark.drawn(keep=4)
@pytest.mark.parametrize("point", range(1, 21))
@pytest.mark.parametrize("stopped", [False, True], ids=["aborted", "stopped"])
def test_a_roll_that_ends_anywhere_between_them_leaves_the_next_one_the_same_to_do(
    point: int, *, stopped: bool
) -> None:
    """R2, N2, N3: one of the two that were outdated may have gone by then, or both."""
    world = several()
    before, zones = world.snapshot(), by_zone(world)
    new_version(world)
    assert roll(world, "roll-1", {}, once_in_use).error == "Aborted"
    new_version(world)
    if stopped:
        stop_after(world, "roll-2", 12 * point)
    else:
        roll(world, "roll-2", {}, later(10 * point))
    if point % 2:
        new_version(world)
    finishes(world, before, zones)


def stop_after(world: World, name: str, effects: int) -> None:
    """A roll whose execution is stopped, and whose watchdog restores."""
    engine = engine_for(world)
    world.planned = {m.id for m in world.machines.values()}
    engine.kills_stop_execution, world.kill_after = True, len(world.effects) + effects
    try:
        engine.run("roll", name, {})
    except Stopped:
        engine.kills_stop_execution, world.kill_after = False, None
        engine.run("restore", "watchdog-1", {"roll": name})
    world.kill_after = None


@pytest.mark.heavy
@pytest.mark.drawn(keep=4)
@pytest.mark.parametrize("seed", range(1, 31))
def test_after_any_history_of_rolls_that_ended_one_that_does_not_leaves_every_group_as_large_as_it_was(
    seed: int,
) -> None:
    """R2, N2, N3."""
    chance = random.Random(seed)
    serial = chance.random() < 0.4
    world = several(chance.choice([(2, 1), (1, 1), (3, 0)]), serial=serial)
    name_version(world, 1)
    before, zones = world.snapshot(), by_zone(world)
    for number in range(1, chance.randint(2, 5)):
        for name in world.groups_by_name:
            world.new_template_version(name)
        name_version(world, chance.randint(max(1, number - 2), number + 1))
        request: Json = {"surge": chance.randint(1, 3), "force": chance.random() < 0.3}
        if chance.random() < 0.4:
            request["nodes"] = [chance.choice(sorted(world.nodes_by_name))]
        ends = chance.random()
        if ends < 0.4:
            roll(world, f"roll-{number}", request, once_in_use)
        elif ends < 0.8 or serial:
            # Stopped between a raise and the record of it, nothing would prove whose the instance is that comes.
            roll(world, f"roll-{number}", request, later(chance.randint(10, 120)))
        else:
            stop_after(world, f"roll-{number}", chance.randint(5, 80))
    finishes(world, before, zones)


@pytest.mark.heavy
@pytest.mark.parametrize("spare", [False, True], ids=["the old one", "the spare one"])
def test_one_of_the_two_that_is_dead_goes_first_onto_the_other_or_its_replacement(*, spare: bool) -> None:
    """R2, N2: what is lost on it keeps budgets from letting pods of the other go."""
    world = several()
    before, zones = world.snapshot(), by_zone(world)
    new_version(world)
    assert roll(world, "roll-1", {}, once_in_use).error == "Aborted"
    (new,) = spare_ones(world)
    dead = new if spare else world.machines[new].tags[INSTANCE_REPLACES]
    new_version(world)
    world.stop_kubelet(f"node-{dead}")
    world.advance(700)
    execution = test_dead_nodes.engine_for(world).run("roll", "roll-2", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    leaves_nothing(world, before)
    assert (outdated_ones(world), by_zone(world), spare_ones(world)) == ([], zones, [])
