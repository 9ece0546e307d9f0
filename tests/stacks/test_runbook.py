"""docs/runbook.md: every step that can hold has its state's heading, and sentences are quoted as steps say them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from eks_rolling.settings import Deadlines
from tests.assembly import with_hooks
from tests.stacks.test_state_machine import MACHINES, tasks, work_of

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text()

NO_STEPS = {"approval", "roll"}
"""Deadlines of the workflow itself."""

HOLDS = {"Hold", "RedisHold", "Stop", "wait", "Refused", "Permanent", "NotFound", "LockLost", "Aborted"}

OTHERS_WORDS = {"Cannot evict pod as it would violate the pod's disruption budget"}


def headings() -> set[str]:
    return set(re.findall(r"^### (.*)$", RUNBOOK, re.MULTILINE))


def states_of(step: str) -> set[str]:
    return {name for machine in MACHINES for name, state in tasks(machine, with_hooks()) if work_of(state) == step}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in [REPOSITORY / "stacks" / "state_machine.py", *sorted((REPOSITORY / "lambdas").rglob("*.py"))]:
        yield path, ast.parse(path.read_text())


def pieces(node: ast.expr) -> list[str]:
    """The fixed words of a string, formatted or not."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]


def quoted() -> Iterator[str]:
    """What stands between backticks in a table's first column, where it is a sentence."""
    for line in RUNBOOK.splitlines():
        if line.startswith("| `"):
            yield from (s for s in re.findall(r"`([^`]+)`", line.split(" | ")[0]) if " " in s)


@pytest.mark.parametrize("step", sorted(set(Deadlines.model_fields) - NO_STEPS))
def test_every_step_that_can_hold_has_its_states_heading(step: str) -> None:
    states = states_of(step)
    assert states
    assert states & headings(), f"docs/runbook.md has no heading of {states}"
    assert f"`{step}`" in RUNBOOK


def test_every_heading_is_a_state() -> None:
    names = {name for machine in MACHINES for name, _ in tasks(machine, with_hooks())}
    assert headings() - names == set()


def test_every_quoted_sentence_is_one_that_the_code_says() -> None:
    expressions = [node for _, tree in sources() for node in ast.walk(tree) if isinstance(node, ast.expr)]
    said = [piece for expression in expressions for piece in pieces(expression)]
    wrong = []
    for sentence in quoted():
        for fixed in re.split(r"\.\.\.|\b\d\b", sentence):
            words = fixed.strip(" .,;:()")
            if len(words) > 3 and words not in OTHERS_WORDS and not any(words in piece for piece in said):
                wrong.append((sentence, words))
    assert not wrong, "\n".join(f"{sentence}: {words}" for sentence, words in wrong)


def test_every_sentence_of_a_hold_or_a_refusal_is_looked_up_here() -> None:
    """By one run of its fixed words."""
    missing = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            runs = [run.strip(" .,()") for piece in pieces(node.args[0]) for run in re.split("[;:]", piece)]
            runs = [run for run in runs if len(run) > 6]
            if name in HOLDS and runs and not any(run in RUNBOOK for run in runs):
                missing.append(f"{path.name}:{node.lineno}: {runs}")
    assert not missing, "\n".join(missing)
