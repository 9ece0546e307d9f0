"""What a Sentinel group needs next: one pure function from what was observed to one action with a reason.

The order in which a group leaves a node: replicas, sentinels, then the master pod (fail over to a replica; delete the
pod; attach the new, empty one as a replica; refresh sentinels; fail back). A group that is found half way, whoever left
it so, is brought back to normal before anything else is begun: the master pod is master, every replica is in sync,
every sentinel lists exactly the live pods [S2].
"""

from collections.abc import Iterator
from dataclasses import dataclass

from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.redis import Address, Endpoint, Follower, KnownReplica, Role, Sentinel, Server, Silent
from eks_rolling.redis.actions import NEAR_BYTES, PATIENCE_SECONDS, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import Part, RedisGroup, RefreshBy
from eks_rolling.redis.sync_progress import synchronizing

STEERED = 1
"""The replica priority of a failover's target; sentinels promote the lowest but 0, which is never promoted."""

STUCK_SECONDS = 5.0
"""A hand-over that has not ended by then was left by somebody: it takes milliseconds once offsets are equal."""


@dataclass(frozen=True, slots=True)
class RedisPod:
    """A pod that should be a Redis server; `pod` is None while there is none, `server` while it has no address.

    `original_priority` is what a roll wrote on the pod before it changed its replica priority.
    """

    name: str
    part: Part
    pod: Pod | None = None
    endpoint: Endpoint | None = None
    server: Server | Silent | None = None
    original_priority: int | None = None
    leaving: bool = False
    """Its node is closed to new pods, or about to be."""

    def __str__(self) -> str:
        return self.name

    def is_at(self, address: Address | None) -> bool:
        """Whether that is this pod's address, or the name it announces."""
        if address is None or self.endpoint is None:
            return False
        own = {self.endpoint.address.host}
        if isinstance(self.server, Server) and self.server.announced:
            own.add(self.server.announced)
        return address.host in own and address.port == self.endpoint.address.port

    @property
    def known_as(self) -> Address:
        """The address that Redis knows it by: FAILOVER TO takes no other where names are announced."""
        assert self.endpoint is not None  # noqa: S101 (asked only of servers that answered)
        announced = self.server.announced if isinstance(self.server, Server) else ""
        return Address(announced or self.endpoint.address.host, self.endpoint.address.port)


@dataclass(frozen=True, slots=True)
class SentinelPod:
    """A pod that should be a sentinel."""

    name: str
    pod: Pod | None = None
    endpoint: Endpoint | None = None
    view: Sentinel | Silent | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SentinelGroupState:
    """A group as one look found it. `node` is the one being emptied; "" asks for nothing but a normal group."""

    group: RedisGroup
    members: tuple[RedisPod, ...]
    """The master pod first."""
    watchers: tuple[SentinelPod, ...]
    node: str = ""
    waited: float = 0.0
    """Seconds since the step at hand began to wait."""

    @property
    def master_pod(self) -> RedisPod:
        return self.members[0]


# Actions. `step` is the state that does it.


@dataclass(frozen=True, slots=True)
class SetPromotionPriority:
    """Set the member's replica priority. `mark` is what the pod says of the one before: written before the change,
    erased after it where it is None."""

    member: RedisPod
    server: Server
    priority: int
    mark: int | None
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class Switch:
    """Make `new` the master in place of `old`."""

    old: RedisPod
    new: RedisPod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class RepointSentinels:
    """`new` is master already: lead the sentinels, which still name `old`, to it."""

    old: RedisPod
    new: RedisPod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class AbortHandover:
    """End a hand-over that `old` began and that does not end; `new` is whom it hands over to, where that is known."""

    old: RedisPod
    new: RedisPod | None
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class Follow:
    """Make the member a replica of the acting master."""

    member: RedisPod
    server: Server
    master: RedisPod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class MovePod:
    """Take the pod off its node: by eviction, but the master pod, whose role is elsewhere now, by deletion."""

    pod: Pod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class Refresh:
    """Have one sentinel forget what it lists, and find again what lives."""

    watcher: SentinelPod
    reason: str
    step: RedisStep = RedisStep.REFRESH_SENTINELS


Action = (
    RedisHold
    | Stop
    | SetPromotionPriority
    | Switch
    | RepointSentinels
    | AbortHandover
    | Follow
    | MovePod
    | Refresh
    | Settled
)


def decide(seen: SentinelGroupState) -> Action:
    """The next action for the group. One at a time; then look again."""
    answering = [(m, m.server) for m in seen.members if isinstance(m.server, Server)]
    acting = _acting(seen, answering)
    if not isinstance(acting, RedisPod):
        return acting
    checks = (
        _handing_over,
        _absent,
        _sentinels,
        _replication,
        _unknown,
        _replicas,
        _stale_sentinels,
        _moving_sentinels,
        _stale_replicas,
        _roles,
        _priorities,
        _master,
    )
    for check in checks:
        if (action := check(seen, acting)) is not None:
            return action
    return Settled(f"{acting} is master, {len(seen.members) - 1} in sync, {len(seen.watchers)} sentinels agree")


