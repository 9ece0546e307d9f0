"""What a roll arranges at its start, and looks at again: Auto Scaling processes and maximum sizes, cluster-autoscaler,
taints and marks of nodes.

Somebody may change it in mid-roll: a person, GitOps, another tool. The gate and each node's first step see that, say
it, and arrange it again or hold, as `on_interference` has it. The records of the originals stay as they are [R1].
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import NotFound
from eks_rolling.observed.aws import Group, InstanceState
from eks_rolling.observed.kubernetes import Node, Owner, Taint, Workload
from eks_rolling.observed.marks import (
    AUTOSCALER_PAUSED_AT,
    AUTOSCALER_REPLICAS,
    GROUP_MAXIMUM,
    GROUP_RESUME,
    INSTANCE_REPLACES,
    INTERFERING_PROCESSES,
    NODE_CORDONED,
    NODE_ROLL,
    SOFT_TAINT,
    SURPLUS,
    RaisedMaximum,
    keep_from_scale_down,
    with_roll_taint,
)
from eks_rolling.payloads import StepResult, backoff
from eks_rolling.settings import AutoscalerMode, OnInterference, Settings


@dataclass(frozen=True, slots=True)
class GroupPause:
    """What to write on a group, in this order: the tags that remember, then the changes."""

    tags: dict[str, str] = field(default_factory=dict)
    suspend: frozenset[str] = frozenset()
    maximum: int | None = None


def pause_of(group: Group, surge: int, *, again: bool = False) -> GroupPause:
    """What is still missing on the group. A record that is there already is kept: its reading was the original's.

    `again`: the roll has paused the group before. Where its record was removed since, whatever is suspended counts as
    suspended by the roll: else nobody would resume it.
    """
    suspend = INTERFERING_PROCESSES - group.suspended
    remembered = frozenset(group.tags.get(GROUP_RESUME, "-").split()) - {"-"}
    if again and GROUP_RESUME not in group.tags:
        remembered = INTERFERING_PROCESSES & group.suspended
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


def pause(group: Group, missing: GroupPause, clients: Clients) -> None:
    """Writes it: what remembers the originals first [R1]."""
    if missing.tags:
        clients.aws.tag_group(group.name, missing.tags)
    if missing.suspend:
        clients.aws.suspend(group.name, missing.suspend)
    if missing.maximum is not None:
        clients.aws.set_maximum(group.name, missing.maximum)


@dataclass(frozen=True, slots=True)
class NodeUpdate:
    """What to write on a node; taints None: they are right already."""

    taints: tuple[Taint, ...] | None
    annotations: dict[str, str | None] = field(default_factory=dict)


def mark_of(node: Node, roll: str, mode: AutoscalerMode) -> NodeUpdate | None:
    """What the node still lacks; None if nothing. A hard taint of an earlier run stays."""
    annotations: dict[str, str | None] = {}
    if node.annotations.get(NODE_ROLL) != roll:
        annotations[NODE_ROLL] = roll
    annotations |= keep_from_scale_down(node, mode)
    taints = with_roll_taint(node, SOFT_TAINT) if node.roll_taint is None else None
    return NodeUpdate(taints, annotations) if annotations or taints is not None else None


def autoscaler(settings: Settings, clients: Clients) -> Workload | None:
    """cluster-autoscaler's Deployment, where there is one."""
    where = settings.autoscaler
    return clients.kubernetes.workload(Owner("Deployment", where.namespace, where.deployment))


def scale_to_zero(workload: Workload, clients: Clients) -> None:
    """Scales cluster-autoscaler down. An original that is on record stays the one to put back."""
    annotations = {AUTOSCALER_PAUSED_AT: f"{clients.now():.0f}"}
    if AUTOSCALER_REPLICAS not in workload.annotations:
        annotations[AUTOSCALER_REPLICAS] = str(workload.desired)
    clients.kubernetes.update_workload(workload, replicas=0, annotations=annotations)


