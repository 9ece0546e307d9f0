"""The command line: `python -m lab`."""

import typer

from lab import cli, commands

app = typer.Typer(
    help="A small production-like EKS on this machine: real Kubernetes, pods that are real processes, AWS's APIs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.register(app)
commands.register(app)

if __name__ == "__main__":
    app(prog_name="python -m lab")