def _acting(seen: SentinelGroupState, answering: list[tuple[RedisPod, Server]]) -> RedisPod | Action:
    """The server that has the data and takes writes."""
    masters = [(m, s) for m, s in answering if s.role is Role.MASTER]
    home = seen.master_pod
    if not masters:
        if (action := _handing_over(seen, None)) is not None:
            return action
        silent = [f"{m} {m.server.reason}" for m in seen.members if isinstance(m.server, Silent)]
        return RedisHold(f"no server is master now{_listing(silent)}; the sentinels promote one")
    if len(masters) == 1:
        member, server = masters[0]
        return RedisHold(f"{member} loads its data set") if server.loading else member
    names = " and ".join(str(m) for m, _ in masters)
    leading = [(m, s) for m, s in masters if any(f.online for f in s.followers)]
    if len(leading) > 1:
        return _ask(seen, f"{names} are both masters with replicas")
    others = [(m, s) for m, s in masters if m is not home]
    if len(others) == len(masters):
        return RedisHold(f"{names} are both masters; the sentinels demote one")
    if len(others) > 1:
        return _ask(seen, f"{names} are all masters")
    other, _ = others[0]
    empty = next(s for m, s in masters if m is home)
    if any(f.online for f in empty.followers):
        return RedisHold(f"{names} are both masters; the sentinels demote {other}")
    if _named_by_most(seen, home):
        return _ask(seen, f"{names} are both masters, and the sentinels name {home}, which no replica follows")
    if not _named_by_most(seen, other):
        # Following throws away what it has: not before a majority vouches for the other one [S1].
        return RedisHold(f"{names} are both masters, and too few sentinels answer to tell which one counts")
    return Follow(home, empty, other, f"{home} came back as a master without replicas", RedisStep.ATTACH_MASTER)


def _ask(seen: SentinelGroupState, found: str) -> Action:
    """A person decides, unless it is the passing state of a failover: after a cut between zones, say."""
    if seen.waited < PATIENCE_SECONDS or any(view.failing_over for _, view in _views(seen)):
        return RedisHold(f"{found}; the sentinels may be about to demote one")
    return Stop(f"{found}: decide which one's data counts, and make the other follow")


def _named_by_most(seen: SentinelGroupState, member: RedisPod) -> bool:
    views = [w.view for w in seen.watchers if isinstance(w.view, Sentinel)]
    return sum(member.is_at(v.current) for v in views) * 2 > len(seen.watchers)


def _handing_over(seen: SentinelGroupState, acting: RedisPod | None) -> Action | None:
    for member in seen.members:
        server = member.server
        if not isinstance(server, Server) or server.failover == "no-failover":
            continue
        if acting and acting is not member and acting.is_at(server.master):
            # The other one has taken over already, and an abort would make two masters: the sentinels are to be led.
            continue
        step = _switch_step(seen)
        target = next((m for m in seen.members if m.is_at(server.master)), None)
        if seen.waited <= STUCK_SECONDS:
            return RedisHold(f"{member} hands over ({server.failover})", step)
        if server.role is Role.REPLICA and not (target and isinstance(target.server, Server)):
            return RedisHold(f"{member} hands over to {target or server.master}, which does not answer", step)
        return AbortHandover(member, target, f"a hand-over that {member} began does not end", step)
    return None


def _switch_step(seen: SentinelGroupState) -> RedisStep:
    """Which of the two switches is due, or goes on: away from the master pod while that has to move, else back."""
    return RedisStep.FAIL_OVER if _on(seen, seen.master_pod) else RedisStep.FAIL_BACK


def _absent(seen: SentinelGroupState, _: RedisPod) -> Action | None:
    """Pods that are not there, or do not answer."""
    steps = {Part.MASTER: RedisStep.MOVE_MASTER, Part.REPLICA: RedisStep.MOVE_REPLICA}
    absent = [(m.name, m.pod, m.server, steps[m.part]) for m in seen.members if not isinstance(m.server, Server)]
    absent += [
        (w.name, w.pod, w.view, RedisStep.MOVE_SENTINEL) for w in seen.watchers if not isinstance(w.view, Sentinel)
    ]
    for name, pod, answer, step in absent:
        if pod is None:
            return RedisHold(f"pod {name} is not there yet", step)
        if isinstance(answer, Silent) and not pod.not_ready_because:
            return RedisHold(f"pod {name} does not answer: {answer.reason}", step, 2)
        return RedisHold(f"pod {name} {pod.not_ready_because or 'has no address yet'}", step)
    for member in seen.members:
        if member.pod and member.pod.deleting:
            return RedisHold(f"pod {member} is ending", steps[member.part])
    for watcher in seen.watchers:
        if watcher.pod and watcher.pod.deleting:
            return RedisHold(f"pod {watcher} is ending", RedisStep.MOVE_SENTINEL)
    return None


