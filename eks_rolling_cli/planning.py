"""`plan` and `start`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eks_rolling.documents.remedies import typed
from eks_rolling.wording import counted, spoken
from eks_rolling_cli.cli_context import AsJson, aimed, confirmed, declined, errors, print_json, say, show
from eks_rolling_cli.executions import new_name
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.restoring import restore_after
from eks_rolling_cli.settings import settings_of
from eks_rolling_cli.target import Target
from eks_rolling_cli.watching import ended_holder, follow, leave, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eks_rolling_cli.executions import Execution

Json = dict[str, Any]

Groups = Annotated[
    list[str] | None, typer.Option("--group", "-g", help="Only this Auto Scaling group; may be repeated.")
]
Nodes = Annotated[
    list[str] | None, typer.Option("--node", "-n", help="Only this node, by name or instance id; may be repeated.")
]
Surge = Annotated[int | None, typer.Option(min=1, max=40, help="Nodes replaced at the same time.")]
Accept = Annotated[list[str] | None, typer.Option("--accept", help="Code of a finding to accept; may be repeated.")]
Force = Annotated[
    bool, typer.Option("--force", help="Replace the nodes also if their version is their group's: all, or those named.")
]
Every = Annotated[bool, typer.Option("--all", help="Show every node, however many.")]


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
            help="Plan with this settings file instead of the deployed settings. If nothing is deployed, "
            "eks-rolling.yaml in this folder is used.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the plan's document to this file as well.")] = None,
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
        save.write_text(json.dumps(document, indent=2) + "\n")
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
    keep_taints: Annotated[bool, typer.Option(help="Leave our taint on nodes that were not replaced.")] = False,
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
        back = f" `{typed('restore', cluster=target.cluster)}` puts back what an earlier roll left." if left else ""
        raise CommandError(f"Nothing was started: the plan is blocked.{back}", Exit.BLOCKED)
    if outcome == "nothing" and not answer["output"].get("leftovers"):
        _nothing_to_roll(target, yes=yes, detach=detach)
        return
    for other in running(target):
        say(f"The roll {other.name} runs; this one waits until it has ended (`eks-rolling abort NAME` ends either).")
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
                f"The roll {name} of {target.place} has begun. `eks-rolling watch {name}` shows it, "
                f"`eks-rolling abort {name}` ends it."
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

    with errors.status(f"looking at {target.cluster}"):
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
        said = "" if asked else next_step(document, deployed=deployed, at_work=at_work, there=there)
        show(rendered(document, said, every=every))
    return answer, document


def next_step(document: Json, *, deployed: bool, at_work: "Sequence[Execution]" = (), there: bool = True) -> str:
    """The plan's last sentence; `at_work` is the roll that is running, `there` a plan that the functions made."""
    if at_work:
        return f"The roll {at_work[0].name} is running: `eks-rolling watch` shows it."
    match document["outcome"]:
        case "blocked" if deployed and not there and redis_is_silent(document):
            return "Redis was asked from here; if this machine does not reach the pods: `eks-rolling plan --deployed`."
        case "blocked":
            return "Follow the remedies of the blocking findings, then plan again: `eks-rolling plan`."
        case "nothing":
            return "There is nothing to do."
        case _ if deployed:
            return "Start it with `eks-rolling start`."
        case _:
            return "Deploy eks-rolling for this cluster (deploy/README.md), then `eks-rolling start`."


def redis_is_silent(document: Json) -> bool:
    """Whether a server or sentinel of a group did not answer."""
    members = [m for g in document.get("redis") or () for key in ("servers", "sentinels") for m in g.get(key) or ()]
    return any(m.get("reason") for m in members)
