"""Wait for the replacement: joined, Ready, its DaemonSets up, its volumes' driver there, and healthy as a target."""

from collections.abc import Callable, Iterable, Mapping
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
from eks_rolling.observed.marks import (
    INSTANCE_PROTECTED,
    INSTANCE_REPLACES,
    NODE_CORDONED,
    NODE_ROLL,
    NODE_UNFIT,
    keep_from_scale_down,
    unfit,
)
from eks_rolling.payloads import Hold, NodeTask, StepResult, backoff
from eks_rolling.roll.arrangements import close_strays
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


STARTUP_PREFIXES = (*CLOSING_TAINTS, "startup-taint.cluster-autoscaler.kubernetes.io/")

STARTUP_SUFFIX = "/agent-not-ready"
"""Cilium's, and those of the EBS, EFS and FSx CSI drivers."""


def passing(taint: Taint) -> bool:
    """Whether the taint's key alone says that it is to go again: a node that keeps it is not well."""
    return taint.key.startswith(STARTUP_PREFIXES) or taint.key.endswith(STARTUP_SUFFIX)


def lasting_taints(
    new: Node | None,
    old: str,
    group: Group | None,
    nodes: Iterable[Node],
    states: Mapping[str, InstanceState],
    pods_on: Callable[[str], Iterable[Pod]],
    now: float,
) -> tuple[Taint, ...]:
    """Those of the `new` node's taints that it bears for good: what its group's tags say, and what every settled node
    of its version bears (where there is none, every settled node of the group but the `old` one), if it is proven that
    pods are meant to run with it.

    `states` are the group's instances. A roll's replacement is no such node: all may be stuck in the same way.
    `pods_on` is asked for one node after another, until each taint has its proof.
    """
    if group is None or new is None:
        return ()
    own = {i for i, state in states.items() if INSTANCE_REPLACES not in state.tags} - {new.instance, old}
    by_id = {n.instance: n for n in nodes if n.ready and n.created and now - n.created >= SETTLED_SECONDS}
    settled = [(i.template, by_id[i.id]) for i in group.instances if i.id in by_id and i.id in own]
    made_of = next((i.template for i in group.instances if i.id == new.instance), "")
    peers = [n for template, n in settled if template == made_of] or [n for _, n in settled]
    declared = [t for t in declared_taints(group.tags) if not passing(t)]
    known = {(t.key, t.effect) for t in declared}
    borne = [{(t.key, t.effect): t for t in n.taints} for n in peers]
    asked = {(t.key, t.effect): t for t in new.taints if not passing(t) and (t.key, t.effect) not in known}
    unproven = set(asked).intersection(*borne) if borne else set()
    proven: set[tuple[str, str]] = set()
    for peer, taints in zip(peers, borne, strict=True):
        if unproven <= proven:
            break
        pods = list(pods_on(peer.name))
        proven |= {each for each in unproven if _works_with(taints[each], pods)}
    return (*declared, *(asked[each] for each in sorted(proven)))


def _works_with(taint: Taint, pods: Iterable[Pod]) -> bool:
    """Whether a pod runs that asked for a node with this taint. One that tolerates every taint, or that has been there
    since before the taint was, shows nothing; nor do a DaemonSet's and a static one, which are on any node."""
    working = (p for p in pods if p.ready and not p.deleting and not p.stays_with_node)
    return any(t.key == taint.key and t.tolerates(taint) for p in working for t in p.tolerations)


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
        return Hold(f"node {name} still carries the startup taint {_named(startup)}")
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


def _startup_taints(old: Node, new: Node, lasting: tuple[Taint, ...]) -> list[Taint]:
    """What keeps pods off the new node and is not meant to stay: neither does the old one bear it for good."""
    kept = {(t.key, t.effect) for t in (*(t for t in old.taints if not passing(t)), *lasting)}
    hard = (t for t in new.taints if t.effect != Effect.PREFER_NO_SCHEDULE and t.key != ROLL_TAINT_KEY)
    return [t for t in hard if (t.key, t.effect) not in kept]


def _named(startup: list[Taint]) -> str:
    """The taints, and how to say of one that it is meant to stay, if it may be."""
    names = ", ".join(sorted({t.key for t in startup}))
    if all(passing(t) for t in startup):
        return f"{names}, which something on the node has to remove"
    return (
        f"{names}, with which no other node of the group is seen to work; if it is meant to stay, say so by the "
        f"group's tag {TEMPLATE_TAINT}KEY"
    )


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
    new = nodes.get(task.replacement)
    group = next(iter(aws.groups([task.group])), None)
    states = aws.instances(sorted({task.replacement, *(i.id for i in (group.instances if group else ()))}))
    instance = states.get(task.replacement)
    member = group.instance(task.replacement) if group else None
    if instance and new:
        _keep(instance, new, member, task, clients)
    # EC2 may show for a while what the replacement was tagged before it was taken.
    close_strays({i: s for i, s in states.items() if i != task.replacement}, everywhere, clients)
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
        lasting_taints(new, task.instance, group, everywhere, states, kubernetes.pods_on, clients.now()),
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
    """Keeps pods off a node on which nothing must run: the first ones would come as soon as it is Ready. By its mark
    every later restore knows that the cordon stays."""
    now = clients.kubernetes.node(node.name)
    if now is None or now.instance != node.instance or unfit(now):
        return
    clients.kubernetes.update_node(now, unschedulable=True, annotations={NODE_UNFIT: "true"})


def _side(node: Node, clients: Clients) -> Side:
    kubernetes = clients.kubernetes
    return Side(node, kubernetes.csi_drivers(node.name), tuple(kubernetes.pods_on(node.name)))


def _keep(instance: InstanceState, node: Node, member: GroupInstance | None, task: NodeTask, clients: Clients) -> None:
    """Keeps the replacement from being scaled in while the roll lasts; the record first [R1]."""
    if member and member.lifecycle == "InService" and not member.protected:
        clients.aws.tag_instance(instance.id, {INSTANCE_PROTECTED: "true"})
        clients.aws.protect(task.group, instance.id, protected=True)
    annotations = keep_from_scale_down(node, clients.settings.autoscaler.mode)
    closed = NODE_CORDONED in node.annotations and NODE_ROLL not in node.annotations and not unfit(node)
    if annotations or closed:
        # It came in this zone when another was needed, and was closed to pods.
        opened: dict[str, str | None] = {NODE_CORDONED: None} if closed else {}
        clients.kubernetes.update_node(node, unschedulable=False if closed else None, annotations=annotations | opened)


handler = handler_for(run, NodeTask)
