"""What a Redis Cluster needs next: one pure function from what was observed to one action with a reason.

A pod leaves its node behind a stand-in [C1]: a temporary pod joins as a replica of the pod's shard and gets its data;
if the pod is a master the stand-in becomes master in its place; the pod is deleted, and returns on a new node with its
volume and its id; it synchronizes, and becomes master again if it was one; the stand-in is forgotten by all, reset and
deleted.
A half-done migration, whichever roll began it, is finished before anything else begins [C2].
"""

from collections.abc import Iterator
from dataclasses import dataclass

from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.redis import Address, ClusterNode, Endpoint, KnownNode, Role, Silent
from eks_rolling.redis.actions import NEAR_BYTES, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import RedisGroup
from eks_rolling.redis.room import too_small
from eks_rolling.redis.sync_progress import held_up, synchronizing

SLOTS = 16384

GOSSIP_SECONDS = 8.0
"""A node's new address is known everywhere by then: gossip takes 2 to 5 s. After that it is introduced again."""

REDIRECT_SECONDS = 5.0
"""How long a stand-in that was master stays a replica, so that clients that still ask it are redirected (MOVED, for
one slot at a time). After its reset it answers CLUSTERDOWN, which not every client retries; without the wait a reader
of the demo got that in 3 of 3 removals."""


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
class AnsweringPod(ClusterPod):
    """A pod that runs and whose node answered: nothing of it is missing."""

    pod: Pod
    endpoint: Endpoint
    node: ClusterNode


@dataclass(frozen=True, slots=True)
class RedisClusterState:
    """A cluster as one look found it. `node` is the Kubernetes node being emptied; "" asks for a normal cluster."""

    group: RedisGroup
    pods: tuple[ClusterPod, ...]
    stand_ins: tuple[ClusterPod, ...] = ()
    node: str = ""
    waited: float = 0.0
    """Seconds since the step at hand began to wait."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A pod that moves and the stand-in that has come for it, both answering, beside the cluster's other pods."""

    pod: AnsweringPod
    stand_in: AnsweringPod
    original: Original
    others: tuple[ClusterPod, ...]
    waited: float

    @property
    def members(self) -> tuple[ClusterPod, ...]:
        """The pods of the cluster, without the stand-in."""
        return (*self.others, self.pod)

    @property
    def everyone(self) -> tuple[ClusterPod, ...]:
        return (*self.members, self.stand_in)

    @property
    def took_over(self) -> bool:
        """Whether the stand-in serves the slots."""
        return bool(self.stand_in.node.itself.slots)


@dataclass(frozen=True, slots=True)
class Copy:
    """A replica that has to have what its master has now, before another copy of that goes [C1]."""

    replica: ClusterPod
    master: ClusterPod


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
class Greet:
    """Have `speaker` say what it is to each of the hearers, who would hear of it by gossip, a second or two later."""

    speaker: ClusterPod
    hearers: tuple[ClusterPod, ...]
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class Replicate:
    """Make the member a replica of the node with that id; `held_back` from elections until it has caught up, if it can
    be."""

    member: ClusterPod
    master_id: str
    reason: str
    step: RedisStep
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class LetBeElected:
    """Once the replica gets what `master` writes, it may be elected in its place."""

    member: ClusterPod
    master: ClusterPod
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
    """By UID: the pod, whose role and data are elsewhere, or a stand-in that no node knows any more."""

    pod: Pod
    reason: str
    step: RedisStep
    copies: tuple[Copy, ...] = ()


@dataclass(frozen=True, slots=True)
class Forget:
    """Have every member forget a node, then reset it, if it is a stand-in that still lives."""

    members: tuple[ClusterPod, ...]
    node_id: str
    stand_in: ClusterPod | None
    reason: str
    step: RedisStep = RedisStep.REMOVE_STAND_IN
    copies: tuple[Copy, ...] = ()


