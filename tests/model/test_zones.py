"""Groups over several zones whose replacements come where AWS likes: by a raised desired capacity."""

from typing import Any

import pytest

from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.marks import INSTANCE_REPLACES, SURPLUS, LaunchMark
from tests.asl import Stopped
from tests.model.situations import by_zone, outdated
from tests.model.test_remedies import leaves_nothing
from tests.model.test_roll import engine_for
from tests.model.test_spares import later, roll
from tests.world import ZONES, Killed, PodState, World

Json = dict[str, Any]


def wide(*sizes: int) -> World:
    """A group over both zones, with so many nodes in each."""
    world = World()
    world.group("ng", ZONES, maximum=sum(sizes), mixed_purchasing=True)
    for zone, size in zip(ZONES, sizes, strict=True):
        for _ in range(size):
            world.add_node("ng", zone)
    world.deployment("web", sum(sizes))
    world.deployment("api", 3)
    world.budget("web", "web", 1)
    world.ready()
    world.new_template_version("ng")
    world.planned = set(world.machines)
    return world


def finishes(world: World, before: Json, zones: Json, name: str, **request: int) -> None:
    execution = engine_for(world).run("roll", name, request)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    leaves_nothing(world, before)
    assert (outdated(world), by_zone(world)) == ([], zones)


@pytest.mark.heavy
@pytest.mark.parametrize(("each", "surge", "scale_out"), [(1, 1, 0), (2, 2, 0), (2, 2, 120)])
def test_what_comes_in_another_zone_than_was_needed_is_taken_or_given_back(
    each: int, surge: int, scale_out: int
) -> None:
    """R2, N3: also if it is Ready long before the one that was needed comes."""
    world = wide(each, each)
    world.delays.scale_out = scale_out
    before, zones = world.snapshot(), by_zone(world)
    finishes(world, before, zones, "roll-1", surge=surge)


@pytest.mark.heavy
@pytest.mark.parametrize("uneven", [(0, 1), (1, 2)])
def test_a_group_that_is_not_even_over_its_zones_is_rolled_too(uneven: tuple[int, int]) -> None:
    """R2: where all have as many, AWS may choose the wrong one once more."""
    world = wide(*uneven)
    before, zones = world.snapshot(), by_zone(world)
    finishes(world, before, zones, "roll-1", surge=1)


@pytest.mark.heavy
def test_pods_made_while_the_one_that_was_needed_is_waited_for_go_elsewhere() -> None:
    """R2: or a surplus instance could not be given back."""
    world = wide(1, 1)
    world.delays.scale_out = 120
    before, zones = world.snapshot(), by_zone(world)
    engine, looks = engine_for(world), list[str]()

    def scale_up(step: str) -> None:
        strays = [m.id for m in world.machines.values() if m.tags.get(INSTANCE_REPLACES) == SURPLUS]
        nodes = [n for n in world.nodes() if n.instance in strays and n.ready]
        if step == "launch_replacement" and nodes:
            looks.append(step)
            if len(looks) == 2:
                world.deployment("late", 2)

    engine.before_call = scale_up
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause, len(looks) > 1) == ("SUCCEEDED", "", True)
    before["workloads"] = world.snapshot()["workloads"]
    leaves_nothing(world, before)
    assert (outdated(world), by_zone(world)) == ([], zones)


@pytest.mark.heavy
@pytest.mark.drawn(keep=3)
@pytest.mark.parametrize("point", range(1, 16))
def test_a_roll_aborted_while_it_has_such_an_instance_is_finished_by_the_next(point: int) -> None:
    """R2, N3: whether pods run on it or not, the next roll takes it, or it is given back."""
    world = wide(1, 1)
    before, zones = world.snapshot(), by_zone(world)
    roll(world, "roll-1", {}, later(8 * point))
    world.planned = set(world.machines)
    finishes(world, before, zones, "roll-2")


@pytest.mark.heavy
def test_pods_that_reach_such_an_instance_first_leave_it_to_the_next_roll() -> None:
    """R2: it stays, as the replacement of a node of its zone."""
    world = wide(1, 1)
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)

    def occupy(_: str) -> None:
        for machine in world.machines.values():
            node = world._node_of(machine.id)
            if (
                node
                and machine.tags.get(INSTANCE_REPLACES) == SURPLUS
                and node.ready
                and not any(p.name == "squatter" for p in world.pods())
            ):
                squat(world, node.name)

    engine.before_call = occupy
    assert engine.run("roll", "roll-1", {}).status == "SUCCEEDED"
    (kept,) = [m.id for m in world.machines.values() if m.alive and INSTANCE_REPLACES in m.tags]
    assert "stays: it is in use" in world.told[-1].text
    assert world.machines[kept].tags[INSTANCE_REPLACES] != SURPLUS
    world.planned = set(world.machines)
    del world.pods_by_name["default", "squatter"]
    finishes(world, before, zones, "roll-2")


@pytest.mark.heavy
def test_what_came_in_another_zone_for_a_roll_that_died_replaces_no_node_of_the_zone_that_needed_one() -> None:
    """R2, N3: volumes stay in their zone."""
    world = wide(1, 1)
    before, zones = world.snapshot(), by_zone(world)
    engine, unclaimed = engine_for(world), list[str]()
    engine.kills_stop_execution = True

    def die(step: str) -> None:
        """Once an instance came in another zone than that of the node for which it was asked."""
        asked = {n.zone for n in world.nodes() if (mark := LaunchMark.on(n)) is not None and mark.raised}
        new = (m for i, m in world.machines.items() if i not in world.planned and not m.tags and m.zone not in asked)
        if step == "launch_replacement" and asked and (machine := next(new, None)):
            unclaimed.append(machine.id)
            raise Killed

    engine.before_call = die
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", {})
    (stray,) = unclaimed
    world.advance(300)
    squat(world, f"node-{stray}")
    engine = engine_for(world)
    engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    beside = world.machines[stray].tags[INSTANCE_REPLACES]
    assert world.machines[beside].zone == world.machines[stray].zone
    world.planned = set(world.machines)
    del world.pods_by_name["default", "squatter"]
    finishes(world, before, zones, "roll-2")


def squat(world: World, node: str) -> None:
    """A pod that tolerates a cordon."""
    pod = Pod("default", "squatter", uid="uid-squatter", node=node, ready=True, phase="Running")
    world.pods_by_name["default", "squatter"] = PodState(pod)