def _views(seen: SentinelGroupState) -> Iterator[tuple[SentinelPod, Sentinel]]:
    for watcher in seen.watchers:
        if isinstance(watcher.view, Sentinel):
            yield watcher, watcher.view


def _sentinels(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Whether every sentinel names the acting master and nothing else goes on."""
    name = seen.group.master_name
    for watcher, view in _views(seen):
        if not view.known:
            return Stop(f"sentinel {watcher} monitors no master {name}: correct its configuration or the annotation")
        if view.failing_over:
            return RedisHold(f"sentinel {watcher} is failing over", _switch_step(seen))
    wrong = [(w, v) for w, v in _views(seen) if not acting.is_at(v.current)]
    if wrong:
        watchers = ", ".join(str(w) for w, _ in wrong)
        old = next((m for m in seen.members if m is not acting and all(m.is_at(v.current) for _, v in wrong)), None)
        if len(wrong) == len(seen.watchers) and old and isinstance(old.server, Server):
            reason = f"{acting} is master, and the sentinels still name {old}"
            return RepointSentinels(old, acting, reason, _switch_step(seen))
        return RedisHold(f"{watchers} do not name {acting} yet", _switch_step(seen))
    for watcher, view in _views(seen):
        if not acting.is_at(view.master):
            return RedisHold(f"sentinel {watcher} ends its failover", _switch_step(seen))
        if view.flags != {"master"}:
            return RedisHold(f"sentinel {watcher} says of {acting}: {', '.join(sorted(view.flags))}")
    return None


def _replication(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Whether everybody follows the acting master, and how far they are behind."""
    source = acting.server
    assert isinstance(source, Server)  # noqa: S101 (the acting master answered)
    for member in seen.members:
        if member is acting or not isinstance(member.server, Server):
            continue
        server = member.server
        step = RedisStep.ATTACH_MASTER if member.part is Part.MASTER else RedisStep.MOVE_REPLICA
        if server.loading:
            return RedisHold(f"{member} loads its data set", step)
        if server.syncing:
            return synchronizing(str(member), server, source, seen.waited, step)
        follower = _follower(source, member)
        if not server.link_up or follower is None or not follower.online:
            if seen.waited > PATIENCE_SECONDS and not acting.is_at(server.master):
                return Follow(member, server, acting, f"{member} follows {server.master}, not {acting}", step)
            return RedisHold(f"{member} has no link to {acting}", step)
        if source.offset - follower.offset > NEAR_BYTES:
            return RedisHold(f"{member} is {source.offset - follower.offset:,} bytes behind", step)
    return None


def _follower(source: Server, member: RedisPod) -> Follower | None:
    return next((f for f in source.followers if member.is_at(f.address)), None)


def _unknown(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Whether every sentinel knows all that live [S1]."""
    for watcher, view in _views(seen):
        stale = _stale(seen, acting, watcher, view)
        if stale and acting is not seen.master_pod:
            # No pod moves until the master pod is master again, and a refresh finds what lives sooner.
            continue
        for member in seen.members:
            entry = _entry(view, member)
            if member is not acting and (entry is None or not entry.alive):
                said = "does not list" if entry is None else "takes for down"
                return RedisHold(f"sentinel {watcher} {said} {member}", RedisStep.REFRESH_SENTINELS)
        known = {s.run_id for s in view.sentinels if s.alive}
        for colleague, other in _views(seen):
            if colleague is not watcher and other.run_id not in known:
                return RedisHold(f"sentinel {watcher} does not know {colleague} yet", RedisStep.REFRESH_SENTINELS)
        if not view.quorum_ok and not stale:
            return RedisHold(f"sentinel {watcher} has no quorum ({view.quorum_says})", RedisStep.REFRESH_SENTINELS)
    return None


def _stale_sentinels(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Sentinels that are gone still count as voters, so nobody could be elected once another one moves."""
    return _refresh(seen, acting, sentinels_only=True)


def _stale_replicas(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Replicas that are gone, or listed twice, delay or spoil the next failover."""
    return _refresh(seen, acting, sentinels_only=False)


def _refresh(seen: SentinelGroupState, acting: RedisPod, *, sentinels_only: bool) -> Action | None:
    # A sentinel that starts resolves the master pod's name: until that pod is master again it would be misled.
    if seen.group.refresh_by is RefreshBy.RESTART and acting is not seen.master_pod:
        return None
    for watcher, view in _views(seen):
        if why := _stale(seen, acting, watcher, view, sentinels_only=sentinels_only):
            return Refresh(watcher, f"sentinel {watcher} {why}")
    return None


def _stale(
    seen: SentinelGroupState, acting: RedisPod, watcher: SentinelPod, view: Sentinel, *, sentinels_only: bool = False
) -> str:
    """What a sentinel lists that is not there; "" if nothing."""
    colleagues = {v.run_id for w, v in _views(seen) if w is not watcher}
    for sentinel in view.sentinels:
        if sentinel.run_id not in colleagues:
            return f"lists a sentinel at {sentinel.address}, which is gone"
    for replica in view.replicas if not sentinels_only else ():
        if not any(m.is_at(replica.address) for m in seen.members if m is not acting):
            return f"lists {replica.address}, where no replica is"
        if replica.name not in {"", str(replica.address)}:
            # An entry made of a name follows it to the pod's new address, and is then the second one for that pod: a
            # failover would promote one of the two and make the other, the same server, follow it.
            return f"lists {replica.address} under its former address {replica.name}"
    return ""


def _entry(view: Sentinel, member: RedisPod) -> KnownReplica | None:
    found = [r for r in view.replicas if member.is_at(r.address)]
    return next((r for r in found if r.alive), found[0] if found else None)


def _roles(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Back to the master pod, unless it still has to move."""
    home = seen.master_pod
    if acting is home:
        return None
    if (back := _unsteer(seen, keep=None if _on(seen, home) else home)) is not None:
        return back
    if _on(seen, home):
        assert home.pod is not None  # noqa: S101 (it is on a node)
        return MovePod(home.pod, f"{acting} is master; the master pod {home} moves", RedisStep.MOVE_MASTER)
    return _switch(seen, acting, home, RedisStep.FAIL_BACK)


def _priorities(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    target = _target(seen) if _on(seen, acting) and acting is seen.master_pod else None
    return _unsteer(seen, keep=target)


def _unsteer(seen: SentinelGroupState, keep: RedisPod | None) -> Action | None:
    """Gives back their priorities to all but the one that is about to be promoted [R1]."""
    for member in seen.members:
        if member is keep or member.original_priority is None or not isinstance(member.server, Server):
            continue
        reason = f"{member} gets its priority {member.original_priority} back"
        return SetPromotionPriority(member, member.server, member.original_priority, None, reason, _switch_step(seen))
    return None


def _on(seen: SentinelGroupState, member: RedisPod) -> bool:
    return bool(seen.node) and member.pod is not None and member.pod.node == seen.node


def _replicas(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    for member in seen.members:
        if acting is seen.master_pod and member is not acting and _on(seen, member) and member.pod:
            return MovePod(member.pod, f"replica {member} moves", RedisStep.MOVE_REPLICA)
    return None


def _moving_sentinels(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    for watcher in seen.watchers:
        if acting is seen.master_pod and seen.node and watcher.pod and watcher.pod.node == seen.node:
            return MovePod(watcher.pod, f"sentinel {watcher} moves", RedisStep.MOVE_SENTINEL)
    return None


def _master(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    if not _on(seen, acting):
        return None
    target = _target(seen)
    if target is None:
        return Stop(f"{acting} has no replica that may become master: every replica's priority is 0")
    return _switch(seen, acting, target, RedisStep.FAIL_OVER)


def _target(seen: SentinelGroupState) -> RedisPod | None:
    """The replica to fail over to: the one that is steered already, else one that stays where it is."""
    able = [
        m
        for m in seen.members
        if m.part is Part.REPLICA and isinstance(m.server, Server) and (m.server.priority or m.original_priority)
    ]
    return min(able, key=lambda m: (m.original_priority is None, m.leaving, m.name), default=None)


def _switch(seen: SentinelGroupState, old: RedisPod, new: RedisPod, step: RedisStep) -> Action:
    """Steer first; switch once every sentinel has seen whom to promote."""
    server = new.server
    assert isinstance(server, Server)  # noqa: S101 (every member answered)
    if server.priority != STEERED or new.original_priority is None:
        mark = server.priority if new.original_priority is None else new.original_priority
        return SetPromotionPriority(new, server, STEERED, mark, f"{new} will be promoted", step)
    for watcher, view in _views(seen):
        entry = _entry(view, new)
        if entry is None or entry.priority != STEERED:
            return RedisHold(f"sentinel {watcher} has not seen yet that {new} is to be promoted", step)
        for other in view.replicas:
            if not new.is_at(other.address) and 0 < other.priority <= STEERED:
                return RedisHold(f"sentinel {watcher} would rather promote {other.address}", step)
    return Switch(old, new, f"{new} becomes master in place of {old}", step)


def _listing(parts: list[str]) -> str:
    return f" ({'; '.join(parts)})" if parts else ""
