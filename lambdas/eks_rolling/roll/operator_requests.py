"""Operators' requests to a running roll: pause, resume, abort. Steps read them as annotations on the roll's lock.

Every step of a roll reads the lock anyway, so a request takes effect within seconds, even during a hold. A step is
never cut short: requests take effect at the start of the next step. What must not stay half done is finished first:
once a Redis group's migration has begun, the steps that finish it honor no request.
"""

from enum import Flag, auto

from eks_rolling.errors import Aborted
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import HoldKind, StepResult
from eks_rolling.roll.lock import ABORT, PAUSE, pause_look


class Honors(Flag):
    """Which requests a step honors before it does anything."""

    NOTHING = 0
    ABORT = auto()
    PAUSE = auto()
    BOTH = ABORT | PAUSE


def hold_or_abort(lease: Lease, now: float, honors: Honors = Honors.BOTH) -> StepResult | None:
    """A hold while the roll is paused; None where nothing is asked for. Raises Aborted.

    `now` is epoch seconds: while a roll is paused no deadline runs, so the wait of the current step starts over.
    """
    if Honors.ABORT in honors and (why := lease.annotations.get(ABORT)) is not None:
        raise Aborted(f"The roll was aborted: {why or 'no reason was given'}.")
    if Honors.PAUSE in honors and (why := lease.annotations.get(PAUSE)) is not None:
        reason = f"the roll is paused: {why or 'no reason was given'}"
        paused = StepResult.wait(reason, pause_look(lease, now), kind=HoldKind.PERSON)
        return paused.model_copy(update={"since": now})
    return None
