"""`approve`, `refuse`, `pause`, `resume` and `abort`: what people ask of a running roll.

The first two answer the task that waits; the others are annotations on the roll's lock, a Lease in the cluster, which
steps read before they do anything.
"""

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from eks_rolling.wording import moment
from eks_rolling_cli.cli_context import aimed, confirmed, declined, say
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.format import beginning, brief, clock
from eks_rolling_cli.target import Target
from eks_rolling_cli.watching import asked_of, follow, holds_lock, named, running

if TYPE_CHECKING:
    from eks_rolling_cli.executions import Execution

TRIES = 10
"""How often the lock is written again when a step renewed it at the same moment."""

Why = Annotated[
    str,
    typer.Option("--reason", "-r", metavar="WHY", help="The reason, shown to everyone who watches and in the report."),
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has taken effect.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


Waiting = Annotated[
    str | None,
    typer.Argument(metavar="ROLL", help="The roll that waits; needed where several do.", show_default=False),
]
AtWork = Annotated[
    str | None,
    typer.Argument(
        metavar="ROLL", help="The roll, as `rolls` lists it; by default the one in progress.", show_default=False
    ),
]


@aimed
def approve(
    target: Target,
    roll: Waiting = None,
    watch: Annotated[bool, typer.Option("--watch", help="Then watch the roll.")] = False,
    yes: Yes = False,
) -> None:
    """Approve a roll that waits for approval: shows what it would do, and asks."""
    from eks_rolling_cli.watching import leave

    execution, token = _waiting(target, roll)
    _say_headline(target, execution)
    if not confirmed(f"Approve the roll {brief(execution.name)} of {target.place}?", yes=yes):
        declined(f"Nothing was approved: the roll {brief(execution.name)} keeps waiting.")
    target.executions.approve(token, {"approved_by": target.who})
    say(f"Approved: the roll {brief(execution.name)} of {target.place} begins.")
    if watch:
        leave(follow(target, execution.arn, as_json=False))


@aimed
def refuse(target: Target, roll: Waiting = None, reason: Why = "") -> None:
    """End a roll that waits for approval. Nothing has been changed by then."""
    execution, token = _waiting(target, roll)
    _say_headline(target, execution)
    target.executions.refuse(token, f"refused by {target.who}" + (f": {reason}" if reason else ""))
    say(f"Refused: the roll {brief(execution.name)} of {target.place} ends without having changed anything.")


def _waiting(target: Target, roll: str | None) -> "tuple[Execution, str]":
    """The roll that waits for a person, with its task's token. Raises CommandError where none or several do."""
    from eks_rolling_cli.execution_history import approval_token

    rolls = [named(target, roll)] if roll else running(target)
    found = [(e, token) for e in rolls if (token := approval_token(target.executions.history(e.arn)))]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(e.name for e, _ in found)
        raise CommandError(f"Several rolls of {target.cluster} wait for approval: {several}. Name one.", Exit.USAGE)
    alive = [e for e in rolls if e.running]
    there = f"{alive[0].name} is running and does not wait for approval" if alive else "none is running"
    raise CommandError(f"No roll of {target.cluster} waits for approval: {there}.", Exit.NOT_FOUND)


def _say_headline(target: Target, execution: "Execution") -> None:
    """Which roll it is, who asked for it, and what its plan comes to."""
    from eks_rolling.documents.plan import PlanDocument
    from eks_rolling.errors import RollError
    from eks_rolling_cli.execution_history import plan_answer

    say(f"Roll {brief(execution.name)} of {target.place}, started at {clock(execution.started)}")
    said: list[str] = []
    # Who cannot read the plan can still answer.
    with suppress(RollError, ValueError):
        if document := target.document(execution.name, "plan.json"):
            plan = PlanDocument.model_validate(document)
            said = [plan.reason, plan.in_short, f"asked for by {plan.request.get('trigger') or 'a change'}"]
    if not said:
        # The history of a long roll takes many calls.
        with suppress(RollError, ValueError):
            said = [str(plan_answer(target.executions.history(execution.arn)).get("reason", ""))]
    for line in filter(None, said):
        say(f"  {line[:1].upper()}{line[1:]}")


@aimed
def pause(target: Target, roll: AtWork = None, reason: Why = "", wait: Wait = False) -> None:
    """Hold the roll at work, until `resume` or `abort`.

    Nodes in work hold before their next step; a Redis migration that has begun is finished first. The deadlines of
    steps do not run meanwhile; that of the whole roll (deadlines.roll) does. Outdated nodes stay tainted.
    """
    execution = _at_work(target, roll)
    asked = asked_of(target, execution.name)
    if "abort" in asked:
        said = asked["abort"] or "no reason was given"
        raise CommandError(
            f"The roll {brief(execution.name)} cannot be paused: it is being aborted: {said}.", Exit.BLOCKED
        )
    if (why := asked.get("pause")) is not None:
        say(f"The roll {brief(execution.name)} is already paused: {why or 'no reason was given'}.")
    else:
        _ask(target, execution, "pause", _signed(target, reason))
        say(
            f"The roll {brief(execution.name)} holds before its next step; a Redis migration that has begun is "
            f"finished first. `{target.typed('resume', beginning(execution.name))}` lets it go on, "
            f"`{target.typed('abort', beginning(execution.name))}` ends it."
        )
    if wait:
        seen = follow(target, execution.arn, as_json=False, lines=True, until=lambda roll: roll.paused)
        if not seen.running:
            raise CommandError(f"The roll {brief(execution.name)} ended before it was paused.", Exit.NOT_FOUND)


@aimed
def resume(target: Target, roll: AtWork = None, wait: Wait = False) -> None:
    """Let a paused roll continue."""
    execution = _at_work(target, roll)
    asked = asked_of(target, execution.name)
    if "abort" in asked:
        said = asked["abort"] or "no reason was given"
        raise CommandError(f"The roll {brief(execution.name)} cannot go on: it is being aborted: {said}.", Exit.BLOCKED)
    if "pause" not in asked:
        say(f"The roll {brief(execution.name)} is not paused.")
        return
    _ask(target, execution, "pause", None)
    say(f"The roll {brief(execution.name)} continues within seconds.")
    if wait:
        follow(target, execution.arn, as_json=False, lines=True, until=lambda seen: not seen.paused)


@aimed
def abort(target: Target, roll: AtWork = None, reason: Why = "", wait: Wait = False, yes: Yes = False) -> None:
    """End a roll safely, and put everything back; or cancel one that has not begun, by its name.

    Running steps end first, and so does a Redis migration that has begun; then autoscaler, processes, sizes and taints
    are restored. Replaced nodes stay replaced; the next roll continues with the rest.
    With --wait the exit code is 0 once everything is restored, 1 if something was left behind.
    """
    execution = _running(target, roll)
    _say_headline(target, execution)
    at_work = holds_lock(target, execution)
    if not at_work and _had_lock(target, execution):
        _say_over(execution)
        if wait:
            _wait_for_the_end(target, execution)
        return
    what = "Abort" if at_work else "Cancel, before it changes anything,"
    if not confirmed(f"{what} the roll {brief(execution.name)} of {target.place}?", yes=yes):
        declined(f"Nothing was aborted: the roll {brief(execution.name)} continues.")
    # While the question stood, the roll may have ended, or been approved by somebody else and begun.
    execution = target.executions.describe(execution.arn)
    if not execution.running:
        raise CommandError(
            f"The roll {brief(execution.name)} has ended meanwhile: {execution.status.lower()}.", Exit.NOT_FOUND
        )
    if (why := asked_of(target, execution.name).get("abort")) is not None:
        say(f"The roll {brief(execution.name)} is already being aborted: {why or 'no reason was given'}.")
    elif holds_lock(target, execution):
        _ask(target, execution, "abort", _signed(target, reason))
        say(
            f"The roll {brief(execution.name)} ends as soon as nothing is half done; then it puts back what it can. "
            f"`{target.typed('watch', beginning(execution.name))}` shows it, and says at its end if something was left "
            "behind."
        )
    elif _had_lock(target, execution):
        _say_over(execution)
    else:
        # Before it has the lock a roll has changed nothing.
        target.executions.stop(execution.arn, f"aborted: {_signed(target, reason)}")
        _say_cancelled(target, execution)
    if wait:
        _wait_for_the_end(target, execution)


def _say_over(execution: "Execution") -> None:
    say(
        f"There is nothing to abort: the roll {brief(execution.name)} has given the lock back, and with it everything "
        "that it could put back; it only reports."
    )


def _say_cancelled(target: Target, execution: "Execution") -> None:
    """Whether it had got the lock at the last moment is known only now: nobody takes a lock from a stopped roll."""
    if holds_lock(target, execution):
        say(
            f"The roll {brief(execution.name)} was stopped just as it began; a restore puts back what it may have "
            "changed. "
            f"`{target.typed('orphans')}` says what is still to be put back."
        )
    else:
        say(f"The roll {brief(execution.name)} was cancelled; it had changed nothing yet.")


def _signed(target: Target, reason: str) -> str:
    """A reason with who gave it, and when: the lock keeps nothing else of a wish."""
    by = f"{target.who}, {moment(time.time())}"
    return f"{reason} ({by})" if reason else f"asked for by {by}"


def _wait_for_the_end(target: Target, execution: "Execution") -> None:
    seen = follow(target, execution.arn, as_json=False, lines=True)
    if seen.status == "SUCCEEDED":
        say(f"The roll {brief(execution.name)} had ended on its own before it could be aborted.")
        return
    if seen.left_behind:
        raise typer.Exit(Exit.FAILED)
    say("Everything is as it was before, except for the replaced nodes.")


def _running(target: Target, roll: str | None) -> "Execution":
    """The roll of that name, or the one at work. Raises CommandError unless it runs."""
    if roll:
        execution = named(target, roll)
        if not execution.running:
            raise CommandError(
                f"The roll {brief(execution.name)} has ended: {execution.status.lower()}.", Exit.NOT_FOUND
            )
        return execution
    rolls = running(target)
    if not rolls:
        raise CommandError(f"No roll of {target.cluster} is running.", Exit.NOT_FOUND)
    if len(rolls) > 1 and not holds_lock(target, rolls[-1]):
        several = ", ".join(e.name for e in rolls)
        raise CommandError(
            f"Several rolls of {target.cluster} wait, and none is at work: {several}. Name one.", Exit.USAGE
        )
    return rolls[-1]


def _at_work(target: Target, roll: str | None) -> "Execution":
    """The roll that holds the lock. Raises CommandError."""
    execution = _running(target, roll)
    if not holds_lock(target, execution):
        if _had_lock(target, execution):
            raise CommandError(
                f"The roll {brief(execution.name)} is about to end: it has put back what it could, and only reports.",
                Exit.NOT_FOUND,
            )
        raise CommandError(
            f"The roll {brief(execution.name)} has not begun to change anything: there is nothing to pause. "
            f"`{target.typed('watch', beginning(execution.name))}` says what it waits for; "
            f"`{target.typed('abort', beginning(execution.name))}` ends it.",
            Exit.BLOCKED,
        )
    return execution


def _had_lock(target: Target, execution: "Execution") -> bool:
    from eks_rolling_cli.execution_history import held_lock

    return held_lock(target.executions.history(execution.arn))


def _ask(target: Target, execution: "Execution", what: str, why: str | None) -> None:
    """Writes what is asked of the roll on its lock, or takes it away (None). Raises CommandError, AccessDenied."""
    from eks_rolling.errors import Conflict
    from eks_rolling.roll import lock

    key = {"pause": lock.PAUSE, "abort": lock.ABORT}[what]
    for _ in range(TRIES):
        lease = target.kubernetes.lease(target.lock_name)
        if lease is None or lease.holder != execution.name:
            raise CommandError(f"The roll {brief(execution.name)} has ended meanwhile.", Exit.NOT_FOUND)
        annotations = {k: v for k, v in lease.annotations.items() if k != key} | ({key: why} if why else {})
        try:
            target.kubernetes.put_lease(replace(lease, annotations=annotations))
        except Conflict:
            continue
        return
    raise CommandError(f"The lock {target.lock_name} changes too often to be written: try again.", Exit.NOT_FOUND)
