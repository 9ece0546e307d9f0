"""Findings about NetworkPolicies that would cut off the stand-in of a Redis Cluster's pod: its labels are its own [C3].

A pod that comes back has the labels that it had, and is let in as before. Whether policies are enforced at all is up to
the cluster's network, so these findings can be accepted.
"""

from collections.abc import Iterable, Iterator

from eks_rolling.documents.finding import Finding, blocks
from eks_rolling.observed.kubernetes import Owner, Pod, Workload
from eks_rolling.observed.network import End, NetworkPolicy, cut_off_by
from eks_rolling.observed.redis import ClusterNode
from eks_rolling.plan.checks.other_controllers import ASKS
from eks_rolling.plan.snapshot import ClusterSnapshot, Unseen
from eks_rolling.redis.cluster import RedisClusterState
from eks_rolling.redis.groups import STAND_IN_LABELS, PartSet, RedisGroup, stand_in_labels
from eks_rolling.redis.stand_in import LABEL

ACCEPTABLE = frozenset({"redis-network-policy", "redis-network-unseen"})

BUS = 10_000
"""What is added to a node's port for the cluster bus (cluster-port is 0 by default)."""

OUTSIDE = End(outside=True)
"""The functions, which speak to every node."""


def network_findings(view: ClusterSnapshot, moving: set[Owner | None]) -> Iterator[Finding]:
    """For each StatefulSet of a cluster with pods that move. `moving`: whose."""
    for seen in view.redis:
        group = seen.group
        for part_set in group.sets if group.is_cluster else ():
            workload = view.workload(part_set.owner)
            if part_set.owner not in moving or workload is None:
                continue
            if Unseen.NETWORK_POLICIES in view.unseen:
                yield _unseen(part_set)
            else:
                yield from _of(view, group, part_set, workload)


def _unseen(part_set: PartSet) -> Finding:
    return blocks(
        "redis-network-unseen",
        str(part_set.owner),
        "the plan may not list NetworkPolicies, and one may cut off its stand-in",
        f"apply deploy/rbac.yaml again; a person who plans locally {ASKS}; or accept it where policies are not "
        "enforced: accept: redis-network-unseen",
    )


def _of(view: ClusterSnapshot, group: RedisGroup, part_set: PartSet, workload: Workload) -> Iterator[Finding]:
    own = [p for p in view.pods if group.part_set(p.owner)]
    ports = sorted({part_set.port, *_bus_ports(view, group, part_set)})
    stand_in = End(group.namespace, {**stand_in_labels(workload.annotations), LABEL: group.name}, _addresses(own))
    for pod in _unlike(own):
        there = _end(pod, own)
        for source, target, said in ((stand_in, there, "connect to"), (there, stand_in, "be reached by")):
            for port in ports:
                if policies := cut_off_by(view.network_policies, source, target, port):
                    yield _finding(part_set, policies, f"could not {said} the pods of its cluster", pod)
                    return
    for client, name in _clients(view, own):
        before = all(not cut_off_by(view.network_policies, client, _end(p, own), part_set.port) for p in _unlike(own))
        if before and (policies := cut_off_by(view.network_policies, client, stand_in, part_set.port)):
            yield _finding(part_set, policies, f"could not be reached by {name}, as the pods can", own[0])
            return


def _bus_ports(view: ClusterSnapshot, group: RedisGroup, part_set: PartSet) -> set[int]:
    """Where the nodes hear each other, by their own word."""
    seen = next((r.seen for r in view.redis if r.group == group), None)
    pods = seen.pods if isinstance(seen, RedisClusterState) else ()
    told = {m.node.bus_port for m in pods if isinstance(m.node, ClusterNode) and m.name in part_set.pods}
    return {port for port in told if port is not None} or {part_set.port + BUS}


def _finding(part_set: PartSet, policies: Iterable[NetworkPolicy], said: str, pod: Pod) -> Finding:
    named = ", ".join(sorted(map(str, policies)))
    asked = dict.fromkeys(label for policy in policies for label in _labels_of(policy) if label in pod.labels.items())
    example = ",".join(f"{key}={value}" for key, value in asked) or "KEY=VALUE"
    return blocks(
        "redis-network-policy",
        str(part_set.owner),
        f"its stand-in {said}: {named} lets pods through by labels that it does not have",
        f"name the labels that the policy asks for, e.g. {STAND_IN_LABELS}: {example}, or accept it where policies are "
        "not enforced: accept: redis-network-policy",
    )


def _labels_of(policy: NetworkPolicy) -> Iterator[tuple[str, str]]:
    yield from policy.selector.labels
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        for peer in rule.peers:
            yield from peer.pods.labels if peer.pods else ()


def _clients(view: ClusterSnapshot, own: list[Pod]) -> Iterator[tuple[End, str]]:
    """Everybody who may speak to the pods: the functions, and pods by their labels."""
    yield OUTSIDE, "the functions of a roll"
    for pod in _unlike(p for p in view.pods if p not in own and LABEL not in p.labels):
        yield _end(pod, [pod]), f"pod {pod}"


def _unlike(pods: Iterable[Pod]) -> list[Pod]:
    """One of each kind: policies know pods by namespace and labels."""
    return list({(p.namespace, frozenset(p.labels.items())): p for p in pods}.values())


def _end(pod: Pod, alike: list[Pod]) -> End:
    return End(pod.namespace, pod.labels, _addresses(alike))


def _addresses(pods: Iterable[Pod]) -> tuple[str, ...]:
    return tuple(p.address for p in pods if p.address)
