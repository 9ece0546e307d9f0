"""Pause what interferes: Auto Scaling processes, maximum size, cluster-autoscaler; originals first [R1]."""

from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.plan import PlanDocument
from eks_rolling.errors import Refused, RollError
from eks_rolling.observed.kubernetes import Workload
from eks_rolling.payloads import RollTask, StepResult
from eks_rolling.report import messages
from eks_rolling.roll.arrangements import autoscaler, pause, pause_of, scale_to_zero
from eks_rolling.runtime import handler_for, notify
from eks_rolling.settings import AutoscalerMode, Settings
from eks_rolling.wording import counted


@dataclass(frozen=True, slots=True)
class ScaleToZero:
    """Scale cluster-autoscaler down."""


@dataclass(frozen=True, slots=True)
class AwaitStopped:
    """It is scaled down, but still running."""

    pods: int


@dataclass(frozen=True, slots=True)
class Paused:
    reason: str


def decide_autoscaler(
    seen: Workload | None, mode: AutoscalerMode, running: int = 0
) -> ScaleToZero | AwaitStopped | Paused:
    """What to do about cluster-autoscaler. `running`: its pods that may act yet. Its status leaves out those that are
    to end."""
    if mode is not AutoscalerMode.PAUSE:
        return Paused(f"cluster-autoscaler keeps running ({mode})")
    if seen is None:
        return Paused("there is no cluster-autoscaler")
    if seen.desired > 0:
        return ScaleToZero()
    if left := max(seen.current, running):
        return AwaitStopped(left)
    return Paused("cluster-autoscaler is at 0")


def run(task: RollTask, clients: Clients) -> StepResult:
    if task.since is None:
        _announce(task, clients)
    for group in clients.aws.groups(task.groups) if task.groups else []:
        if group.managed:
            raise Refused(f"Group {group.name} belongs to a managed node group; leave it out.")
        pause(group, pause_of(group, task.surge + group.strays), clients)
    return _pause_autoscaler(clients.settings, clients)


def _announce(task: RollTask, clients: Clients) -> None:
    """A roll begins to change things now: whoever did not start it wants to know by whom, and what."""
    if task.nodes:
        notify(clients, messages.begun(clients.settings, task.roll, len(task.nodes), _plan_of(task, clients)))


def _plan_of(task: RollTask, clients: Clients) -> PlanDocument | None:
    """The roll's plan; None where it cannot be read, which must not keep a roll from its work."""
    try:
        plans = [PlanDocument.model_validate_json(t) for t in clients.aws.load(f"rolls/{task.roll}/plan.json")]
    except (RollError, ValueError):
        return None
    return next(iter(plans), None)


def _pause_autoscaler(settings: Settings, clients: Clients) -> StepResult:
    workload = autoscaler(settings, clients)
    running = _running(workload, clients) if workload and settings.autoscaler.mode is AutoscalerMode.PAUSE else 0
    match decide_autoscaler(workload, settings.autoscaler.mode, running):
        case ScaleToZero():
            assert workload is not None  # noqa: S101  (decided on it)
            scale_to_zero(workload, clients)
            return StepResult.wait("cluster-autoscaler was scaled to 0", 1)
        case AwaitStopped(pods):
            return StepResult.wait(f"cluster-autoscaler is stopping ({counted(pods, 'pod')} left)", 2)
        case Paused(reason):
            return StepResult.done(reason)


def _running(workload: Workload, clients: Clients) -> int:
    """Without those whose time is over: what is left of them is on a node that does not report."""
    own = (p for p in clients.kubernetes.pods_of(workload) if p.owner == workload.owner and not p.finished)
    return sum(1 for p in own if p.deleting_until is None or p.deleting_until > clients.now())


handler = handler_for(run, RollTask)
