"""Terminate the instance: exactly this one, through its group, once nothing of value is on it [N2].

From a dead node, whose kubelet is silent, pods were evicted and cannot end: they go with it, and so do its volumes.

Pods of DaemonSets that serve have left by then (`evict`), but for those that tolerate our taint: their DaemonSet makes
another at once. They leave right here (`roll.service_exit`) [N5].
"""

from dataclasses import dataclass
from typing import assert_never

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import OldNodeHeld
from eks_rolling.observed.aws import Group, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import (
    Node,
    Pod,
    contradiction,
    lost_with,
    ready_nodes,
    replacement_not_ready,
    serving_daemons,
)
from eks_rolling.observed.marks import NODE_ROLL, registered_as
from eks_rolling.payloads import Hold, NodeTask, StepResult, backoff
from eks_rolling.roll.service_exit import LeaveServices, WatchEnding, decide_exit, decide_once_left, successors
from eks_rolling.runtime import handler_for


@dataclass(frozen=True, slots=True)
class BeforeTermination:
    """Everything that forbids a termination, read immediately before it."""

    instance: InstanceState | None
    node: Node | None
    replacement: Node | None
    pods: tuple[Pod, ...] = ()
    attachments: tuple[str, ...] = ()
    targets: tuple[TargetRegistration, ...] = ()
    group: Group | None = None

    claimed_twice: str = ""
    """Who says to be on the instance, where it is more than one node: the pods that are looked at may be another's."""

    dead: bool = False
    """Its kubelet has been silent for so long that no pod on it can end, and no volume be unmounted."""
    lost: frozenset[str] = frozenset()
    """UIDs of pods that were to end by now and cannot."""
    serving: tuple[Pod, ...] = ()
    """Pods of DaemonSets that a Service leads to."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """`successors` are pods that serve, made anew and not Ready yet: they are evicted just before, so as not to become
    it."""

    successors: tuple[Pod, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaving(Hold):
    """The instance is on its way out, which nothing stops any more."""


@dataclass(frozen=True, slots=True)
class Gone:
    reason: str


Decision = Terminate | LeaveServices | WatchEnding | Hold | Gone


def decide(seen: BeforeTermination, instance: str, roll: str) -> Decision:
    """Whether the instance may be terminated now, and if not why."""
    gone = seen.instance is None or seen.instance.gone
    if gone and seen.node is None:
        return Gone(f"{instance} and its node are gone")
    if gone and seen.node:
        return Leaving(f"{instance} is gone; the cloud controller has yet to remove node {seen.node.name}")
    member = seen.group.instance(instance) if seen.group else None
    if member and member.leaving and seen.instance and seen.instance.state == "running":
        return Leaving(f"{instance} is shutting down: {member.lifecycle}, until its group's lifecycle hooks let go")
    if (seen.instance and seen.instance.state == "shutting-down") or (member and member.leaving):
        return Leaving(f"{instance} is shutting down")
    if member and not member.alive:
        return Hold(f"{instance} is {member.lifecycle} in its group: it was taken out; put it back into service")
    if reason := seen.claimed_twice or forbidden(seen, roll):
        return Hold(reason)
    return decide_exit(seen.serving) or Terminate(successors(seen.serving))


def forbidden(seen: BeforeTermination, roll: str) -> str:
    """Why the instance must not be terminated now; "" where nothing speaks against it."""
    if seen.node is None:
        return "its node left the cluster while the instance runs; find out why, and terminate it manually"
    if seen.node.annotations.get(NODE_ROLL) != roll:
        return f"node {seen.node.name} is not in the plan of {roll}"
    if reason := replacement_not_ready(seen.replacement):
        return reason
    if seen.replacement and seen.group and (new := seen.group.instance(seen.replacement.instance)) and new.leaving:
        return f"the replacement {seen.replacement.name} is being terminated by its group"
    if staying := [str(p) for p in seen.pods if not p.stays_with_node and p.uid not in seen.lost]:
        return f"pods are on it: {', '.join(staying)}"
    if not seen.node.unschedulable:
        return "it was uncordoned, so pods could be scheduled on it"
    if seen.attachments and not seen.dead:
        return f"volumes are attached: {', '.join(seen.attachments)}"
    if using := [t.name for t in seen.targets if t.receives_traffic]:
        return f"target groups send it traffic: {', '.join(using)}"
    if seen.group is None:
        return "its Auto Scaling group is gone"
    if "Terminate" in seen.group.suspended:
        return f"the process Terminate of group {seen.group.name} is suspended; resume it"
    if seen.group.desired - 1 < seen.group.minimum:
        return (
            f"group {seen.group.name} would fall below its minimum size {seen.group.minimum}: its desired "
            f"capacity was lowered to {seen.group.desired} during the roll; raise it by one"
        )
    return ""


def run(task: NodeTask, clients: Clients) -> StepResult:
    waited = task.waited(clients.now())
    decision = decide_once_left(lambda: decide(observe(task, clients), task.instance, task.roll), task.node, clients)
    match decision:
        case Terminate(pods):
            for pod in pods:
                clients.kubernetes.evict(pod)
            clients.aws.terminate(task.instance)
            return StepResult.wait(f"{task.instance} is being terminated", 2, terminating=True)
        case LeaveServices(pods) | WatchEnding(pods):
            return StepResult.wait(f"pods that serve are ending: {', '.join(map(str, pods))}", 1)
        case Leaving(reason):
            return StepResult.wait(reason, backoff(waited, first=2), terminating=True)
        case Hold(reason):
            return StepResult.wait(reason, backoff(waited, first=2))
        case Gone(reason):
            return StepResult.done(reason, ready_nodes=ready_nodes(clients.kubernetes.nodes()))
        case _:
            assert_never(decision)


def observe(task: NodeTask, clients: Clients) -> BeforeTermination:
    """Looks at the instance first: once it is shutting down, the rest no longer matters."""
    kubernetes, aws = clients.kubernetes, clients.aws
    instance = aws.instances([task.instance]).get(task.instance)
    node = kubernetes.node(task.node)
    if node is not None and node.instance != task.instance:
        # Another instance took the name; ours has no node any more.
        node = None
    if instance is None or instance.state in {"shutting-down", "terminated"} or node is None:
        return BeforeTermination(instance, node, None)
    claimed_twice = contradiction(kubernetes.nodes(), task.instance)
    targets = tuple(aws.targets_of(registered_as(node, task.instance)))
    group = next(iter(aws.groups([task.group])), None)
    replacement, services = kubernetes.node(task.replacement_node), kubernetes.services()
    attachments = tuple(kubernetes.attachments(task.node))
    # Last, because AWS takes seconds to answer: a DaemonSet's next pod may be Ready a second after it came [N5].
    pods = tuple(kubernetes.pods_on(task.node))
    dead_nodes = clients.settings.dead_nodes
    # It may have come back meanwhile.
    now, current = clients.now(), kubernetes.node(task.node) or node
    dead = current.dead(dead_nodes, now)
    return BeforeTermination(
        instance=instance,
        node=node,
        replacement=replacement,
        pods=pods,
        attachments=attachments,
        targets=targets,
        group=group,
        claimed_twice=claimed_twice,
        dead=dead,
        lost=lost_with(current, pods, dead_nodes, now),
        serving=() if dead else tuple(serving_daemons(pods, services)),
    )


handler = handler_for(run, NodeTask, overdue=OldNodeHeld)
