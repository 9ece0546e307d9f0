"""`eks-rolling`: the commands, put together."""

from typing import Annotated

import typer

from eks_rolling_cli import control, doctor, explaining, planning, watching
from eks_rolling_cli import history as past
from eks_rolling_cli.cli_context import output
from eks_rolling_cli.exits import MEANINGS

EPILOG = "Exit codes: " + ", ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

app = typer.Typer(
    name="eks-rolling",
    help="Replaces every outdated worker node of an EKS cluster while it serves.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def common(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Replaces every outdated worker node of an EKS cluster while it serves."""
    if version:
        from importlib.metadata import version as version_of

        output.print(version_of("eks-rolling"))
        raise typer.Exit


BEFORE, DURING, AFTER = "Before a roll", "During a roll", "After a roll"

app.command(rich_help_panel=BEFORE)(planning.plan)
app.command(rich_help_panel=BEFORE)(planning.start)
app.command(rich_help_panel=BEFORE)(doctor.doctor)
app.command(rich_help_panel=DURING)(watching.watch)
app.command(rich_help_panel=DURING)(explaining.explain)
for during in (control.approve, control.refuse, control.pause, control.resume, control.abort):
    app.command(rich_help_panel=DURING)(during)
for after in (past.report, past.rolls, past.orphans, past.restore):
    app.command(rich_help_panel=AFTER)(after)