Action = (
    RedisHold | Stop | CreateStandIn | Meet | Greet | Replicate | LetBeElected | FailOver | DeletePod | Forget | Settled
)


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
                f"{member} knows no other node: its volume was lost, and no node knows whose replica it was; "
                "join it to its shard (CLUSTER MEET, CLUSTER REPLICATE)"
            )
    if (ghost := _ghost(seen)) is not None:
        return ghost
    # Nothing is under way that would be worth a word: gossip does.
    if (trouble := _trouble(seen.pods, seen.pods, None)) is not None:
        return RedisHold(trouble.reason, step)
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


def _narrowed(member: ClusterPod) -> AnsweringPod | None:
    """The pod as one that answers; None where it is not there or silent."""
    if member.pod is None or member.endpoint is None or not isinstance(member.node, ClusterNode):
        return None
    return AnsweringPod(member.name, member.pod, member.endpoint, member.node, member.original)


def _answering(member: ClusterPod, step: RedisStep | None) -> AnsweringPod | RedisHold:
    """The pod as one that answers, stays and has its data; else the hold that says what is missing."""
    if member.pod is None:
        return RedisHold(f"pod {member} is not there yet", step)
    if (there := _narrowed(member)) is not None:
        if there.pod.deleting:
            return RedisHold(f"pod {member} is ending", step)
        if there.node.server.loading:
            return RedisHold(f"{member} is loading its data set", step)
        return there
    if isinstance(member.node, Silent) and not member.pod.not_ready_because:
        return RedisHold(f"pod {member} does not answer: {member.node.reason}", step, 2)
    return RedisHold(f"pod {member} {member.pod.not_ready_because or 'has no address yet'}", step)


def _absent(members: tuple[ClusterPod, ...], step: RedisStep | None) -> RedisHold | None:
    """The hold for the first pod that is not there, or does not answer; None if all do."""
    found = (_answering(member, step) for member in members)
    return next((answer for answer in found if isinstance(answer, RedisHold)), None)


def _ghost(seen: RedisClusterState) -> Forget | None:
    """A stand-in that died before it was forgotten, or a node that lost its volume: dead, without slots, and listed.

    Asked when every pod answers: one that is only away is no ghost.
    """
    everyone = (*seen.pods, *seen.stand_ins)
    live = {node.id for _, node in _nodes(everyone)}
    # Nobody forgets its own master.
    live |= {node.itself.master for _, node in _nodes(everyone)}
    for member, node in _nodes(everyone):
        for known in node.table:
            dead = known.id not in live and bool(known.flags & {"fail", "noaddr"})
            if dead and _still_has_slots(known.id, everyone) is None:
                reason = f"{member} still lists {known.id[:8]}, which is gone"
                return Forget(tuple(m for m, _ in _nodes(everyone)), known.id, None, reason)
    return None


def _trouble(
    members: tuple[ClusterPod, ...],
    expected: tuple[ClusterPod, ...],
    step: RedisStep | None,
    optional: ClusterPod | None = None,
) -> RedisHold | Greet | None:
    """The gate before every step: what is not as it has to be, and what is done about it; None if all is well [C1, C2].

    Every node sees all slots served, knows exactly the expected ones, and agrees with each on its own role, slots and
    master; every replica follows a master in sync; no two masters have one epoch. Who is `optional` need not be known.
    """
    if reason := _unwell(members, expected, optional):
        return RedisHold(reason, step)
    for speaker, node in _nodes(expected):
        unaware = tuple(m for m, n in _nodes(members) if not has_heard(n, node))
        if unaware:
            if step is None:
                return RedisHold(f"{unaware[0]} has not heard yet what {speaker} is")
            return Greet(speaker, unaware, f"{speaker} tells {', '.join(map(str, unaware))} what it is", step)
    reason = _unsynchronized(members) or _collision(members)
    return RedisHold(reason, step) if reason else None


