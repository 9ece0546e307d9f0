"""Rolls in AWS's ordinary weather: sleeping functions, instances that nobody knows yet, services that are busy."""

from collections.abc import Callable, Iterable

import pytest

from tests.asl import Engine, StateFault
from tests.model.situations import by_zone, outdated, shop
from tests.model.test_roll import engine_for, launches, stop_after
from tests.world import World

SMALL = (2, 1)


def asleep(world: World, *, waking_seconds: float = 60, after_seconds: float = 600) -> Callable[[str], None]:
    """Functions that nobody called for long: the first call wakes them, and all fail until their network is there."""
    called: dict[str, float] = {}
    woken: dict[str, float] = {}

    def before_call(step: str) -> None:
        if step not in called or world.time - called[step] > after_seconds:
            woken[step] = world.time
        called[step] = world.time
        if world.time - woken[step] < waking_seconds:
            raise StateFault("Lambda.ResourceNotReadyException", "The function is inactive.")

    return before_call


def sleeping(world: World, **how: float) -> Engine:
    engine = engine_for(world)
    engine.before_call = asleep(world, **how)
    return engine


@pytest.mark.parametrize("waking_seconds", [60, 240])
def test_a_roll_wakes_every_function_that_it_needs(waking_seconds: float) -> None:
    """R2: the first call of each one fails, the report's too."""
    world = shop(SMALL)
    before, zones = world.snapshot(), by_zone(world)
    execution = sleeping(world, waking_seconds=waking_seconds).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world), launches(world)) == ([], zones, 3)
    assert world.snapshot() == before
    assert "rolls/roll-1/report.json" in world.documents


def test_a_change_that_meets_sleeping_functions_is_not_lost() -> None:
    world = shop(SMALL)
    event = {"detail-type": "AWS API Call via CloudTrail", "detail": {"eventName": "CreateLaunchTemplateVersion"}}
    execution = sleeping(world).run("roll", "change-1", event)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []


def test_a_roll_that_was_stopped_is_restored_by_functions_that_sleep() -> None:
    """R2."""
    world = shop(SMALL)
    before = world.snapshot()
    stop_after(engine_for(world), 12)
    restore = sleeping(world).run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    restored = world.snapshot()
    for part in ("workloads", "lock", "taints", "cordons", "labels", "marks", "protected"):
        assert restored[part] == before[part], part


@pytest.mark.parametrize("settling_seconds", [1, 5, 45])
def test_a_new_instance_is_given_time_until_ec2_knows_it(settling_seconds: float) -> None:
    world = shop(SMALL)
    before, zones = world.snapshot(), by_zone(world)
    world.settling_seconds = settling_seconds
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world), launches(world)) == ([], zones, 3)
    assert world.snapshot() == before


@pytest.mark.parametrize(("seconds", "status"), [(5.0, "SUCCEEDED"), (10_000.0, "FAILED")])
def test_a_version_that_was_just_made_is_given_time_until_ec2_describes_it(
    monkeypatch: pytest.MonkeyPatch, seconds: float, status: str
) -> None:
    """What the new nodes would get has to be there: to find out by launching would take until the deadline."""
    world = shop(SMALL)
    described, known = World.template_data, world.time + seconds

    def lagging(self: World, versions: Iterable[str]) -> dict[str, dict[str, str]]:
        return {v: said for v, said in described(self, versions).items() if v.endswith(":1") or self.time >= known}

    monkeypatch.setattr(World, "template_data", lagging)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert execution.status == status
    assert ("what it launches does not exist any more" in execution.cause) == (status == "FAILED")
    assert bool(outdated(world)) == (status == "FAILED")


def test_a_permission_to_tag_that_is_really_missing_is_told() -> None:
    world = shop(SMALL)
    world.tags_are_denied = True
    execution = engine_for(world).run("roll", "roll-1", {})
    assert execution.status == "FAILED"
    assert "Cannot tag" in execution.cause


@pytest.mark.parametrize("after", range(1, 60, 7))
def test_a_function_that_is_killed_while_ec2_settles_launches_nothing_twice(after: int) -> None:
    """R3."""
    world = shop(SMALL)
    before, zones = world.snapshot(), by_zone(world)
    world.settling_seconds = 5
    world.kill_after = after
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world), launches(world)) == ([], zones, 3)
    assert world.snapshot() == before


@pytest.mark.parametrize(
    ("step", "machine", "ends"),
    [("record_node", "roll", "SUCCEEDED"), ("report", "roll", "FAILED"), ("restore", "roll", "FAILED")],
)
def test_an_error_without_a_cause_is_told_by_its_name(step: str, machine: str, ends: str) -> None:
    """A timeout has none (Step Functions developer guide, error output)."""
    world = shop(SMALL)
    engine = engine_for(world)

    def before_call(called: str) -> None:
        if called == step:
            raise StateFault("States.Timeout", "")

    engine.before_call = before_call
    execution = engine.run(machine, "roll-1", {})
    assert execution.status == ends
    if ends == "FAILED":
        assert execution.error == "States.Timeout"
