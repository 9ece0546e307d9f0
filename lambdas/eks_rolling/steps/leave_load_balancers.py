"""Leave the load balancers: no new connections to the old node, in the order its traffic policy needs.

With externalTrafficPolicy Local, or an ingress on the node's own port, a node without its pods is a black hole: it
leaves first, and the pods only when its last connection may have ended. With Cluster the node forwards to pods
elsewhere even when it has none, so the pods go while the connections drain. What a target's port serves decides; a
port that nothing explains counts as Local.
"""

from collections.abc import Collection
from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import BadRequest, NotFound, OldNodeHeld
from eks_rolling.observed.aws import TargetRegistration
from eks_rolling.observed.kubernetes import Node, Service
from eks_rolling.observed.marks import (
    EXCLUDE_LABEL,
    NODE_EXCLUDED,
    NODE_TARGETS,
    registrations_on,
    registrations_text,
)
from eks_rolling.payloads import Hold, NodeTask, StepResult, backoff
from eks_rolling.roll.lock import lock_name
from eks_rolling.roll.proofs import as_proven, prove
from eks_rolling.runtime import handler_for


@dataclass(frozen=True, slots=True)
class RecordTargets:
    """Write down where the node is registered, and keep load balancer controllers from registering it again."""

    targets: str


@dataclass(frozen=True, slots=True)
class Deregister:
    targets: tuple[TargetRegistration, ...]


@dataclass(frozen=True, slots=True)
class Left:
    reason: str


Decision = RecordTargets | Deregister | Hold | Left


def decide(
    node: Node, targets: list[TargetRegistration], services: list[Service], floor: int, waited: float
) -> Decision:
    """The next action for a node that leaves; `targets` are the old instance's own registrations."""
    registered = [t for t in targets if t.registered]
    draining = [t for t in targets if t.state == "draining"]
    known = _known(node)
    places = {(t.group, t.port) for t in known}
    # It may have been registered somewhere else since: an abort gives back what is on record.
    new = [t for t in registered if (t.group, t.port) not in places]
    if registered and (new or EXCLUDE_LABEL not in node.labels):
        return RecordTargets(registrations_text([*known, *new]))
    for target in registered:
        if not target.may_leave(floor):
            return Hold(
                f"target group {target.name} has {target.others_healthy} other healthy targets and must keep {floor}",
                seconds=5,
            )
    if registered:
        return Deregister(tuple(registered))
    local = [t for t in draining if _needs_pods(t, services)]
    if local:
        left = max(t.delay_seconds for t in local) - waited
        names = ", ".join(t.name for t in local)
        return Hold(f"connections of {names} are draining", seconds=min(15.0, max(1.0, left)))
    return Left("no load balancer sends new connections" if targets else "it is in no load balancer")


def _known(node: Node) -> tuple[TargetRegistration, ...]:
    """What is on record already; what no roll wrote is no record."""
    try:
        return registrations_on(node)
    except BadRequest:
        return ()


def _needs_pods(target: TargetRegistration, services: list[Service]) -> bool:
    """Whether the node's own pods serve this target."""
    feeding = [s for s in services if target.port in s.node_ports]
    return not feeding or any(s.local_traffic for s in feeding)


def run(task: NodeTask, clients: Clients) -> StepResult:
    kubernetes, aws = clients.kubernetes, clients.aws
    node = kubernetes.node(task.node)
    if node is None:
        raise NotFound(f"Node {task.node} left the cluster on its own; start a new roll.")
    # What the node's kubelet may have written itself is no record, and is written anew.
    node = as_proven(kubernetes.lease(lock_name(clients.settings.namespace)), node, NODE_TARGETS)
    services, floor, waited = kubernetes.services(), clients.settings.healthy_target_floor, task.waited(clients.now())

    def look(among: Collection[str] | None = None) -> Decision:
        return decide(node, aws.targets_of([task.instance], among), services, floor, waited)

    recorded = {t.group for t in _known(node)}
    decision = look(recorded) if recorded else None
    if not isinstance(decision, Hold | Deregister):
        # Whether it is registered anywhere else by now.
        decision = look()
    match decision:
        case RecordTargets(known):
            excluded = EXCLUDE_LABEL in node.labels
            prove(clients, task.roll, node, NODE_TARGETS, known)
            kubernetes.update_node(
                node,
                annotations={NODE_TARGETS: known} | ({} if excluded else {NODE_EXCLUDED: "true"}),
                labels={} if excluded else {EXCLUDE_LABEL: "true"},
            )
            return StepResult.wait("the node's registrations are recorded", backoff(waited))
        case Deregister(leaving):
            for target in leaving:
                aws.deregister(target)
            return StepResult.wait(f"deregistered from {', '.join(t.name for t in leaving)}", backoff(waited))
        case Hold(reason, seconds=seconds):
            return StepResult.wait(reason, seconds)
        case Left(reason):
            return StepResult.done(reason)


handler = handler_for(run, NodeTask, overdue=OldNodeHeld)
