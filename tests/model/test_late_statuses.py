"""Rolls in a cluster whose controllers tell of their pods late: what counts are the pods."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from eks_rolling.observed.kubernetes import Owner, Selector
from eks_rolling.payloads import RollRequest
from eks_rolling.steps.plan import not_waited_for, observe
from tests.asl import Engine
from tests.assembly import synthesize
from tests.model.situations import AUTOSCALER, WEB, outdated, shop, watch_unavailable
from tests.model.situations import settings as roll_settings
from tests.world import World

TWINS = Selector((("app", "twins"),))

LATE = 40.0
"""Seconds: longer than a pod needs to end and to start elsewhere."""


def late(world: World) -> World:
    world.delays.status = LATE
    world.advance(2 * LATE)
    return world


def with_new_version(world: World) -> World:
    world.ready()
    for group in ("ng-a", "ng-b"):
        world.new_template_version(group)
    world.planned = set(world.machines)
    return late(world)


def rolled(world: World, before: Callable[[str], None] = lambda _: None, surge: int = 1) -> None:
    engine = Engine(synthesize(), world, world.clients(roll_settings()))
    engine.before_call = before
    execution = engine.run("roll", "roll-1", {"surge": surge})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []


def missing(world: World) -> dict[str, int]:
    """Pods that workloads lack now, by workload; without those that lack none."""
    counted = {str(o): world.unavailable(o) for o, s in world.workloads_by_owner.items() if not s.daemon}
    return {owner: count for owner, count in counted.items() if count}


def test_no_instance_is_terminated_before_what_left_it_is_ready_elsewhere() -> None:
    world = late(shop((2, 1)))
    world.delays.pod_start = 15
    lacking: list[dict[str, int]] = []

    def look(step: str) -> None:
        if step == "terminate":
            lacking.append(missing(world))

    rolled(world, look)
    assert lacking
    assert [m for m in lacking if m] == []


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet"])
def test_of_workloads_that_share_their_labels_one_pod_is_away_at_a_time(kind: str) -> None:
    """N1: no budget of ours can stand for them, so they are counted."""
    world = shop((2, 1), new_version=False)
    twins = [world._add(kind, "default", name, 4, {}) for name in ("twin-a", "twin-b")]
    for twin in twins:
        state = world.workloads_by_owner[twin]
        state.labels = {"app": "twins"}
        state.workload = replace(state.workload, selector=TWINS)
    with_new_version(world)
    most = [watch_unavailable(world, twin) for twin in twins]
    rolled(world)
    assert [m["most"] for m in most] == [1, 1]


def test_pods_of_a_stateful_set_go_one_at_a_time_however_many_its_budget_allows() -> None:
    world = shop((2, 1), new_version=False)
    ring = world.stateful_set("ring", 3, zone="zone-a", volumes=False)
    world.budget("ring", "ring", 3)
    with_new_version(world)
    most = watch_unavailable(world, ring)
    rolled(world)
    assert most["most"] == 1


def test_the_gate_does_not_open_while_a_pod_is_missing_of_which_no_status_tells_yet() -> None:
    world = late(shop((2, 1)))
    # The bake time is over before.
    world.delays.pod_start = 35
    ended = False
    waves: list[dict[str, int]] = []

    def end_one(step: str) -> None:
        """Its node is short of memory, which no budget keeps from ending a pod."""
        nonlocal ended
        if step == "health_gate" and not ended:
            ended = True
            world._delete(next(p for p in world.pods_by_name.values() if p.pod.owner == WEB and p.gone_at is None))
        elif step == "select_wave" and ended:
            waves.append(missing(world))

    rolled(world, end_one)
    assert waves
    assert waves[0] == {}


def test_a_deployment_that_has_adopted_the_replicaset_of_another_keeps_no_gate_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pods are called after the one that was deleted without them (kubectl delete --cascade=orphan)."""
    world = shop((2, 1), new_version=False)
    former = world.deployment("former", 1)
    world.ready()
    state = world.workloads_by_owner[former]
    heir = replace(state.workload, owner=replace(former, name="heir"), desired=1, ready=1)
    kinds = world.workloads
    # What is the heir's is still made, and called, by the one that is not listed any more.
    monkeypatch.setattr(
        world, "workloads", lambda: [replace(heir, ready=w.ready) if w.owner == former else w for w in kinds()]
    )
    with_new_version(world)
    rolled(world)


def test_the_gate_waits_for_one_that_has_adopted_pods_and_whose_status_does_not_tell_of_them() -> None:
    """N3: only what really was not Ready before the roll is left out."""
    view = observe(RollRequest(), shop((2, 1)).clients(roll_settings()))
    heir = Owner("Deployment", "default", "heir")
    told = tuple(replace(w, owner=heir, ready=0) if w.owner == WEB else w for w in view.workloads)
    assert not_waited_for(replace(view, workloads=told)) == []
    both = (*view.workloads, *(w for w in told if w.owner == heir))
    assert not_waited_for(replace(view, workloads=both)) == [heir.digest]


def test_no_node_is_tainted_before_the_last_pod_of_the_autoscaler_has_ended() -> None:
    """Its status leaves out a pod that is to end, which removes nodes until it has."""
    world = shop((2, 1))
    world.delays.grace = 60
    running: list[int] = []

    def look(step: str) -> None:
        if step == "taint_nodes":
            running.append(sum(1 for p in world.pods() if p.owner == AUTOSCALER))

    rolled(world, look)
    assert set(running) == {0}
