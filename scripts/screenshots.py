"""The documents' pictures, from a real roll in a lab: `make screenshots`.

The plan and the live view are what the command shows (`scripts.screens`), the report is what a browser shows of the
page that the roll wrote. Texts in a terminal's picture come without their web font: a document fetches nothing.
"""

import re
import sys
import time
from pathlib import Path

from rich.console import Console

from eks_rolling.documents.finding import HEADINGS, Severity
from lab.application import deploy
from lab.demo import ROLL_SECONDS, SPEC
from lab.lifecycle import LabError, running_lab
from lab.operator import Operator, operator_of
from lab.paths import REPOSITORY, LabPaths
from lab.spec import LabSpec
from tests.browser import PHONE, chromium

PICTURES = REPOSITORY / "docs" / "pictures"
NAME = "pictures"
MOST_BYTES = 300_000

SETTINGS = {"on_change": "off", "bake_seconds": 20}
"""The plan is to be seen before the roll begins; a person starts it."""

SETTLED_SECONDS = 90.0
"""How long Redis may take until its groups are in their normal state."""

LIVELY = ("sync", "stand-in", "replica")
"""Words of states in which there is something to see."""


def main() -> None:
    console = Console()
    PICTURES.mkdir(exist_ok=True)
    with running_lab(LabSpec.from_yaml(SPEC), NAME) as lab:
        deploy(lab, SETTINGS)
        with operator_of(lab) as operator:
            operator.wait_for_workloads()
            for template in sorted({g.template for g in lab.spec.groups}):
                operator.rolls.publish_version(template)
            _plan(operator)
            with operator.traffic():
                execution = operator.rolls.start({})
                _watch(operator, execution)
            outcome = operator.rolls.outcome(execution)
            if not outcome.succeeded:
                raise LabError(f"the roll did not succeed: {outcome.reason}")
            report = operator.rolls.text(outcome.roll, "report.html")
    # What is in a lab's folder goes with it; its records stay.
    page = LabPaths.of(NAME).root / "report.html"
    page.write_text(report)
    _report(page)
    for picture in sorted(PICTURES.iterdir()):
        size = picture.stat().st_size
        console.print(f"{picture.relative_to(REPOSITORY)}: {size // 1000} KB", highlight=False)
        if size > MOST_BYTES:
            raise LabError(f"{picture.name} is larger than {MOST_BYTES // 1000} KB")


def _plan(operator: Operator) -> None:
    """The plan, once nothing blocks it: sentinels take a while to know of each other. Raises LabError."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while HEADINGS[Severity.BLOCKS].partition(" ")[0] in _screen(operator, "plan"):
        if time.monotonic() > deadline:
            raise LabError(f"the plan is still blocked after {SETTLED_SECONDS:.0f} s: see {PICTURES / 'plan.svg'}")
        time.sleep(1)


def _screen(operator: Operator, what: str) -> str:
    """What the command shows now, drawn inside the lab: its picture's text. Raises LabError with what it said where it
    fails."""
    file = PICTURES / f"{what}.svg"
    done = operator.lab.run(
        [sys.executable, "-m", "scripts.screens", what, str(file)], cwd=REPOSITORY, capture_output=True
    )
    if done.returncode != 0:
        raise LabError(f"the picture of {what} could not be drawn", details=done.stderr[-2000:])
    drawn = re.sub(r"@font-face\s*\{.*?\}", "", file.read_text(), flags=re.DOTALL)
    file.write_text(drawn)
    return drawn


def _watch(operator: Operator, execution: str) -> None:
    """Follows the roll to its end, and keeps the liveliest moment that it saw. Raises LabError if it does not end."""
    deadline, best = time.monotonic() + ROLL_SECONDS, -1
    while operator.rolls.progress(execution).running:
        if time.monotonic() > deadline:
            raise LabError(f"the roll did not end within {ROLL_SECONDS:.0f} s")
        flying = operator.rolls.nodes_in_flight()
        lively = sum(10 + 5 * any(word in p.state for word in LIVELY) + 3 * bool(p.reason) for p in flying)
        if lively > best and len(flying) > 1:
            _screen(operator, "watch")
            best = lively
        time.sleep(1)


def _report(page: Path) -> None:
    """The page's beginning on a desk in both schemes, and all of its first screens on a phone."""
    with chromium() as browser:
        for name, width, height, scheme in (
            ("report", 1200, 1180, "light"),
            ("report-dark", 1200, 1180, "dark"),
            ("report-phone", PHONE, 1180, "light"),
        ):
            # Chromium's own choice of scheme is part of its context.
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
            )
            shown = context.new_page()
            shown.goto(page.as_uri())
            shown.screenshot(path=PICTURES / f"{name}.png")
            context.close()


if __name__ == "__main__":
    main()
