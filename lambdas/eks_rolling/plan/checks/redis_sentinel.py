"""What a plan says of Redis groups: who is what, and everything that would block, hold or hurt a migration."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eks_rolling.documents.finding import Finding, blocks, holds, note
from eks_rolling.observed.kubernetes import Owner
from eks_rolling.observed.redis import Role, Sentinel, Server, Silent
from eks_rolling.plan.checks.redis_cluster import cluster_findings, describe_cluster
from eks_rolling.redis import cluster, sentinel
from eks_rolling.redis.actions import Settled
from eks_rolling.redis.groups import DeclarationProblem, Part, RedisGroup
from eks_rolling.redis.room import too_small
from eks_rolling.redis.sentinel import RedisPod, SentinelGroupState, SentinelPod

ACCEPTABLE = frozenset({"redis-one-zone", "redis-min-replicas", "redis-one-copy", "redis-shared-sentinels"})
"""Codes of blockers that a person may accept."""

OLDEST = (6, 2)
"""The first version with CLIENT PAUSE for writes alone (redis.io, command reference)."""

LONGEST_DOWN_AFTER_MS = 30_000

NAMED = 3
"""So many other masters are in a finding."""

SHORTEST_DOWN_AFTER_MS = 2_000
"""A switch pauses writes for half of it at most, and a second is the least that it needs to be sure of its end."""

NOT_NEEDED = frozenset({"ACL DRYRUN", "ACL GETUSER", "COMMAND INFO"})
"""What the plan asks after permissions with; where it may not, it does not know, and a migration does without."""


@dataclass(frozen=True, slots=True)
class RedisView:
    """A declared group as the plan found it; `seen` is None if it cannot be read, and `fault` says why."""

    group: RedisGroup
    seen: SentinelGroupState | cluster.RedisClusterState | None = None
    fault: str = ""
    begun_by: str = ""
    """The roll that began to migrate it and did not finish."""
    zones: tuple[tuple[str, str], ...] = ()
    """Pod -> zone."""


def redis_findings(
    views: Iterable[RedisView], problems: Sequence[DeclarationProblem], moving: set[Owner | None]
) -> Iterator[Finding]:
    """Findings about every group that has pods among those that will move, and about every wrong declaration."""
    for problem in problems:
        if problem.owners & moving:
            yield blocks("redis-declaration", problem.object, problem.reason, problem.remedy)
        else:
            yield note("redis-declaration", problem.object, problem.reason, problem.remedy)
    for view in views:
        if not any(view.group.part_set(owner) for owner in moving):
            continue
        subject = f"Redis group {view.group}"
        if view.seen is None:
            yield blocks("redis-access", subject, view.fault, "grant the functions what deploy/README.md lists")
            continue
        yield from _health(subject, view, view.seen)
        if isinstance(view.seen, cluster.RedisClusterState):
            yield from cluster_findings(subject, view.seen, dict(view.zones), NOT_NEEDED)
            continue
        yield from _abilities(subject, view.seen)
        yield from _copies(subject, view, view.seen)
        yield from _settings(subject, view.seen)


def _due(seen: SentinelGroupState | cluster.RedisClusterState) -> sentinel.Action | cluster.Action:
    return cluster.decide(seen) if isinstance(seen, cluster.RedisClusterState) else sentinel.decide(seen)


def _health(subject: str, view: RedisView, seen: SentinelGroupState | cluster.RedisClusterState) -> Iterator[Finding]:
    action = _due(seen)
    if isinstance(action, Settled):
        return
    if view.begun_by:
        reason = f"{view.begun_by} left it half moved ({action.reason})"
        yield holds("redis-half-moved", subject, reason, "nothing: this roll finishes its migration first")
    else:
        yield blocks("redis-not-healthy", subject, action.reason, "bring the group back to normal, then roll")


def _servers(seen: SentinelGroupState) -> Iterator[tuple[RedisPod, Server]]:
    for member in seen.members:
        if isinstance(member.server, Server):
            yield member, member.server


def _views(seen: SentinelGroupState) -> Iterator[tuple[SentinelPod, Sentinel]]:
    for watcher in seen.watchers:
        if isinstance(watcher.view, Sentinel):
            yield watcher, watcher.view


def _abilities(subject: str, seen: SentinelGroupState) -> Iterator[Finding]:
    for member, server in _servers(seen):
        if server.version < OLDEST:
            version = ".".join(map(str, server.version))
            yield blocks(
                "redis-too-old",
                subject,
                f"{member} runs {server.flavor} {version}, which cannot hand its role over without losing writes",
                "upgrade it to 6.2 or newer first",
            )
        yield from _denied(subject, member, server.denied)
        if server.can_follow is False:
            yield blocks(
                "redis-masterauth",
                subject,
                f"{member} has no masterauth, so it could not replicate from another master",
                "set masterauth on every pod of the group, the master pod included",
            )
        if server.read_only is False:
            yield blocks(
                "redis-writable-replica",
                subject,
                f"{member} takes writes as a replica (replica-read-only no): those that reach it once it has handed "
                "over would be lost",
                "set replica-read-only to yes on every pod of the group",
            )
    for watcher, view in _views(seen):
        yield from _denied(subject, watcher, view.denied)


def _denied(subject: str, of: RedisPod | SentinelPod, denied: frozenset[str]) -> Iterator[Finding]:
    needed = sorted(denied - NOT_NEEDED)
    if needed:
        yield blocks(
            "redis-commands",
            subject,
            f"{of} does not know or permit {', '.join(needed)}",
            "grant them to the roll's user as deploy/README.md lists, and do not rename them",
        )


def _copies(subject: str, view: RedisView, seen: SentinelGroupState) -> Iterator[Finding]:
    replicas = [m for m in seen.members if m.part is Part.REPLICA]
    zones = {zone for pod, zone in view.zones if any(m.name == pod for m in seen.members)}
    if len(zones) == 1:
        yield blocks(
            "redis-one-zone",
            subject,
            f"its master and all its replicas are in {next(iter(zones))}",
            "keep replicas in another zone, or accept it with accept: redis-one-zone",
        )
    if len(replicas) == 1:
        yield holds(
            "redis-one-copy",
            subject,
            f"{replicas[0]} is its only replica: while a pod moves there is one copy of the data",
            "add a replica",
        )
    needed = max((s.min_replicas_to_write or 0 for _, s in _servers(seen)), default=0)
    if needed > len(replicas) - 1:
        yield blocks(
            "redis-min-replicas",
            subject,
            f"min-replicas-to-write is {needed}: with one of {len(replicas)} replicas away, writes would stop",
            "add a replica, or accept it with accept: redis-min-replicas",
        )
    yield from _room(subject, seen)
    if replicas and not any(s.priority for m, s in _servers(seen) if m.part is Part.REPLICA):
        yield blocks(
            "redis-priority",
            subject,
            "every replica has priority 0, so none can be promoted",
            "give at least one a replica-priority above 0",
        )


def _room(subject: str, seen: SentinelGroupState) -> Iterator[Finding]:
    master = next((s for _, s in _servers(seen) if s.role is Role.MASTER), None)
    if master is None:
        return
    able = [(m, s) for m, s in _servers(seen) if m.part is Part.REPLICA and s.priority]
    reasons = [too_small(str(m), s, master) for m, s in able]
    if reasons and all(reasons):
        yield blocks("redis-maxmemory", subject, reasons[0], "give it the limit that its master has")


def _settings(subject: str, seen: SentinelGroupState) -> Iterator[Finding]:
    views = [v for _, v in _views(seen)]
    quorum = max((v.quorum for v in views), default=0)
    if len(seen.watchers) - 1 < max(quorum, len(seen.watchers) // 2 + 1):
        yield holds(
            "redis-quorum",
            subject,
            f"{len(seen.watchers)} sentinels, quorum {quorum}: while one moves, no failover would be possible",
            "run at least three sentinels with a quorum of two",
        )
    if shared := next(((w, v.beside) for w, v in _views(seen) if v.beside), None):
        watcher, beside = shared
        yield blocks(
            "redis-shared-sentinels",
            subject,
            f"sentinel {watcher} also monitors {' and '.join(beside[:NAMED])}: for these masters, the other "
            "sentinels would keep listing it after it has moved, and count it as a missing vote",
            "give each master sentinels of its own, or accept it and send SENTINEL RESET for these masters to one "
            "sentinel after the other when the roll has ended: accept: redis-shared-sentinels",
        )
    slowest = max((v.down_after_ms for v in views), default=0)
    if slowest >= LONGEST_DOWN_AFTER_MS:
        yield note(
            "redis-down-after",
            subject,
            f"down-after-milliseconds is {slowest}: if the master died, writes would fail for longer than that",
            "lower it, e.g. to 5000",
        )
    fastest = min((v.down_after_ms for v in views), default=SHORTEST_DOWN_AFTER_MS)
    if fastest < SHORTEST_DOWN_AFTER_MS:
        yield blocks(
            "redis-down-after",
            subject,
            f"down-after-milliseconds is {fastest}: a pause of writes would already look like a dead master",
            f"raise it to {SHORTEST_DOWN_AFTER_MS} or more",
        )
    for member, server in _servers(seen):
        if member is seen.home and server.persists is False:
            yield note(
                "redis-no-persistence",
                subject,
                f"{member} persists nothing: restarted in place it would come back empty, and its replicas with it",
                "make its down-after-milliseconds shorter than a restart, or turn on appendonly",
            )


def describe(view: RedisView) -> dict[str, Any]:
    """The group as the plan's document has it: pods, and what they and every sentinel say."""
    kind = "cluster" if view.group.is_cluster else "sentinel"
    about: dict[str, Any] = {"group": str(view.group), "kind": kind}
    if view.seen is None:
        return about | {"fault": view.fault}
    seen, zones = view.seen, dict(view.zones)
    about["healthy"] = isinstance(_due(seen), Settled)
    if isinstance(seen, cluster.RedisClusterState):
        return about | {"servers": describe_cluster(seen, zones)}
    return about | {
        "master_name": view.group.master_name,
        "servers": [_server(m, zones) for m in seen.members],
        "sentinels": [_sentinel(w, zones) for w in seen.watchers],
    }


