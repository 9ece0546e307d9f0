"""Looks at a Redis Cluster, and does what `cluster.decide` says."""

from contextlib import suppress
from dataclasses import replace
from typing import assert_never

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied, NotFound
from eks_rolling.migration.asking import Asking
from eks_rolling.migration.polling import asked_after, behind, within
from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.redis import ClusterNode, Endpoint, Role, Silent
from eks_rolling.redis import stand_in
from eks_rolling.redis.actions import Done, RedisHold, Settled, Stop
from eks_rolling.redis.cluster import (
    Action,
    ClusterPod,
    Copy,
    CreateStandIn,
    DeletePod,
    FailOver,
    Forget,
    Greet,
    LetBeElected,
    Meet,
    Original,
    RedisClusterState,
    Replicate,
    has_heard,
)
from eks_rolling.redis.groups import PartSet, RedisGroup, endpoint_of

TAKE_OVER_SECONDS = 5.0
"""Redis gives a manual failover up after 5 s; it takes 60 to 70 ms."""

HEARD_SECONDS = 2.0
"""A greeting is sent with the speaker's next tick, a tenth of a second away, and answered at once. By the end of this
gossip has mostly told everybody, too."""

SILENT_SECONDS = 0.1
"""After a greeting. Links between nodes hold a second packet back until the first is acknowledged, up to 40 ms: news of
a failover right after it would come after the former master's own, and slots seem unserved for as long [C1]."""

LISTEN_SECONDS = 0.05
"""Between two looks at whether it was heard: each costs every node a dozen commands."""


def observe(group: RedisGroup, node: str, clients: Clients, waited: float = 0.0) -> RedisClusterState:
    """The cluster, node by node, as each sees it. Raises AccessDenied, NotFound, Permanent, Transient."""
    ask = Asking(clients)
    pods = [member for part_set in group.sets for member in _members(part_set, clients, ask)]
    stand_ins = []
    for pod in sorted(clients.kubernetes.stand_ins(group.namespace, group.name), key=lambda p: p.name):
        original = _original(pod)
        part_set = next((s for s in group.sets if original and original.pod in s.pods), group.sets[0])
        stand_ins.append(_member(part_set, pod.name, pod, original, clients, ask))
    everyone = pods + stand_ins
    pods, stand_ins = _asked_after(pods, everyone, clients, ask), _asked_after(stand_ins, everyone, clients, ask)
    return RedisClusterState(group, tuple(pods), tuple(stand_ins), node, waited)


def _asked_after(
    members: list[ClusterPod], everyone: list[ClusterPod], clients: Clients, ask: Asking
) -> list[ClusterPod]:
    """The members, those that seem far behind their masters by what they have reached by now."""
    reached = {m.node.id: m.node.server.offset for m in everyone if isinstance(m.node, ClusterNode)}
    found = []
    for member in members:
        node = member.node
        if isinstance(node, ClusterNode) and member.endpoint is not None and not ask.late:
            server = asked_after(node.server, member.endpoint, reached.get(node.itself.master, 0), clients)
            member = replace(member, node=replace(node, server=server))
        found.append(member)
    return found


def _members(part_set: PartSet, clients: Clients, ask: Asking) -> list[ClusterPod]:
    workload = clients.kubernetes.workload(part_set.owner)
    if workload is None:
        raise NotFound(f"{part_set.owner} is gone while its Redis Cluster is migrated: create it again.")
    pods = {p.name: p for p in clients.kubernetes.pods_of(workload) if p.owner == part_set.owner}
    return [_member(part_set, name, pods.get(name), None, clients, ask) for name in part_set.pods]


def _member(
    part_set: PartSet, name: str, pod: Pod | None, original: Original | None, clients: Clients, ask: Asking
) -> ClusterPod:
    endpoint: Endpoint | None = None
    if pod is not None and pod.address and not pod.finished:
        endpoint = endpoint_of(part_set, name, pod.address)
    node: ClusterNode | Silent | None = ask(endpoint, clients.redis.cluster_node) if endpoint else None
    return ClusterPod(name, pod, endpoint, node, original)


def _original(pod: Pod) -> Original | None:
    written = [pod.annotations.get(key, "") for key in (stand_in.FOR_POD, stand_in.FOR_ID, stand_in.FOR_ROLE)]
    if not all(written) or written[2].upper() not in Role.__members__:
        return None
    return Original(written[0], written[1], Role[written[2].upper()])


