"""Whole rolls are held at states by their functions: both are called what they are called in the application."""

import json

from tests.assembly import synthesize
from tests.e2e.holding import STATES


def test_every_state_at_which_a_roll_is_held_exists_and_calls_its_function() -> None:
    found: dict[str, str] = {}
    for machine in ("roll", "node"):
        for name, body in _states(synthesize().definition(machine)):
            found[name] = json.dumps(body.get("Arguments", {}))
    functions = [n for n in synthesize().of_type("AWS::Lambda::Function") if n.startswith("Functions")]
    for state, function in STATES.items():
        assert any(n.startswith(f"Functions{function}") for n in functions), function
        step = "".join(f"_{c.lower()}" if c.isupper() else c for c in function).removeprefix("_")
        assert f"step:{step}" in found[state], state


def _states(definition: dict[str, object]) -> list[tuple[str, dict[str, object]]]:
    """All states, those inside of maps and branches too."""
    found: list[tuple[str, dict[str, object]]] = []
    states = definition.get("States")
    if isinstance(states, dict):
        found += states.items()
    inner = [v for v in definition.values() if isinstance(v, dict)]
    inner += [v for each in definition.values() if isinstance(each, list) for v in each if isinstance(v, dict)]
    for each in inner:
        found += _states(each)
    return found
