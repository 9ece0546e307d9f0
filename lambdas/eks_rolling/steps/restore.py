"""Restore: put back every original, whatever way the roll ended [R2].

It works from the marks on the cluster and the groups alone, so it may be run at any time, by anybody, again and again.
The lock goes last, so that no other roll starts on half-restored ground.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied, sentence
from eks_rolling.observed.aws import Group, InstanceState, TargetRegistration, as_their_groups_say
from eks_rolling.observed.kubernetes import Lease, Node, Owner, Pod, Taint, Workload, ready_nodes
from eks_rolling.observed.marks import (
    AUTOSCALER_PAUSED_AT,
    AUTOSCALER_REPLICAS,
    EXCLUDE_LABEL,
    GROUP_MAXIMUM,
    GROUP_RESUME,
    INSTANCE_PROTECTED,
    INSTANCE_REPLACES,
    NODE_ANNOTATIONS,
    NODE_CORDONED,
    NODE_EXCLUDED,
    NODE_SCALE_DOWN,
    NODE_TARGETS,
    SCALE_DOWN_DISABLED,
    LaunchMark,
    with_roll_taint,
)
from eks_rolling.payloads import RestoreTask, StepResult, backoff
from eks_rolling.redis.groups import declared
from eks_rolling.roll import lock
from eks_rolling.roll import pending_change as changes
from eks_rolling.roll.lock import Busy
from eks_rolling.roll.restore_dry_run import rehearse
from eks_rolling.runtime import handler_for


@dataclass(slots=True)
class RestoreProgress:
    """What this look put back, what it waits for, and what it has to leave, as sentences."""

    restored: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GroupRestore:
    """What to undo on a group; None and empty where there is nothing."""

    resume: frozenset[str] = frozenset()
    maximum: int | None = None
    untag: tuple[str, ...] = ()
    left: str = ""


def decide_group(group: Group) -> GroupRestore:
    """A maximum is never put below the desired capacity: AWS would terminate instances, undrained, to obey."""
    resume = frozenset(group.tags.get(GROUP_RESUME, "").split()) - {"-"}
    untag = (GROUP_RESUME,) if GROUP_RESUME in group.tags else ()
    original = int(group.tags.get(GROUP_MAXIMUM, group.maximum))
    if GROUP_MAXIMUM not in group.tags:
        return GroupRestore(resume, None, untag)
    if group.desired > original:
        return GroupRestore(
            resume,
            None,
            untag,
            f"group {group.name} keeps the maximum size {group.maximum} (was {original}) while it runs {group.desired} "
            "instances; the next roll finishes it",
        )
    return GroupRestore(resume, original if group.maximum != original else None, (*untag, GROUP_MAXIMUM))


@dataclass(frozen=True, slots=True)
class NodeRestore:
    """What to undo on a node that was not replaced."""

    taints: tuple[Taint, ...] | None
    annotations: dict[str, str | None]
    labels: dict[str, str | None]
    uncordon: bool
    register: tuple[TargetRegistration, ...]


def decide_node(node: Node, *, keep_taints: bool) -> NodeRestore | None:
    """What is left of a roll on the node; None if nothing."""
    marks: dict[str, str | None] = {key: None for key in NODE_ANNOTATIONS if key in node.annotations}
    if NODE_SCALE_DOWN in node.annotations:
        marks[SCALE_DOWN_DISABLED] = None
    untaint = node.roll_taint is not None and not keep_taints
    if not marks and not untaint:
        return None
    known = json.loads(node.annotations.get(NODE_TARGETS, "[]"))
    return NodeRestore(
        taints=with_roll_taint(node, None) if untaint else None,
        annotations=marks,
        labels={EXCLUDE_LABEL: None} if NODE_EXCLUDED in node.annotations else {},
        uncordon=NODE_CORDONED in node.annotations,
        register=tuple(
            TargetRegistration(group, node.instance, port, "unused", classic=classic) for group, port, classic in known
        ),
    )


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement whose old instance is still there: it is given back if nothing runs on it."""

    instance: InstanceState
    group: Group
    node: Node | None
    pods: tuple[Pod, ...]
    targets: tuple[TargetRegistration, ...]


def decide_replacement(seen: Replacement) -> str:
    """What to do with it now: "keep", "cordon", "uncordon", "deregister", "wait" or "terminate" [N2]."""
    if seen.instance.state in {"shutting-down", "terminated"}:
        return "gone"
    if seen.group.desired - 1 < seen.group.minimum:
        return "keep"
    ours = seen.node is not None and NODE_CORDONED in seen.node.annotations
    if any(not p.stays_with_node for p in seen.pods):
        return "uncordon" if ours else "keep"
    if seen.node is not None and not seen.node.unschedulable:
        return "cordon"
    using = [t for t in seen.targets if t.receives_traffic]
    if any(t.state != "draining" for t in using):
        return "deregister"
    return "wait" if using else "terminate"


