"""`python -m lab`: labs from the command line.

Commands of other modules join in by a function `register(app)`, called in `lab/__main__.py`.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from lab import lifecycle, prerequisites
from lab.controlplane.build import BuildError, build
from lab.kubectl import apply_command
from lab.lifecycle import BoundLab, Lab, LabError
from lab.namespace import NamespaceError
from lab.paths import LabPaths
from lab.process_table import process_table
from lab.spec import LabSpec
from lab.status import read_status
from lab.terminal import BuildReporter, StatusReporter

DEFAULT_NAME = "demo"
_INTERRUPTED = 130

Name = Annotated[str, typer.Option("--name", "-n", help="The lab's name; several run side by side.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, on standard output.")]

_output = Console()
_errors = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command("list")(list_labs)
    # What follows the command's name is the command's, options included.
    app.command(context_settings={"allow_interspersed_args": False})(shell)
    app.command()(apply)
    app.command()(logs)


def up(
    name: Name = DEFAULT_NAME,
    spec: Annotated[
        Path | None, typer.Option(help="The lab's shape in YAML (lab.spec.LabSpec); without it, no nodes.")
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; Ctrl-C ends the lab.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a lab and return when its cluster can be used. The first time this builds the control plane."""
    with told_errors():
        shape = _read_spec(spec)
        began = time.monotonic()
        prepare_machine(name, shape)
        bound = lifecycle.begin(shape, name)
        try:
            lab = _wait_until_running(bound)
            _tell_running(lab, time.monotonic() - began, as_json=as_json)
            if foreground:
                bound.wait_until_over()
            else:
                bound.let_go()
        except KeyboardInterrupt:
            _errors.print("ending the lab", highlight=False)
            bound.end()
            lifecycle.discard(bound.paths)
            raise typer.Exit(0 if foreground else _INTERRUPTED) from None