def _server(member: RedisPod, zones: dict[str, str]) -> dict[str, Any]:
    about = {"pod": member.name, "node": member.pod.node if member.pod else "", "zone": zones.get(member.name, "")}
    match member.server:
        case Server() as server:
            return about | {
                "role": "master" if server.role is Role.MASTER else "replica",
                "version": f"{server.flavor} {'.'.join(map(str, server.version))}",
                "in_sync": server.role is Role.MASTER or (server.link_up and not server.syncing),
                "keys": server.keys,
                "used_bytes": server.used_bytes,
                "priority": server.priority,
                "persists": server.persists,
                "min_replicas_to_write": server.min_replicas_to_write,
                "announces": server.announced,
            }
        case Silent(_, reason):
            return about | {"role": "unknown", "reason": reason}
        case None:
            return about | {"role": "absent"}


def _sentinel(watcher: SentinelPod, zones: dict[str, str]) -> dict[str, Any]:
    about = {"pod": watcher.name, "node": watcher.pod.node if watcher.pod else "", "zone": zones.get(watcher.name, "")}
    match watcher.view:
        case Sentinel() as view:
            return about | {
                "master": str(view.current or ""),
                "replicas": [str(r.address) for r in view.replicas],
                "sentinels": len(view.sentinels) + 1,
                "quorum": view.quorum,
                "down_after_ms": view.down_after_ms,
                "failover_timeout_ms": view.failover_timeout_ms,
                "resolves_names": view.resolves_names,
                "announces_names": view.announces_names,
            }
        case Silent(_, reason):
            return about | {"reason": reason}
        case None:
            return about | {"reason": "absent"}