def _unwell(members: tuple[ClusterPod, ...], expected: tuple[ClusterPod, ...], optional: ClusterPod | None) -> str:
    """What is not well although every node knows what the others are; "" if nothing."""
    ids = {node.id: member for member, node in _nodes(expected)}
    for member, node in _nodes(members):
        if not node.ok or node.slots_ok != SLOTS:
            return f"{member} sees {node.slots_ok:,} of {SLOTS:,} slots served"
        if node.open_slots:
            return f"{node.open_slots} slots are being moved to or from {member}"
        for known in node.table:
            if known.id not in ids:
                if "handshake" in known.flags and any(_is_at(known, other) for other in expected):
                    return f"{member} is in a handshake with {known.address}"
                return f"{member} knows a node that is not a pod of the group: {known.id[:8]} at {known.address}"
            if known.trouble:
                return f"{member} says of {ids[known.id]}: {known.trouble}"
            if not known.connected:
                return f"{member} has no link to {ids[known.id]}"
        for other, itself in _nodes(expected):
            if other is not optional and node.knows(itself.id) is None:
                return f"{member} does not know {other} yet"
    return ""


def has_heard(hearer: ClusterNode, speaker: ClusterNode) -> bool:
    """Whether the role, slots and master that one node has of another are what that one says; True if it has none."""
    known, itself = hearer.knows(speaker.id), speaker.itself
    return known is None or (known.role, known.slots, known.master) == (itself.role, itself.slots, itself.master)


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
        return RedisHold(f"{member} has no link to its master{held_up(master.server if master else None)}", step)
    if master is not None and master.server.offset - server.offset > NEAR_BYTES:
        return RedisHold(f"{member} is {master.server.offset - server.offset:,} bytes behind", step)
    return None


def _collision(members: tuple[ClusterPod, ...]) -> str:
    epochs: dict[int, ClusterPod] = {}
    for member, node in _nodes(members):
        if node.itself.role is Role.MASTER and node.itself.slots:
            other = epochs.setdefault(node.itself.epoch, member)
            if other is not member:
                return f"{other} and {member} have the same configuration epoch; Redis assigns one of them a new one"
    return ""


# With a stand-in.


def _stood_in(seen: RedisClusterState, stand_in: ClusterPod) -> Action:
    original = stand_in.original
    member = next((m for m in seen.pods if original and m.name == original.pod), None)
    if member is None or original is None or stand_in.pod is None:
        return Stop(
            f"{stand_in} is a stand-in for a pod that no StatefulSet declares: "
            "delete it once no node of the cluster lists it"
        )
    if stand_in.pod.finished and not stand_in.pod.deleting:
        # Its kubelet evicted it, say: no controller makes it again.
        ended = f"{stand_in} is {stand_in.pod.phase} on {stand_in.pod.node}, and does not come back: it is deleted"
        return DeletePod(stand_in.pod, ended, RedisStep.DELETE_STAND_IN)
    others = tuple(m for m in seen.pods if m is not member)
    if (absent := _absent(others, RedisStep.JOIN_STAND_IN)) is not None:
        return absent
    if stand_in.pod.deleting:
        return RedisHold(f"stand-in {stand_in} is ending", RedisStep.DELETE_STAND_IN)
    there = _answering(stand_in, RedisStep.CREATE_STAND_IN)
    if isinstance(there, RedisHold):
        return there
    pod = _narrowed(member)
    if pod is None or pod.pod.deleting:
        return _away(member, there)
    if (ghost := _ghost(seen)) is not None:
        return ghost
    pair = Pair(pod, there, original, others, seen.waited)
    return _leaving(pair) if seen.node and pod.pod.node == seen.node else _returned(pair)


def _away(member: ClusterPod, stand_in: AnsweringPod) -> Action:
    """The pod is on its way to its new node, or died where it was."""
    absent = _absent((member,), RedisStep.MOVE_SHARD_POD)
    reason = absent.reason if absent else f"pod {member} is ending"
    serves = f"; {stand_in} serves its slots" if stand_in.node.itself.slots else ""
    return RedisHold(f"{reason}{serves}", RedisStep.MOVE_SHARD_POD)


