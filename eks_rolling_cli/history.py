"""`rolls`, `report`, `orphans` and `restore`."""

import itertools
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from eks_rolling import state_names
from eks_rolling.documents.failure import explain
from eks_rolling.documents.remedies import typed, way_out
from eks_rolling.documents.report import Report
from eks_rolling.report.timeline import ending_of
from eks_rolling.wording import spoken
from eks_rolling_cli.cli_context import AsJson, aimed, print_json, say, show, tell, written
from eks_rolling_cli.execution_history import answers, held_lock
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.format import beginning, brief, clock
from eks_rolling_cli.listing import Column, Listing, Row, advice
from eks_rolling_cli.restoring import restore_after
from eks_rolling_cli.roll_state import left_behind
from eks_rolling_cli.target import Target
from eks_rolling_cli.watching import Roll, ended_holder, named, running

if TYPE_CHECKING:
    from eks_rolling_cli.executions import Execution

Json = dict[str, Any]

TELLING = (state_names.REPORT, state_names.PLAN, state_names.RECEIVE_CHANGE)
"""States whose answer says how a roll ended, the last one first."""

COLUMNS = (
    Column("roll", keep=9),
    Column("status", keep=8),
    Column("began", keep=6, below="began "),
    Column("took", keep=5, below="took ", right=True),
)

STYLES = {"SUCCEEDED": "green", "RUNNING": "yellow"}