def decide_orphan(node: Node, group: Group, states: dict[str, InstanceState]) -> str | None:
    """The instance that was launched for the node by a step that died before it could say so; None if there is none."""
    mark, member = LaunchMark.on(node), group.instance(node.instance)
    tagged = any(s.tags.get(INSTANCE_REPLACES) == node.instance for s in states.values())
    if mark is None or member is None or tagged:
        return None
    answers = (
        i.id
        for i in group.instances
        if i.alive and i.zone == member.zone and i.id in states and mark.may_be_answered_by(states[i.id])
    )
    return next(answers, None)


def decide_autoscaler(workload: Workload | None) -> int | None:
    """The replica count to put back; None if there is nothing on record. A count above 0 is somebody's own doing."""
    if workload is None or AUTOSCALER_REPLICAS not in workload.annotations:
        return None
    return int(workload.annotations[AUTOSCALER_REPLICAS]) if workload.desired == 0 else workload.desired


def not_ours(found: Busy | None, roll: str) -> str:
    """Why there is nothing to restore."""
    if found is None:
        return f"{roll} holds nothing any more: what it had changed is put back"
    return (
        f"{found.holder} is at work on this cluster, and restores at its end; nothing was changed. "
        f"If it is dead, its lock runs out in {found.seconds:.0f} s: restore again then"
    )


def run(task: RestoreTask, clients: Clients) -> StepResult:
    if task.rehearse:
        return rehearse(task, clients)
    if task.by:
        changes.forget(clients, task.roll)
    ended = lock.end(clients, task.roll, task.by)
    if not isinstance(ended, Lease):
        return StepResult.done(not_ours(ended, task.roll), restored=[], left_behind=[], ours=False)
    keep_taints = task.keep_taints or lock.KEEP_TAINTS in ended.annotations
    progress = RestoreProgress()
    groups = clients.aws.groups()
    states = as_their_groups_say(groups, clients.aws.instances([i.id for g in groups for i in g.instances]))
    nodes = clients.kubernetes.nodes()
    if _claim_orphans(groups, states, nodes, clients):
        return StepResult.wait("an instance that a killed step had launched was found", 1)
    unused = list(_unused(groups, states, nodes, clients))
    spare = {r.instance.id for r in unused}
    standing_by = {i.id for g in groups for i in g.instances if not i.alive}
    for node in nodes:
        if node.instance not in spare:
            # An instance that somebody took out of service goes back to its balancers when they put it back.
            in_service = node.instance not in standing_by
            _restore_node(node, states, clients, progress, keep_taints=keep_taints, in_service=in_service)
    for replacement in unused:
        _give_back_if_allowed(replacement, clients, progress)
    for group in groups:
        _restore_instances(group, states, spare, clients, progress)
        _restore_group(group, clients, progress)
    for budget in clients.kubernetes.budgets():
        if budget.ours:
            clients.kubernetes.delete_budget(budget)
            progress.restored.append(f"temporary budget {budget} removed")
    _restore_autoscaler(clients, progress)
    progress.left += _half_moved(task.roll, clients)
    if progress.waiting:
        waited = task.waited(clients.now())
        return StepResult.wait(
            "; ".join(progress.waiting), backoff(waited), restored=progress.restored, ready_nodes=ready_nodes(nodes)
        )
    looked = ready_nodes(clients.kubernetes.nodes())
    lock.release(clients, task.by or task.roll, lock.lock_name(clients.settings.namespace))
    reason = "; ".join(progress.left) or "everything is as it was before the roll"
    return StepResult.done(reason, restored=progress.restored, left_behind=progress.left, ours=True, ready_nodes=looked)


def _restore_node(
    node: Node,
    states: dict[str, InstanceState],
    clients: Clients,
    progress: RestoreProgress,
    *,
    keep_taints: bool,
    in_service: bool,
) -> None:
    undo = decide_node(node, keep_taints=keep_taints)
    state = states.get(node.instance)
    if undo is None or state is None or state.state != "running":
        return
    for target in undo.register if in_service else ():
        clients.aws.register(target)
    clients.kubernetes.update_node(
        node,
        taints=undo.taints,
        annotations=undo.annotations,
        labels=undo.labels,
        unschedulable=False if undo.uncordon else None,
    )
    progress.restored.append(f"node {node.name}: taint and marks removed")


