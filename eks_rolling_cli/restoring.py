"""A restore that a person starts, followed to its end."""

import time
from functools import partial

import typer

from eks_rolling import state_names
from eks_rolling.documents.failure import explain
from eks_rolling.documents.remedies import way_out
from eks_rolling_cli.cli_context import say, tell
from eks_rolling_cli.execution_history import answers, position
from eks_rolling_cli.executions import new_name, patiently
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.target import Target
from eks_rolling_cli.watching import LOOK_SECONDS


def restore_after(target: Target, dead: str, *, detach: bool = False) -> None:
    """Starts a restore after that roll, after whichever held the lock where it is "", and follows it to its end.

    Raises CommandError where the restore fails, typer.Exit where it leaves something behind.
    """
    given = {"roll": dead} if dead else {}
    name = new_name("restore")
    execution = target.executions.start(target.machine("restore"), name, given)
    say(f"The restore {name} was started" + (f", after the roll {dead}." if dead else "."))
    if detach:
        return
    try:
        _follow_restore(target, execution)
    except KeyboardInterrupt:
        say(f"Detached: the restore {name} continues. `{target.typed('orphans')}` lists what is still to be put back.")
        raise typer.Exit(Exit.INTERRUPTED) from None


def _follow_restore(target: Target, arn: str) -> None:
    told = ""
    while True:
        # The execution first: what it has done by then is in the history that is read after it.
        execution = patiently(partial(target.executions.describe, arn), say)
        events = patiently(partial(target.executions.history, arn), say)
        at = position(events)
        line = f"{at.state}: {at.reason}" if at.reason else at.state
        if line and line != told:
            say(line)
            told = line
        if not execution.running:
            break
        time.sleep(LOOK_SECONDS)
    answered = [answer for _, answer in answers(events, state_names.RESTORE)]
    done = [answer.get("output") or {} for answer in answered]
    for each in dict.fromkeys(sentence for d in done for sentence in d.get("restored") or ()):
        tell(f"restored: {each}")
    left = dict.fromkeys(sentence for d in done for sentence in d.get("left_behind") or ())
    for each in left:
        tell(f"left behind: {each}")
    if left:
        say(f"→ {way_out(target.typed('start'))}")
    if execution.status != "SUCCEEDED":
        cause = explain({"Error": execution.error, "Cause": execution.cause})
        raise CommandError(f"The restore failed: {cause or execution.status}.")
    if left:
        raise typer.Exit(Exit.FAILED)
    if done and done[-1].get("ours") is False:
        lease = target.kubernetes.lease(target.lock_name)
        say(f"Nothing was restored: {answered[-1].get('reason', '')}.")
        raise typer.Exit(Exit.BLOCKED if lease is not None and lease.holder else Exit.FINE)
    say("Everything is as it was.")
