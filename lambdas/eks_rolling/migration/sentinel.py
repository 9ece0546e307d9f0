"""Looks at a Sentinel group, and does what `sentinel.decide` says."""

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import NotFound
from eks_rolling.migration.asking import Asking
from eks_rolling.migration.handover import cut_off, switch, take_back, tell, untold
from eks_rolling.migration.learning import learn
from eks_rolling.migration.polling import asked_after, behind
from eks_rolling.observed.kubernetes import Node, Pod
from eks_rolling.observed.redis import Endpoint, Role, Sentinel, Server, Silent
from eks_rolling.redis.actions import Done, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import Part, PartSet, RedisGroup, RefreshBy, endpoint_of
from eks_rolling.redis.sentinel import (
    Action,
    AskAsBefore,
    AskSooner,
    CutOff,
    Follow,
    MovePod,
    RedisPod,
    Refresh,
    RepointSentinels,
    SentinelGroupState,
    SentinelPod,
    Switch,
    TakeBack,
)

SWITCHING = "eks-rolling.io/hands-over"
"""On the pod of a master that is about to hand over, until its clients have been cut off."""


def observe(group: RedisGroup, node: str, clients: Clients, waited: float = 0.0) -> SentinelGroupState:
    """The group, server by server and sentinel by sentinel. Raises AccessDenied, NotFound, Transient."""
    pods = {s.owner: _pods_of(s, clients) for s in group.sets}
    names = {p.node for of_set in pods.values() for p in of_set.values() if p.node}
    nodes = {name: clients.kubernetes.node(name) for name in sorted(names)}
    ask = Asking(clients)
    members = [
        _member(part_set, name, pods[part_set.owner].get(name), nodes, clients, ask)
        for part_set in (*group.of(Part.MASTER), *group.of(Part.REPLICA))
        for name in part_set.pods
    ]
    watchers = [
        _watcher(part_set, name, pods[part_set.owner].get(name), group, clients, ask)
        for part_set in group.of(Part.SENTINEL)
        for name in part_set.pods
    ]
    return SentinelGroupState(group, tuple(_asked_after(members, clients, ask)), tuple(watchers), node, waited)


def _asked_after(members: list[RedisPod], clients: Clients, ask: Asking) -> Iterator[RedisPod]:
    """The members, those that seem far behind by what they have reached by now."""
    masters = [m.server.offset for m in members if isinstance(m.server, Server) and m.server.role is Role.MASTER]
    for member in members:
        asks = len(masters) == 1 and not ask.late
        if asks and isinstance(member.server, Server) and member.endpoint is not None:
            yield replace(member, server=asked_after(member.server, member.endpoint, masters[0], clients))
        else:
            yield member


def _pods_of(part_set: PartSet, clients: Clients) -> dict[str, Pod]:
    workload = clients.kubernetes.workload(part_set.owner)
    if workload is None:
        raise NotFound(f"{part_set.owner} is gone while its Redis group is migrated: create it again.")
    return {p.name: p for p in clients.kubernetes.pods_of(workload) if p.owner == part_set.owner}


def _reachable(part_set: PartSet, pod: Pod | None) -> Endpoint | None:
    if pod is None or not pod.address or pod.finished:
        return None
    return endpoint_of(part_set, pod.name, pod.address)


def _member(
    part_set: PartSet, name: str, pod: Pod | None, nodes: dict[str, Node | None], clients: Clients, ask: Asking
) -> RedisPod:
    endpoint = _reachable(part_set, pod)
    server: Server | Silent | None = ask(endpoint, clients.redis.server) if endpoint else None
    node = nodes.get(pod.node) if pod else None
    return RedisPod(
        name,
        part_set.part,
        pod,
        endpoint,
        server,
        part_set=part_set,
        handing_over=pod is not None and SWITCHING in pod.annotations,
        leaving=node is not None and node.roll_taint is not None,
    )


