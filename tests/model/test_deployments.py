"""Deployments in the middle of a roll: the functions and their settings change at once, running executions keep the
definition that they began with, and Node executions that begin afterwards take the new one."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from eks_rolling.settings import Autoscaler, AutoscalerMode, OnInterference, Settings
from tests.asl import Engine, StateFault
from tests.model.situations import by_zone, outdated, settings
from tests.model.test_control import CASES
from tests.model.test_roll import engine_for
from tests.scope import at_kill_points
from tests.world import World

Json = dict[str, Any]
Deployment = Callable[[Engine], None]
"""Changes what is deployed."""


def with_settings(**changed: Any) -> Deployment:
    def deploy(engine: Engine) -> None:
        new = Settings.model_validate(engine.clients.settings.model_dump() | changed)
        engine.clients = replace(engine.clients, settings=new)

    return deploy


def renamed_states(engine: Engine) -> None:
    """Every definition anew: each state has another name, and each machine begins with one that was not there."""
    engine.definitions = {machine: _renamed(d) for machine, d in engine.definitions.items()}


def _renamed(definition: Json) -> Json:
    new = copy.deepcopy(definition)
    first = new["StartAt"]
    new["States"]["A state that was not there"] = {"Type": "Pass", "Next": first}
    new["StartAt"] = "A state that was not there"
    return new


def failing(step: str, error: str) -> Deployment:
    """The older workflow calls a step that the newer release does not have, or that does not take its input."""

    def deploy(engine: Engine) -> None:
        def fail(called: str) -> None:
            if called == step:
                raise StateFault(error, json.dumps({"errorType": error, "errorMessage": "It is of another release."}))

        engine.before_call = fail

    return deploy


GOING_ON: dict[str, Deployment] = {
    "definitions": renamed_states,
    "surge and wave": with_settings(surge=1, wave=1, canary=True),
    "floor": with_settings(healthy_target_floor=2),
    "autoscaler goes on": with_settings(autoscaler=Autoscaler(mode=AutoscalerMode.ANNOTATE)),
    "holds on interference": with_settings(on_interference=OnInterference.HOLD),
}
"""What running rolls bear."""

ENDING: dict[str, Deployment] = {
    "lock elsewhere": with_settings(namespace="rolling"),
    **{f"no {step}": failing(step, "Lambda.ResourceNotFoundException") for step in ("evict", "terminate", "restore")},
    **{f"another {step}": failing(step, "BadRequest") for step in ("taint_nodes", "await_ready", "health_gate")},
}
"""What they do not."""


def deploying_at(engine: Engine, call: int, deploy: Deployment) -> None:
    """Deploys before the call of this number, counted from 1."""
    made = 0

    def look(_: str) -> None:
        nonlocal made
        made += 1
        if made == call:
            deploy(engine)

    engine.before_call = look


@cache
def calls() -> int:
    engine = engine_for(CASES["shop"].make())
    made: list[str] = []
    engine.before_call = made.append
    engine.run("roll", "roll-1", {})
    return len(made)


FINISH = 300.0
"""Seconds until a lock that nobody renews may be taken."""


@at_kill_points(lambda: range(1, calls() * len(GOING_ON) + 1), every=5)
def test_a_roll_goes_on_over_a_deployment_at_any_moment_and_leaves_nothing(point: int) -> None:
    """R2; N1 to N4 are checked by the world after every effect."""
    name, call = list(GOING_ON)[point % len(GOING_ON)], 1 + (point - 1) // len(GOING_ON)
    world = CASES["shop"].make()
    engine = engine_for(world)
    before, zones = world.snapshot(), by_zone(world)
    deploying_at(engine, call, GOING_ON[name])
    roll = engine.run("roll", "roll-1", {})
    assert (roll.status, roll.cause) == ("SUCCEEDED", ""), (name, call)
    assert (outdated(world), by_zone(world)) == ([], zones), (name, call)
    assert left(world, before) == {}, (name, call)


@at_kill_points(lambda: range(1, calls() * len(ENDING) + 1), every=5)
def test_a_deployment_that_a_roll_does_not_bear_ends_it_and_the_next_roll_finishes_it(point: int) -> None:
    """R2, R4: whatever the deployment took away, nothing is left half done."""
    name, call = list(ENDING)[point % len(ENDING)], 1 + (point - 1) // len(ENDING)
    world = CASES["shop"].make()
    engine = engine_for(world)
    before, zones = world.snapshot(), by_zone(world)
    deploying_at(engine, call, ENDING[name])
    ended = engine.run("roll", "roll-1", {}).status
    # The newer workflow calls what the newer release has.
    engine.before_call = lambda _: None
    if ended != "SUCCEEDED":
        engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    world.advance(FINISH)
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", ""), (name, call)
    assert (outdated(world), by_zone(world)) == ([], zones), (name, call)
    assert left(world, before) in ({}, OLD_LOCK), (name, call)


OLD_LOCK: Json = {"lock": ({f"{settings().namespace}/eks-rolling": "roll-1"}, {})}
"""What nobody looks for any more where the lock is elsewhere."""


def left(world: World, before: Json) -> Json:
    after = world.snapshot()
    return {k: (after[k], before[k]) for k in before if k != "labels" and after[k] != before[k]}
