"""Outdated nodes whose kubelet is silent: replaced where the settings say so, and nothing on them given up too soon."""

from dataclasses import replace
from typing import Any

from eks_rolling.documents.report import Report
from eks_rolling.observed.kubernetes import Owner
from eks_rolling.observed.marks import HARD_TAINT
from eks_rolling.settings import DeadNodes, Settings
from tests.asl import Engine, Execution
from tests.assembly import with_dead_nodes
from tests.model.situations import WEB, by_zone, outdated, shop, watch_unavailable
from tests.model.situations import settings as roll_settings
from tests.scope import at_kill_points
from tests.world import World

DB = Owner("StatefulSet", "default", "db")


def settings(**dead_nodes: Any) -> Settings:
    return roll_settings().model_copy(update={"dead_nodes": DeadNodes(replace=True, **dead_nodes)})


def engine_for(world: World, used: Settings | None = None) -> Engine:
    return Engine(with_dead_nodes(), world, world.clients(used or settings()))


def node_of(world: World, owner: Owner) -> str:
    return next(s.pod.node for s in world.pods_by_name.values() if s.pod.owner == owner)


def shop_with_a_dead_node(silent: float = 700, sizes: tuple[int, int] = (2, 1)) -> tuple[World, str]:
    """The database's node has been silent for so long."""
    world = shop(sizes)
    dead = node_of(world, DB)
    world.stop_kubelet(dead)
    world.advance(silent)
    return world, dead


def rolled(world: World, used: Settings | None = None) -> Execution:
    return engine_for(world, used).run("roll", "roll-1", {})


def test_a_dead_node_is_replaced_and_the_database_runs_again() -> None:
    """N1 to N4 by the world: nothing on it was terminated before its time was over."""
    world, dead = shop_with_a_dead_node()
    zones = by_zone(world)
    assert world.unavailable(DB) == 1
    web = watch_unavailable(world)
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert dead not in world.nodes_by_name
    world.advance(60)
    assert (world.unavailable(DB), world.unavailable(WEB)) == (0, 0)
    assert web["most"] <= 1
    (finding,) = [f for f in report(world).findings if f.code == "dead-node"]
    assert "its kubelet has been silent for" in finding.reason


def test_without_the_setting_it_blocks_the_roll() -> None:
    world, dead = shop_with_a_dead_node()
    execution = rolled(world, roll_settings())
    assert (execution.status, execution.error) == ("FAILED", "Blocked")
    assert f"node {dead}" in execution.cause


def test_one_that_has_not_been_silent_for_long_blocks_the_roll() -> None:
    world, _ = shop_with_a_dead_node(silent=120)
    assert rolled(world).error == "Blocked"


def test_one_that_comes_back_in_mid_roll_is_emptied_like_any_other() -> None:
    """N2: from then on its pods end in order, and are waited for."""
    world, dead = shop_with_a_dead_node()
    engine = engine_for(world)

    def back(step: str) -> None:
        if step == "evict" and dead in world.silent:
            world.start_kubelet(dead)

    engine.before_call = back
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    world.advance(60)
    assert world.unavailable(DB) == 0


def test_one_that_falls_silent_in_mid_roll_is_given_its_time() -> None:
    """N2 by the world: the eviction waits until it counts as dead, and then for what was asked to end."""
    world = shop((2, 1))
    dead = node_of(world, DB)
    engine = engine_for(world)
    began: list[float] = []

    def stop(step: str) -> None:
        node = world.nodes_by_name.get(dead)
        if step == "evict" and not began and node is not None and HARD_TAINT in node.taints:
            began.append(world.time)
            world.stop_kubelet(dead)

    engine.before_call = stop
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    gone = [m.changes_at for m in world.machines.values() if f"node-{m.id}" == dead]
    assert gone[0] - began[0] >= 600


def test_a_node_whose_kubelet_says_that_it_is_sick_is_not_dead() -> None:
    world, dead = shop_with_a_dead_node()
    world.nodes_by_name[dead] = replace(world.nodes_by_name[dead], silent_since=0.0)
    assert rolled(world).error == "Blocked"


def report(world: World) -> Report:
    return Report.model_validate_json(world.documents["rolls/roll-1/report.json"])


def effects_of_a_roll() -> range:
    world, _ = shop_with_a_dead_node()
    rolled(world)
    return range(1, len(world.effects) + 1)


@at_kill_points(effects_of_a_roll, every=2)
def test_a_function_killed_after_any_effect_changes_nothing_in_the_result(after: int) -> None:
    """R3."""
    world, _ = shop_with_a_dead_node()
    zones = by_zone(world)
    world.kill_after = len(world.effects) + after
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    world.advance(60)
    assert world.unavailable(DB) == 0


def shop_with_an_instance_that_never_joined(age: float = 700) -> tuple[World, str]:
    world = shop((2, 1), new_version=False)
    group = world.groups_by_name["ng-a"]
    world.new_nodes_never_join = True
    world.groups_by_name["ng-a"] = replace(group, desired=group.desired + 1, maximum=group.maximum + 1)
    instance = world.launch_one("ng-a", "zone-a")
    world.advance(age)
    world.new_nodes_never_join = False
    for name in ("ng-a", "ng-b"):
        world.new_template_version(name)
    world.planned = set(world.machines)
    world.machines[instance].never_joins = True
    return world, instance


def test_an_instance_that_never_joined_is_exchanged_before_the_first_node_is_replaced() -> None:
    world, instance = shop_with_an_instance_that_never_joined()
    zones = by_zone(world)
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.machines[instance].state == "terminated"
    done = [e for e in world.effects if e.startswith(("exchange", "evict"))]
    assert done[0] == f"exchange {instance}"
    told = report(world)
    assert told.reason == "3 of 3 nodes were replaced, and 1 instance that never joined exchanged"


def test_one_that_came_just_now_is_given_its_time_to_join() -> None:
    world, instance = shop_with_an_instance_that_never_joined(age=60)
    began = world.time
    assert rolled(world).status == "SUCCEEDED"
    assert world.machines[instance].changes_at - began > 500


def test_one_that_joins_meanwhile_is_replaced_like_any_other_node() -> None:
    """N2 by the world."""
    world, instance = shop_with_an_instance_that_never_joined()
    engine = engine_for(world)

    def join(step: str) -> None:
        if step == "replace_unjoined" and world.machines[instance].never_joins:
            world.machines[instance].never_joins = False
            world._join(world.machines[instance])

    engine.before_call = join
    assert engine.run("roll", "roll-1", {}).status == "SUCCEEDED"
    assert not [e for e in world.effects if e.startswith("exchange")]
    assert outdated(world) == []


def test_where_the_new_version_does_not_join_either_no_node_is_touched() -> None:
    world, _ = shop_with_an_instance_that_never_joined()
    world.new_nodes_never_join = True
    execution = rolled(world)
    assert (execution.status, execution.error) == ("FAILED", "DeadlineExceeded")
    assert not [e for e in world.effects if e.startswith(("evict", "launch"))]


def effects_of_an_exchange() -> range:
    world, _ = shop_with_an_instance_that_never_joined()
    rolled(world)
    return range(1, len(world.effects) + 1)


@at_kill_points(effects_of_an_exchange, every=2)
def test_a_function_killed_after_any_effect_exchanges_it_once(after: int) -> None:
    """R3."""
    world, instance = shop_with_an_instance_that_never_joined()
    zones = by_zone(world)
    world.kill_after = len(world.effects) + after
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.effects.count(f"exchange {instance}") == 1
