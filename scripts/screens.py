"""Pictures of the command, from a real cluster and a real roll: `python -m scripts.screens plan|watch|doctor FILE.svg`.

It draws with the command's own functions what the command would show at this moment, as an SVG file. It runs where the
command would run: in a lab, by `python -m lab shell -- .venv/bin/python -m scripts.screens plan plan.svg`.
"""

import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType

from eks_rolling_cli.checks import drawn, run_checks
from eks_rolling_cli.doctor import CHECKS
from eks_rolling_cli.plan_locally import plan_here
from eks_rolling_cli.plan_view import rendered
from eks_rolling_cli.planning import next_commands, next_step
from eks_rolling_cli.settings import settings_of
from eks_rolling_cli.target import Options, Target
from eks_rolling_cli.watch_view import picture
from eks_rolling_cli.watching import looker_of, named

WIDTH = 100


def plan(target: Target) -> RenderableType:
    """As `eks-rolling plan`."""
    settings, deployed = settings_of(target)
    _, document = plan_here(target, settings, {})
    return rendered(document, next_step(document, next_commands(target, {}), deployed=deployed))


def watch(target: Target) -> RenderableType:
    """As `eks-rolling watch` at this moment."""
    seen = looker_of(target).look(named(target, None).arn)
    return picture(seen, target.cluster, start=target.typed("start"))


def doctor(target: Target) -> RenderableType:
    """As `eks-rolling doctor`."""
    return drawn(run_checks(target, CHECKS))


DRAWN: dict[str, Callable[[Target], RenderableType]] = {"plan": plan, "watch": watch, "doctor": doctor}


def svg(what: str, content: RenderableType) -> str:
    """The picture of a terminal that shows it, after the command that does."""
    console = Console(width=WIDTH, record=True, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(content)
    return console.export_svg(title=f"eks-rolling {what}")


def main() -> None:
    what, file = sys.argv[1:]
    Path(file).write_text(svg(what, DRAWN[what](Target(Options()))))


if __name__ == "__main__":
    main()
