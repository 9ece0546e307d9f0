"""Wait for the replacement: joined, Ready, its DaemonSets up, its volumes' driver there, and healthy as a target."""

from collections.abc import Iterable
from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Permanent, Refused
from eks_rolling.observed.aws import Group, GroupInstance, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import (
    CLOSING_TAINTS,
    ROLL_TAINT_KEY,
    TEMPLATE_TAINT,
    Effect,
    Node,
    Pod,
    Service,
    Taint,
    contradiction,
    declared_taints,
    kubelet_newer,
    kubelet_too_old,
    left_out_by,
    minor_version,
    ready_nodes,
)
from eks_rolling.observed.marks import INSTANCE_PROTECTED, NODE_CORDONED, keep_from_scale_down
from eks_rolling.payloads import Hold, NodeTask, StepResult, backoff
from eks_rolling.runtime import handler_for


@dataclass(frozen=True, slots=True)
class Ready:
    node: str


@dataclass(frozen=True, slots=True)
class NeverReady:
    """The replacement will never be Ready. `unfit`: it may be up, and nothing must run on it."""

    reason: str
    unfit: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """A node, old or new, as far as the two must be alike before the old one may go."""

    node: Node
    drivers: frozenset[str] | None = None
    pods: tuple[Pod, ...] = ()


KNOWN_SECONDS = 300.0
"""How long EC2 may take to know a new instance everywhere. It is eventually consistent, and usually takes seconds (EC2
API guide); one that it does not know for longer is gone."""


SETTLED_SECONDS = 600.0
"""Seconds after its creation from which on a Ready node's taints count as those that it keeps."""


def lasting_taints(
    replacement: str, old: str, group: Group | None, nodes: Iterable[Node], now: float
) -> tuple[Taint, ...]:
    """What the group's new nodes bear for good: what its tags say, and what every settled node of the replacement's
    version bears; where there is none of these, every settled node of the group but the `old` one."""
    if group is None:
        return ()
    by_instance = {n.instance: n for n in nodes if n.ready and n.created and now - n.created >= SETTLED_SECONDS}
    settled = [(i.template, by_instance[i.id]) for i in group.instances if i.id in by_instance]
    made_of = next((i.template for i in group.instances if i.id == replacement), "")
    alike = [n for template, n in settled if template == made_of and n.instance != replacement]
    peers = alike or [n for _, n in settled if n.instance not in {replacement, old}]
    # What a node's state sets and takes away again is not meant to stay, however many nodes have it now.
    borne = [{(t.key, t.effect): t for t in n.taints if not t.key.startswith(CLOSING_TAINTS)} for n in peers]
    kept = set(borne[0]).intersection(*borne[1:]) if borne else set()
    return (*declared_taints(group.tags), *(borne[0][each] for each in sorted(kept)))


def decide(
    replacement: str,
    instance: InstanceState | None,
    old: Side,
    new: Side | None,
    targets: tuple[TargetRegistration, ...] = (),
    services: tuple[Service, ...] = (),
    waited: float = KNOWN_SECONDS,
    member: GroupInstance | None = None,
    server_version: str = "",
    lasting: tuple[Taint, ...] = (),
) -> Ready | Hold | NeverReady:
    """Whether the replacement can do now what the old node does.

    `waited` is seconds since the step began to wait, `member` how the replacement's group lists it, `server_version` is
    the API server's, `lasting` the taints that new nodes of the group are meant to keep.
    """
    if member and member.leaving:
        return NeverReady(
            f"Replacement {replacement} is {member.lifecycle}: its group ends it before it was Ready; look at the "
            "group's activities and at its launching lifecycle hooks."
        )
    if instance is None and waited < KNOWN_SECONDS:
        return Hold(f"EC2 does not know {replacement} everywhere yet")
    if instance is None or instance.state in {"shutting-down", "terminated", "stopping", "stopped"}:
        state = instance.state if instance else "unknown to EC2"
        return NeverReady(f"Replacement {replacement} is {state} before it was Ready; look at its group's activities.")
    if new is None:
        return Hold(f"{replacement} is {instance.state} and has not joined the cluster")
    name = new.node.name
    if skew := _skew(old.node.kubelet, new.node.kubelet, server_version):
        return NeverReady(
            f"Replacement {replacement} (node {name}) must not serve: {skew}. Correct the launch template's image, or "
            "upgrade the control plane first.",
            unfit=True,
        )
    if not new.node.ready:
        return Hold(f"node {name} is not Ready yet")
    if startup := _startup_taints(old.node, new.node, lasting):
        return Hold(
            f"node {name} still carries the startup taint {startup}, which the group's other nodes do not keep; "
            f"if it is meant to stay, say so by the group's tag {TEMPLATE_TAINT}KEY"
        )
    if missing := (old.drivers or frozenset()) - (new.drivers or frozenset()):
        return Hold(f"the CSI driver {', '.join(sorted(missing))} is not registered on node {name} yet")
    if daemons := _daemons_missing(old, new, lasting):
        return Hold(f"DaemonSet {daemons} is not Ready on node {name} yet")
    if groups := _targets_missing(old.node.instance, replacement, targets, services):
        return Hold(f"{replacement} is not healthy in target group {groups} yet")
    if member and member.lifecycle != "InService":
        return Hold(f"{replacement} is {member.lifecycle} in its group, not yet in service")
    return Ready(name)


