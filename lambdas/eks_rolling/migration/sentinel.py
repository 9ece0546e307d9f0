"""Looks at a Sentinel group, and does what `sentinel.decide` says."""

from typing import assert_never

from eks_rolling.clients.protocols import Clients, EvictionStatus
from eks_rolling.errors import NotFound
from eks_rolling.migration.handover import lead, switch, take_back
from eks_rolling.observed.kubernetes import Node, Pod
from eks_rolling.observed.redis import Endpoint, Sentinel, Server, Silent
from eks_rolling.redis.actions import Done, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import Part, PartSet, RedisGroup, RefreshBy, endpoint_of
from eks_rolling.redis.sentinel import (
    AbortHandover,
    Action,
    Follow,
    MovePod,
    RedisPod,
    Refresh,
    RepointSentinels,
    SentinelGroupState,
    SentinelPod,
    SetPromotionPriority,
    Switch,
)

PRIORITY = "eks-rolling.io/original-replica-priority"
"""On a pod whose replica priority was changed: what it was."""


def observe(group: RedisGroup, node: str, clients: Clients, waited: float = 0.0) -> SentinelGroupState:
    """The group, server by server and sentinel by sentinel. Raises AccessDenied, NotFound, Transient."""
    pods = {s.owner: _pods_of(s, clients) for s in group.sets}
    names = {p.node for of_set in pods.values() for p in of_set.values() if p.node}
    nodes = {name: clients.kubernetes.node(name) for name in sorted(names)}
    members = [
        _member(part_set, name, pods[part_set.owner].get(name), nodes, clients)
        for part_set in (*group.of(Part.MASTER), *group.of(Part.REPLICA))
        for name in part_set.pods
    ]
    watchers = [
        _watcher(part_set, name, pods[part_set.owner].get(name), group, clients)
        for part_set in group.of(Part.SENTINEL)
        for name in part_set.pods
    ]
    return SentinelGroupState(group, tuple(members), tuple(watchers), node, waited)


def _pods_of(part_set: PartSet, clients: Clients) -> dict[str, Pod]:
    workload = clients.kubernetes.workload(part_set.owner)
    if workload is None:
        raise NotFound(f"{part_set.owner} is gone while its Redis group is migrated: create it again.")
    return {p.name: p for p in clients.kubernetes.pods_of(workload) if p.owner == part_set.owner}


def _reachable(part_set: PartSet, pod: Pod | None) -> Endpoint | None:
    if pod is None or not pod.address or pod.finished:
        return None
    return endpoint_of(part_set, pod.name, pod.address)


def _member(part_set: PartSet, name: str, pod: Pod | None, nodes: dict[str, Node | None], clients: Clients) -> RedisPod:
    endpoint = _reachable(part_set, pod)
    server: Server | Silent | None = clients.redis.server(endpoint) if endpoint else None
    node = nodes.get(pod.node) if pod else None
    original = pod.annotations.get(PRIORITY) if pod else None
    return RedisPod(
        name,
        part_set.part,
        pod,
        endpoint,
        server,
        int(original) if original is not None else None,
        leaving=node is not None and node.roll_taint is not None,
    )


def _watcher(part_set: PartSet, name: str, pod: Pod | None, group: RedisGroup, clients: Clients) -> SentinelPod:
    endpoint = _reachable(part_set, pod)
    view: Sentinel | Silent | None = clients.redis.sentinel(endpoint, group.master_name) if endpoint else None
    return SentinelPod(name, pod, endpoint, view)


def perform(action: Action, seen: SentinelGroupState, clients: Clients) -> Done:
    """One action, under the precondition that what it was decided on is still so. Answers what was done."""
    redis, name = clients.redis, seen.group.master_name
    match action:
        case SetPromotionPriority(member, server, priority, mark):
            pod, endpoint = _known(member)
            if mark is not None:
                clients.kubernetes.annotate_pod(pod, {PRIORITY: str(mark)})
            redis.set_priority(endpoint, server, priority)
            if mark is None:
                clients.kubernetes.annotate_pod(pod, {PRIORITY: None})
        case Switch():
            return switch(action, seen.watchers, name, clients)
        case RepointSentinels():
            said = lead(action, seen.watchers, name, clients)
            return Done(said, failed_over=said == action.reason)
        case AbortHandover(old, new):
            take_back(old, new, seen.watchers, clients)
        case Follow(member, server, master):
            redis.follow(_known(member)[1], server, master.known_as)
        case MovePod(pod):
            return Done(_move(action, pod, clients))
        case Refresh(watcher):
            assert watcher.endpoint is not None  # noqa: S101 (it answered)
            assert watcher.pod is not None  # noqa: S101 (it answered)
            if seen.group.refresh_by is RefreshBy.RESTART:
                return Done(_evict(watcher.pod, action.reason, clients))
            redis.reset(watcher.endpoint, name)
        case RedisHold() | Stop() | Settled():
            pass
        case _:
            assert_never(action)
    return Done(action.reason)


def _move(action: MovePod, pod: Pod, clients: Clients) -> str:
    if action.step is RedisStep.MOVE_MASTER:
        # A budget of one pod would never allow it; its role has been moved away, and that was verified [N1].
        clients.kubernetes.delete_pod(pod)
        return action.reason
    return _evict(pod, action.reason, clients)


def _evict(pod: Pod, reason: str, clients: Clients) -> str:
    answered = clients.kubernetes.evict(pod)
    if answered.status in {EvictionStatus.REFUSED, EvictionStatus.FORBIDDEN_BY_TWO_BUDGETS}:
        return f"pod {pod}: {answered.reason}"
    return reason


def _known(member: RedisPod) -> tuple[Pod, Endpoint]:
    assert member.pod is not None  # noqa: S101 (decided on)
    assert member.endpoint is not None  # noqa: S101 (decided on)
    return member.pod, member.endpoint
