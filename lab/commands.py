"""Commands that use a lab: deploy the application, roll, send traffic, judge, break things, and the demo."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from lab import baseline, demo, judge, lifecycle
from lab.application import deploy as deploy_application
from lab.cli import DEFAULT_NAME, AsJson, Name, prepare_machine, print_json, told_errors
from lab.lifecycle import LabError
from lab.operator import Operator, operator_of
from lab.view import LineView, LiveView, Screen

_output = Console()
_errors = Console(stderr=True)

NoTty = Annotated[bool, typer.Option("--no-tty", help="Print lines instead of drawing.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(deploy)
    app.command()(roll)
    app.command()(traffic)
    app.command("judge")(judge_traffic)
    app.command()(fault)
    app.command("demo")(play_demo)
    app.command("baseline")(play_baseline)


def deploy(
    name: Name = DEFAULT_NAME,
    settings: Annotated[str, typer.Option(help="Settings as JSON, over the lab's own.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """Synthesize the application with CDK and deploy it into a lab."""
    with told_errors():
        lab, given = lifecycle.find(name), _json(settings, "--settings")
        _errors.print("deploying the application, which takes half a minute", highlight=False)
        outputs = deploy_application(lab, given)
        if as_json:
            print_json(outputs)
        else:
            for key, value in outputs.items():
                _output.print(f"{key}: {value}", highlight=False, soft_wrap=True)
            _output.print("Next: `eks-rolling plan` in a shell of the lab.", highlight=False)


def roll(
    name: Name = DEFAULT_NAME,
    request: Annotated[
        str | None, typer.Option(help="Start by hand with this request, e.g. '{\"dry_run\": true}'.")
    ] = None,
    no_tty: NoTty = False,
    as_json: AsJson = False,
) -> None:
    """Roll a lab's cluster: publish a new launch template version and watch what follows.

    With --request the roll is started by hand instead, as from the console. The exit code is 0 if it succeeded.
    """
    with told_errors(), operator_of(lifecycle.find(name)) as operator:
        if not as_json:
            _deploy_if_absent(operator)
        view = _view(operator, live=not (no_tty or as_json))
        with view:
            if request is not None:
                execution = operator.rolls.start(_json(request, "--request"))
            else:
                published = time.time()
                for line in operator.rolls.publish_all():
                    view.say(line)
                execution = operator.rolls.started_since(published)
            outcome = operator.follow(execution, view.show, within_seconds=demo.ROLL_SECONDS)
        if as_json:
            print_json({"status": outcome.status, "reason": outcome.reason, "report": outcome.report})
        else:
            style = "green" if outcome.succeeded else "red"
            ended = str(outcome.report.get("outcome") or outcome.status.lower())
            _output.print(Text.assemble((ended, style), f": {outcome.reason}"), highlight=False, soft_wrap=True)
        if not outcome.succeeded:
            raise typer.Exit(1)


def traffic(
    name: Name = DEFAULT_NAME,
    seconds: Annotated[float | None, typer.Option(help="End after so long; by default at Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send HTTP requests and jobs through a lab's cluster, then say what clients saw."""
    with told_errors(), operator_of(lifecycle.find(name)) as operator:
        with operator.traffic():
            _errors.print("clients ask; Ctrl-C ends them", highlight=False)
            try:
                time.sleep(seconds if seconds is not None else 365 * 86400)
            except KeyboardInterrupt:
                _errors.print("the last jobs are waited for", highlight=False)
        _tell_verdict(operator, None, as_json=as_json)


def judge_traffic(
    name: Name = DEFAULT_NAME,
    execution: Annotated[str | None, typer.Option(help="The roll whose phases to go by: its execution's ARN.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge the clients' last record again. The exit code is 0 if nothing was dropped and no job lost."""
    with told_errors(), operator_of(lifecycle.find(name)) as operator:
        _tell_verdict(operator, execution, as_json=as_json)


def fault(
    faults: Annotated[
        str, typer.Argument(help="Faults as JSON (docs/lab.md lists them); '{}' takes all of them away.")
    ],
    name: Name = DEFAULT_NAME,
) -> None:
    """Put faults into force, e.g. '{"lambda_kill": {"seed": 7, "share": 0.2, "within_seconds": 0.5}}'."""
    with told_errors(), operator_of(lifecycle.find(name)) as operator:
        operator.fault(_json(faults, "faults"))


def play_demo(
    cluster: Annotated[
        demo.Cluster, typer.Option(help="The small one, or one that grew, with all that goes on in such clusters.")
    ] = demo.Cluster.DEMO,
    no_tty: NoTty = False,
) -> None:
    """Roll a production-like cluster under live traffic, and judge it. The exit code is 0 if all went well."""
    console = Console(force_terminal=False) if no_tty else _output
    with told_errors():
        prepare_machine(cluster, cluster.spec())
        try:
            code = demo.run(console, cluster, live=console.is_terminal)
        except KeyboardInterrupt:
            _errors.print("the demo was ended, and its lab with it", highlight=False)
            raise typer.Exit(130) from None
    raise typer.Exit(code)


def play_baseline(
    cluster: Annotated[
        baseline.Cluster, typer.Option(help="Around which Redis: under Sentinel, or a Redis Cluster.")
    ] = baseline.Cluster.SENTINEL,
    rolls: Annotated[int, typer.Option(min=1, help="How often to roll, for a median; five minutes each.")] = 1,
    megabytes: Annotated[int, typer.Option(min=0, help="A data set in Redis, so that synchronizing takes time.")] = 0,
    load: Annotated[
        float, typer.Option(min=0, help="Megabytes written to Redis per second, in the ways that applications do.")
    ] = 0,
    rollers: Annotated[
        list[baseline.Roller] | None, typer.Option("--roller", help="Only these; several may be given.")
    ] = None,
) -> None:
    """Replace every node under the same traffic, by `kubectl drain`, another roller and a roll. Fifteen minutes."""
    with told_errors():
        spec = cluster.spec().with_redis(megabytes=megabytes, load_megabytes_per_second=load)
        prepare_machine(baseline.NAME, spec)
        try:
            code = baseline.run(_output, spec, rolls, rollers or tuple(baseline.Roller))
        except KeyboardInterrupt:
            _errors.print("the comparison was ended, and its lab with it", highlight=False)
            raise typer.Exit(130) from None
    raise typer.Exit(code)


def _deploy_if_absent(operator: Operator) -> None:
    try:
        operator.rolls.machine("roll")
    except LabError:
        with _errors.status("deploying the application") if _errors.is_terminal else nullcontext():
            deploy_application(operator.lab)


def _view(operator: Operator, *, live: bool) -> Screen:
    return LiveView(_output, operator.lab.spec.cluster) if live and _output.is_terminal else LineView(_errors)


def _tell_verdict(operator: Operator, execution: str | None, *, as_json: bool) -> None:
    verdict = operator.judge(execution)
    if as_json:
        print_json(verdict.to_json())
    else:
        _output.print(judge.table(verdict))
    if verdict.failed or verdict.jobs["lost"] or any(r.lost for r in verdict.redis):
        raise typer.Exit(1)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (ValueError, OSError) as error:
        raise LabError(f"{what} is not JSON: {error}") from error
