"""What a Redis Cluster needs next: one pure function from what was observed to one action with a reason.

A pod leaves its node behind a stand-in [C1]: a temporary pod joins as a replica of the pod's shard and gets its data;
if the pod is a master the stand-in becomes master in its place; the pod is deleted, and returns on a new node with its
volume and its id; it synchronizes, and becomes master again if it was one; the stand-in is forgotten by all, reset and
deleted.
A cluster that is found half way, whoever left it so, is brought back to normal before anything else is begun [C2].
"""

from collections.abc import Iterator
from dataclasses import dataclass

from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.redis import ClusterNode, Endpoint, KnownNode, Role, Silent
from eks_rolling.redis.actions import NEAR_BYTES, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import RedisGroup
from eks_rolling.redis.sync_progress import synchronizing

SLOTS = 16384

GOSSIP_SECONDS = 8.0
"""A node's new address is known everywhere by then: gossip takes 2 to 5 s. After that it is introduced anew."""

REDIRECT_SECONDS = 5.0
"""For so long a stand-in that was master stays a replica: whoever asks it still is sent on (MOVED, for one slot at a
time). After its reset it answers CLUSTERDOWN, which not every client takes for a reason to try again; without the wait
a reader of the demo got that in 3 of 3 removals."""


@dataclass(frozen=True, slots=True)
class Original:
    """What the pod was that a stand-in stands in for; written on the stand-in when it is created [R1]."""

    pod: str
    id: str
    role: Role


@dataclass(frozen=True, slots=True)
class ClusterPod:
    """A pod that should be a node of the cluster, or a stand-in, which says for whom.

    `pod` is None while there is none, `node` while it has no address.
    """

    name: str
    pod: Pod | None = None
    endpoint: Endpoint | None = None
    node: ClusterNode | Silent | None = None
    original: Original | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class RedisClusterState:
    """A cluster as one look found it. `node` is the Kubernetes node being emptied; "" asks for a normal cluster."""

    group: RedisGroup
    pods: tuple[ClusterPod, ...]
    stand_ins: tuple[ClusterPod, ...] = ()
    node: str = ""
    waited: float = 0.0
    """Seconds since the step at hand began to wait."""


# Actions. `step` is the state that does it.


@dataclass(frozen=True, slots=True)
class CreateStandIn:
    """Create a pod like `member`'s, without its volume, in its zone."""

    member: ClusterPod
    original: Original
    reason: str
    step: RedisStep = RedisStep.CREATE_STAND_IN


