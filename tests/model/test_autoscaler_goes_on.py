"""Rolls by default: cluster-autoscaler goes on, and is only kept from removing the nodes of the roll."""

from dataclasses import replace

import pytest

from eks_rolling.observed.marks import NODE_ANNOTATIONS, SCALE_DOWN_DISABLED
from eks_rolling.roll.lock import ABORT
from eks_rolling.settings import Autoscaler, AutoscalerMode
from tests.asl import Engine
from tests.assembly import synthesize
from tests.model.situations import AUTOSCALER, outdated, shop
from tests.model.situations import settings as roll_settings
from tests.world import World

SMALL = (2, 1)


def engine_for(world: World, mode: str = "") -> Engine:
    autoscaler = Autoscaler(mode=AutoscalerMode(mode)) if mode else Autoscaler()
    return Engine(synthesize(), world, world.clients(roll_settings().model_copy(update={"autoscaler": autoscaler})))


def test_it_is_never_scaled_and_no_node_keeps_a_mark() -> None:
    """R2."""
    world = shop(SMALL)
    before = world.snapshot()
    kept: set[str] = set()

    def look(current: World) -> None:
        kept.update(n.instance for n in current.nodes() if SCALE_DOWN_DISABLED in n.annotations)

    world.watchers.append(look)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert world.snapshot() == before
    assert not [e for e in world.effects if e.startswith(f"update {AUTOSCALER}")]
    assert world.planned < kept
    assert not [n.name for n in world.nodes() if SCALE_DOWN_DISABLED in n.annotations]


@pytest.mark.parametrize(("mode", "ending"), [("annotate", "SUCCEEDED"), ("pause", "FAILED")])
def test_a_deployment_that_scales_up_during_the_roll_gets_its_nodes(mode: str, ending: str) -> None:
    """Its pods beyond the room that there is get nodes from cluster-autoscaler, if that runs; else the gate waits for
    them in vain."""
    world = shop(SMALL)
    crowd = world.deployment("crowd", 3)
    world.budget("crowd", "crowd", 20)
    world.ready()
    world.room_for[crowd] = 6
    grown: list[float] = []

    def scale(current: World) -> None:
        state = current.workloads_by_owner[crowd]
        if not grown and any(e.startswith("evict default/crowd-") for e in current.effects):
            grown.append(current.time)
            state.workload = replace(state.workload, desired=20)
        runs = current.workloads_by_owner[AUTOSCALER].workload.desired > 0
        if grown and runs and current.time > grown[0] + 300:
            current.room_for[crowd] = 30

    world.watchers.append(scale)
    execution = engine_for(world, mode).run("roll", "roll-1", {})
    assert grown
    assert execution.status == ending
    assert (outdated(world) == []) is (ending == "SUCCEEDED")


@pytest.mark.parametrize("mode", ["annotate", "pause"])
def test_a_replacement_that_is_kept_after_an_abort_keeps_no_mark(mode: str) -> None:
    """R2: pods have moved to it, so it stays; but cluster-autoscaler may remove it again, and nothing else binds it."""
    world = shop(SMALL)

    def abort(current: World) -> None:
        if any(e.startswith("evict default/web-") for e in current.effects):
            current.leases["kube-system/eks-rolling"].annotations[ABORT] = "{}"

    world.watchers.append(abort)
    execution = engine_for(world, mode).run("roll", "roll-1", {})
    assert execution.error == "Aborted"
    assert [m for m in world.machines.values() if m.alive and m.template.endswith(":2")]
    marked = [
        (n.name, key) for n in world.nodes() for key in n.annotations if key in (SCALE_DOWN_DISABLED, *NODE_ANNOTATIONS)
    ]
    assert marked == []
    assert not [n.name for n in world.nodes() if n.roll_taint or n.unschedulable]
