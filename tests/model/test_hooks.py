"""Rolls with hooks at every moment, in memory."""

from collections import Counter

import pytest

from eks_rolling.clients.protocols import HttpAnswer
from eks_rolling.documents.report import Report
from eks_rolling.roll.lock import ABORT, PAUSE
from eks_rolling.settings import Settings
from tests.asl import Engine, Execution
from tests.assembly import HOOK_FUNCTION, HOOK_URL, hooked_document, with_hooks
from tests.model.situations import by_zone, outdated, shop
from tests.model.test_control import Person
from tests.model.test_roll import SMALL, launches
from tests.scope import at_kill_points
from tests.world import World


def engine_for(world: World) -> Engine:
    return Engine(with_hooks(), world, world.clients(Settings.parse(hooked_document()["settings"])))


def rolled(world: World) -> Execution:
    return engine_for(world).run("roll", "roll-1", {})


def keys(world: World) -> list[str]:
    return [document["key"] for document in world.asked]


def report(world: World) -> Report:
    return Report.model_validate_json(world.documents["rolls/roll-1/report.json"])


def effects_of_a_roll() -> range:
    world = shop(SMALL)
    rolled(world)
    return range(1, len(world.effects) + 1)


def test_hooks_are_asked_before_and_after_the_roll_and_each_node() -> None:
    world = shop(SMALL)
    instances = outdated(world)
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (keys(world)[0], keys(world)[-1]) == ("roll-1/before_roll/pager", "roll-1/after_roll/pager")
    assert Counter(keys(world)[1:-1]) == Counter(
        f"roll-1/{moment}/{instance}/{name}"
        for instance in instances
        for moment, name in (("before_node", "ask"), ("after_node", "tell"))
    )
    last = next(d for d in world.asked if d["when"] == "after_node")
    assert last["replacement"] in world.machines


@at_kill_points(effects_of_a_roll)
def test_a_function_killed_after_any_effect_changes_nothing_in_the_result(after: int) -> None:
    """R3: a hook may be asked twice, by the same key."""
    world = shop(SMALL)
    before, zones = world.snapshot(), by_zone(world)
    world.kill_after = after
    execution = rolled(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world), launches(world)) == ([], zones, 3)
    assert world.snapshot() == before
    assert len(set(keys(world))) == 8


def test_a_roll_waits_for_the_function_of_a_hook_that_nobody_has_called_for_weeks() -> None:
    world = shop(SMALL)
    asleep = HttpAnswer(fault="ResourceNotReadyException: the function is being made ready", uncalled=True)
    world.hook_answers[HOOK_FUNCTION] = [asleep] * 6
    assert rolled(world).status == "SUCCEEDED"
    (page,) = [n for n in report(world).nodes if n.steps[0].holds]
    assert [h.reason for h in page.steps[0].holds] == [f"hook ask cannot be called yet: {asleep.fault}"]


def test_a_node_waits_for_a_hook_that_asks_for_it() -> None:
    world = shop(SMALL)
    wait = HttpAnswer(200, '{"status": "wait", "seconds": 100, "reason": "a sale"}')
    world.hook_answers[HOOK_FUNCTION] = [wait] * 3
    began = world.time
    seen: list[float] = []
    world.watchers.append(lambda w: seen.append(w.time) if launches(w) and not seen else None)
    assert rolled(world).status == "SUCCEEDED"
    assert seen[0] - began > 300
    (page,) = [n for n in report(world).nodes if n.steps[0].holds]
    assert [h.reason for h in page.steps[0].holds] == ["hook ask asks to wait: a sale"]


def test_a_hook_that_asks_to_wait_for_ever_ends_the_roll_by_name() -> None:
    world = shop(SMALL)
    before = world.snapshot()
    world.hook_answers[HOOK_URL] = [HttpAnswer(200, '{"status": "wait", "seconds": 900}')] * 6
    execution = rolled(world)
    assert execution.error == "DeadlineExceeded"
    assert "hook pager asks to wait: it gives no reason" in execution.cause
    assert world.snapshot() == before


@pytest.mark.parametrize("hook", [HOOK_URL, HOOK_FUNCTION])
def test_a_hook_that_fails_ends_the_roll_and_everything_is_put_back(hook: str) -> None:
    """R2; and the hooks after the roll hear why."""
    world = shop(SMALL)
    before = world.snapshot()
    world.hook_answers[hook] = [HttpAnswer(409, "not today")]
    execution = rolled(world)
    assert execution.error == "Refused"
    name = "pager" if hook == HOOK_URL else "ask"
    assert f"The hook {name} answers 409 not today." in execution.cause
    assert launches(world) == 0
    assert world.snapshot() == before
    assert world.asked[-1]["when"] == "after_roll"
    assert "not today" in world.asked[-1]["failure"]


def test_a_hook_that_may_fail_is_noted_and_the_roll_goes_on() -> None:
    world = shop(SMALL)
    world.hook_answers[HOOK_URL] = [HttpAnswer(200), HttpAnswer(500, "broken")]
    assert rolled(world).status == "SUCCEEDED"
    said = [step.result for node in report(world).nodes for step in node.steps]
    assert "hook tell answers 500 broken; the roll continues without it" in said


def test_a_hook_that_fails_after_a_roll_fails_it_and_leaves_nothing_behind() -> None:
    world = shop(SMALL)
    before = world.snapshot()
    world.hook_answers[HOOK_URL] = [HttpAnswer(200)] * 4 + [HttpAnswer(500)]
    execution = rolled(world)
    assert (execution.error, execution.cause) == ("Refused", "The hook pager answers 500.")
    assert (outdated(world), report(world).replaced) == ([], 3)
    assert world.snapshot() == before


def test_a_hook_that_does_not_answer_is_asked_once_more() -> None:
    world = shop(SMALL)
    world.hook_answers[HOOK_FUNCTION] = [HttpAnswer(fault="connection reset")]
    assert rolled(world).status == "SUCCEEDED"


@pytest.mark.parametrize("wish", [PAUSE, ABORT])
def test_a_person_is_heard_while_a_hook_makes_a_node_wait(wish: str) -> None:
    world = shop(SMALL)
    engine = engine_for(world)
    person = Person(world, engine, 10**6, wish)
    world.hook_answers[HOOK_FUNCTION] = [HttpAnswer(200, '{"status": "wait", "seconds": 10}')] * 20

    def before(step: str) -> None:
        if step == "run_hooks" and keys(world)[-1:] == [f"roll-1/before_node/{first}/ask"]:
            person._at = 1
        person._before(step)
        if wish == PAUSE and person.asked_at is not None and world.time > person.asked_at + 5000:
            person.write({})

    first = outdated(world)[0]
    engine.before_call = before
    execution = engine.run("roll", "roll-1", {})
    assert person.asked_at is not None
    assert (execution.status, execution.error) == (("SUCCEEDED", "") if wish == PAUSE else ("FAILED", "Aborted"))


def test_a_roll_keeps_its_lock_through_a_wait_that_a_hook_asks_for() -> None:
    """R4: another roll waits for it, however long the hook takes."""
    world = shop(SMALL)
    world.hook_answers[HOOK_FUNCTION] = [HttpAnswer(200, '{"status": "wait", "seconds": 900}')]
    engine = engine_for(world)
    other = engine.start("roll", "roll-2", {}, after=300)
    first = engine.run("roll", "roll-1", {})
    assert (first.status, first.cause) == ("SUCCEEDED", "")
    engine.follow(other)
    assert (other.status, launches(world)) == ("SUCCEEDED", 3)
