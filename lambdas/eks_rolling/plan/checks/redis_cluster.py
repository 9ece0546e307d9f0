"""What a plan says of Redis Clusters: who is what, and everything that would block, hold or hurt a migration."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from eks_rolling.documents.finding import Finding, blocks, holds, note
from eks_rolling.observed.redis import Address, ClusterNode, Role, Silent
from eks_rolling.redis.cluster import ClusterPod, RedisClusterState

ACCEPTABLE = frozenset({"redis-announced-address", "redis-endpoint-names"})
"""Codes of blockers that a person may accept."""

LONGEST_NODE_TIMEOUT_MS = 30_000


def cluster_findings(
    subject: str, seen: RedisClusterState, zones: dict[str, str], not_needed: frozenset[str]
) -> Iterator[Finding]:
    """Beside its health. `zones`: pod -> zone; `not_needed`: commands that a migration does without."""
    yield from _abilities(subject, seen, not_needed)
    yield from _copies(subject, seen, zones)
    timeouts = {node.node_timeout_ms for _, node in _nodes(seen)} - {None}
    if told := next((m for m, node in _nodes(seen) if node.tells_names), None):
        yield blocks(
            "redis-endpoint-names",
            subject,
            f"{told} tells clients names (cluster-preferred-endpoint-type hostname), and the name of a stand-in leads "
            "nowhere, because no Service has it",
            "set cluster-preferred-endpoint-type to ip on every pod, or accept it where clients use other names: "
            "accept: redis-endpoint-names",
        )
    if found := next(((m, node) for m, node in _nodes(seen) if _announces_another(m, node)), None):
        member, node = found
        yield blocks(
            "redis-announced-address",
            subject,
            f"{member} announces {node.announced} (cluster-announce-ip), which is not its pod's address: its stand-in, "
            "made of the same template, would announce one where the pod is, or where nobody is",
            "announce pods' own addresses (status.podIP), or accept it where the template gives a stand-in an address "
            "that leads to it: accept: redis-announced-address",
        )
    slowest = max((t for t in timeouts if t is not None), default=0)
    if slowest > LONGEST_NODE_TIMEOUT_MS:
        yield note(
            "redis-node-timeout",
            subject,
            f"cluster-node-timeout is {slowest}: if a master died, its slots would be unserved for longer than that",
            "lower it, e.g. to 5000",
        )


def _nodes(seen: RedisClusterState) -> Iterator[tuple[ClusterPod, ClusterNode]]:
    for member in seen.pods:
        if isinstance(member.node, ClusterNode):
            yield member, member.node


def _announces_another(member: ClusterPod, node: ClusterNode) -> bool:
    own = member.endpoint.address.host if member.endpoint else ""
    return node.announced != "" and Address(node.announced).host != own


def _abilities(subject: str, seen: RedisClusterState, not_needed: frozenset[str]) -> Iterator[Finding]:
    for member, node in _nodes(seen):
        if needed := sorted(node.server.denied - not_needed):
            yield blocks(
                "redis-commands",
                subject,
                f"{member} does not know or permit {', '.join(needed)}",
                "grant them to the roll's user as deploy/README.md lists, and do not rename them",
            )
        if node.server.can_follow is False:
            yield blocks(
                "redis-masterauth",
                subject,
                f"{member} has no masterauth, so it could not replicate from its stand-in",
                "set masterauth on every pod of the cluster",
            )


def _copies(subject: str, seen: RedisClusterState, zones: dict[str, str]) -> Iterator[Finding]:
    for member in seen.pods:
        if member.pod is not None and not member.pod.claims:
            yield holds(
                "redis-no-volume",
                subject,
                f"{member} has no volume, so it comes back as a new node with another id",
                "give its StatefulSet a volumeClaimTemplate for the directory of nodes.conf",
            )
    for member, node in _nodes(seen):
        if node.itself.role is Role.MASTER and not node.itself.slots:
            yield note(
                "redis-no-slots", subject, f"{member} is a master without slots", "nothing: it moves without failover"
            )
    shards: defaultdict[str, list[ClusterPod]] = defaultdict(list)
    for member, node in _nodes(seen):
        shards[node.id if node.itself.role is Role.MASTER else node.itself.master].append(member)
    for copies in shards.values():
        places = {zones.get(m.name, "") for m in copies}
        if len(copies) > 1 and len(places) == 1:
            names = " and ".join(str(m) for m in copies)
            yield note("redis-one-zone", subject, f"{names} are in {places.pop()}", "keep a replica in another zone")


def describe_cluster(seen: RedisClusterState, zones: dict[str, str]) -> list[dict[str, Any]]:
    """The cluster's nodes as the plan's document has them; addresses and roles as each says itself."""
    return [_node(member, zones) for member in seen.pods]


def _node(member: ClusterPod, zones: dict[str, str]) -> dict[str, Any]:
    about = {"pod": member.name, "node": member.pod.node if member.pod else "", "zone": zones.get(member.name, "")}
    match member.node:
        case ClusterNode() as node:
            server = node.server
            return about | {
                "id": node.id,
                "role": "master" if node.itself.role is Role.MASTER else "replica",
                "master": node.itself.master,
                "slots": sum(last - first + 1 for first, last in node.itself.slots),
                "version": f"{server.flavor} {'.'.join(map(str, server.version))}",
                "in_sync": node.itself.role is Role.MASTER or (server.link_up and not server.syncing),
                "keys": server.keys,
                "used_bytes": server.used_bytes,
                "persists": server.persists,
                "full_coverage": node.full_coverage,
                "node_timeout_ms": node.node_timeout_ms,
                "announces": node.announced,
                "migrates_replicas": node.migrates_replicas,
            }
        case Silent(_, reason):
            return about | {"role": "unknown", "reason": reason}
        case None:
            return about | {"role": "absent"}
