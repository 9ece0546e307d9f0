"""Pods of DaemonSets that serve leave their Services before their node is terminated [N5]; the world checks it."""

import json
from contextlib import suppress
from functools import cache

import pytest

from eks_rolling.observed.kubernetes import Owner
from eks_rolling.observed.marks import NODE_ANNOTATIONS
from tests.asl import Engine, Stopped
from tests.assembly import synthesize
from tests.model.situations import outdated, shop
from tests.model.situations import settings as roll_settings
from tests.scope import at_kill_points
from tests.world import World

SMALL = (2, 1)


def engine_for(world: World) -> Engine:
    return Engine(synthesize(), world, world.clients(roll_settings()))


def with_ingress(*, tolerant: bool) -> tuple[World, Owner]:
    world = shop(SMALL, new_version=False)
    ingress = world.daemon_set("ingress", serves=True, tolerant=tolerant)
    world.ready()
    for group in ("ng-a", "ng-b"):
        world.new_template_version(group)
    world.planned = set(world.machines)
    return world, ingress


@pytest.mark.parametrize("tolerant", [False, True])
def test_they_leave_before_their_node_is_terminated(tolerant: bool) -> None:
    world, ingress = with_ingress(tolerant=tolerant)
    before = world.snapshot()
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert world.snapshot() == before
    world.advance(30)
    assert len([p for p in world.pods() if p.owner == ingress and p.ready]) == 3


@pytest.mark.parametrize("tolerant", [False, True])
def test_the_gate_waits_for_no_daemons_of_nodes_that_are_gone(tolerant: bool) -> None:
    """Their controller counts those for a minute more: time in which every pod is Ready."""
    world, _ = with_ingress(tolerant=tolerant)
    stale: list[int] = []
    world.watchers.append(lambda w: stale.append(sum(not d.all_ready for d in w.workloads())))
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"
    waits = json.loads(world.documents["rolls/roll-1/report.json"])["waits"]
    assert [w["reason"] for w in waits if w["kind"] == "gate" and "DaemonSet" in w["reason"]] == []
    assert max(stale) > 0


def test_those_that_do_not_serve_stay_to_the_end() -> None:
    world, _ = with_ingress(tolerant=False)
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"
    evicted = [e for e in world.effects if e.startswith("evict kube-system/")]
    assert {e.partition("/")[2].partition("-node-")[0] for e in evicted} == {"ingress"}


@cache
def effects_of_a_roll(*, tolerant: bool) -> int:
    world, _ = with_ingress(tolerant=tolerant)
    engine_for(world).run("roll", "roll-1", {})
    return len(world.effects)


def kills() -> list[tuple[bool, int]]:
    """Whether the pods tolerate every taint, and after which effect the function dies."""
    return [(t, after) for t in (False, True) for after in range(1, effects_of_a_roll(tolerant=t) + 1, 11)]


@at_kill_points(lambda: range(len(kills())))
def test_a_function_killed_after_any_effect_changes_nothing_in_the_result(point: int) -> None:
    """R3."""
    tolerant, after = kills()[point]
    world, _ = with_ingress(tolerant=tolerant)
    world.kill_after = after
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", ""), (tolerant, after)
    assert outdated(world) == []


def test_a_roll_that_fails_after_they_left_has_them_again_after_its_restore() -> None:
    """R2."""
    world, ingress = with_ingress(tolerant=False)
    blocked: list[str] = []

    def block(current: World) -> None:
        left = [e for e in current.effects if e.startswith("evict kube-system/ingress")]
        if left and not blocked:
            node = left[0].removeprefix("evict kube-system/ingress-")
            blocked.append(node)
            current.attached["default/stuck"] = (node, None)
            current.stuck.add("default/stuck")

    world.watchers.append(block)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert execution.status == "FAILED"
    world.stuck.clear()
    world.advance(30)
    node = world.nodes_by_name[blocked[0]]
    assert not [key for key in NODE_ANNOTATIONS if key in node.annotations]
    assert [p for p in world.pods_on(node.name) if p.owner == ingress and p.ready]


@pytest.mark.heavy
@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize("tolerant", [False, True])
def test_they_leave_a_replacement_that_was_not_needed_before_a_restore_terminates_it(tolerant: bool) -> None:
    """N5, R2: whatever effect the roll was stopped after; once an ingress pod is on the replacement, it serves."""
    gave_back = 0
    for after in range(1, effects_of_a_roll(tolerant=tolerant) + 1, 3):
        world, ingress = with_ingress(tolerant=tolerant)
        engine = engine_for(world)
        engine.kills_stop_execution, world.kill_after = True, after
        with pytest.raises(Stopped):
            engine.run("roll", "roll-1", {})
        world.kill_after = None
        world.advance(120)
        effects = len(world.effects)
        restore = engine.run("restore", "watchdog-1", {"roll": "roll-1"})
        assert (restore.status, restore.cause) == ("SUCCEEDED", ""), after
        gave_back += any(e.startswith("terminate ") for e in world.effects[effects:])
        world.advance(60)
        serving = [p for p in world.pods() if p.owner == ingress and p.ready]
        assert len(serving) == len([m for m in world.machines.values() if m.alive]), after
    assert gave_back


def ingress_alone(*, tolerant: bool) -> tuple[World, Owner]:
    """A node that does nothing but serve: once its pods have left, a replacement is as empty as it is."""
    world = World()
    world.group("ng-a", ["zone-a"], maximum=1)
    world.add_node("ng-a", "zone-a")
    ingress = world.daemon_set("ingress", serves=True, tolerant=tolerant)
    world.ready()
    world.new_template_version("ng-a")
    world.planned = set(world.machines)
    return world, ingress


@cache
def effects_alone(*, tolerant: bool) -> int:
    world, _ = ingress_alone(tolerant=tolerant)
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"
    return len(world.effects)


@at_kill_points(lambda: range(2 * effects_alone(tolerant=False)))
def test_the_last_one_that_serves_stays_until_another_is_ready(point: int) -> None:
    """N5, R2: the roll is stopped after any effect, and restored at once. The world checks it."""
    after, tolerant = divmod(point, 2)
    world, ingress = ingress_alone(tolerant=bool(tolerant))
    engine = engine_for(world)
    engine.kills_stop_execution, world.kill_after = True, after + 1
    with suppress(Stopped):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    restore = engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (restore.status, restore.cause) == ("SUCCEEDED", ""), point
    world.advance(60)
    serving = [p for p in world.pods() if p.owner == ingress and p.ready]
    assert len(serving) == len([m for m in world.machines.values() if m.alive]), point
