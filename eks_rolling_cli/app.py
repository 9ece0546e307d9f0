"""`eks-rolling`: the commands, put together."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from eks_rolling_cli import control, doctor, explaining, init, planning, watching
from eks_rolling_cli import history as past
from eks_rolling_cli.cli_context import output
from eks_rolling_cli.exits import MEANINGS

EPILOG = "Exit codes: " + ", ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."


def _no_type(ctx: object) -> None:
    pass


def _untyped(options: list[Any]) -> list[Any]:
    """The options and arguments, of which those that take no value, and those that are named by what they take, show no
    type in the help: `--help` itself, too."""
    for option in options:
        if getattr(option, "is_flag", False) or option.param_type_name == "argument":
            # Typer has no setting for it.
            option.display_type_rich = _no_type
    return options


class Command(TyperCommand):
    """A command whose help shows no type beside what takes no value."""

    def get_params(self, ctx: Any) -> Any:
        return _untyped(super().get_params(ctx))


class Commands(TyperGroup):
    """The same for all of them together."""

    def get_params(self, ctx: Any) -> Any:
        return _untyped(super().get_params(ctx))


app = typer.Typer(
    name="eks-rolling",
    cls=Commands,
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

app.command(rich_help_panel=BEFORE, cls=Command)(init.init)
app.command(rich_help_panel=BEFORE, cls=Command)(planning.plan)
app.command(rich_help_panel=BEFORE, cls=Command)(planning.start)
app.command(rich_help_panel=BEFORE, cls=Command)(doctor.doctor)
app.command(rich_help_panel=DURING, cls=Command)(watching.watch)
app.command(rich_help_panel=DURING, cls=Command)(explaining.explain)
for during in (control.approve, control.refuse, control.pause, control.resume, control.abort):
    app.command(rich_help_panel=DURING, cls=Command)(during)
for after in (past.report, past.rolls, past.orphans, past.restore):
    app.command(rich_help_panel=AFTER, cls=Command)(after)