@dataclass(frozen=True, slots=True)
class Meet:
    """Have `by` introduce the newcomer to the cluster."""

    by: ClusterPod
    newcomer: ClusterPod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class Replicate:
    """Make the member a replica of the node with that id."""

    member: ClusterPod
    master_id: str
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class FailOver:
    """CLUSTER FAILOVER on a replica of `master` in sync: plain, so that nothing acknowledged is lost."""

    member: ClusterPod
    master: ClusterPod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Under its UID: the pod, whose role and data are elsewhere, or a stand-in that nobody knows any more."""

    pod: Pod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class Forget:
    """Have every member forget a node, then reset it, if it is a stand-in that still lives."""

    members: tuple[ClusterPod, ...]
    node_id: str
    stand_in: ClusterPod | None
    reason: str
    step: RedisStep = RedisStep.REMOVE_STAND_IN


Action = RedisHold | Stop | CreateStandIn | Meet | Replicate | FailOver | DeletePod | Forget | Settled


def decide(seen: RedisClusterState) -> Action:
    """The next action for the cluster. One at a time; then look again."""
    return _stood_in(seen, seen.stand_ins[0]) if seen.stand_ins else _free(seen)


def _free(seen: RedisClusterState) -> Action:
    """Without a stand-in: is the cluster normal, and is there a pod that has to move?"""
    moving = _next(seen)
    step = RedisStep.CREATE_STAND_IN if moving else None
    if (absent := _absent(seen.pods, step)) is not None:
        return absent
    for member, node in _nodes(seen.pods):
        if node.alone:
            return Stop(
                f"{member} knows no other node: its volume was lost, and nobody says whose replica it was; "
                "have it join its shard (CLUSTER MEET, CLUSTER REPLICATE)"
            )
    if (ghost := _ghost(seen)) is not None:
        return ghost
    if trouble := _trouble(seen.pods, seen.pods):
        return RedisHold(trouble, step)
    if moving is None or not isinstance(moving.node, ClusterNode):
        masters = sum(bool(n.itself.slots) for _, n in _nodes(seen.pods))
        return Settled(f"{masters} masters serve all slots, {len(seen.pods) - masters} replicas are in sync")
    original = Original(moving.name, moving.node.id, moving.node.itself.role)
    role = "master" if original.role is Role.MASTER else "replica"
    return CreateStandIn(moving, original, f"{role} {moving} gets a stand-in")


def _next(seen: RedisClusterState) -> ClusterPod | None:
    """Replicas before masters."""
    here = [s for s in seen.pods if seen.node and s.pod and s.pod.node == seen.node]
    return min(
        here, key=lambda s: (isinstance(s.node, ClusterNode) and bool(s.node.itself.slots), s.name), default=None
    )


def _nodes(members: tuple[ClusterPod, ...]) -> Iterator[tuple[ClusterPod, ClusterNode]]:
    for member in members:
        if isinstance(member.node, ClusterNode):
            yield member, member.node


def _absent(members: tuple[ClusterPod, ...], step: RedisStep | None) -> RedisHold | None:
    """A pod that is not there, or does not answer."""
    for member in members:
        if member.pod is None:
            return RedisHold(f"pod {member} is not there yet", step)
        if isinstance(member.node, ClusterNode):
            if member.pod.deleting:
                return RedisHold(f"pod {member} is ending", step)
            if member.node.server.loading:
                return RedisHold(f"{member} loads its data set", step)
        elif isinstance(member.node, Silent) and not member.pod.not_ready_because:
            return RedisHold(f"pod {member} does not answer: {member.node.reason}", step, 2)
        else:
            return RedisHold(f"pod {member} {member.pod.not_ready_because or 'has no address yet'}", step)
    return None


def _ghost(seen: RedisClusterState) -> Forget | None:
    """A stand-in that died before it was forgotten, or a node that lost its volume: dead, without slots, and listed.

    Asked when every pod answers: one that is only away is no ghost.
    """
    everyone = (*seen.pods, *seen.stand_ins)
    live = {node.id for _, node in _nodes(everyone)}
    for member, node in _nodes(everyone):
        for known in node.table:
            dead = known.id not in live and bool(known.flags & {"fail", "noaddr"})
            if dead and _still_has_slots(known.id, everyone) is None:
                reason = f"{member} still lists {known.id[:8]}, which is gone"
                return Forget(tuple(m for m, _ in _nodes(everyone)), known.id, None, reason)
    return None


def _trouble(members: tuple[ClusterPod, ...], expected: tuple[ClusterPod, ...]) -> str:
    """The gate before every step: what is not as it has to be; "" if all is well [C1, C2].

    Every node sees all slots served, knows exactly the expected ones, and agrees with each on its own role, slots and
    master; every replica follows a master in sync; no two masters have one epoch.
    """
    ids = {node.id: member for member, node in _nodes(expected)}
    for member, node in _nodes(members):
        if not node.ok or node.slots_ok != SLOTS:
            return f"{member} sees {node.slots_ok:,} of {SLOTS:,} slots served"
        if node.open_slots:
            return f"{node.open_slots} slots are being moved to or from {member}"
        for known in node.table:
            if known.id not in ids:
                return f"{member} knows a node that is no pod of the group: {known.id[:8]} at {known.address}"
            if known.trouble:
                return f"{member} says of {ids[known.id]}: {known.trouble}"
            if not known.connected:
                return f"{member} has no link to {ids[known.id]}"
        for other, itself in ((s, n.itself) for s, n in _nodes(expected)):
            known_as = node.knows(itself.id)
            if known_as is None:
                return f"{member} does not know {other} yet"
            if (known_as.role, known_as.slots, known_as.master) != (itself.role, itself.slots, itself.master):
                return f"{member} has not heard yet what {other} is"
    return _unsynchronized(members) or _collision(members)


def _unsynchronized(members: tuple[ClusterPod, ...]) -> str:
    offsets = {node.id: node for _, node in _nodes(members)}
    for member, node in _nodes(members):
        if node.itself.role is Role.MASTER:
            continue
        master = offsets.get(node.itself.master)
        if master is None or master.itself.role is not Role.MASTER:
            return f"{member} follows {node.itself.master[:8]}, which is no master"
        if lag := _behind(member, node, master, None):
            return lag.reason
    return ""


def _behind(
    member: ClusterPod, node: ClusterNode, master: ClusterNode | None, step: RedisStep | None, waited: float = 0.0
) -> RedisHold | None:
    """How far a replica is from being in sync; None if it is."""
    server = node.server
    if server.syncing:
        return synchronizing(str(member), server, master.server if master else None, waited, step)
    if not server.link_up:
        return RedisHold(f"{member} has no link to its master", step)
    if master is not None and master.server.offset - server.offset > NEAR_BYTES:
        return RedisHold(f"{member} is {master.server.offset - server.offset:,} bytes behind", step)
    return None


def _collision(members: tuple[ClusterPod, ...]) -> str:
    epochs: dict[int, ClusterPod] = {}
    for member, node in _nodes(members):
        if node.itself.role is Role.MASTER and node.itself.slots:
            other = epochs.setdefault(node.itself.epoch, member)
            if other is not member:
                return f"{other} and {member} have the same configuration epoch; Redis gives one a new one"
    return ""


# With a stand-in: T, for the pod A.


def _stood_in(seen: RedisClusterState, t: ClusterPod) -> Action:
    a = next((s for s in seen.pods if t.original and s.name == t.original.pod), None)
    if a is None or t.original is None or t.pod is None:
        return Stop(f"{t} stands in for nobody that is declared: delete it once no node of the cluster lists it")
    others = tuple(s for s in seen.pods if s is not a)
    if (absent := _absent(others, RedisStep.JOIN_STAND_IN)) is not None:
        return absent
    if t.pod.deleting:
        return RedisHold(f"stand-in {t} is ending", RedisStep.DELETE_STAND_IN)
    if (absent := _absent((t,), RedisStep.CREATE_STAND_IN)) is not None:
        return absent
    assert isinstance(t.node, ClusterNode)  # noqa: S101 (it is not absent)
    here = seen.node and a.pod and a.pod.node == seen.node
    if not isinstance(a.node, ClusterNode) or (a.pod and a.pod.deleting):
        return _away(a, t, t.node)
    if (ghost := _ghost(seen)) is not None:
        return ghost
    return _leaving(seen, a, a.node, t, t.node, others) if here else _returned(seen, a, a.node, t, t.node, others)


def _away(a: ClusterPod, t: ClusterPod, t_node: ClusterNode) -> Action:
    """The pod is on its way to its new node, or died where it was."""
    absent = _absent((a,), RedisStep.MOVE_SHARD_POD)
    reason = absent.reason if absent else f"pod {a} is ending"
    serves = f"; {t} serves its slots" if t_node.itself.slots else ""
    return RedisHold(f"{reason}{serves}", RedisStep.MOVE_SHARD_POD)


def _leaving(
    seen: RedisClusterState,
    a: ClusterPod,
    a_node: ClusterNode,
    t: ClusterPod,
    t_node: ClusterNode,
    others: tuple[ClusterPod, ...],
) -> Action:
    """The pod is on the node that is emptied."""
    everyone = (*others, a)
    if (join := _join(t, t_node, everyone, RedisStep.JOIN_STAND_IN)) is not None:
        return join
    took_over = bool(t_node.itself.slots)
    shard_master = a_node.id if a_node.itself.role is Role.MASTER else a_node.itself.master
    if not took_over:
        if t_node.itself.role is Role.MASTER or t_node.itself.master != shard_master:
            return Replicate(t, shard_master, f"{t} becomes a replica in the shard of {a}", RedisStep.JOIN_STAND_IN)
        if behind := _behind(t, t_node, _node_of(shard_master, everyone), RedisStep.JOIN_STAND_IN, seen.waited):
            return behind
    master = a_node.itself.role is Role.MASTER and not took_over
    step = RedisStep.FAIL_OVER_TO_STAND_IN if master else RedisStep.MOVE_SHARD_POD
    if took_over and a_node.itself.role is Role.MASTER:
        return RedisHold(f"{a} does not follow {t} yet", RedisStep.FAIL_OVER_TO_STAND_IN)
    if trouble := _trouble((*everyone, t), (*everyone, t)):
        return RedisHold(trouble, step)
    if master:
        return FailOver(t, a, f"{t} becomes master in place of {a}", step)
    assert a.pod is not None  # noqa: S101 (it is on the node)
    return DeletePod(a.pod, f"{t} holds what {a} holds; {a} moves", step)


def _returned(
    seen: RedisClusterState,
    a: ClusterPod,
    a_node: ClusterNode,
    t: ClusterPod,
    t_node: ClusterNode,
    others: tuple[ClusterPod, ...],
) -> Action:
    """The pod is on a new node, or need not move any more."""
    assert t.original is not None  # noqa: S101 (a stand-in)
    step = RedisStep.SYNC_SHARD_POD
    took_over = bool(t_node.itself.slots)
    if (back := _rejoin(seen, a, a_node, t, t_node, others)) is not None:
        return back
    if took_over:
        if a_node.itself.role is Role.MASTER or a_node.itself.master != t_node.id:
            return Replicate(a, t_node.id, f"{a} becomes a replica of {t}", step)
        if behind := _behind(a, a_node, t_node, step, seen.waited):
            return behind
        if trouble := _trouble((*others, a, t), (*others, a, t)):
            return RedisHold(trouble, RedisStep.FAIL_BACK_TO_SHARD_POD)
        return FailOver(a, t, f"{a} becomes master again", RedisStep.FAIL_BACK_TO_SHARD_POD)
    if a_node.itself.role is Role.REPLICA:
        master = _member_of(a_node.itself.master, others)
        if behind := _behind(a, a_node, _node_of(a_node.itself.master, others), step, seen.waited):
            return behind
        if t.original.role is Role.MASTER:
            # Redis itself made another replica master meanwhile.
            if trouble := _trouble((*others, a), (*others, a, t)):
                return RedisHold(trouble, RedisStep.FAIL_BACK_TO_SHARD_POD)
            assert master is not None  # noqa: S101 (no trouble: it follows a master that is known)
            return FailOver(a, master, f"{a} becomes master again", RedisStep.FAIL_BACK_TO_SHARD_POD)
    elif not a_node.itself.slots:
        shard_master = t_node.itself.master or t_node.id
        return Replicate(a, shard_master, f"{a} becomes a replica of its shard again", step)
    return _remove(seen, a, t, t_node, others)


def _remove(
    seen: RedisClusterState, a: ClusterPod, t: ClusterPod, t_node: ClusterNode, others: tuple[ClusterPod, ...]
) -> Action:
    """Nobody needs the stand-in any more."""
    assert t.original is not None  # noqa: S101 (a stand-in)
    everyone = (*others, a)
    for member, node in _nodes(everyone):
        if node.itself.master == t_node.id:
            return RedisHold(f"{member} still follows {t}", RedisStep.FAIL_BACK_TO_SHARD_POD)
    knowing = [member for member, node in _nodes(everyone) if node.knows(t_node.id)]
    if knowing or not t_node.alone:
        if not_served := next((s for s, n in _nodes(everyone) if not n.ok), None):
            return RedisHold(f"{not_served} sees slots that nobody serves", RedisStep.REMOVE_STAND_IN)
        if behind := _unsynchronized(everyone):
            return RedisHold(behind, RedisStep.REMOVE_STAND_IN)
        if (late := _still_has_slots(t_node.id, everyone)) is not None:
            return RedisHold(f"{late} has not heard yet that {t} serves nothing any more", RedisStep.REMOVE_STAND_IN)
        begun = len(knowing) < len(everyone)
        if t.original.role is Role.MASTER and not begun and seen.waited < REDIRECT_SECONDS:
            return RedisHold(f"{t} sends clients on to {a}", RedisStep.REMOVE_STAND_IN, REDIRECT_SECONDS - seen.waited)
        return Forget(everyone, t_node.id, t, f"every node forgets {t}")
    assert t.pod is not None  # noqa: S101 (it answers)
    return DeletePod(t.pod, f"{t} is not needed any more", RedisStep.DELETE_STAND_IN)


def _still_has_slots(node_id: str, members: tuple[ClusterPod, ...]) -> ClusterPod | None:
    """Who has slots with that node in its table. If it forgot the node it would take them for unserved, and refuse all
    clients (cluster.c, clusterDelNode), until it hears whose they are.
    """
    return next((m for m, n in _nodes(members) if (known := n.knows(node_id)) and known.slots), None)


def _join(newcomer: ClusterPod, node: ClusterNode, members: tuple[ClusterPod, ...], step: RedisStep) -> Action | None:
    """Until every member knows the newcomer, and it knows every member."""
    if (introduced := _introduced(newcomer, node, members, step)) is not None:
        return introduced
    strangers = [str(s) for s, n in _nodes(members) if n.knows(node.id) is None]
    if node.alone or len(strangers) == len(members):
        return Meet(members[0], newcomer, f"{newcomer} joins the cluster", step)
    if strangers:
        return RedisHold(f"{', '.join(strangers)} do not know {newcomer} yet", step)
    if unknown := [str(s) for s, n in _nodes(members) if node.knows(n.id) is None]:
        return RedisHold(f"{newcomer} does not know {', '.join(unknown)} yet", step)
    return None


def _introduced(
    newcomer: ClusterPod, node: ClusterNode, members: tuple[ClusterPod, ...], step: RedisStep
) -> RedisHold | None:
    """Whether an introduction goes on: it takes a second or two, and is given up by Redis after node-timeout."""
    for member, view in ((newcomer, node), *_nodes(members)):
        for known in view.table:
            if "handshake" in known.flags and (member is newcomer or _is_at(known, newcomer)):
                return RedisHold(f"{member} shakes hands with {known.address}", step)
    return None


def _rejoin(
    seen: RedisClusterState,
    a: ClusterPod,
    a_node: ClusterNode,
    t: ClusterPod,
    t_node: ClusterNode,
    others: tuple[ClusterPod, ...],
) -> Action | None:
    """A pod that has come back without its volume is a new node; with it, its new address spreads by gossip."""
    assert t.original is not None  # noqa: S101 (a stand-in)
    step = RedisStep.SYNC_SHARD_POD
    if a_node.id == t.original.id and t_node.alone and not a_node.alone:
        return None
    if a_node.alone or a_node.id != t.original.id:
        members = (*others, t) if not t_node.alone else others
        if (join := _join(a, a_node, members, step)) is not None:
            return join
    if not _is_at(a_node.itself, a):
        if (introduced := _introduced(a, a_node, others, step)) is not None:
            return introduced
        return Meet(others[0], a, f"{a} learns its new address", step)
    for member, node in _nodes(others):
        entry = node.knows(a_node.id)
        if entry is not None and not _is_at(entry, a):
            reason = f"{member} does not know yet where {a} is"
            return Meet(member, a, reason, step) if seen.waited > GOSSIP_SECONDS else RedisHold(reason, step)
    return None


def _is_at(entry: KnownNode, member: ClusterPod) -> bool:
    """Whether the entry has the pod's address, or the one that it announces."""
    if entry.address is None or member.endpoint is None:
        return False
    announced = member.node.announced if isinstance(member.node, ClusterNode) else ""
    return entry.address.host == (announced or member.endpoint.address.host)


def _member_of(node_id: str, members: tuple[ClusterPod, ...]) -> ClusterPod | None:
    return next((m for m, n in _nodes(members) if n.id == node_id), None)


def _node_of(node_id: str, members: tuple[ClusterPod, ...]) -> ClusterNode | None:
    return next((n for _, n in _nodes(members) if n.id == node_id), None)