def _leaving(pair: Pair) -> Action:
    """The pod is on the node that is emptied."""
    pod, stand_in = pair.pod, pair.stand_in
    is_master = pod.node.itself.role is Role.MASTER
    if (join := _join(stand_in, stand_in.node, pair.members, RedisStep.JOIN_STAND_IN)) is not None:
        return join
    if not pair.took_over and (copy := _copy_shard(pair, pod.node.id if is_master else pod.node.itself.master)):
        return copy
    if pair.took_over and is_master:
        return RedisHold(f"{pod} does not follow {stand_in} yet", RedisStep.FAIL_OVER_TO_STAND_IN)
    # A master without slots has nothing to hand over, and no failover of one ever ends (nobody may vote for it).
    serves = bool(pod.node.itself.slots)
    step = RedisStep.FAIL_OVER_TO_STAND_IN if serves else RedisStep.MOVE_SHARD_POD
    if (trouble := _trouble(pair.everyone, pair.everyone, step)) is not None:
        return trouble
    if serves and (why := too_small(str(stand_in), stand_in.node.server, pod.node.server)):
        return Stop(f"{why}: raise its maxmemory")
    if serves:
        return _fail_over(stand_in, pod, f"{stand_in} becomes master in place of {pod}", step)
    copies = _copies(pod, (*pair.others, stand_in))
    return DeletePod(pod.pod, f"{stand_in} holds what {pod} holds; {pod} moves", step, copies)


def _copy_shard(pair: Pair, shard_master: str) -> Action | None:
    """Until the stand-in is a replica in sync of the shard's master, which has that id.

    Right after its synchronization the master may send it nothing for a second. Were it elected then, what was
    acknowledged since the synchronization began would be lost, though the shard's other servers have it.
    """
    stand_in, itself, step = pair.stand_in, pair.stand_in.node.itself, RedisStep.JOIN_STAND_IN
    if itself.role is Role.MASTER or itself.master != shard_master:
        reason = f"{stand_in} becomes a replica in the shard of {pair.pod}"
        return Replicate(stand_in, shard_master, reason, step, held_back=stand_in.node.electable is True)
    if behind := _behind(stand_in, stand_in.node, _node_of(shard_master, pair.members), step, pair.waited):
        return behind
    master = _member_of(shard_master, pair.members)
    # One whose template says no is as its pod is.
    if master is not None and stand_in.node.electable is False and pair.pod.node.electable is True:
        return LetBeElected(stand_in, master, f"{stand_in} has caught up with {master}, and may be elected", step)
    return None


def _returned(pair: Pair) -> Action:
    """The pod is on a new node, or need not move any more."""
    if (back := _rejoin(pair)) is not None:
        return back
    if pair.took_over:
        return _take_back(pair)
    pod, stand_in = pair.pod, pair.stand_in
    if pod.node.itself.role is Role.REPLICA:
        if (rising := _promoted_meanwhile(pair)) is not None:
            return rising
    elif (heir := _empty_shard(pair)) is not None:
        return heir
    elif not pod.node.itself.slots and not (stand_in.node.alone or pod.node.id == stand_in.node.itself.master):
        # Unless it is a master without slots as before, whose stand-in follows it, or has been reset since.
        shard_master = stand_in.node.itself.master or stand_in.node.id
        return Replicate(pod, shard_master, f"{pod} becomes a replica of its shard again", RedisStep.SYNC_SHARD_POD)
    return _remove(pair)


def _empty_shard(pair: Pair) -> Action | None:
    """A master without slots that came back without its volume is another node: who followed the former follows it."""
    former, pod = pair.original.id, pair.pod
    if pair.original.role is not Role.MASTER or pod.node.id == former or _still_has_slots(former, pair.everyone):
        return None
    follower = next((m for m, n in _nodes((pair.stand_in, *pair.others)) if n.itself.master == former), None)
    if follower is None:
        return None
    reason = f"{follower} follows {pod}, which is another node now"
    return Replicate(follower, pod.node.id, reason, RedisStep.SYNC_SHARD_POD)


