"""Every expression of the definitions, on the reference engine: jsonata 2.0.x, which Step Functions names as its own.

The inputs are recorded in whole rolls on the in-memory world; each expression is tried on all of them, those of other
states too, so that both engines have to agree on what is missing as well.
"""

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from eks_rolling.roll.lock import ABORT
from stacks.state_machine import MOST_TOLD, TOLD_BY_RESTORE
from tests import asl
from tests.asl import Engine, Scope, StateFault
from tests.assembly import synthesize, with_hooks
from tests.model.situations import cache as redis_cache
from tests.model.situations import shards, shop
from tests.model.test_changes import event
from tests.model.test_control import Person
from tests.model.test_roll import SMALL, engine_for, stop_after
from tests.model.test_roll_back import engine_for as going_back_engine
from tests.model.test_roll_back import rolled as going_back
from tests.model.test_roll_back import shop_with_a_bad_version

pytestmark = pytest.mark.xdist_group("expressions")
"""The rolls whose inputs are recorded run once."""

JUDGE = Path(__file__).resolve().parent.parent / "judges" / "jsonata.mjs"
INPUTS, OWN = 120, 4

Question = tuple[str, dict[str, Any]]
Answer = dict[str, Any]


def expressions() -> list[str]:
    """Every expression of every definition, once."""

    def inside(value: Any) -> Iterator[str]:
        if isinstance(value, str) and value.startswith("{%"):
            yield value[2:-2].strip()
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from inside(item)

    definitions = [made.definition(m) for made in (synthesize(), with_hooks()) for m in ("roll", "node", "restore")]
    return sorted({*inside(definitions)})


@cache
def rolled() -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Variables as they were when an expression was evaluated, by their JSON; and the first few of each expression."""
    seen: dict[str, dict[str, Any]] = {}
    own: dict[str, list[dict[str, Any]]] = {}
    original = Scope._expression

    def remember(scope: Scope, text: str, here: dict[str, Any]) -> Any:
        variables = scope.variables | {"states": here}
        copied = seen.setdefault(json.dumps(variables, sort_keys=True), json.loads(json.dumps(variables)))
        if len(own.setdefault(text, [])) < OWN:
            own[text].append(copied)
        return original(scope, text, here)

    patch = pytest.MonkeyPatch()
    patch.setattr(Scope, "_expression", remember)
    try:
        engine_for(shop(SMALL)).run("roll", "roll-1", {})
        engine_for(shop(SMALL, new_version=False)).run("roll", "nothing-to-do", {})
        engine_for(shop(SMALL)).run("roll", "change-1", event(1))
        engine_for(shop(SMALL)).run("roll", "dry", {"dry_run": True})
        for make in (redis_cache, shards):
            engine_for(make()).run("roll", "roll-1", {})
        aborted = engine_for(shop(SMALL))
        Person(aborted.world, aborted, 20, ABORT)
        aborted.run("roll", "roll-1", {})
        stopped = engine_for(shop(SMALL))
        stop_after(stopped, 12)
        stopped.run("restore", "watchdog-1", {"roll": "roll-1"})
        stopped.run("restore", "clock-1", {"look": True})
        for step in ("record_node", "report"):
            untold = engine_for(shop(SMALL))
            untold.before_call = _timeout_at(step)
            untold.run("roll", "roll-1", {})
        # Whose name has to be cut in those that are made of it.
        going_back(going_back_engine(shop_with_a_bad_version()), "r" * 80)
        untold = going_back_engine(shop_with_a_bad_version())
        untold.before_call = _timeout_at("put_back_version")
        going_back(untold)
        patch.setattr(Engine, "_start_beside", _too_many)
        going_back(going_back_engine(shop_with_a_bad_version()))
        refused = engine_for(shop(SMALL))
        refused.refusal = ("Refused", "not today")
        refused.run("roll", "roll-1", {"approval": True})
    finally:
        patch.undo()
    return seen, own


def _too_many(*_: Any) -> None:
    raise StateFault("States.TaskFailed", "no more executions may be started")


def _timeout_at(step: str) -> Callable[[str], None]:
    def before_call(called: str) -> None:
        if called == step:
            raise StateFault("States.Timeout", "")

    return before_call


@cache
def recorded() -> list[dict[str, Any]]:
    """A sample of all inputs, the same every time, and one of each kind of output that a state has as its input."""
    everything = list(rolled()[0].values())
    return [*random.Random(17).sample(everything, INPUTS), *{_kind(v): v for v in everything}.values()]


def _kind(variables: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    """Which fields the output has, and which of them are empty."""
    given = variables.get("states", {}).get("input")
    output = given.get("output") if isinstance(given, dict) else None
    return tuple(sorted((key, bool(value)) for key, value in output.items())) if isinstance(output, dict) else ()


def ours(questions: list[Question]) -> list[Answer]:
    """What the model tests run on: the engine of the lab, and what reads plain expressions without it."""
    answers: list[Answer] = []
    for text, variables in questions:
        try:
            answers.append({"value": Scope({}, _given(variables))._expression(text, variables.get("states", {}))})
        except StateFault:
            answers.append({"undefined": True})
        except Exception as error:  # noqa: BLE001 (whatever it is: that it is one is compared)
            answers.append({"error": str(error)})
    return answers


def _given(variables: dict[str, Any]) -> Scope:
    scope = Scope({})
    scope._variables = {name: value for name, value in variables.items() if name != "states"}
    return scope


def theirs(questions: list[Question]) -> list[Answer]:
    ran = subprocess.run(["node", JUDGE], input=json.dumps(questions), capture_output=True, text=True, check=True)
    answers: list[Answer] = json.loads(ran.stdout)
    return answers


def different(mine: list[Answer], reference: list[Answer]) -> list[int]:
    """Which answers differ. What an error says is each engine's own."""

    def plain(answer: Answer) -> Any:
        return "error" if "error" in answer else answer

    return [i for i, (a, b) in enumerate(zip(mine, reference, strict=True)) if plain(a) != plain(b)]