def _skew(old: str, new: str, server: str) -> str:
    """Why the new kubelet must not work with this API server. One that is as old as the old node's is no worse."""
    if newer := kubelet_newer(new, server):
        return newer
    before, after = minor_version(old), minor_version(new)
    as_before = before is not None and after is not None and before <= after
    return "" if as_before else kubelet_too_old(new, server)


def _startup_taints(old: Node, new: Node, lasting: tuple[Taint, ...]) -> str:
    """What keeps pods off the new node and not off the old one, and is not meant to stay."""
    kept = {(t.key, t.effect) for t in (*old.taints, *lasting)}
    startup = {
        t.key
        for t in new.taints
        if t.effect != Effect.PREFER_NO_SCHEDULE and t.key != ROLL_TAINT_KEY and (t.key, t.effect) not in kept
    }
    return ", ".join(sorted(startup))


def _daemons_missing(old: Side, new: Side, lasting: tuple[Taint, ...]) -> str:
    # On a node that is not well none is Ready, and its replacement needs them all the same.
    daemons = (p for p in old.pods if p.owner and p.owner.kind == "DaemonSet" and (p.ready or not old.node.ready))
    # One that is meant for another kind of node never comes; the plan names it.
    meant = {(t.key, t.effect) for t in lasting}
    kept = [t for t in new.node.taints if (t.key, t.effect) in meant]
    wanted = {p.owner for p in daemons if p.owner and not left_out_by(p, new.node.labels, kept)}
    have = {p.owner for p in new.pods if p.ready and not p.deleting}
    return ", ".join(sorted(f"{o.namespace}/{o.name}" for o in wanted - have))


def _targets_missing(old: str, new: str, targets: tuple[TargetRegistration, ...], services: tuple[Service, ...]) -> str:
    """Target groups in which the old instance is healthy and the new one is not.

    With externalTrafficPolicy Local a node is healthy only while it has a pod of the Service, and the new one gets
    its pods from the old one: there is nothing to wait for.
    """
    local = {port for s in services if s.local_traffic for port in s.node_ports}
    wanted = {t.group: t.name for t in targets if t.instance == old and t.state == "healthy" and t.port not in local}
    have = {t.group for t in targets if t.instance == new and t.state == "healthy"}
    return ", ".join(sorted(name for group, name in wanted.items() if group not in have))


def run(task: NodeTask, clients: Clients) -> StepResult:
    kubernetes, aws = clients.kubernetes, clients.aws
    everywhere = kubernetes.nodes()
    for each in (task.instance, task.replacement):
        if two := contradiction(everywhere, each):
            return StepResult.wait(two, backoff(task.waited(clients.now()), first=2))
    nodes = {n.instance: n for n in everywhere if n.instance in {task.instance, task.replacement}}
    if task.instance not in nodes:
        raise Refused(f"Node {task.node} left the cluster on its own; start a new roll.")
    instance = aws.instances([task.replacement]).get(task.replacement)
    new = nodes.get(task.replacement)
    group = next(iter(aws.groups([task.group])), None)
    member = group.instance(task.replacement) if group else None
    if instance and new:
        _keep(instance, new, member, task, clients)
    waited = task.waited(clients.now())
    decision = decide(
        task.replacement,
        instance,
        _side(nodes[task.instance], clients),
        _side(new, clients) if new else None,
        tuple(aws.targets_of([task.instance, task.replacement])) if new and new.ready else (),
        tuple(kubernetes.services()),
        waited,
        member,
        kubernetes.server_version() if new else "",
        lasting_taints(task.replacement, task.instance, group, everywhere, clients.now()),
    )
    match decision:
        case Ready(node):
            return StepResult.done(f"node {node} is Ready", replacement_node=node, ready_nodes=ready_nodes(everywhere))
        case Hold(reason):
            return StepResult.wait(reason, backoff(waited, first=2), ready_nodes=ready_nodes(everywhere))
        case NeverReady(reason, unfit):
            if unfit and new:
                _close(new, clients)
            raise Permanent(reason)


def _close(node: Node, clients: Clients) -> None:
    """Keeps pods off a node on which nothing must run: the first ones would come as soon as it is Ready, and a restore
    leaves a replacement alone that pods run on."""
    now = clients.kubernetes.node(node.name)
    if now is not None and now.instance == node.instance and not now.unschedulable:
        clients.kubernetes.update_node(now, unschedulable=True, annotations={NODE_CORDONED: "true"})


def _side(node: Node, clients: Clients) -> Side:
    kubernetes = clients.kubernetes
    return Side(node, kubernetes.csi_drivers(node.name), tuple(kubernetes.pods_on(node.name)))


def _keep(instance: InstanceState, node: Node, member: GroupInstance | None, task: NodeTask, clients: Clients) -> None:
    """Keeps the replacement from being scaled in while the roll lasts; the record first [R1]."""
    if member and member.lifecycle == "InService" and not member.protected:
        clients.aws.tag_instance(instance.id, {INSTANCE_PROTECTED: "true"})
        clients.aws.protect(task.group, instance.id, protected=True)
    if annotations := keep_from_scale_down(node, clients.settings.autoscaler.mode):
        clients.kubernetes.update_node(node, annotations=annotations)


handler = handler_for(run, NodeTask)
