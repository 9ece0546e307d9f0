"""Code that nobody uses, found by vulture, but for what is used in ways that it cannot see (`make lint`).

Whoever counts as a user: what is deployed, the command, the stacks, the lab and the scripts. Tests do not.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from vulture import Vulture
from vulture.core import Item

from eks_rolling.settings import Deadlines

ROOT = Path(__file__).resolve().parent.parent

CHECKED = ("lambdas/eks_rolling", "eks_rolling_cli", "eks_rolling_config", "stacks", "app.py")
USERS = ("lab", "scripts", "benchmarks")

REGISTERING = ["@app.callback", "@field_validator", "@model_validator"]
"""Decorators by which a framework comes to call a function."""

UNSEEN: Mapping[str, frozenset[str]] = {
    "pydantic reads it": frozenset({"model_config"}),
    "a settings file may say it; nothing is done then": frozenset({"IGNORE"}),
    "Typer reads it": frozenset({"__signature__", "__annotations__", "display_type_rich"}),
    "the report's template reads it": frozenset({"bad", "ticks"}),
    "it is stored, for whoever reads plan.json": frozenset({"stays", "assumptions"}),
    "the SDK reads it": frozenset({"ca_cert_data", "retries", "event_name"}),
    "CDK calls it": frozenset({"try_bundle"}),
    "Rich calls it": frozenset({"on_broken_pipe"}),
    "contract tests compare it with what the other side says": frozenset({"link_ok", "abandons"}),
}
"""Why vulture sees no use -> names."""


def unused(root: Path = ROOT) -> list[Item]:
    """What vulture finds in the checked folders. Imports are ruff's business."""
    vulture = Vulture(ignore_decorators=REGISTERING)
    vulture.scavenge([str(root / path) for path in (*CHECKED, *USERS) if (root / path).exists()])
    checked = tuple(str(root / path) for path in CHECKED)
    items = vulture.get_unused_code(min_confidence=60)
    return [item for item in items if str(item.filename).startswith(checked) and item.typ != "import"]


def problems(found: list[Item], root: Path = ROOT) -> Iterator[str]:
    """Code to delete, and names that need no excuse any more."""
    excused = frozenset().union(*UNSEEN.values())
    # A step's deadline is read by the step's name.
    allowed = excused | Deadlines.model_fields.keys()
    for item in found:
        if item.name not in allowed:
            where = Path(item.filename).relative_to(root)
            yield f"{where}:{item.first_lineno}: {item.typ} {item.name} is used by nobody"
    for name in sorted(excused - {item.name for item in found}):
        yield f"scripts/dead_code.py: {name} is used, or gone: it needs no excuse"


if __name__ == "__main__":
    sys.exit("\n".join(problems(unused())) or None)