def _take_back(pair: Pair) -> Action:
    """The pod synchronizes from the stand-in, and becomes master again."""
    pod, stand_in = pair.pod, pair.stand_in
    if (told := _forgotten_too_soon(pair)) is not None:
        return told
    if pod.node.itself.role is Role.MASTER or pod.node.itself.master != stand_in.node.id:
        return Replicate(pod, stand_in.node.id, f"{pod} becomes a replica of {stand_in}", RedisStep.SYNC_SHARD_POD)
    if behind := _behind(pod, pod.node, stand_in.node, RedisStep.SYNC_SHARD_POD, pair.waited):
        return behind
    if (trouble := _trouble(pair.everyone, pair.everyone, RedisStep.FAIL_BACK_TO_SHARD_POD)) is not None:
        return trouble
    if why := too_small(str(pod), pod.node.server, stand_in.node.server):
        return Stop(f"{why}: raise its maxmemory ({stand_in} serves its slots meanwhile)")
    return _fail_over(pod, stand_in, f"{pod} becomes master again", RedisStep.FAIL_BACK_TO_SHARD_POD)


def _forgotten_too_soon(pair: Pair) -> Action | None:
    """Some forgot the stand-in, and then Redis made it master: the pod had died, or stood still.

    Whoever forgot a node does not take it from gossip for a minute, and sees slots unserved as long.
    """
    stand_in, step = pair.stand_in, RedisStep.SYNC_SHARD_POD
    stranger = next((m for m, n in _nodes(pair.members) if n.knows(stand_in.node.id) is None), None)
    if stranger is None:
        return None
    if (introduced := _introduced(stand_in, stand_in.node, pair.members, step)) is not None:
        return introduced
    return Meet(stranger, stand_in, f"{stranger} forgot {stand_in}, which is master again: it is introduced", step)


def _promoted_meanwhile(pair: Pair) -> Action | None:
    """The pod follows one of the others: in sync it may stay a replica, if it was one; if it was master it is again."""
    pod = pair.pod
    master_id = pod.node.itself.master
    if behind := _behind(pod, pod.node, _node_of(master_id, pair.others), RedisStep.SYNC_SHARD_POD, pair.waited):
        return behind
    if pair.original.role is not Role.MASTER:
        return None
    # Redis itself made another replica master meanwhile, perhaps while the stand-in was being forgotten.
    step = RedisStep.FAIL_BACK_TO_SHARD_POD
    if (trouble := _trouble(pair.members, pair.everyone, step, optional=pair.stand_in)) is not None:
        return trouble
    master = _member_of(master_id, pair.others)
    assert master is not None  # noqa: S101 (no trouble: it follows a master that is known)
    if isinstance(master.node, ClusterNode) and (why := too_small(str(pod), pod.node.server, master.node.server)):
        return Stop(f"{why}: raise its maxmemory ({master} serves its slots meanwhile)")
    return _fail_over(pod, master, f"{pod} becomes master again", RedisStep.FAIL_BACK_TO_SHARD_POD)


def _fail_over(member: ClusterPod, master: ClusterPod, reason: str, step: RedisStep) -> Action:
    """Not out of a pause of writes: the new master would take what somebody wants nobody to write now."""
    if isinstance(master.node, ClusterNode) and master.node.server.paused:
        return RedisHold(f"writes on {master} are paused (CLIENT PAUSE): its role moves when the pause has ended", step)
    return FailOver(member, master, reason, step)


