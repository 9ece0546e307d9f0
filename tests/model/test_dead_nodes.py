"""Outdated nodes whose kubelet is silent: replaced where the settings say so, and nothing on them given up too soon."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from eks_rolling.documents.report import Report
from eks_rolling.observed.aws import GroupInstance, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import Owner
from eks_rolling.observed.marks import HARD_TAINT
from eks_rolling.payloads import UnjoinedTask
from eks_rolling.settings import DeadNodes, Settings
from eks_rolling.steps.replace_unjoined import run
from tests.asl import Engine, Execution
from tests.assembly import with_dead_nodes
from tests.model.situations import WEB, by_zone, cache, outdated, shop, watch_unavailable
from tests.model.situations import settings as roll_settings
from tests.scope import at_kill_points
from tests.world import TargetState, World

DAY = 86400.0
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
    world.advance(min(age, 700))
    world.machines[instance].launched = world.time - age
    world.new_nodes_never_join = False
    for name in ("ng-a", "ng-b"):
        world.new_template_version(name)
    world.planned = set(world.machines)
    world.machines[instance].never_joins = True
    return world, instance


def test_an_instance_that_never_joined_is_replaced_by_its_group_before_the_first_node_is_replaced() -> None:
    world, instance = shop_with_an_instance_that_never_joined()
    zones = by_zone(world)
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.machines[instance].state == "terminated"
    done = [e for e in world.effects if e.startswith(("replace", "evict"))]
    assert done[0] == f"replace {instance}"
    told = report(world)
    assert told.reason == "3 of 3 nodes and 1 instance that never joined were replaced"


def test_one_that_came_just_now_is_given_its_time_to_join() -> None:
    world, instance = shop_with_an_instance_that_never_joined(age=60)
    began = world.time
    assert rolled(world).status == "SUCCEEDED"
    assert world.machines[instance].changes_at - began > 500


@pytest.mark.parametrize("when", ["plan", "replace_unjoined"])
def test_an_old_instance_whose_node_was_deleted_is_not_ended_under_what_runs_on_it(when: str) -> None:
    """N2 by the world: its containers run for a while yet. Beside one that truly never joined."""
    world, never = shop_with_an_instance_that_never_joined(age=30 * DAY)
    old = node_of(world, DB)
    instance = world.nodes_by_name[old].instance
    world.planned = set(world.machines)
    engine = engine_for(world)

    def delete(step: str) -> None:
        if step == when and old in world.nodes_by_name:
            world.remove_node(old)

    engine.before_call = delete
    execution = engine.run("roll", "roll-1", {})
    replaced = [e for e in world.effects if e.startswith("replace")]
    if when == "plan":
        assert (execution.error, replaced) == ("Blocked", [])
        assert f"pods are bound to node {old}, which is not there" in execution.cause
    else:
        assert (execution.status, replaced) == ("SUCCEEDED", [f"replace {never}"])
        assert world.machines[instance].state == "running"


def test_one_whose_pods_are_forgotten_already_is_replaced_by_its_group_once_it_had_no_node_for_long_enough() -> None:
    """N2 by the world, whatever its age: the API server forgets pods before their containers have ended."""
    world, never = shop_with_an_instance_that_never_joined(age=30 * DAY)
    old = node_of(world, DB)
    instance = world.nodes_by_name[old].instance
    world.remove_node(old)
    for key in [k for k, p in world.pods_by_name.items() if p.pod.node == old]:
        del world.pods_by_name[key]
    world.containers_until[instance] = world.time + 500
    # What a target group takes for healthy would be left alone.
    for key in [k for k in world.targets if k[1] == instance]:
        del world.targets[key]
    world.planned = set(world.machines)
    execution = rolled(world)
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    replaced = {e for e in world.effects if e.startswith("replace")}
    assert replaced == {f"replace {never}", f"replace {instance}"}


@pytest.mark.parametrize("kept", ["healthy", "Standby"])
def test_one_that_serves_or_was_taken_out_of_service_is_left_alone_and_the_roll_goes_on(kept: str) -> None:
    world, instance = shop_with_an_instance_that_never_joined()
    engine = engine_for(world)

    def keep(step: str) -> None:
        if step == "replace_unjoined":
            if kept == "Standby":
                world.machines[instance].standby = True
            else:
                world.targets["arn:x:targetgroup/odd/1", instance] = TargetState("healthy", 0.0, 80)

    engine.before_call = keep
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert world.machines[instance].state == "running"
    assert not [e for e in world.effects if e.startswith("replace")]
    told = report(world)
    assert told.reason == "3 of 3 nodes were replaced"
    assert any(f"{instance} is left alone" in s.result for s in told.steps)


def test_targets_are_asked_for_once_a_look_of_all_of_them_together() -> None:
    """A sweep takes a request per target group of the region, and a function has a minute."""
    world, first = shop_with_an_instance_that_never_joined()
    world.new_nodes_never_join = True
    more = [world.launch_one("ng-a", "zone-b") for _ in range(2)]
    states = {i: InstanceState(i, "running", launched=world.time - 700) for i in (first, *more)}
    members = tuple(GroupInstance(i, "zone-a", template="lt-old:1") for i in states)
    group = replace(world.groups_by_name["ng-a"], instances=members, desired=3)
    asked: list[list[str]] = []

    def targets_of(instances: list[str], among: object = None) -> list[TargetRegistration]:
        asked.append(list(instances))
        return [TargetRegistration("arn:x:targetgroup/odd/1", i, 80, "healthy") for i in instances]

    aws = SimpleNamespace(groups=lambda _: [group], instances=lambda _: states, targets_of=targets_of)
    clients = replace(world.clients(settings()), aws=aws)
    early = UnjoinedTask(roll="roll-1", unjoined=dict.fromkeys(states, "ng-a"))
    assert run(early, clients).status == "wait"
    assert asked == []
    later = early.model_copy(update={"since": world.time - 700})
    assert run(later, clients).status == "done"
    assert asked == [[first, *more]]


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
    assert not [e for e in world.effects if e.startswith("replace")]
    assert outdated(world) == []


def test_where_the_new_version_does_not_join_either_no_node_is_touched() -> None:
    world, _ = shop_with_an_instance_that_never_joined()
    world.new_nodes_never_join = True
    execution = rolled(world)
    assert (execution.status, execution.error) == ("FAILED", "DeadlineExceeded")
    assert not [e for e in world.effects if e.startswith(("evict", "launch"))]


def effects_of_replacing_what_never_joined() -> range:
    world, _ = shop_with_an_instance_that_never_joined()
    rolled(world)
    return range(1, len(world.effects) + 1)


@at_kill_points(effects_of_replacing_what_never_joined, every=2)
def test_a_function_killed_after_any_effect_has_it_replaced_once(after: int) -> None:
    """R3."""
    world, instance = shop_with_an_instance_that_never_joined()
    zones = by_zone(world)
    world.kill_after = len(world.effects) + after
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.effects.count(f"replace {instance}") == 1


def test_two_dead_nodes_in_one_zone_are_replaced() -> None:
    """N1 to N4 by the world."""
    world = shop((3, 1))
    first = node_of(world, DB)
    second = next(n.name for n in world.nodes() if n.zone == "zone-a" and n.name != first)
    for node in (first, second):
        world.stop_kubelet(node)
    world.advance(700)
    zones = by_zone(world)
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert not {first, second} & world.nodes_by_name.keys()
    world.advance(60)
    assert (world.unavailable(DB), world.unavailable(WEB)) == (0, 0)


STEPS_OF_A_NODE = (
    "launch_replacement", "await_ready", "taint_no_schedule", "leave_load_balancers", "evict", "await_load_balancers",
    "await_volumes", "terminate", "health_gate",
)  # fmt: skip


@pytest.mark.parametrize("when", STEPS_OF_A_NODE)
def test_one_that_comes_back_at_any_point_is_replaced_in_order(when: str) -> None:
    """N2 by the world: from then on what is on it ends as it should, and keeps the instance."""
    world, dead = shop_with_a_dead_node()
    engine = engine_for(world)

    def back(step: str) -> None:
        if step == when and dead in world.silent:
            world.start_kubelet(dead)

    engine.before_call = back
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    world.advance(60)
    assert (world.unavailable(DB), world.unavailable(WEB)) == (0, 0)


def ring(world: World, replicas: int) -> Owner:
    """A StatefulSet without volumes, of which each node of the first zone has a pod."""
    owner = world.stateful_set("ring", replicas, zone="zone-a", volumes=False)
    world.ready()
    for name in ("ng-a", "ng-b"):
        world.new_template_version(name)
    world.planned = set(world.machines)
    assert len({p.node for p in world.pods() if p.owner == owner}) == replicas
    return owner


def test_what_is_lost_on_a_dead_node_keeps_no_other_node_waiting_for_its_budget() -> None:
    """N1: until the dead node goes, its StatefulSet lacks a pod, and its budget lets no other one go."""
    world = shop((3, 1), new_version=False)
    owner = ring(world, 3)
    last = [n.name for n in world.nodes() if n.zone == "zone-a"][-1]
    world.stop_kubelet(last)
    world.advance(700)
    most = watch_unavailable(world, owner)
    execution = rolled(world)
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    assert most["most"] <= 1
    world.advance(60)
    assert world.unavailable(owner) == 0


def test_what_is_lost_on_a_node_that_dies_in_mid_roll_keeps_the_gate_closed_for_no_longer_than_that_takes() -> None:
    """Its node waits for a later wave, which comes only once the gate opens."""
    world = shop((3, 1), new_version=False)
    owner = ring(world, 3)
    engine = engine_for(world)
    died: list[float] = []

    def die(step: str) -> None:
        if step == "health_gate" and not died:
            died.append(world.time)
            old = {i.removeprefix("node-") for i in world.nodes_by_name} & set(outdated(world))
            world.stop_kubelet(next(n.name for n in world.nodes() if n.zone == "zone-a" and n.instance in old))

    engine.before_call = die
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    world.advance(60)
    assert (world.unavailable(owner), world.unavailable(DB)) == (0, 0)


def shop_of_which_a_node_dies_at_the_first_gate(world: World, *, then: Callable[[], None]) -> tuple[Engine, list[str]]:
    """The engine, and where the node's name will be; it has pods of web, is not replaced yet, and `then` is called."""
    engine = engine_for(world)
    died: list[str] = []

    def die(step: str) -> None:
        if step == "health_gate" and not died:
            homes = {p.node for p in world.pods() if p.owner == WEB}
            old = set(outdated(world))
            node = next(n.name for n in world.nodes() if n.name in homes and n.instance in old)
            died.append(node)
            world.stop_kubelet(node)
            then()

    engine.before_call = die
    return engine, died


