"""Pause what interferes: Auto Scaling processes, maximum size, cluster-autoscaler; originals first [R1]."""

from dataclasses import dataclass, field

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.plan import PlanDocument
from eks_rolling.errors import Refused, RollError
from eks_rolling.observed.aws import Group
from eks_rolling.observed.kubernetes import Owner, Workload
from eks_rolling.observed.marks import (
    AUTOSCALER_PAUSED_AT,
    AUTOSCALER_REPLICAS,
    GROUP_MAXIMUM,
    GROUP_RESUME,
    INTERFERING_PROCESSES,
    RaisedMaximum,
)
from eks_rolling.payloads import RollTask, StepResult
from eks_rolling.report import messages
from eks_rolling.runtime import handler_for, notify
from eks_rolling.settings import Autoscaler, AutoscalerMode
from eks_rolling.wording import counted


@dataclass(frozen=True, slots=True)
class GroupPause:
    """What to write on a group, in this order: the tags that remember, then the changes."""

    tags: dict[str, str] = field(default_factory=dict)
    suspend: frozenset[str] = frozenset()
    maximum: int | None = None


def decide(group: Group, surge: int) -> GroupPause:
    """What is still missing on the group. A record that is there already is kept: its reading was the original's."""
    suspend = INTERFERING_PROCESSES - group.suspended
    remembered = frozenset(group.tags.get(GROUP_RESUME, "-").split()) - {"-"}
    tags = {}
    if GROUP_RESUME not in group.tags or suspend - remembered:
        tags[GROUP_RESUME] = " ".join(sorted(remembered | suspend)) or "-"
    needed = group.desired + surge
    maximum = needed if group.maximum < needed else None
    if maximum is not None:
        known = RaisedMaximum.on(group)
        # A size that somebody set since is the one to put back.
        theirs = known is None or known.changed_by_others(group.maximum)
        record = str(RaisedMaximum(group.maximum if known is None or theirs else known.original, maximum))
        if group.tags.get(GROUP_MAXIMUM) != record:
            tags[GROUP_MAXIMUM] = record
    return GroupPause(tags, suspend, maximum)


@dataclass(frozen=True, slots=True)
class ScaleToZero:
    """Scale cluster-autoscaler down; `remember` is None where the original is on record already."""

    remember: str | None


@dataclass(frozen=True, slots=True)
class AwaitStopped:
    """It is scaled down, but still running."""

    pods: int


@dataclass(frozen=True, slots=True)
class Paused:
    reason: str


def decide_autoscaler(autoscaler: Workload | None, mode: AutoscalerMode) -> ScaleToZero | AwaitStopped | Paused:
    """What to do about cluster-autoscaler."""
    if mode is not AutoscalerMode.PAUSE:
        return Paused(f"cluster-autoscaler keeps running ({mode})")
    if autoscaler is None:
        return Paused("there is no cluster-autoscaler")
    if autoscaler.desired > 0:
        known = AUTOSCALER_REPLICAS in autoscaler.annotations
        return ScaleToZero(None if known else str(autoscaler.desired))
    if autoscaler.current > 0:
        return AwaitStopped(autoscaler.current)
    return Paused("cluster-autoscaler is at 0")


def run(task: RollTask, clients: Clients) -> StepResult:
    if task.since is None:
        _announce(task, clients)
    for group in clients.aws.groups(task.groups) if task.groups else []:
        if group.managed:
            raise Refused(f"Group {group.name} belongs to a managed node group; leave it out.")
        _pause(group, decide(group, task.surge), clients)
    return _pause_autoscaler(clients.settings.autoscaler, clients)


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


def _pause(group: Group, pause: GroupPause, clients: Clients) -> None:
    if pause.tags:
        clients.aws.tag_group(group.name, pause.tags)
    if pause.suspend:
        clients.aws.suspend(group.name, pause.suspend)
    if pause.maximum is not None:
        clients.aws.set_maximum(group.name, pause.maximum)


def _pause_autoscaler(setting: Autoscaler, clients: Clients) -> StepResult:
    workload = clients.kubernetes.workload(Owner("Deployment", setting.namespace, setting.deployment))
    match decide_autoscaler(workload, setting.mode):
        case ScaleToZero(remember):
            assert workload is not None  # noqa: S101  (decided on it)
            annotations = {AUTOSCALER_PAUSED_AT: f"{clients.now():.0f}"}
            if remember:
                annotations[AUTOSCALER_REPLICAS] = remember
            clients.kubernetes.update_workload(workload, replicas=0, annotations=annotations)
            return StepResult.wait("cluster-autoscaler was scaled to 0", 1)
        case AwaitStopped(pods):
            return StepResult.wait(f"cluster-autoscaler is stopping ({counted(pods, 'pod')} left)", 2)
        case Paused(reason):
            return StepResult.done(reason)


handler = handler_for(run, RollTask)