def _remove(pair: Pair) -> Action:
    """The stand-in is no longer needed."""
    stand_in, members, step = pair.stand_in, pair.members, RedisStep.REMOVE_STAND_IN
    for member, node in _nodes(members):
        if node.itself.master == stand_in.node.id:
            return RedisHold(f"{member} still follows {stand_in}", RedisStep.FAIL_BACK_TO_SHARD_POD)
    knowing = [member for member, node in _nodes(members) if node.knows(stand_in.node.id)]
    if not knowing and stand_in.node.alone:
        return DeletePod(stand_in.pod, f"{stand_in} is no longer needed", RedisStep.DELETE_STAND_IN)
    if not_served := next((m for m, n in _nodes(members) if not n.ok), None):
        return RedisHold(f"{not_served} sees unserved slots", step)
    if behind := _unsynchronized(members):
        return RedisHold(behind, step)
    if (late := _still_has_slots(stand_in.node.id, members)) is not None:
        return RedisHold(f"{late} has not heard yet that {stand_in} no longer serves any slot", step)
    begun = len(knowing) < len(members)
    if pair.original.role is Role.MASTER and not begun and pair.waited < REDIRECT_SECONDS:
        return RedisHold(f"{stand_in} redirects clients to {pair.pod}", step, REDIRECT_SECONDS - pair.waited)
    return Forget(
        members, stand_in.node.id, stand_in, f"every node forgets {stand_in}", copies=_copies(pair.pod, members)
    )


def _copies(pod: AnsweringPod, members: tuple[ClusterPod, ...]) -> tuple[Copy, ...]:
    """The replicas among the members in the shard of the pod, whose own copy is one, or whose stand-in's."""
    shard_master = pod.node.itself.master or pod.node.id
    master = _member_of(shard_master, (*members, pod))
    if master is None:
        return ()
    return tuple(Copy(m, master) for m, n in _nodes(members) if n.itself.master == shard_master)


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
        return Greet(newcomer, members, f"{newcomer} joins the cluster", step)
    if strangers:
        return RedisHold(f"{', '.join(strangers)} do not know {newcomer} yet", step)
    if unknown := [str(s) for s, n in _nodes(members) if node.knows(n.id) is None]:
        return RedisHold(f"{newcomer} does not know {', '.join(unknown)} yet", step)
    return None


def _introduced(
    newcomer: ClusterPod, node: ClusterNode, members: tuple[ClusterPod, ...], step: RedisStep
) -> RedisHold | None:
    """Whether an introduction is under way: it takes a second or two, and is given up by Redis after node-timeout."""
    for member, view in ((newcomer, node), *_nodes(members)):
        for known in view.table:
            if "handshake" in known.flags and (member is newcomer or _is_at(known, newcomer)):
                return RedisHold(f"{member} is in a handshake with {known.address}", step)
    return None


def _rejoin(pair: Pair) -> Action | None:
    """A pod that has come back without its volume is a new node; with it, its new address spreads by gossip."""
    pod, stand_in, others, step = pair.pod, pair.stand_in, pair.others, RedisStep.SYNC_SHARD_POD
    same = pod.node.id == pair.original.id
    if same and stand_in.node.alone and not pod.node.alone:
        return None
    if pod.node.alone or not same:
        members = others if stand_in.node.alone else (*others, stand_in)
        if (join := _join(pod, pod.node, members, step)) is not None:
            return join
    if not _is_at(pod.node.itself, pod):
        if (introduced := _introduced(pod, pod.node, others, step)) is not None:
            return introduced
        return Meet(others[0], pod, f"{pod} learns its new address", step)
    for member, node in _nodes(others):
        entry = node.knows(pod.node.id)
        if entry is not None and not _is_at(entry, pod):
            reason = f"{member} does not know yet where {pod} is"
            return Meet(member, pod, reason, step) if pair.waited > GOSSIP_SECONDS else RedisHold(reason, step)
    return None


def _is_at(entry: KnownNode, member: ClusterPod) -> bool:
    """Whether the entry has the pod's address, or the one that it announces."""
    if entry.address is None or member.endpoint is None:
        return False
    announced = member.node.announced if isinstance(member.node, ClusterNode) else ""
    return entry.address.host == Address(announced or member.endpoint.address.host).host


def _member_of(node_id: str, members: tuple[ClusterPod, ...]) -> ClusterPod | None:
    return next((m for m, n in _nodes(members) if n.id == node_id), None)


def _node_of(node_id: str, members: tuple[ClusterPod, ...]) -> ClusterNode | None:
    return next((n for _, n in _nodes(members) if n.id == node_id), None)