def down(
    name: Name = DEFAULT_NAME,
    every: Annotated[bool, typer.Option("--all", help="Every lab that runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a lab. Its logs stay until a lab of that name is started again."""
    with told_errors():
        names = [paths.name for paths in lifecycle.known_labs() if lifecycle.is_running(paths)] if every else [name]
        ended = []
        for each in names:
            lifecycle.find(each).stop()
            ended.append(each)
            if not as_json:
                _output.print(f"lab {each} has ended", highlight=False)
        if as_json:
            print_json([{"name": each, "state": "stopped"} for each in ended])
        elif not ended:
            _output.print("no lab is running")


def status(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Say what a lab is doing; exit code 1 unless it runs."""
    paths = LabPaths.of(name)
    with told_errors():
        if not paths.spec.exists():
            raise LabError(f"there is no lab called {name}; `python -m lab up --name {name}` starts one")
        state = lifecycle.current_state(paths)
        lines = read_status(paths.status)
        if as_json:
            last = asdict(lines[-1]) if lines else {}
            print_json({**_summary(paths), "parts": _parts(paths), "said": last})
        else:
            _output.print(f"lab {name}: {state}", highlight=False)
            for part, message in _parts(paths).items():
                _output.print(f"  {part}: {message}", highlight=False, markup=False)
            if lines:
                _output.print(f"{lines[-1].message}", highlight=False, markup=False)
                if lines[-1].details:
                    _output.print(lines[-1].details, highlight=False, markup=False)
        if state != "running":
            raise typer.Exit(1)


def list_labs(as_json: AsJson = False) -> None:
    """List the labs that there are, and what became of those that ended."""
    labs = [_summary(paths) for paths in lifecycle.known_labs()]
    if as_json:
        print_json(labs)
        return
    table = Table("name", "state", "cluster", "directory", box=None)
    for lab in labs:
        table.add_row(lab["name"], lab["state"], lab["cluster"], lab["directory"])
    _output.print(table if labs else "there are no labs")


def shell(
    name: Name = DEFAULT_NAME,
    command: Annotated[list[str] | None, typer.Argument(help="A command; without one, an interactive shell.")] = None,
) -> None:
    """Run a command, or a shell, inside a lab: kubectl, redis-cli and eks-rolling work there, and aws where installed.

    The command's exit code is this one's.
    """
    with told_errors():
        lab = lifecycle.find(name)
        _become(lab, command or _interactive_shell(lab))


def apply(
    files: Annotated[list[str], typer.Argument(help="Manifests or folders of them; - is standard input.")],
    name: Name = DEFAULT_NAME,
    as_json: AsJson = False,
) -> None:
    """Apply manifests to a lab's cluster (kubectl's server-side apply), whoever changed their objects before."""
    with told_errors():
        _become(lifecycle.find(name), apply_command(files, *(["--output=json"] if as_json else [])))


def logs(
    part: Annotated[str | None, typer.Argument(help="One of the lab's parts; all of them without it.")] = None,
    name: Name = DEFAULT_NAME,
    lines: Annotated[int, typer.Option("--lines", help="How many of the last lines.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come.")] = False,
) -> None:
    """Show the logs of a lab's parts, also of a lab that has ended."""
    with told_errors():
        files = {file.stem: file for file in sorted(LabPaths.of(name).logs.glob("*.log"))}
        if not files:
            raise LabError(f"there are no logs of a lab called {name}")
        if part is not None and part not in files:
            raise LabError(f"lab {name} has no log of a part called {part}; there are {', '.join(files)}")
    chosen = [files[part]] if part else list(files.values())
    os.execvp("tail", ["tail", f"--lines={lines}", *(["-F"] if follow else []), *map(str, chosen)])  # noqa: S606 (no shell is wanted: this process becomes tail)


def _become(lab: Lab, command: Sequence[str]) -> NoReturn:
    """Puts a command inside the lab in this process's place."""
    line = lab.command(command)
    os.execvpe(line[0], line, lab.environment)  # noqa: S606 (no shell is wanted: this process becomes the command)


def _read_spec(path: Path | None) -> LabSpec:
    if path is None:
        return LabSpec()
    try:
        return LabSpec.from_yaml(path)
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        problems = "\n".join(f"{'.'.join(map(str, e['loc'])) or 'the spec'}: {e['msg']}" for e in error.errors())
        raise LabError(f"{path} is no lab's shape", details=problems) from error


def prepare_machine(name: str, spec: LabSpec) -> None:
    """Raises LabError for what cannot be helped from here; builds what can be built."""
    try:
        parts = [part.name for part in process_table(LabPaths.of(name), spec)]
    except ValueError as error:
        raise LabError(str(error)) from error
    if absent := prerequisites.missing(parts):
        raise LabError(prerequisites.advice(absent))
    with BuildReporter() as reporter:
        build(reporter)


def _wait_until_running(bound: BoundLab) -> Lab:
    with StatusReporter() as reporter:
        return bound.wait_until_running(reporter)


def _tell_running(lab: Lab, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json({**_summary(lab.paths), "kubeconfig": str(lab.paths.kubeconfig), "seconds": round(seconds, 1)})
        return
    chosen = "" if lab.name == DEFAULT_NAME else f" --name {lab.name}"
    _output.print(
        f"lab {lab.name} is running ({seconds:.1f} s)\n"
        f"  .venv/bin/python -m lab shell{chosen}    a shell inside, with kubectl and eks-rolling\n"
        f"  .venv/bin/python -m lab down{chosen}     ends it",
        highlight=False,
    )


def _summary(paths: LabPaths) -> dict[str, Any]:
    return {
        "name": paths.name,
        "state": lifecycle.current_state(paths),
        "cluster": LabSpec.load(paths.spec).cluster,
        "directory": str(paths.root),
    }


def _parts(paths: LabPaths) -> dict[str, str]:
    """The last word on each part."""
    return {line.part: line.message for line in read_status(paths.status) if line.part is not None}


def _interactive_shell(lab: Lab) -> list[str]:
    prompt = rf"(lab {lab.name}) \w \$ "
    if shutil.which("bash") is None:
        return ["env", f"PS1=(lab {lab.name}) $ ", "sh", "-i"]
    settings = lab.paths.root / "bashrc"
    # The user's own settings first: they may set PATH and the prompt afresh.
    settings.write_text(f'[ -f ~/.bashrc ] && . ~/.bashrc\nPATH="{lab.paths.binaries}:$PATH"\nPS1="{prompt}"\n')
    return ["bash", "--rcfile", str(settings), "-i"]


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


@contextmanager
def told_errors() -> Iterator[None]:
    """Turns what people can do something about into a sentence and exit code 1."""
    try:
        yield
    except LabError as error:
        _fail(str(error), error.details)
    except (BuildError, NamespaceError) as error:
        _fail(str(error), None)


def _fail(message: str, details: str | None) -> NoReturn:
    _errors.print(f"error: {message}", highlight=False, markup=False, soft_wrap=True)
    if details:
        _errors.print(details, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)
