"""Somebody changes in mid-roll what the roll arranged at its start: that is seen, said, and arranged again or held."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from eks_rolling.observed.marks import AUTOSCALER_REPLICAS, INTERFERING_PROCESSES, SCALE_DOWN_DISABLED, with_roll_taint
from eks_rolling.settings import Autoscaler, AutoscalerMode, OnInterference
from tests.asl import Engine
from tests.assembly import synthesize
from tests.model.situations import AUTOSCALER, outdated, shop
from tests.model.situations import settings as roll_settings
from tests.world import World


def engine_for(world: World, mode: AutoscalerMode, then: OnInterference) -> Engine:
    said = {"autoscaler": Autoscaler(mode=mode), "on_interference": then}
    return Engine(synthesize(), world, world.clients(roll_settings().model_copy(update=said)))


def scale_up(world: World) -> None:
    state = world.workloads_by_owner[AUTOSCALER]
    state.workload = replace(state.workload, desired=2)


def resume(world: World) -> None:
    group = world.groups_by_name["ng-a"]
    world.groups_by_name["ng-a"] = replace(group, suspended=group.suspended - {"AZRebalance"})


def untaint(world: World) -> None:
    for node in [n for n in world.nodes() if n.instance in world.planned and n.roll_taint is not None]:
        world._set_node(replace(node, taints=with_roll_taint(node, None)))


def allow_scale_down(world: World) -> None:
    for node in [n for n in world.nodes() if SCALE_DOWN_DISABLED in n.annotations]:
        kept = {key: value for key, value in node.annotations.items() if key != SCALE_DOWN_DISABLED}
        world._set_node(replace(node, annotations=kept))


def once_a_node_is_replaced(world: World, change: Callable[[World], None]) -> None:
    done: list[float] = []

    def meddle(current: World) -> None:
        if not done and any(e.startswith("terminate") for e in current.effects):
            done.append(current.time)
            change(current)

    world.watchers.append(meddle)


CHANGES = [
    (scale_up, AutoscalerMode.PAUSE, f"{AUTOSCALER} was scaled to 2"),
    (resume, AutoscalerMode.ANNOTATE, "processes of group ng-a were resumed: AZRebalance"),
    (untaint, AutoscalerMode.ANNOTATE, " lost our taint"),
    (allow_scale_down, AutoscalerMode.ANNOTATE, f" lost {SCALE_DOWN_DISABLED}"),
]


@pytest.mark.parametrize(("change", "mode", "said"), CHANGES)
def test_it_is_arranged_again_and_said(change: Callable[[World], None], mode: AutoscalerMode, said: str) -> None:
    """N3, R2."""
    world = shop((2, 1))
    before = world.snapshot()
    once_a_node_is_replaced(world, change)
    roll = engine_for(world, mode, OnInterference.AGAIN).run("roll", "roll-1", {})
    assert (roll.status, roll.cause, outdated(world)) == ("SUCCEEDED", "", [])
    report = json.dumps(json.loads(world.documents["rolls/roll-1/report.json"]))
    assert "somebody changed what the roll had arranged, and it was arranged again" in report
    assert said in report
    assert world.snapshot() == before


@pytest.mark.parametrize(("change", "mode", "said"), CHANGES)
def test_it_holds_until_its_deadline_if_so_asked(
    change: Callable[[World], None], mode: AutoscalerMode, said: str
) -> None:
    """R2: the records of the originals are untouched, so everything is put back."""
    world = shop((2, 1))
    before = world.snapshot()
    once_a_node_is_replaced(world, change)
    roll = engine_for(world, mode, OnInterference.HOLD).run("roll", "roll-1", {})
    assert roll.status == "FAILED"
    assert "somebody changed what the roll had arranged" in roll.cause
    assert said in roll.cause
    after = world.snapshot()
    for part in ("taints", "marks", "lock", "cordons"):
        assert after[part] == before[part], part


def test_the_first_step_of_a_node_sees_it_too() -> None:
    world = shop((2, 1))
    before = world.snapshot()
    done: list[float] = []

    def meddle(current: World) -> None:
        suspended = all(g.suspended >= INTERFERING_PROCESSES for g in current.groups_by_name.values())
        if not done and suspended and any(n.roll_taint for n in current.nodes()):
            done.append(current.time)
            scale_up(current)

    world.watchers.append(meddle)
    roll = engine_for(world, AutoscalerMode.PAUSE, OnInterference.AGAIN).run("roll", "roll-1", {})
    assert roll.status == "SUCCEEDED"
    assert world.snapshot() == before
    first_launch = next(i for i, e in enumerate(world.effects) if e.startswith("launch "))
    again = [i for i, e in enumerate(world.effects) if e.startswith(f"update {AUTOSCALER}: ")]
    assert len([i for i in again if i < first_launch]) == 2
    assert AUTOSCALER_REPLICAS not in world.workloads_by_owner[AUTOSCALER].workload.annotations
