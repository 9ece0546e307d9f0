"""What all commands have in common: the options that say where, consoles, and errors as one sentence."""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from eks_rolling.legible import lines
from eks_rolling_cli.exits import CommandError, Exit, exit_for, missing_package
from eks_rolling_cli.listing import folded
from eks_rolling_cli.target import Options, Target

TRACEBACK_VARIABLE = "EKS_ROLLING_TRACEBACK"
"""Set to anything: faults of the command itself are shown as Python has them."""

_WHERE = "Where"

Cluster = Annotated[
    str,
    typer.Option(
        "--cluster", "-c", metavar="NAME", show_default=False, rich_help_panel=_WHERE,
        help="EKS cluster; by default that of the kubeconfig's context, or the only one there is.",
    ),
]  # fmt: skip
Region = Annotated[
    str, typer.Option("--region", metavar="REGION", help="AWS region; by default AWS_REGION or the profile's.",
                      rich_help_panel=_WHERE)
]  # fmt: skip
Profile = Annotated[
    str, typer.Option("--profile", metavar="NAME", help="Profile of your AWS configuration; by default AWS_PROFILE.",
                      rich_help_panel=_WHERE)
]  # fmt: skip
Kubeconfig = Annotated[
    str, typer.Option("--kubeconfig", metavar="FILE", help="Kubeconfig to use; by default KUBECONFIG or "
                      "~/.kube/config, where a context goes to the cluster, else your AWS credentials.",
                      rich_help_panel=_WHERE)
]  # fmt: skip
Context = Annotated[
    str, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig to use, whatever its server is.",
                      rich_help_panel=_WHERE)
]  # fmt: skip
Endpoint = Annotated[
    str, typer.Option("--endpoint-url", metavar="URL", rich_help_panel=_WHERE,
                      help="Where AWS's APIs are; by default AWS_ENDPOINT_URL, or AWS.")
]  # fmt: skip

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, on standard output.")]

UNFOLDED = 1_000_000
"""Columns of what is no terminal: wider than any sentence."""


class Screen(Console):
    """A console on which nothing that others wrote steers the terminal."""

    @property
    def is_terminal(self) -> bool:
        """FORCE_COLOR, which many pipelines set, makes no terminal of a pipe: lines would be folded, and drawn over."""
        return super().is_terminal and self.file.isatty()

    def on_broken_pipe(self) -> None:
        """The reader of our output has closed it, which ends the command (`errors_as_sentences`)."""
        raise BrokenPipeError

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(lines(segment.text), segment.style)


output = Screen(highlight=False, soft_wrap=False)
errors = Screen(stderr=True, highlight=False)


def aimed(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is the Target: in its place come the options that say where to look.

    What goes wrong in it is told as a sentence, with the exit code that `eks_rolling_cli.exits` documents.
    """

    @wraps(function)
    def run(
        *args: Any, cluster: str, region: str, profile: str, kubeconfig: str, context: str, endpoint_url: str,
        **own: Any,
    ) -> None:  # fmt: skip
        with errors_as_sentences():
            function(Target(Options(cluster, region, profile, kubeconfig, context, endpoint_url)), *args, **own)

    where = {
        "cluster": Cluster, "region": Region, "profile": Profile,
        "kubeconfig": Kubeconfig, "context": Context, "endpoint_url": Endpoint,
    }  # fmt: skip
    own = inspect.signature(function)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=annotation)
        for name, annotation in where.items()
    ]
    signature = own.replace(parameters=[*list(own.parameters.values())[1:], *options])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what Typer reads; typeshed does not let it be set
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return run


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Whatever goes wrong is one sentence on standard error, and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except CommandError as error:
        _end(str(error), error.code)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has closed it, and Python must not complain. Nobody was told the rest, and a roll
        # that was followed may fail yet: that is no success.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(Exit.INTERRUPTED) from None
    except ModuleNotFoundError as error:
        if not (sentence := missing_package(error)):
            raise
        _end(sentence, Exit.FAILED)
    except Exception as error:  # noqa: BLE001 (whatever it is, people get a sentence)
        _end_of(error)


def _end_of(error: Exception) -> None:
    from eks_rolling.errors import RollError, sentence

    if isinstance(error, RollError):
        _end(sentence(error), exit_for(error))
    from botocore.exceptions import BotoCoreError

    if isinstance(error, BotoCoreError):
        _end(f"AWS cannot be reached: {error}", Exit.NOT_FOUND)
    if os.environ.get(TRACEBACK_VARIABLE):
        raise error
    _end(f"This should not have happened: {sentence(error)}. {TRACEBACK_VARIABLE}=1 shows where.", Exit.FAILED)


def _end(sentence: str, code: Exit) -> None:
    _tell(errors, Text.assemble(("error:", "bold red"), f" {sentence}"))
    raise typer.Exit(code)


def say(text: str) -> None:
    """A progress line, on standard error, apart from results."""
    _tell(errors, text)


def tell(text: str | Text) -> None:
    """A line of a result: folded between words on a terminal, not at all elsewhere."""
    _tell(output, text)


def _tell(console: Console, text: str | Text) -> None:
    told = Text(text) if isinstance(text, str) else text
    if not console.is_terminal:
        console.print(told, soft_wrap=True)
        return
    indent = " " * (len(told.plain) - len(told.plain.lstrip(" ")))
    for number, line in enumerate(folded(told, console.width - len(indent))):
        console.print(Text(indent).append_text(line) if number else line, soft_wrap=True)


def show(content: RenderableType) -> None:
    """Prints a result. On a terminal it is fitted to its width; in a pipe or a file nothing is folded or filled up."""
    if output.is_terminal:
        output.print(content, crop=False)
        return
    sys.stdout.write(unfolded(content))
    sys.stdout.flush()


def unfolded(content: RenderableType) -> str:
    """The content as it stands in a pipe or a file."""
    text = StringIO()
    Screen(file=text, width=UNFOLDED, highlight=False, color_system=None, force_terminal=False).print(content)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def declined(text: str) -> NoReturn:
    """Ends the command after a person's no: no error, but not what was asked for either."""
    say(text)
    raise typer.Exit(Exit.INTERRUPTED)


def print_json(value: Any) -> None:
    """A document, indented."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


def print_line(value: Any) -> None:
    """A document as one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether the operator says yes; Ctrl-C and Ctrl-D are a no. Raises CommandError without a terminal to ask on."""
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError("There is no terminal to ask on: add --yes.", Exit.USAGE)
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        # Click would end with "Aborted!", which is no answer to "Abort the roll?".
        say("")
        return False


def written(file: Path, text: str) -> None:
    """Writes what the operator asked for to that file. Raises CommandError where that cannot be."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}.", Exit.USAGE) from error
