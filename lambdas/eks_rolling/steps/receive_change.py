"""Wait for the change to settle: many changes become one roll, at a time at which rolls may begin.

Every event comes here; a person's start does not. `eks_rolling.roll.pending_change` says how executions that wait for
the same thing find each other, and why no change is lost between them.
"""

from dataclasses import dataclass
from typing import assert_never

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import ChangeTask, StepResult, backoff
from eks_rolling.roll import lock
from eks_rolling.roll.pending_change import ChangeEvent, PendingChange, lease_name
from eks_rolling.roll.windows import describe, next_opening
from eks_rolling.runtime import handler_for
from eks_rolling.settings import OnChange, Settings

PATIENCE = 5
"""Changes that keep coming put the plan off for at most so many times the quiet time."""

LONGEST_WAIT = 900
"""Seconds between two looks at most, so that a holder that died is found out."""


@dataclass(frozen=True, slots=True)
class StayPending:
    """Write this Lease, if any, and look again; `change` is this execution's number."""

    lease: Lease | None
    change: int
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Joined:
    """Another execution plans, after this change."""

    holder: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Write this Lease, if any, then plan."""

    lease: Lease | None


Decision = StayPending | Joined | Plan


def decide(
    memory: PendingChange, cluster_lock: Lease | None, task: ChangeTask, now: float, settings: Settings
) -> Decision:
    """What an execution does that received a change. `since` of the task is when it did."""
    lease, change = memory.lease, task.change
    mine = lease.holder == task.roll
    held_by_another = not mine and not lease.expired(now)
    if not mine and change and memory.seen >= change:
        return Plan(None) if memory.seen_by == task.roll else Joined(memory.seen_by)
    if not change:
        # Killed right after it arrived, it may be the holder already.
        memory = memory if mine else memory.arrival(now)
        change = memory.changes
    if held_by_another:
        # It looks once its own wait is over, and its Lease outlasts that by `lease_seconds`.
        looks_at = lease.renewed + lease.duration - settings.lease_seconds
        written = None if task.change else memory.lease
        reason = f"{lease.holder} is already waiting, and will include this change"
        seconds = max(looks_at + 1 - now, backoff(task.waited(now)))
        return StayPending(written, change, reason, min(LONGEST_WAIT, seconds))
    reason, seconds = _hold(memory, cluster_lock, task, now, settings)
    if not reason:
        return Plan(memory.given_up(task.roll, change))
    seconds = min(LONGEST_WAIT, max(1, seconds))
    return StayPending(memory.held(task.roll, change, now, seconds + settings.lease_seconds), change, reason, seconds)


def _hold(
    memory: PendingChange, cluster_lock: Lease | None, task: ChangeTask, now: float, settings: Settings
) -> tuple[str, float]:
    """Why the plan has to wait, and for how many seconds; "" if it may be made."""
    quiet = settings.debounce_seconds
    settled = min(memory.last + quiet, memory.first + PATIENCE * quiet)
    if now < settled:
        return f"more changes may follow within {settled - now:.0f} s", settled - now
    if settings.on_change is OnChange.ROLL:
        opens = next_opening(settings.windows, now)
        if opens > now:
            return f"outside the windows; the next opens {describe(settings.windows, opens)}", opens - now
    if cluster_lock is not None and cluster_lock.holder != task.roll and not cluster_lock.expired(now):
        waited = task.waited(now)
        return f"the roll {cluster_lock.holder} is running; this change is handled when it ends", backoff(
            waited, first=2, longest=600
        )
    return "", 0.0


def run(task: ChangeTask, clients: Clients) -> StepResult:
    """`output.next` is "plan", with the roll's `request`, or "end"; `output.change` is this change's number."""
    settings, change = clients.settings, ChangeEvent.read(task.input)
    if settings.on_change is OnChange.OFF:
        return StepResult.done(f"{change}: changes do not start rolls here (setting on_change)", next="end")
    if not task.change and not change.concerns(
        [g for g in clients.aws.groups() if not settings.groups.left_out_by(g.tags)]
    ):
        return StepResult.done(f"{change} affects no group of {settings.cluster}", next="end")
    name = lease_name(settings.namespace)
    memory = PendingChange(clients.kubernetes.lease(name) or Lease(name))
    cluster_lock = clients.kubernetes.lease(lock.lock_name(settings.namespace))
    decision = decide(memory, cluster_lock, task, clients.now(), settings)
    match decision:
        case StayPending(lease, number, reason, seconds):
            if lease is not None:
                clients.kubernetes.put_lease(lease)
            return StepResult.wait(reason, seconds, change=number)
        case Joined(holder):
            return StepResult.done(f"{change}: joined to {holder}, which handles all changes", next="end")
        case Plan(lease):
            if lease is not None:
                clients.kubernetes.put_lease(lease)
            request = {"trigger": str(change), "dry_run": settings.on_change is OnChange.PLAN}
            return StepResult.done(f"{change} is planned", next="plan", request=request)
        case _:
            assert_never(decision)


handler = handler_for(run, ChangeTask, locked=False)
