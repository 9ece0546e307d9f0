"""Long pauses, long bakes, many waves: what a history of 25,000 events has room for."""

from typing import Any

import pytest

from eks_rolling.observed.kubernetes import Lease
from eks_rolling.plan.build import waves as plan_waves
from eks_rolling.plan.checks.history import history_findings
from eks_rolling.plan.estimates import history_events, wave_count
from eks_rolling.roll.lock import LONGEST_LOOK_SECONDS, PAUSE, PAUSED_AT, pause_look
from eks_rolling.settings import Settings
from tests.asl import HISTORY_LIMIT, Engine, Execution
from tests.model.situations import by_zone, outdated, shop
from tests.model.situations import settings as roll_settings
from tests.model.test_control import LOCK, Person
from tests.model.test_roll import SMALL, engine_for
from tests.world import World

DAY = 86_400
ROOM = 8_000 + 3_000
"""Events of a roll of 1,000 nodes in 100 waves that nothing holds: eight for a node, thirty for a wave."""


def paused(world: World, engine: Engine, step: str, seconds: float) -> Execution:
    """A roll that is paused for so long once it comes to a step."""
    person = Person(world, engine, 1, PAUSE)
    before_call = engine.before_call

    def at(called: str) -> None:
        if called == step or person.asked_at is not None:
            before_call(called)
        lease = world.leases.get(LOCK)
        if person.asked_at is not None and lease and world.time - person.asked_at > seconds:
            person.write({key: value for key, value in lease.annotations.items() if key != PAUSE})

    engine.before_call = at
    return engine.run("roll", "roll-1", {}, limit_seconds=seconds + 2 * DAY)


@pytest.mark.parametrize("step", ["health_gate", "evict"])
def test_a_pause_of_three_days_ends_and_leaves_room_for_a_thousand_nodes(step: str) -> None:
    """R2, R4: the lock is kept all the time."""
    world = shop(SMALL)
    world.tick_seconds = 30
    before, zones = world.snapshot(), by_zone(world)
    silent: list[float] = []

    def look(current: World) -> None:
        lease = current.leases.get(LOCK)
        if lease and lease.holder and lease.expired(current.time):
            silent.append(current.time)

    world.watchers.append(look)
    engine = engine_for(world)
    roll = paused(world, engine, step, 3 * DAY)
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.snapshot() == before
    assert world.time > 3 * DAY
    assert silent == []
    assert max(execution.history_events for execution in engine.executions) < HISTORY_LIMIT - ROOM


def test_a_roll_that_is_let_go_on_soon_moves_soon() -> None:
    """What somebody waits for after a pause is a twentieth of it, and a quarter of an hour at most."""
    for paused_for, seconds in ((0, 10), (100, 10), (3600, 180), (5 * 3600, LONGEST_LOOK_SECONDS), (3 * DAY, 900)):
        lease = Lease(LOCK, "roll-1", annotations={PAUSE: "", PAUSED_AT: "1000"})
        assert pause_look(lease, 1000 + paused_for) == seconds


@pytest.mark.parametrize("bake_seconds", [60, 7200, 6 * 3600])
def test_a_bake_of_hours_costs_each_wave_little(bake_seconds: int) -> None:
    world = shop(SMALL)
    world.tick_seconds = max(1.0, bake_seconds / 720)
    before = world.snapshot()
    asked = roll_settings().model_dump(mode="json")
    asked |= {
        "bake_seconds": bake_seconds,
        "wave": 1,
        "deadlines": asked["deadlines"] | {"health_gate": bake_seconds + 3600},
    }
    engine = Engine(engine_for(world).assembly, world, world.clients(roll_settings().parse(asked)))
    roll = engine.run("roll", "roll-1", {}, limit_seconds=20 * DAY)
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    assert world.snapshot() == before
    assert world.time > 3 * bake_seconds
    waves = roll.visited.count("Replace nodes")
    assert waves == 3
    assert roll.history_events / waves < 300
    # What the plan expects is what is written, but for the waits of nodes that come up.
    expected = history_events(3, waves, bake_seconds)
    assert expected * 0.5 < roll.history_events < expected * 1.5


@pytest.mark.parametrize(
    ("nodes", "more", "fits"),
    [
        (1000, {"wave": 10, "bake_seconds": 300}, True),
        (1000, {"wave": 10, "bake_seconds": 7200, "deadlines": {"health_gate": 9000}}, True),
        (1000, {"wave": 1, "bake_seconds": 300}, False),
        (3000, {"wave": 50}, False),
        (0, {}, True),
    ],
)
def test_the_plan_refuses_a_roll_whose_history_would_be_full(nodes: int, more: dict[str, Any], *, fits: bool) -> None:
    findings = list(history_findings(nodes, Settings.parse({"cluster": "demo", **more})))
    assert [finding.code for finding in findings] == ([] if fits else ["history-full"])


@pytest.mark.parametrize(
    ("nodes", "wave", "canary", "waves"),
    [(0, 10, True, 0), (1, 10, True, 1), (11, 10, True, 2), (11, 10, False, 2), (20, 10, False, 2)],
)
def test_waves_are_counted_as_the_plan_cuts_them(nodes: int, wave: int, *, canary: bool, waves: int) -> None:
    assert wave_count(nodes, wave, canary=canary) == waves
    cut = plan_waves(nodes, Settings.parse({"cluster": "demo", "wave": wave, "canary": canary}))
    assert len({*cut}) == waves


def test_a_history_that_is_full_ends_the_execution_whatever_it_catches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the engine does count."""
    world = shop(SMALL)
    with monkeypatch.context() as short:
        short.setattr("tests.asl.HISTORY_LIMIT", 120)
        roll = engine_for(world).run("roll", "roll-1", {})
    assert (roll.status, roll.error) == ("FAILED", "States.Runtime")
    assert "maximum number of history events" in roll.cause
    restore = engine_for(world).run("restore", "watchdog-1", {"roll": "roll-1"})
    assert restore.status == "SUCCEEDED"