@dataclass(frozen=True, slots=True)
class Arranged:
    """Everything that a roll arranged, as it is now. `surge` 0 leaves maximum sizes alone."""

    roll: str
    mode: AutoscalerMode
    groups: tuple[Group, ...]
    nodes: tuple[Node, ...]
    autoscaler: Workload | None = None
    surge: int = 0


def changed(seen: Arranged) -> list[str]:
    """What is not as the roll arranged it, as sentences."""
    return [*_scaled(seen), *(s for g in seen.groups for s in _group(g, seen)), *_nodes(seen)]


def _scaled(seen: Arranged) -> Iterator[str]:
    if seen.mode is AutoscalerMode.PAUSE and seen.autoscaler is not None and seen.autoscaler.desired > 0:
        yield f"{seen.autoscaler.owner} was scaled to {seen.autoscaler.desired}"


def _group(group: Group, seen: Arranged) -> Iterator[str]:
    missing = pause_of(group, seen.surge)
    if missing.suspend:
        yield f"processes of group {group.name} were resumed: {', '.join(sorted(missing.suspend))}"
    if missing.maximum is not None and seen.surge:
        yield f"the maximum size of group {group.name} was set to {group.maximum}"
    if GROUP_RESUME not in group.tags:
        yield f"the tag {GROUP_RESUME} of group {group.name} was removed"


def _nodes(seen: Arranged) -> Iterator[str]:
    for node in seen.nodes:
        lacks = mark_of(node, seen.roll, seen.mode)
        if lacks is None:
            continue
        gone = sorted(lacks.annotations) if lacks.taints is None else ["our taint", *sorted(lacks.annotations)]
        yield f"node {node.name} lost {', '.join(gone)}"


def look_again(
    roll: str, groups: Sequence[Group], nodes: Iterable[Node], surge: int, waited: float, clients: Clients
) -> StepResult | None:
    """None where all is as arranged; else a hold that says what somebody changed, once that was arranged again or for
    as long as it is not. Raises what the clients raise."""
    settings = clients.settings
    mode = settings.autoscaler.mode
    scaled = autoscaler(settings, clients) if mode is AutoscalerMode.PAUSE else None
    seen = Arranged(roll, mode, tuple(g for g in groups if not g.managed), tuple(nodes), scaled, surge)
    if not (said := "; ".join(changed(seen))):
        return None
    if settings.on_interference is OnInterference.HOLD:
        reason = f"somebody changed what the roll had arranged: {said}; undo that, or abort"
        return StepResult.wait(reason, backoff(waited, first=2), interfered=True)
    _arrange(seen, clients)
    reason = f"somebody changed what the roll had arranged, and it was arranged again: {said}"
    return StepResult.wait(reason, backoff(waited, first=2), interfered=True)


def _arrange(seen: Arranged, clients: Clients) -> None:
    if seen.autoscaler is not None and seen.autoscaler.desired > 0:
        scale_to_zero(seen.autoscaler, clients)
    for group in seen.groups:
        pause(group, pause_of(group, seen.surge, again=True), clients)
    for node in seen.nodes:
        if mark := mark_of(node, seen.roll, seen.mode):
            clients.kubernetes.update_node(node, taints=mark.taints, annotations=mark.annotations)


def close_strays(states: Mapping[str, InstanceState], nodes: Iterable[Node], clients: Clients) -> None:
    """Keeps pods off what came in a zone where none was needed, until a node there takes it: it can be given back.

    Raises Conflict: the step is run again.
    """
    for node in nodes:
        state = states.get(node.instance)
        if state and state.tags.get(INSTANCE_REPLACES) == SURPLUS and not node.unschedulable:
            # One that goes meanwhile is nobody's concern, least of all the node's that waits.
            with suppress(NotFound):
                clients.kubernetes.update_node(node, unschedulable=True, annotations={NODE_CORDONED: "true"})
