"""`plan` and `start`."""

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.text import Text

from eks_rolling.wording import counted, spoken
from eks_rolling_cli.cli_context import AsJson, aimed, confirmed, declined, errors, print_json, say, show, written
from eks_rolling_cli.executions import new_name
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.format import beginning, brief
from eks_rolling_cli.restoring import restore_after
from eks_rolling_cli.settings import settings_of
from eks_rolling_cli.target import Target
from eks_rolling_cli.watching import ended_holder, follow, holds_lock, leave, running

Json = dict[str, Any]

Groups = Annotated[
    list[str] | None,
    typer.Option("--group", "-g", metavar="GROUP", help="Only this Auto Scaling group; may be repeated."),
]
Nodes = Annotated[
    list[str] | None,
    typer.Option("--node", "-n", metavar="NODE", help="Only this node, by name or instance id; may be repeated."),
]
Surge = Annotated[int | None, typer.Option(min=1, max=40, metavar="N", help="Nodes replaced at the same time.")]
Accept = Annotated[
    list[str] | None, typer.Option("--accept", metavar="CODE", help="Code of a finding to accept; may be repeated.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Also replace nodes whose version is current: all, or those named.")
]
Every = Annotated[bool, typer.Option("--all", help="Show every node, and every pod that moves.")]


@aimed
def plan(
    target: Target,
    group: Groups = None,
    node: Nodes = None,
    surge: Surge = None,
    accept: Accept = None,
    force: Force = False,
    every: Every = False,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Have the deployed functions plan instead, as a dry run.")
    ] = False,
    settings: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Plan with this settings file instead of the deployed settings. If nothing is deployed, "
            "eks-rolling.yaml in this folder is used.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan's document to this file as well.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a roll would do, and everything that would block or hold it. Changes nothing.

    It runs here, with your kubeconfig and your AWS profile, and needs nothing deployed; the exit code is 3 if a roll
    would be blocked.
    """
    if deployed and settings is not None:
        raise CommandError("--deployed plans with the deployed settings: leave out --settings.", Exit.USAGE)
    request = request_of(group, node, surge, accept, force=force)
    _, document = show_plan(target, request, every=every, as_json=as_json, there=deployed, file=settings)
    if save is not None:
        written(save, json.dumps(document, indent=2) + "\n")
    if document["outcome"] == "blocked":
        raise typer.Exit(Exit.BLOCKED)


@aimed
def start(
    target: Target,
    group: Groups = None,
    node: Nodes = None,
    surge: Surge = None,
    accept: Accept = None,
    force: Force = False,
    approval: Annotated[
        bool | None, typer.Option("--approval/--no-approval", help="Wait for approval after the plan.")
    ] = None,
    keep_taints: Annotated[
        bool, typer.Option("--keep-taints", help="Leave our taint on nodes that were not replaced.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not watch.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a roll: show its plan, ask, start the deployed workflow, and watch it.

    Ctrl-C while watching detaches; the roll continues. The exit code is the roll's, as `watch` has it.
    """
    machine = target.machine("roll")
    request = request_of(group, node, surge, accept, force=force)
    answer, document = show_plan(target, request, quiet=as_json, starting=True)
    if document["outcome"] == "blocked" and redis_is_silent(document):
        say("Redis does not answer from here; the deployed workflow plans instead, as a dry run.")
        answer, document = show_plan(target, request, quiet=as_json, starting=True, there=True)
    outcome = document["outcome"]
    if outcome == "blocked":
        left = answer["output"].get("leftovers")
        back = f" `{target.typed('restore')}` puts back what an earlier roll left." if left else ""
        raise CommandError(f"Nothing was started: the plan is blocked.{back}", Exit.BLOCKED)
    if outcome == "nothing" and not answer["output"].get("leftovers"):
        _nothing_to_roll(target, yes=yes, detach=detach)
        return
    for other in running(target):
        name, ends = brief(other.name), f"`{target.typed('abort', beginning(other.name))}`"
        if holds_lock(target, other):
            say(f"The roll {name} is running; this one would wait until it has ended. {ends} ends that one.")
        else:
            say(f"The roll {name} waits, and has changed nothing yet. {ends} cancels that one.")
    if not confirmed(question(target.place, document), yes=yes):
        declined("Nothing was started.")
    more = {"approval": approval} if approval is not None else {}
    more |= {"keep_taints": True} if keep_taints else {}
    execution = target.executions.start(machine, new_name(), request | more | {"trigger": target.who})
    name = execution.rpartition(":")[2]
    if detach:
        if as_json:
            print_json({"roll": name, "execution": execution})
        else:
            say(
                f"The roll {name} of {target.place} was started. `{target.typed('watch', name)}` shows it, "
                f"`{target.typed('abort', name)}` ends it."
            )
        return
    leave(follow(target, execution, as_json=as_json))