def perform(action: Action, clients: Clients) -> Done:
    """One action, under the precondition that what it was decided on is still so. Answers what was done."""
    redis = clients.redis
    if late := _late(_needed(action), clients):
        return Done(late, acted=False)
    match action:
        case CreateStandIn():
            return _create(action, clients)
        case Meet(by, newcomer):
            # CLUSTER MEET takes no names, and the pod's address is what the others reach it by.
            assert newcomer.endpoint is not None  # noqa: S101 (it answered)
            endpoint, node = _known(by)
            known = newcomer.node if isinstance(newcomer.node, ClusterNode) else None
            redis.meet(endpoint, node.server, newcomer.endpoint.address, known.bus_port if known else None)
        case Greet(speaker, hearers):
            _greet(speaker, hearers, clients)
        case Replicate():
            _replicate(action, clients)
        case LetBeElected(member):
            endpoint, node = _known(member)
            redis.set_electable(endpoint, node.server, electable=True)
        case FailOver(member):
            return _take_over(member, action.reason, clients)
        case DeletePod(pod):
            clients.kubernetes.delete_pod(pod)
        case Forget(members, node_id, leaving):
            _forget(members, node_id, leaving, clients)
        case RedisHold() | Stop() | Settled():
            pass
        case _:
            assert_never(action)
    return Done(action.reason)


def _create(action: CreateStandIn, clients: Clients) -> Done:
    member, original = action.member, action.original
    assert member.pod is not None  # noqa: S101 (decided on)
    assert member.pod.owner is not None  # noqa: S101 (a StatefulSet's)
    workload = clients.kubernetes.workload(member.pod.owner)
    if workload is None:
        raise NotFound(f"{member.pod.owner} is gone while its Redis Cluster is migrated: create it again.")
    node = clients.kubernetes.node(member.pod.node)
    marks = stand_in.marks(original.pod, original.id, original.role)
    if denied := clients.kubernetes.create_stand_in(workload, member.pod, node.zone if node else "", marks):
        return Done(f"no stand-in can be made for {member}: {denied}", acted=False)
    return Done(action.reason)


def _greet(speaker: ClusterPod, hearers: tuple[ClusterPod, ...], clients: Clients) -> None:
    """CLUSTER MEET of each hearer by the speaker: the packet says what the speaker is, and is believed at once, by who
    knows it, too (cluster.c, clusterProcessPacket). Waits until they have heard; gossip goes on beside it."""
    endpoint, node = _known(speaker)
    for hearer in hearers:
        there, hears = _known(hearer)
        clients.redis.meet(endpoint, node.server, there.address, hears.bus_port)

    def heard() -> bool:
        speaks = clients.redis.cluster_node(endpoint)
        return isinstance(speaks, ClusterNode) and all(
            isinstance(other := clients.redis.cluster_node(_known(each)[0]), ClusterNode)
            and other.knows(speaks.id) is not None
            and speaks.knows(other.id) is not None
            and has_heard(other, speaks)
            for each in hearers
        )

    within(HEARD_SECONDS, heard, clients, every=LISTEN_SECONDS)
    clients.sleep(SILENT_SECONDS)


def _replicate(action: Replicate, clients: Clients) -> None:
    endpoint, node = _known(action.member)
    if action.held_back:
        # Not asked of roles that may not: who may set this may set anything.
        with suppress(AccessDenied):
            clients.redis.set_electable(endpoint, node.server, electable=False)
    clients.redis.replicate(endpoint, node.server, action.master_id)


def _take_over(member: ClusterPod, reason: str, clients: Clients) -> Done:
    """Waits for the end: another request would restart what is under way."""
    endpoint, node = _known(member)
    began = clients.now()
    clients.redis.take_over(endpoint, node.server)
    if not within(TAKE_OVER_SECONDS, lambda: clients.redis.offset(endpoint)[0] is Role.MASTER, clients):
        return Done(f"{member} did not become master within {TAKE_OVER_SECONDS:.0f} s; tried again later")
    stall = clients.now() - began
    return Done(f"{reason} (within {stall:.2f} s)", stall, failed_over=True)


def _needed(action: Action) -> tuple[Copy, ...]:
    """The replicas that have to get what their masters write before the action is done."""
    match action:
        case LetBeElected(member, master) | FailOver(member, master):
            return (Copy(member, master),)
        case DeletePod(copies=copies) | Forget(copies=copies):
            return copies
        case _:
            return ()


def _late(copies: tuple[Copy, ...], clients: Clients) -> str:
    """Which replica does not get to where its master is now; "" if all do."""
    for copy in copies:
        (endpoint, _), (source, _) = _known(copy.replica), _known(copy.master)
        if late := behind(copy.replica, endpoint, copy.master, source, clients):
            return late
    return ""


def _forget(members: tuple[ClusterPod, ...], node_id: str, leaving: ClusterPod | None, clients: Clients) -> None:
    """By all within the 60 s for which each bans the id, or gossip brings it back (redis.io, CLUSTER FORGET)."""
    for member in members:
        endpoint, _ = _known(member)
        clients.redis.forget(endpoint, node_id)
    if leaving is not None:
        endpoint, node = _known(leaving)
        clients.redis.leave_cluster(endpoint, node.server)


def _known(member: ClusterPod) -> tuple[Endpoint, ClusterNode]:
    assert member.endpoint is not None  # noqa: S101 (decided on)
    assert isinstance(member.node, ClusterNode)  # noqa: S101 (decided on)
    return member.endpoint, member.node