@aimed
def rolls(
    target: Target,
    most: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many, the newest first.")] = 10,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write them to this file, a page that links each roll's report."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the rolls of a cluster: how each ended, what it left behind."""
    found = [_summarize(target, e) for e in itertools.islice(target.executions.of(target.machine("roll")), most)]
    if html is not None:
        from eks_rolling_cli.rolls_page import page

        written(html, page(target.cluster, target.place, found, time.time(), target.typed("start")))
        say(f"Written to {html}.")
    if as_json:
        print_json(found)
        return
    if not found:
        say(f"{target.cluster} has had no roll yet.")
        return
    show(listed(found, target.typed))


def listed(found: list[Json], command: Callable[..., str]) -> RenderableType:
    """Rolls, one per row, with how they ended; if something was left behind, what to do. `command` makes a command
    complete."""
    from eks_rolling_cli.rolls_page import settles

    parts: list[RenderableType] = [Listing(COLUMNS, [_row(each) for each in found])]
    last = next((each for each in found if settles(each)), None)
    if last and last["left_behind"]:
        parts.append(advice(way_out(command("start"))))
    elif last and last["status"] not in {"RUNNING", "SUCCEEDED"} and not last["outcome"]:
        parts.append(advice(f"{brief(last['roll'])} left no report: `{command('orphans')}` lists what it left behind"))
    return Group(*parts)


def _row(told: Json) -> Row:
    took = spoken((told["ended"] or time.time()) - told["began"])
    status = Text(told["outcome"] or told["status"].lower(), style=STYLES.get(told["status"], "red"))
    notes = [Text(told["reason"])] if told["reason"] else []
    notes += [Text(f"left behind: {each}", style="bold red") for each in told["left_behind"]]
    return Row((brief(told["roll"]), status, clock(told["began"]), took), notes=tuple(notes))


def _summarize(target: Target, listed: "Execution") -> Json:
    from eks_rolling.errors import NotFound

    try:
        execution, events = target.executions.describe(listed.arn), target.executions.history(listed.arn)
    except NotFound:
        # Step Functions has forgotten it since it was listed; its report may be there.
        execution, events = listed, []
    reason = explain({"Error": execution.error, "Cause": execution.cause}) or ending_of(events)
    if not reason:
        reason = next((str(said[-1][1].get("reason", "")) for s in TELLING if (said := answers(events, s))), "")
    written = {} if execution.running else target.document(execution.name, "report.json")
    report = Report.model_validate(written) if written else None
    return {
        "roll": execution.name,
        "execution": execution.arn,
        "status": execution.status,
        "began": execution.started,
        "ended": execution.ended,
        "reason": reason,
        "held_lock": held_lock(events) if events else None,
        "left_behind": list(left_behind(events, written)),
        "outcome": report.outcome if report else "",
        "replaced": report.replaced if report else 0,
        "planned": report.planned if report else 0,
        "longest_stall_ms": report.longest_stall_ms if report else None,
        "report": _address(target, execution.name) if report else "",
    }


def _address(target: Target, roll: str) -> str:
    """The report's page in the console of S3."""
    from eks_rolling.report.messages import openable

    return openable(target.deployed_names, f"s3://{target.deployed_names.bucket}/rolls/{roll}/report.html")


@aimed
def report(
    target: Target,
    roll: Roll = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the page to this file, or the JSON if it ends in .json."
        ),
    ] = None,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a roll did, waited for and left behind. The full report is an HTML page and a JSON document.

    The exit code is 1 if the roll failed or left something behind.
    """
    name, document = _reported(target, roll)
    if save is not None:
        written(save, target.text(name, "report.json" if save.suffix == ".json" else "report.html"))
        say(f"Written to {save}.")
    if browse:
        page = Path(mkdtemp(prefix="eks-rolling-")) / f"{name}.html"
        written(page, target.text(name, "report.html"))
        say(f"Opening {page}." if webbrowser.open(page.as_uri()) else f"There is no browser here: the page is {page}.")
    if as_json:
        print_json(document)
    else:
        from eks_rolling_cli.report_view import rendered

        show(rendered(document, target.typed("start")))
    left = document.get("left_behind") or document.get("orphans")
    if left or document["outcome"] in {"failed", "aborted", "stopped"}:
        raise typer.Exit(Exit.FAILED)


def _reported(target: Target, roll: str | None) -> tuple[str, Json]:
    """The roll's name and its report. Reports outlive executions, which Step Functions forgets after 90 days.

    Raises CommandError where there is none.
    """
    try:
        execution = named(target, roll)
    except CommandError:
        if roll and (document := target.document(roll, "report.json")):
            return roll, document
        raise
    if document := target.document(execution.name, "report.json"):
        return execution.name, document
    why = "it was stopped, or could not write it"
    if execution.running:
        watch, rolls = target.typed("watch", beginning(execution.name)), target.typed("rolls")
        why = f"it is still running. `{watch}` shows it, `{rolls}` lists earlier ones"
    raise CommandError(f"The roll {brief(execution.name)} has left no report: {why}.", Exit.NOT_FOUND)


@aimed
def orphans(target: Target, as_json: AsJson = False) -> None:
    """List what no living roll owns any more: marks, locks, budgets, stand-ins and instances left behind.

    The exit code is 1 if there is anything.
    """
    from eks_rolling_cli.plan_locally import orphans_here
    from eks_rolling_cli.settings import settings_of

    settings, deployed = settings_of(target)
    answer = orphans_here(target, settings, over=ended_holder(target) if deployed else "")
    found = answer["output"]["orphans"]
    if as_json:
        print_json(found)
    else:
        say(f"{answer['reason'][:1].upper()}{answer['reason'][1:]}.")
        for each in found:
            since = f", since {each['since']}" if each["since"] else ""
            tell(Text.assemble((f"{each['kind']}  ", "bold"), f"{each['object']}{since}"))
            remedy = each["remedy"].replace(typed("restore", cluster=target.cluster), target.typed("restore"))
            remedy = remedy.replace(typed("start", cluster=target.cluster), target.typed("start"))
            tell(Text(f"  → {remedy}", style="green"))
    if found:
        raise typer.Exit(Exit.FAILED)


@aimed
def restore(
    target: Target,
    roll: Annotated[
        str | None, typer.Option(metavar="ROLL", help="The dead roll; by default the holder of the lock.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for its end.")] = False,
) -> None:
    """Put everything back after a roll that could not do it itself: autoscaler, processes, sizes, taints, marks.

    Run it as often as you like. It refuses while a roll is running: that one restores at its own end.
    """
    lease = target.kubernetes.lease(target.lock_name)
    if lease is not None and lease.holder in {e.name for e in running(target)}:
        raise CommandError(
            f"The roll {brief(lease.holder)} is running and restores at its end: "
            f"`{target.typed('abort', beginning(lease.holder))}` ends it.",
            Exit.BLOCKED,
        )
    restore_after(target, roll or (lease.holder if lease is not None else ""), detach=detach)
