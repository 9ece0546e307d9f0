"""The gate between waves: alarms quiet, workloads back to Ready, bake time over, nobody asked to pause or abort."""

from collections.abc import Sequence
from dataclasses import dataclass

from lambdas import lock
from lambdas.clients import Clients
from lambdas.entry import handler_for
from lambdas.errors import Refused
from lambdas.migration import Next, group_called, look
from lambdas.model import RollTask, StepResult, backoff
from lambdas.observed import Lease, Workload, ready_nodes
from lambdas.redis_actions import Settled
from lambdas.report_document import Kind
from lambdas.timeline import explain


@dataclass(frozen=True, slots=True)
class Open:
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Paused:
    """A person asked for it; no deadline counts meanwhile."""


@dataclass(frozen=True, slots=True)
class Abort:
    reason: str


def decide(
    firing: list[str],
    workloads: list[Workload],
    unready_before: tuple[str, ...],
    lease: Lease,
    baked: float,
    bake: float,
    redis: Sequence[Next] = (),
) -> Open | Hold | Paused | Abort:
    """Whether the next wave may start. What was not Ready before the roll is nobody's sign of trouble.

    `baked` and `bake` are seconds; `redis` is what each Redis group of the plan needs next.
    """
    if reason := lease.annotations.get(lock.ABORT):
        return Abort(f"The roll was aborted: {reason}.")
    if lock.PAUSE in lease.annotations:
        return Paused()
    if firing:
        return Hold(f"alarms are firing: {', '.join(firing)}", backoff(baked, first=5))
    worse = [w for w in workloads if not w.all_ready and str(w.owner) not in unready_before]
    if worse:
        names = ", ".join(f"{w.owner} ({w.ready} of {w.desired} Ready)" for w in worse)
        return Hold(f"not back to strength: {names}", backoff(baked, first=2))
    if unsettled := [f"{r.group} ({r.action.reason})" for r in redis if not isinstance(r.action, Settled)]:
        return Hold(f"Redis groups are not back to normal: {', '.join(unsettled)}", backoff(baked, first=2))
    if baked < bake:
        return Hold(f"baking for {bake - baked:.0f} s more", min(15, bake - baked))
    return Open("the wave is healthy")


def run(task: RollTask, clients: Clients) -> StepResult:
    """Failures of the wave end the roll here, by name."""
    if task.failures:
        raise Refused("; ".join(f"{f.node} was not replaced: {explain(f.failure)}" for f in task.failures))
    decision = decide(
        clients.aws.alarms_firing(clients.settings.alarms),
        clients.kubernetes.workloads(),
        task.unready,
        lock.confirm(clients, task.roll),
        clients.now() - (task.since or clients.now()),
        clients.settings.bake_seconds,
        [look(group_called(name, clients), "", clients) for name in task.redis],
    )
    looked = ready_nodes(clients.kubernetes.nodes())
    match decision:
        case Open(reason):
            return StepResult.done(reason, ready_nodes=looked)
        case Hold(reason, seconds):
            return StepResult.wait(reason, seconds, ready_nodes=looked)
        case Paused():
            return StepResult.wait("the roll is paused", 10, kind=Kind.PERSON, ready_nodes=looked).model_copy(
                update={"since": clients.now()}
            )
        case Abort(reason):
            raise Refused(reason)


handler = handler_for(run, RollTask)