def _claim_orphans(groups: list[Group], states: dict[str, InstanceState], nodes: list[Node], clients: Clients) -> bool:
    for group in groups:
        for node in nodes:
            orphan = decide_orphan(node, group, states)
            if orphan:
                clients.aws.tag_instance(orphan, {INSTANCE_REPLACES: node.instance})
                return True
    return False


def _unused(
    groups: list[Group], states: dict[str, InstanceState], nodes: list[Node], clients: Clients
) -> Iterator[Replacement]:
    by_instance = {n.instance: n for n in nodes}
    for group in groups:
        for member in group.instances:
            state = states.get(member.id)
            replaces = state.tags.get(INSTANCE_REPLACES) if state else None
            old = group.instance(replaces) if replaces else None
            if state and old and old.alive:
                node = by_instance.get(member.id)
                pods = tuple(clients.kubernetes.pods_on(node.name)) if node else ()
                yield Replacement(state, group, node, pods, tuple(clients.aws.targets_of([member.id])))


def _give_back_if_allowed(seen: Replacement, clients: Clients, progress: RestoreProgress) -> None:
    """Without the permission, which cannot be rehearsed, it stays; that must not keep the rest from being put back."""
    try:
        _give_back(seen, clients, progress)
    except AccessDenied as error:
        progress.left.append(f"{seen.instance.id}, which was not needed, stays: {sentence(error)}")


def _give_back(seen: Replacement, clients: Clients, progress: RestoreProgress) -> None:
    name = seen.node.name if seen.node else seen.instance.id
    match decide_replacement(seen):
        case "keep":
            progress.left.append(f"{name}, launched for a node that was not replaced, stays: it is in use")
        case "uncordon" if seen.node:
            clients.kubernetes.update_node(seen.node, unschedulable=False, annotations={NODE_CORDONED: None})
            progress.waiting.append(f"{name} is in use and stays")
        case "cordon" if seen.node:
            clients.kubernetes.update_node(seen.node, unschedulable=True, annotations={NODE_CORDONED: "true"})
            progress.waiting.append(f"{name} was not needed and is given back")
        case "deregister":
            for target in seen.targets:
                clients.aws.deregister(target)
            progress.waiting.append(f"{name} leaves its load balancers")
        case "wait":
            progress.waiting.append(f"{name} leaves its load balancers")
        case "terminate":
            clients.aws.terminate(seen.instance.id)
            progress.restored.append(f"{name} was not needed and is terminated")
            progress.waiting.append(f"{name} is being terminated")
        case _:
            pass


def _restore_instances(
    group: Group, states: dict[str, InstanceState], spare: set[str], clients: Clients, progress: RestoreProgress
) -> None:
    for member in group.instances:
        state = states.get(member.id)
        if state is None or state.state != "running":
            continue
        if INSTANCE_PROTECTED in state.tags:
            clients.aws.protect(group.name, member.id, protected=False)
            clients.aws.untag_instance(member.id, [INSTANCE_PROTECTED])
            progress.restored.append(f"{member.id}: scale-in protection lifted")
        if INSTANCE_REPLACES in state.tags and member.id not in spare:
            clients.aws.untag_instance(member.id, [INSTANCE_REPLACES])


def _restore_group(group: Group, clients: Clients, progress: RestoreProgress) -> None:
    undo = decide_group(group)
    if undo.resume:
        clients.aws.resume(group.name, undo.resume)
        progress.restored.append(f"group {group.name}: {', '.join(sorted(undo.resume))} resumed")
    if undo.maximum is not None:
        clients.aws.set_maximum(group.name, undo.maximum)
        progress.restored.append(f"group {group.name}: maximum size back to {undo.maximum}")
    if undo.untag:
        clients.aws.untag_group(group.name, undo.untag)
    if undo.left:
        progress.left.append(undo.left)


def _restore_autoscaler(clients: Clients, progress: RestoreProgress) -> None:
    setting = clients.settings.autoscaler
    workload = clients.kubernetes.workload(Owner("Deployment", setting.namespace, setting.deployment))
    replicas = decide_autoscaler(workload)
    if workload is not None and replicas is not None:
        records = {AUTOSCALER_REPLICAS: None, AUTOSCALER_PAUSED_AT: None}
        clients.kubernetes.update_workload(workload, replicas=replicas, annotations=records)
        progress.restored.append(f"cluster-autoscaler: back at {replicas}")


def _half_moved(roll: str, clients: Clients) -> Iterator[str]:
    """Redis groups that the step before could not bring back to normal; their Leases are still held."""
    for group in declared(clients.kubernetes.workloads())[0]:
        if lock.begun_by(clients.kubernetes.lease(group.lease), roll, clients.now()):
            yield f"Redis group {group} is half moved; the next roll goes on with it"


handler = handler_for(run, RestoreTask, locked=False)