@cache
def compared() -> tuple[list[Question], list[Answer], list[Answer]]:
    questions = [(text, v) for text in expressions() for v in (*recorded(), *rolled()[1].get(text, ()))]
    return questions, ours(questions), theirs(questions)


@pytest.mark.heavy
def test_both_engines_answer_the_same_to_every_expression_on_every_input() -> None:
    questions, mine, reference = compared()
    assert len(recorded()) > INPUTS
    assert len(questions) > 10_000
    wrong = [(questions[i][0], mine[i], reference[i]) for i in different(mine, reference)]
    assert wrong[:3] == []


@pytest.mark.heavy
def test_the_engine_of_the_lab_answers_the_same_where_model_tests_do_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asks_the_engine(text: str, _: Any) -> Any:
        raise KeyError(text)

    questions, mine, _ = compared()
    monkeypatch.setattr(asl, "_plain", asks_the_engine)
    engine = ours(questions)
    wrong = [(questions[i][0], mine[i], engine[i]) for i in different(mine, engine)]
    assert wrong[:3] == []


@pytest.mark.parametrize("length", [90, 1000])
def test_what_a_long_restore_had_to_leave_first_and_last_is_told(length: int) -> None:
    """R2: what is left is told once, by the look that had to leave it, and there may be thousands of looks."""

    def look(number: int) -> list[str]:
        return [f"{number}: {'x' * length}", "stays"]

    expression = TOLD_BY_RESTORE["leftBehind"][2:-2].strip()
    told: list[str] = []
    for number in range(3 * MOST_TOLD // length):
        (answer,) = ours([(expression, told_after(told, look(number)))])
        told = answer["value"]
    assert told[:2] == look(0)
    assert {*look(number)} <= {*told}
    assert "and more" in told
    assert len(json.dumps(told)) < 2 * MOST_TOLD
    questions = [(expression, told_after(before, look(7))) for before in ([], ["one"], told, [*told, *look(8) * 9])]
    assert ours(questions) == theirs(questions)


def told_after(before: list[str], look: list[str]) -> dict[str, Any]:
    """The variables as a restore's look answers."""
    return {"leftBehind": before, "states": {"result": {"Payload": {"output": {"left_behind": look}}}}}


def test_every_expression_has_a_value_for_some_input() -> None:
    """One that never has is misspelt, or the rolls above leave its state out."""
    questions, _, reference = compared()
    valued = {text for (text, _), answer in zip(questions, reference, strict=True) if "value" in answer}
    assert sorted({*expressions()} - valued) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("$states.input.status = 'done'", "$states.input.status = 'Done'"),
        ("$count($states.input.output.wave) = 0", "$count($states.input.output.waves) = 0"),
        ("$plan.output.surge", "$plan.output.surge + 1"),
    ],
)
def test_an_expression_that_means_something_else_is_caught(right: str, wrong: str) -> None:
    """The planted fault."""
    inputs = recorded()
    assert different(ours([(wrong, v) for v in inputs]), theirs([(right, v) for v in inputs])) != []


def test_the_reference_is_the_version_that_step_functions_names() -> None:
    """JSONata 2.0.x (Step Functions developer guide, "Transforming data with JSONata")."""
    package = json.loads((JUDGE.parents[2] / "node_modules" / "jsonata" / "package.json").read_text())
    assert package["version"].startswith("2.0.")