def _watcher(
    part_set: PartSet, name: str, pod: Pod | None, group: RedisGroup, clients: Clients, ask: Asking
) -> SentinelPod:
    endpoint, master = _reachable(part_set, pod), group.master_name
    view: Sentinel | Silent | None = None
    if endpoint:
        view = ask(endpoint, lambda watcher: clients.redis.sentinel(watcher, master))
    return SentinelPod(name, pod, endpoint, view)


def perform(action: Action, seen: SentinelGroupState, clients: Clients) -> Done:
    """One action, under the precondition that what it was decided on is still so. Answers what was done."""
    redis = clients.redis
    match action:
        case Switch():
            return _switch(action, seen, clients)
        case TakeBack(old, server):
            assert old.endpoint is not None  # noqa: S101 (it answered)
            take_back(old.endpoint, server, clients)
        case RepointSentinels(old, new):
            if not tell(old, new, seen, clients):
                return Done(untold(new), untold=True)
            _mark(old.pod, None, clients)
            return Done(action.reason, failed_over=True)
        case CutOff(old, is_master):
            if not is_master:
                cut_off(old, clients)
            _mark(old.pod, None, clients)
        case Follow(member, server, master):
            assert member.endpoint is not None  # noqa: S101 (decided on)
            redis.follow(member.endpoint, server, master.known_as)
        case MovePod(pod):
            return _move(action, pod, seen, clients)
        case Refresh(watcher, by=RefreshBy.RESTART):
            assert watcher.pod is not None  # noqa: S101 (it answered)
            return _evict(watcher.pod, action.reason, clients)
        case Refresh() | AskSooner() | AskAsBefore():
            return learn(action, seen, clients)
        case RedisHold() | Stop() | Settled():
            pass
        case _:
            assert_never(action)
    return Done(action.reason)


def _switch(action: Switch, seen: SentinelGroupState, clients: Clients) -> Done:
    """With a mark on the pod, so that whoever finds the roles changed knows that its clients may not have been cut off:
    to a client that has a connection a replica looks like a master that refuses every write. It stays until every
    sentinel names the new master: until then one of them may lead a client to the old one."""
    marked = _mark(action.old.pod, "true", clients)
    done = switch(action, seen, clients)
    if not done.untold:
        _mark(marked, None, clients)
    return done


def _mark(pod: Pod | None, value: str | None, clients: Clients) -> Pod | None:
    if pod is None or pod.annotations.get(SWITCHING) == value:
        return pod
    return clients.kubernetes.annotate_pod(pod, {SWITCHING: value})


def _move(action: MovePod, pod: Pod, seen: SentinelGroupState, clients: Clients) -> Done:
    if action.step is not RedisStep.MOVE_SENTINEL and (late := _late(pod, seen, clients)):
        return Done(late, acted=False)
    if action.step is RedisStep.MOVE_MASTER:
        # A budget of one pod would never allow it; its role has been moved away, and that was verified [N1].
        clients.kubernetes.delete_pod(pod)
        return Done(action.reason)
    return _evict(pod, action.reason, clients)


def _late(leaving: Pod, seen: SentinelGroupState, clients: Clients) -> str:
    """Which other replica does not get to where the master is now; "" if all do. Once `leaving` has gone it may be the
    only copy, and right after a synchronization the master may send it nothing for a second [S1]."""
    masters = [m for m in seen.members if isinstance(m.server, Server) and m.server.role is Role.MASTER]
    for member in seen.members:
        if member in masters or member.pod is None or member.pod.uid == leaving.uid:
            continue
        for master in masters:
            assert member.endpoint is not None  # noqa: S101 (all answered)
            assert master.endpoint is not None  # noqa: S101 (all answered)
            if late := behind(member, member.endpoint, master, master.endpoint, clients):
                return late
    return ""


def _evict(pod: Pod, reason: str, clients: Clients) -> Done:
    answered = clients.kubernetes.evict(pod)
    if not answered.granted:
        return Done(f"pod {pod}: {answered.reason}", acted=False)
    return Done(reason)
