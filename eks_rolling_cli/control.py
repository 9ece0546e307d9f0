"""`approve`, `refuse`, `pause`, `resume` and `abort`: what people ask of a running roll.

The first two answer the task that waits; the others are annotations on the roll's lock, a Lease in the cluster, which
steps read before they do anything.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from eks_rolling_cli.cli_context import aimed, confirmed, output, say
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.format import clock
from eks_rolling_cli.target import Target
from eks_rolling_cli.watching import asked_of, follow, running

if TYPE_CHECKING:
    from eks_rolling_cli.executions import Execution

TRIES = 10
"""How often the lock is written again when a step renewed it at the same moment."""

Why = Annotated[str, typer.Option("--reason", "-r", help="Why; it is shown to whoever watches, and in the report.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Watch until it has come about.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@aimed
def approve(
    target: Target, watch: Annotated[bool, typer.Option("--watch", help="Watch the roll from there.")] = False
) -> None:
    """Let the roll begin that waits for approval."""
    from eks_rolling_cli.watching import leave

    execution, token = _waiting(target)
    target.executions.approve(token, {"approved_by": target.who})
    say(f"Approved: the roll {execution.name} begins.")
    if watch:
        leave(follow(target, execution.arn, as_json=False))


@aimed
def refuse(target: Target, reason: Why = "") -> None:
    """End the roll that waits for approval. Nothing has been changed by then."""
    execution, token = _waiting(target)
    target.executions.refuse(token, f"refused by {target.who}" + (f": {reason}" if reason else ""))
    say(f"Refused: the roll {execution.name} ends without having changed anything.")


def _waiting(target: Target) -> "tuple[Execution, str]":
    """The roll that waits for a person, with its task's token. Raises CommandError."""
    from eks_rolling_cli.execution_history import approval_token

    rolls = running(target)
    for execution in rolls:
        if token := approval_token(target.executions.history(execution.arn)):
            return execution, token
    there = f"{rolls[0].name} runs and waits for nobody" if rolls else "none is running"
    raise CommandError(f"No roll of {target.cluster} waits for approval: {there}.", Exit.NOT_FOUND)


@aimed
def pause(target: Target, reason: Why = "", wait: Wait = False) -> None:
    """Hold the running roll, until `resume` or `abort`.

    Nodes in work hold before their next step; a Redis migration that has begun is finished first. No deadline runs
    meanwhile. Cluster-autoscaler stays paused and outdated nodes stay tainted.
    """
    execution = _at_work(target)
    _ask(target, execution, "pause", reason or f"{target.who} asked for it at {_now()}")
    say(
        f"The roll {execution.name} holds before its next step; a Redis migration that has begun is finished first. "
        "`eks-rolling resume` lets it go on, `eks-rolling abort` ends it."
    )
    if wait:
        seen = follow(target, execution.arn, as_json=False, lines=True, until=lambda roll: roll.paused)
        if not seen.running:
            raise CommandError(f"The roll {execution.name} ended before it was paused.", Exit.NOT_FOUND)


@aimed
def resume(target: Target, wait: Wait = False) -> None:
    """Let a paused roll go on."""
    execution = _at_work(target)
    if "pause" not in asked_of(target, execution.name):
        say(f"The roll {execution.name} is not paused.")
        return
    _ask(target, execution, "pause", None)
    say(f"The roll {execution.name} goes on within seconds.")
    if wait:
        follow(target, execution.arn, as_json=False, lines=True, until=lambda seen: not seen.paused)


@aimed
def abort(target: Target, reason: Why = "", wait: Wait = False, yes: Yes = False) -> None:
    """End the running roll safely, and put everything back.

    Steps in work end first, and so does a Redis migration that has begun; then autoscaler, processes, sizes and taints
    are restored. Nodes that were replaced stay replaced; the next roll goes on with the rest. With --wait the exit code
    is 0 once everything is restored, 1 if something was left behind.
    """
    execution = _running(target)
    if not confirmed(f"Abort the roll {execution.name} of {target.cluster}?", yes=yes):
        raise CommandError("Nothing was aborted.", Exit.INTERRUPTED)
    reason = reason or f"{target.who} asked for it at {_now()}"
    if _holds_lock(target, execution):
        _ask(target, execution, "abort", reason)
        say(f"The roll {execution.name} ends as soon as nothing is half done, then everything is put back.")
    else:
        # Before it has the lock a roll has changed nothing.
        target.executions.stop(execution.arn, f"aborted: {reason}")
        say(f"The roll {execution.name} was stopped; it had changed nothing yet.")
    if wait:
        _wait_for_the_end(target, execution)


def _wait_for_the_end(target: Target, execution: "Execution") -> None:
    seen = follow(target, execution.arn, as_json=False, lines=True)
    if seen.status == "SUCCEEDED":
        say(f"The roll {execution.name} had ended by itself before it could be aborted.")
        return
    left = target.document(execution.name, "report.json").get("left_behind") or []
    for each in left:
        output.print(f"left behind: {each}", markup=False, soft_wrap=True)
    if left:
        raise typer.Exit(Exit.FAILED)
    say("Everything is as it was before, but for the nodes that were replaced.")


def _running(target: Target) -> "Execution":
    rolls = running(target)
    if not rolls:
        raise CommandError(f"No roll of {target.cluster} is running.", Exit.NOT_FOUND)
    return rolls[-1]


def _at_work(target: Target) -> "Execution":
    """The roll that holds the lock. Raises CommandError."""
    execution = _running(target)
    if not _holds_lock(target, execution):
        raise CommandError(
            f"The roll {execution.name} has not begun to change anything: it cannot be paused. `eks-rolling watch` "
            "says what it waits for; `refuse` or `abort` ends it.",
            Exit.BLOCKED,
        )
    return execution


def _holds_lock(target: Target, execution: "Execution") -> bool:
    lease = target.kubernetes.lease(target.lock_name)
    return lease is not None and lease.holder == execution.name


def _ask(target: Target, execution: "Execution", what: str, why: str | None) -> None:
    """Writes what is asked of the roll on its lock, or takes it away (None). Raises CommandError, AccessDenied."""
    from eks_rolling.errors import Conflict
    from eks_rolling.roll import lock

    key = {"pause": lock.PAUSE, "abort": lock.ABORT}[what]
    for _ in range(TRIES):
        lease = target.kubernetes.lease(target.lock_name)
        if lease is None or lease.holder != execution.name:
            raise CommandError(f"The roll {execution.name} has ended meanwhile.", Exit.NOT_FOUND)
        annotations = {k: v for k, v in lease.annotations.items() if k != key} | ({key: why} if why else {})
        try:
            target.kubernetes.put_lease(replace(lease, annotations=annotations))
        except Conflict:
            continue
        return
    raise CommandError(f"The lock {target.lock_name} changes too often to be written: try again.", Exit.NOT_FOUND)


def _now() -> str:
    import time

    return clock(time.time())
