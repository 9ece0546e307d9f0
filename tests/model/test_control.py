"""A roll that is paused, let go on, or aborted at any step, in memory."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache as cache_of

import pytest

from eks_rolling.roll.lock import ABORT, PAUSE
from tests.asl import Engine
from tests.model.situations import by_zone, cache, cluster_is_normal, outdated, redis_is_normal, shards, shop
from tests.model.test_roll import SMALL, engine_for
from tests.world import World

LOCK = "kube-system/eks-rolling"


@dataclass(frozen=True)
class Case:
    """A cluster, and whether its Redis group is as it has to be."""

    make: Callable[[], World]
    normal: Callable[[World], bool]
    points: int
    """At so many steps, evenly over a roll, a person asks for something."""
    paused_seconds: float


CASES = {
    # Longer than the deadline of any of its steps.
    "shop": Case(lambda: shop(SMALL), lambda _: True, 24, 5000),
    "cache": Case(cache, redis_is_normal, 10, 700),
    "shards": Case(shards, cluster_is_normal, 10, 700),
}

SETTLED_SECONDS = 300
"""What had been begun with Redis when a person asked for a pause is finished by then."""


class Person:
    """Writes a wish on the lock when the roll is about to take its `at`th step, or the first one after that at which
    it holds the lock."""

    def __init__(self, world: World, engine: Engine, at: int, wish: str) -> None:
        self.world, self.wish = world, wish
        self.calls: list[str] = []
        self.asked_at: float | None = None
        self.effects_before = 0
        self._at = at
        engine.before_call = self._before

    def _before(self, step: str) -> None:
        self.calls.append(step)
        lease = self.world.leases.get(LOCK)
        if self.asked_at is None and len(self.calls) >= self._at and lease is not None and lease.holder == "roll-1":
            self.asked_at, self.effects_before = self.world.time, len(self.world.effects)
            self.write({**lease.annotations, self.wish: "lunch"})

    def write(self, annotations: dict[str, str]) -> None:
        lease = self.world.leases[LOCK]
        others = {key: value for key, value in lease.annotations.items() if key not in {PAUSE, ABORT}}
        self.world.leases[LOCK] = replace(lease, annotations=others | annotations)


@cache_of
def calls_of_a_roll(name: str) -> int:
    """How many steps a roll takes that nobody disturbs."""
    world = CASES[name].make()
    engine = engine_for(world)
    person = Person(world, engine, 10**6, PAUSE)
    engine.run("roll", "roll-1", {})
    return len(person.calls)


POINTS = [(name, point) for name, case in CASES.items() for point in range(1, case.points + 1)]


def step_at(name: str, point: int) -> int:
    return max(2, calls_of_a_roll(name) * point // CASES[name].points)


@pytest.mark.drawn(keep=22)
@pytest.mark.parametrize(("name", "point"), POINTS)
def test_a_roll_aborted_at_any_step_puts_everything_back_and_the_next_one_finishes(name: str, point: int) -> None:
    """R2, S2, C2: what had begun with Redis is finished first."""
    case = CASES[name]
    world = case.make()
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    person = Person(world, engine, step_at(name, point), ABORT)
    execution = engine.run("roll", "roll-1", {})
    if execution.status == "FAILED":
        assert (execution.error, execution.cause) == ("Aborted", "The roll was aborted: lunch.")
        assert person.asked_at is not None
        pages = [json.loads(text) for key, text in world.documents.items() if "roll-1/nodes/" in key]
        assert {p["outcome"] for p in pages} <= {"replaced", "aborted", "not-begun"}
        left = {m.id for m in world.machines.values() if m.alive}
        assert {p["instance"] for p in pages if p["outcome"] == "replaced"} == {p["instance"] for p in pages} - left
    else:
        # Nothing was left to be aborted: from the settling on a roll only puts things back.
        assert outdated(world) == []
    assert case.normal(world)
    after = world.snapshot()
    for part in ("workloads", "budgets", "lock", "taints", "cordons", "labels", "marks", "protected"):
        assert after[part] == before[part], part

    engine.before_call = lambda _: None
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert case.normal(world)
    assert world.snapshot() == before


@pytest.mark.drawn(keep=8)
@pytest.mark.parametrize("point", range(1, CASES["shop"].points + 1))
def test_after_an_abort_for_a_bad_version_that_is_taken_back_the_next_roll_leaves_nothing(point: int) -> None:
    """R2: the remedy that is printed wherever something is left behind is `start`, and this is why people abort. What
    had been launched is outdated then, and what it was launched for is not: that takes its pods back."""
    world = CASES["shop"].make()
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    Person(world, engine, step_at("shop", point), ABORT)
    engine.run("roll", "roll-1", {})
    for group in ("ng-a", "ng-b"):
        world.templates[f"lt-{group}"] = (1, 1)
    world.planned = {m.id for m in world.machines.values() if m.alive and m.template.endswith(":2")}

    engine.before_call = lambda _: None
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert [m.id for m in world.machines.values() if m.alive and m.template.endswith(":2")] == []
    assert by_zone(world) == zones
    after = world.snapshot()
    assert {part: after[part] for part in before if part != "labels"} == {
        part: before[part] for part in before if part != "labels"
    }


@pytest.mark.drawn(keep=16)
@pytest.mark.parametrize(("name", "point"), POINTS)
def test_a_paused_roll_does_nothing_until_it_is_let_go_on(name: str, point: int) -> None:
    """N1 to N4 and R2 as ever; S2, C2: a paused group is not half moved."""
    case = CASES[name]
    world = case.make()
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    person = Person(world, engine, step_at(name, point), PAUSE)
    seen: dict[str, int | bool] = {}

    def watch(step: str) -> None:
        person._before(step)
        if person.asked_at is None or "resumed" in seen:
            return
        if world.time > person.asked_at + case.paused_seconds:
            seen["resumed"] = True
            person.write({})
        elif "still" not in seen and world.time > person.asked_at + SETTLED_SECONDS:
            # What had begun has been finished by now.
            seen["still"] = len(world.effects)
            assert case.normal(world)
        elif "still" in seen:
            new = [e for e in world.effects[int(seen["still"]) :] if not e.startswith("lease ")]
            assert new == [], step

    engine.before_call = watch
    execution = engine.run("roll", "roll-1", {}, limit_seconds=40_000)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert case.normal(world)
    assert world.snapshot() == before
