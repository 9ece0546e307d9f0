"""Rolls that are stopped, die unnoticed, or get in each other's way, in the lab under traffic."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.cluster_state import ClusterState
from lab.operator import Operator
from lab.view import LineView
from tests import scope
from tests.e2e.holding import STATES, dying_at, wait_until_at
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

FIRST, SECOND = (pytest.mark.xdist_group(name) for name in ("first", "second"))

FIRST_STATE = next(iter(STATES))

GATE = "Open the gate to the next wave"


@FIRST
def test_a_roll_stopped_anywhere_is_restored_and_one_that_dies_unnoticed_is_taken_over_and_finished(
    small_lab: Operator, view: LineView, request: pytest.FixtureRequest
) -> None:
    """R2 after each stop, by the watchdog; R4 after a death that nobody hears of; no client sees any of it."""
    before = small_lab.settled_state()
    with small_lab.traffic():
        for state in states_to_stop_at(request.config):
            with dying_at(small_lab, state):
                execution = publish(small_lab) if state == FIRST_STATE else small_lab.rolls.start({})
                stop_at(small_lab, execution, state, view)
            assert_restored_by_watchdog(small_lab, execution, before, state)
        with nobody_watching(small_lab):
            with dying_at(small_lab, GATE):
                execution = small_lab.rolls.start({"nodes": outdated(small_lab)[:1]})
                stop_at(small_lab, execution, GATE, view)
            dead = small_lab.rolls.progress(execution).name
            again = small_lab.rolls.start({})
            until(lambda: f"{dead} is running" in small_lab.rolls.progress(again).reason, "it waits for the dead one")
        outcome = small_lab.follow(again, view.show, within_seconds=400)
    assert outcome.succeeded, outcome.reason
    assert [outcome.report[part] for part in ("left_behind", "orphans", "gaps")] == [[], [], []]
    took = next(s for s in outcome.report["steps"] if s["name"] == "Take the lock")
    assert took["result"].startswith(f"the lock of {dead}, silent for")
    after = small_lab.settled_state()
    assert after.restored(before), (before, after)
    assert {n.version for n in after.nodes} == {small_lab.newest_version()}
    verdict = small_lab.judge(None)
    assert (verdict.failed, verdict.errors, verdict.jobs["lost"]) == (0, {}, 0)


@SECOND
@pytest.mark.long  # tests/model/test_changes.py has every order of them
def test_two_changes_at_once_and_one_in_the_middle_are_two_rolls_one_after_the_other(
    small_lab: Operator, view: LineView
) -> None:
    """R4, and no event is lost: the last version is on every node. A restore by hand leaves the living roll alone."""
    rolls = small_lab.rolls
    before = small_lab.settled_state()
    with small_lab.traffic():
        published = time.time()
        rolls.publish_version("workers")
        rolls.publish_version("workers")
        until(lambda: len(rolls.all_since(published)) == 2, "two events have started two executions")
        until(lambda: any(p.state == "Evict pods" for p in rolls.nodes_in_flight()), "a node is being emptied")
        restore = rolls.start({}, "restore")
        rolls.publish_version("workers")
        until(lambda: len(rolls.all_since(published)) == 3, "the third event has started one more")
        *burst, late = rolls.all_since(published)
        until(lambda: not rolls.progress(restore).running, "the restore by hand has ended")
        outcome = small_lab.follow(late, view.show, within_seconds=400)
    assert "is running on this cluster, and restores at its end" in rolls.executions.describe(restore).output["reason"]
    ends = [rolls.executions.describe(e) for e in burst]
    first, joined = sorted(ends, key=lambda e: "report" not in e.output["output"])
    assert f"joined to {first.name}, which handles all changes" in joined.output["reason"]
    assert rolls.outcome(first.arn).succeeded
    assert outcome.succeeded, outcome.reason
    assert outcome.report["replaced"] > 0
    assert [outcome.report[part] for part in ("left_behind", "orphans", "gaps")] == [[], [], []]
    replaced = [rolls.executions.describe(e) for e in rolls.all_since(published, "node")]
    of_first = [e.ended or 0.0 for e in replaced if e.input["roll"] == first.name]
    of_late = [e.started for e in replaced if e.input["roll"] == outcome.roll]
    assert len(of_first) + len(of_late) == len(replaced)
    assert max(of_first) < min(of_late)
    after = small_lab.settled_state()
    assert after.restored(before), (before, after)
    assert {n.version for n in after.nodes} == {small_lab.newest_version()}
    verdict = small_lab.judge(None)
    assert (verdict.failed, verdict.errors, verdict.jobs["lost"]) == (0, {}, 0)


def states_to_stop_at(config: pytest.Config) -> list[str]:
    """All ten; in `make test` the first, whose roll an event starts, and one more, in the workflow's order."""
    if config.option.scope == scope.ALL:
        return [state for state in STATES if state != GATE]
    drawn = scope.dice(config, "stops").sample([s for s in STATES if s not in {FIRST_STATE, GATE}], 1)
    chosen = [state for state in STATES if state in {FIRST_STATE, *drawn}]
    print("stopped at", chosen)
    return chosen