def _nothing_to_roll(target: Target, *, yes: bool, detach: bool) -> None:
    """A roll would end at once; a lock that a dead one left, and nothing else, is put back by a restore."""
    dead = ended_holder(target)
    if not dead:
        say("Nothing was started: no node is outdated.")
    elif confirmed(question(target.place, {}), yes=yes):
        restore_after(target, dead, detach=detach)
    else:
        declined("Nothing was started.")


def question(place: str, document: Json) -> str:
    """What a person says yes to: "Replace 6 nodes of demo (account 123456789012, eu-central-1), about 26 min?"."""
    nodes = len(document.get("nodes") or ())
    if not nodes:
        return f"Put back what earlier rolls left behind in {place}?"
    seconds = (document.get("estimate") or {}).get("seconds")
    takes = f", about {spoken(seconds)}" if seconds else ""
    return f"Replace {counted(nodes, 'node')} of {place}{takes}?"


def request_of(
    groups: list[str] | None,
    nodes: list[str] | None,
    surge: int | None,
    accept: list[str] | None,
    *,
    force: bool = False,
) -> Json:
    """The roll request that the options make: what was not given is the deployment's to say."""
    given: Json = {"groups": groups, "nodes": nodes, "surge": surge, "accept": accept, "force": force}
    return {name: value for name, value in given.items() if value}


def show_plan(
    target: Target,
    request: Json,
    *,
    every: bool = False,
    as_json: bool = False,
    quiet: bool = False,
    starting: bool = False,
    there: bool = False,
    file: Path | None = None,
) -> tuple[Json, Json]:
    """Plans here, or by the deployed workflow (`there`), and prints it; the step's answer and the plan's document.

    `file` has the settings to plan with, if not the deployed ones. `quiet` prints nothing; `starting` leaves out what
    to do next where that is about to be asked.
    """
    from eks_rolling_cli.plan_locally import plan_here, plan_there

    with errors.status(Text(f"looking at {target.cluster}")):
        settings, deployed = settings_of(target, file)
        at_work = running(target)[-1:] if deployed else []
        answer, document = (
            plan_there(target, new_name("plan"), request) if there else plan_here(target, settings, request)
        )
    if as_json:
        print_json(document)
    elif not quiet:
        from eks_rolling_cli.plan_view import rendered

        asked = starting and document["outcome"] != "blocked"
        commands = next_commands(target, request, at_work[0].name if at_work else "")
        tried = file is not None
        said = "" if asked else next_step(document, commands, deployed=deployed, there=there, tried=tried)
        show(rendered(document, said, every=every))
    return answer, document


@dataclass(frozen=True, slots=True)
class NextCommands:
    """What may be typed after a plan, with the plan's own options: a plan of one node is not to start a roll of all.
    `watch` is "" unless a roll is running."""

    plan: str
    plan_there: str
    start: str
    watch: str = ""


def next_commands(target: Target, request: Json, at_work: str = "") -> NextCommands:
    """The commands after a plan of this request; `at_work` is the roll that is running."""
    again = words_of(request)
    return NextCommands(
        target.typed("plan", *again),
        target.typed("plan", "--deployed", *again),
        target.typed("start", *again),
        target.typed("watch", beginning(at_work)) if at_work else "",
    )


def words_of(request: Json) -> list[str]:
    """The options that make this request, as they are typed."""
    named = (("--group", "groups"), ("--node", "nodes"), ("--accept", "accept"))
    words = [word for option, field in named for value in request.get(field) or () for word in (option, quote(value))]
    words += ["--surge", str(request["surge"])] if request.get("surge") else []
    return [*words, *(["--force"] if request.get("force") else [])]


def next_step(
    document: Json, commands: NextCommands, *, deployed: bool, there: bool = True, tried: bool = False
) -> str:
    """The plan's last sentence; `there` is a plan that the functions made, `tried` one with settings that are not the
    deployed ones."""
    if commands.watch:
        return f"A roll is running: `{commands.watch}` shows it."
    match document["outcome"]:
        case "blocked" if deployed and not there and redis_is_silent(document):
            return f"Redis was asked from here. If this machine cannot reach the pods: `{commands.plan_there}`."
        case "blocked":
            return f"Follow the remedies of the blocking findings, then plan again: `{commands.plan}`."
        case "nothing":
            return "There is nothing to do."
        case _ if deployed and tried:
            return f"Deploy these settings (`npx cdk deploy`), then start it with `{commands.start}`."
        case _ if deployed:
            return f"Start it with `{commands.start}`."
        case _:
            return f"Deploy eks-rolling for this cluster (deploy/README.md), then `{commands.start}`."


def redis_is_silent(document: Json) -> bool:
    """Whether a server or sentinel of a group did not answer."""
    members = [m for g in document.get("redis") or () for key in ("servers", "sentinels") for m in g.get(key) or ()]
    return any(m.get("reason") for m in members)