def test_what_took_the_place_of_a_lost_pod_keeps_the_gate_closed_until_it_is_ready() -> None:
    """N3: a Deployment's pods are made again elsewhere minutes before their node counts as dead."""
    world = shop((3, 1))
    launched: list[float] = []
    began: list[float] = []

    def fail() -> None:
        began.append(world.time)
        world.broken.add(WEB)

    engine, _ = shop_of_which_a_node_dies_at_the_first_gate(world, then=fail)

    def mend(current: World) -> None:
        if began and current.time >= began[0] + 1200:
            current.broken.discard(WEB)
        if began and len(current.machines) > 5 and not launched:
            launched.append(current.time)

    world.watchers.append(mend)
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    assert launched[0] - began[0] >= 1200
    world.advance(60)
    assert world.unavailable(WEB) == 0


def test_what_finds_no_room_before_the_dead_node_is_replaced_keeps_no_gate_closed() -> None:
    """It would wait for its own cause."""
    world = shop((3, 1))

    def fill() -> None:
        world.room_for[WEB] = sum(1 for p in world.pods() if p.owner == WEB)

    engine, died = shop_of_which_a_node_dies_at_the_first_gate(world, then=fill)
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    assert died[0] not in world.nodes_by_name
    world.advance(60)
    assert world.unavailable(WEB) == 0


def test_a_volume_that_stays_attached_to_a_dead_node_goes_with_it() -> None:
    """Kubernetes gives it up minutes after the instance has gone."""
    world, dead = shop_with_a_dead_node()
    world.delays.detach = 360
    execution = rolled(world)
    assert (execution.status, execution.cause, outdated(world)) == ("SUCCEEDED", "", [])
    assert dead not in world.nodes_by_name
    world.advance(400)
    assert world.unavailable(DB) == 0


def test_a_node_of_a_redis_group_that_dies_in_mid_roll_is_not_replaced() -> None:
    """S1, N2 by the world: what its pods hold cannot be moved."""
    world = cache()
    engine = engine_for(world)
    dead: list[str] = []

    def die(step: str) -> None:
        if step == "inspect_redis" and not dead:
            dead.append(next(n.name for n in world.nodes() if HARD_TAINT in n.taints))
            world.stop_kubelet(dead[0])

    engine.before_call = die
    execution = engine.run("roll", "roll-1", {})
    assert execution.status == "FAILED"
    assert dead[0] in world.nodes_by_name