def outdated(operator: Operator) -> list[str]:
    return [n.name for n in operator.state().nodes if n.version != operator.newest_version()]


def publish(operator: Operator) -> str:
    """A new version of the launch template; the roll that it starts."""
    published = time.time()
    operator.rolls.publish_version("workers")
    return operator.rolls.started_since(published)


def stop_at(operator: Operator, execution: str, state: str, view: LineView) -> None:
    """Stops the roll once it, or a node of it, is at the state and the state's function has died there."""
    wait_until_at(operator, execution, state)
    operator.rolls.stop(execution, f"a test stops it at {state}")
    view.say(f"stopped at {state}")


def assert_restored_by_watchdog(operator: Operator, execution: str, before: ClusterState, state: str) -> None:
    """R2: everything is as before, but for replacements that are in use by now, and their group's size."""
    rolls = operator.rolls
    stopped = rolls.executions.describe(execution)

    def restores() -> list[str]:
        found = (rolls.executions.describe(e) for e in rolls.all_since(stopped.started, "restore"))
        return [e.status for e in found if e.input.get("roll") == stopped.name]

    until(
        lambda: restores() == ["SUCCEEDED"], f"the watchdog has restored after the stop at {state}", within_seconds=240
    )
    until(lambda: not rolls.nodes_in_flight(), "no node is being replaced any more")
    until(lambda: not differences(before, operator.state()), f"everything is as before the stop at {state}")


def differences(before: ClusterState, now: ClusterState) -> list[str]:
    """What a stopped roll has left."""
    found = [m for m in now.marks if not m.startswith("instance")]
    found += [f"{n.name}: {n.taint or 'cordon'}" for n in now.nodes if n.taint or n.cordoned]
    if now.autoscaler != before.autoscaler:
        found.append(f"cluster-autoscaler at {now.autoscaler}")
    if len(now.protected) != len(before.protected):
        found.append(f"protected: {now.protected}")
    for name, was in before.groups.items():
        group = now.groups[name]
        if group["suspended"] != was["suspended"]:
            found.append(f"{name}: {group['suspended']} suspended")
        # It cannot be put back below what runs: AWS would terminate instances.
        if group["max"] != was["max"] and group["desired"] <= was["max"]:
            found.append(f"{name}: at most {group['max']}")
    return found


@contextmanager
def nobody_watching(operator: Operator) -> Iterator[None]:
    """The rule that starts the restore is off for the time of the block."""
    events = operator.rolls.client("events")
    (rule,) = [r["Name"] for r in events.list_rules()["Rules"] if "aws.states" in r.get("EventPattern", "")]
    events.disable_rule(Name=rule)
    try:
        yield
    finally:
        events.enable_rule(Name=rule)
