"""Spare replacements that rolls left which nobody restored after: whose place theirs is stays known."""

from dataclasses import replace

import pytest

from eks_rolling.observed.marks import (
    GROUP_RESUME,
    INSTANCE_REPLACES,
    INTERFERING_PROCESSES,
    NODE_ROLL,
    SOFT_TAINT,
    spares,
)
from eks_rolling.payloads import NodeTask, Status
from eks_rolling.roll import lock
from eks_rolling.settings import Settings
from eks_rolling.steps import launch_replacement
from tests.world import ZONES, World

SETTINGS = Settings(cluster="demo")
GONE = "i-gone"


@pytest.mark.parametrize("serially", [True, False])
def test_a_spare_one_stays_spare_when_the_one_that_has_its_place_is_replaced_first(*, serially: bool) -> None:
    """R2, R3: else it would count as one of the group's own, and get a replacement of its own."""
    world = World()
    world.group("ng", ZONES[:1], maximum=10, mixed_purchasing=serially)
    earlier, newest = (world.nodes_by_name[world.add_node("ng", ZONES[0])] for _ in range(2))
    world.ready()
    for node in (earlier, newest):
        world.machines[node.instance].tags[INSTANCE_REPLACES] = GONE
        world.time += 10
    world.new_template_version("ng")
    tags = world.groups_by_name["ng"].tags | {GROUP_RESUME: "-"}
    world.groups_by_name["ng"] = replace(world.groups_by_name["ng"], suspended=INTERFERING_PROCESSES, tags=tags)
    for name in (earlier.name, newest.name):
        node = world.nodes_by_name[name]
        marked = replace(node, taints=(SOFT_TAINT,), annotations=node.annotations | {NODE_ROLL: "roll-1"})
        world.nodes_by_name[name] = marked
    clients = world.clients(SETTINGS)
    lock.acquire(clients, "roll-1", lock.lock_name(SETTINGS.namespace))
    group, states = world.groups(["ng"])[0], world.instances([earlier.instance, newest.instance])
    assert set(spares(group, states).values()) <= {earlier.instance, newest.instance}
    ((spare, place),) = spares(group, states).items()
    name = next(n.name for n in world.nodes() if n.instance == place)
    task = NodeTask(roll="roll-1", instance=place, node=name, group="ng")
    result = launch_replacement.run(task, clients)
    while result.status is not Status.DONE:
        assert world.time < 1_001_000, result.reason
        world.advance(result.wait_seconds)
        result = launch_replacement.run(task, clients)
    new = result.output["replacement"]
    assert new not in {spare, place}
    world.machines[place].state = "terminated"
    after = world.groups(["ng"])[0]
    assert spares(after, world.instances([spare, new])) == {spare: new}
