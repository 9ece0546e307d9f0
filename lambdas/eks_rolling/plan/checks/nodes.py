"""Findings about the nodes to replace."""

from collections.abc import Collection, Iterator, Sequence

from eks_rolling.documents.finding import Finding, blocks, note
from eks_rolling.observed.kubernetes import Node, contradiction, kubelet_newer, kubelet_too_old, nameless, without_node
from eks_rolling.observed.marks import target_of
from eks_rolling.payloads import Targets
from eks_rolling.plan.snapshot import Candidate, ClusterSnapshot
from eks_rolling.settings import DeadNodes
from eks_rolling.wording import counted, spoken


def node_findings(view: ClusterSnapshot, chosen: Sequence[Candidate], dead_nodes: DeadNodes) -> Iterator[Finding]:
    for candidate in chosen:
        if two := contradiction(view.nodes, candidate.instance.id):
            claim, _, remedy = two.partition("; ")
            yield blocks("instance-claimed-twice", f"instance {candidate.instance.id}", claim, remedy)
            continue
        yield from _node(view, candidate, dead_nodes)
        if candidate.instance.zone not in candidate.group.zones:
            yield blocks(
                "zone-not-served",
                f"node {candidate.name}",
                f"group {candidate.group.name} no longer launches in {candidate.instance.zone}",
                "give the group a subnet there again",
            )


def kubelet_findings(view: ClusterSnapshot, chosen: Sequence[Candidate], targets: Targets) -> Iterator[Finding]:
    """What the kubelets of new nodes will be, as far as nodes that have the new version already show it.

    A node says that of itself, so one alone could keep its group from being rolled: a person may accept it for the
    group. The first replacement is judged by its own kubelet then, before its old node loses a pod (`await_ready`).
    """
    groups = {c.group.name: c.group for c in chosen}
    for name, group in sorted(groups.items()):
        shown = (view.node_of(i.id) for i in group.instances if i.template == target_of(i, targets[name]))
        for node in sorted((n for n in shown if n), key=lambda n: n.name):
            what = f"new nodes would be as node {node.name}, which has the new version already: "
            if newer := kubelet_newer(node.kubelet, view.server_version):
                yield blocks(
                    "kubelet-newer",
                    f"group {name}",
                    what + newer,
                    "correct the launch template's image, or upgrade the control plane first; if only that node says "
                    f"so, accept kubelet-newer:group {name}: the first new node is judged by its own kubelet",
                )
                break
            if older := kubelet_too_old(node.kubelet, view.server_version):
                yield note("kubelet-too-old", f"group {name}", what + older, "use a newer image soon")
                break


def left_out(candidate: Candidate, accepted: Collection[str]) -> bool:
    """Whether a person accepted that a node which cannot be emptied stays as it is."""
    if candidate.node is not None and candidate.node.ready:
        return False
    code, subject = (
        ("not-joined", f"instance {candidate.instance.id}")
        if candidate.node is None
        else ("node-not-ready", f"node {candidate.name}")
    )
    return code in accepted or f"{code}:{subject}" in accepted


def _dead(view: ClusterSnapshot, node: Node, subject: str) -> Iterator[Finding]:
    """About a dead node that is replaced: what goes with it."""
    pods = [p for p in view.pods_on(node.name) if not p.stays_with_node]
    silent = f"its kubelet has been silent for {spoken(view.now - node.silent_since)}"
    if redis := sorted({str(found[0]) for p in pods if (found := view.redis_set(p.owner))}):
        yield blocks(
            "dead-node-redis",
            subject,
            f"{silent}, and pods of Redis group {', '.join(redis)} are on it: what they hold cannot be moved",
            "bring the node back; or see that the group lives elsewhere, and terminate the instance by hand",
        )
    else:
        yield note(
            "dead-node",
            subject,
            f"{silent}: its {counted(len(pods), 'pod')} cannot end gracefully. They are evicted within their budgets, "
            "and go with the instance, which is terminated with them and their volumes still on it",
            "bring the node back before the roll, if something on it must end in order",
        )


def _nodeless(view: ClusterSnapshot, instance: str, dead_nodes: DeadNodes) -> Finding:
    subject, found = f"instance {instance}", "it is in service but has no node in the cluster"
    leave_out = f"leave it out: accept not-joined:{subject}"
    lost = without_node(view.pods, view.nodes)
    if dead_nodes.replace and not lost and not nameless(view.nodes):
        return note(
            "never-joined",
            subject,
            f"{found}; its group replaces it before the first node is, unless it has one within "
            f"{spoken(dead_nodes.silent_seconds)} or a target group takes it for healthy: then it is left alone",
            f"nothing; or find out why it did not join before the roll; or {leave_out}",
        )
    if dead_nodes.replace and lost:
        return blocks(
            "not-joined",
            subject,
            f"{found}, and pods are bound to node {', '.join(lost[:3])}, which is not there: they may run on it",
            f"wait until Kubernetes has deleted those pods, then start the roll again; or {leave_out}",
        )
    return blocks(
        "not-joined",
        subject,
        found,
        f"find out why it did not join, or terminate it; or {leave_out}; or have rolls replace what never joins "
        "(setting dead_nodes)",
    )


def _node(view: ClusterSnapshot, candidate: Candidate, dead_nodes: DeadNodes) -> Iterator[Finding]:
    node, subject = candidate.node, f"node {candidate.name}"
    if node is None:
        yield _nodeless(view, candidate.instance.id, dead_nodes)
    elif node.dead(dead_nodes, view.now):
        yield from _dead(view, node, subject)
    elif not node.ready:
        yield blocks(
            "node-not-ready",
            subject,
            "its kubelet does not report, so evicted pods cannot terminate",
            f"repair or terminate it, then start the roll again; or leave it out: accept node-not-ready:{subject}; or "
            "have rolls replace nodes that stay silent (setting dead_nodes)",
        )
    elif node.labels.get("karpenter.sh/nodepool"):
        yield blocks(
            "karpenter-node",
            subject,
            "Karpenter launched it and replaces it itself",
            "leave its group out",
        )
    elif node.unschedulable:
        yield note(
            "cordoned",
            subject,
            "it is cordoned already, and pods that it lost may be missing elsewhere",
            "nothing; it is replaced, and its replacement takes pods",
        )
