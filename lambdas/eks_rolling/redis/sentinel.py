"""What a Sentinel group needs next: one pure function from what was observed to one action with a reason.

The order in which a group leaves a node: replicas, sentinels, then the master pod (fail over to a replica; delete the
pod; attach the new, empty one as a replica; fail back), and last the sentinels are refreshed, once for all that left. A
group that is found half way, whoever left it so, is brought back to normal before anything else is begun: the master
pod is master, every replica is in sync, every sentinel lists exactly the live pods [S2].
"""

from collections.abc import Iterator
from dataclasses import dataclass

from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.redis import (
    Address,
    Endpoint,
    Follower,
    KnownReplica,
    KnownSentinel,
    Role,
    Sentinel,
    Server,
    Silent,
)
from eks_rolling.redis.actions import NEAR_BYTES, PATIENCE_SECONDS, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import Part, PartSet, RedisGroup, RefreshBy
from eks_rolling.redis.room import too_small
from eks_rolling.redis.sync_progress import held_up, synchronizing

GOSSIP_SECONDS = 5.0
"""Sentinels say hello to each other every 2 s, and take over what has the higher epoch: by then they agree, or two of
them hold different views with the same epoch, for ever."""

INFO_SECONDS = 10.0
"""How often a sentinel asks a master for INFO, and so learns of its replicas."""

HURRIED_SECONDS = 0.099
"""How often while it is to learn of a replica soon. Nobody else would say just this: what a function left so that was
killed is known by it."""

DUE_SECONDS = 7.0
"""How old that should be when a sentinel is reset that cannot be told to ask sooner: it knows no replica until it asks
again, so it is without for three seconds at most instead of ten. Later would be better, and is missed: a look comes
every two seconds."""

ANSWERS_SECONDS = 3.0
"""Sentinels ping every second; whoever was just deleted has not answered for longer than that soon."""

NOWHERE = Address("192.0.2.1", 6379)
"""Whom the old master follows until the new one has all of its writes: an address that is nobody's (RFC 5737). It takes
no write from then on, and goes on feeding its replicas."""

NO_MASTER_SECONDS = 60.0
"""An election after down-after, and after the 20 s for which Sentinel bears with a master that says it is a replica."""

LONGEST_WITHOUT_MASTER_SECONDS = 120.0
"""A person is asked then, although sentinels may come to a second election: by default they do after 6 minutes."""


@dataclass(frozen=True, slots=True)
class RedisPod:
    """A pod that should be a Redis server; `pod` is None while there is none, `server` while it has no address."""

    name: str
    part: Part
    pod: Pod | None = None
    endpoint: Endpoint | None = None
    server: Server | Silent | None = None
    part_set: PartSet | None = None
    handing_over: bool = False
    """A switch away from it has begun, and its clients may not have been cut off yet: a mark on the pod says so."""
    leaving: bool = False
    """Its node is closed to new pods, or about to be."""

    def __str__(self) -> str:
        return self.name

    def is_at(self, address: Address | None) -> bool:
        """Whether that is this pod's address, or the name it announces."""
        if address is None or self.endpoint is None:
            return False
        own = {self.endpoint.address, self.known_as}
        hosts, ports = {a.host for a in own}, {a.port for a in own}
        named = self.part_set is not None and self.part_set.names(self.name, address.host)
        return (address.host in hosts or named) and address.port in ports

    @property
    def known_as(self) -> Address:
        """The address that its replicas know it by: the name, where names are announced, and the announced port."""
        assert self.endpoint is not None  # noqa: S101 (asked only of servers that answered)
        own = self.endpoint.address
        if not isinstance(self.server, Server):
            return own
        return Address(self.server.announced or own.host, self.server.announced_port or own.port)

    @property
    def is_hidden(self) -> bool:
        """Whether no sentinel lists it to anybody."""
        return isinstance(self.server, Server) and self.server.hidden


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
    watchers: tuple[SentinelPod, ...]
    node: str = ""
    waited: float = 0.0
    """Seconds since the step at hand began to wait."""

    @property
    def home(self) -> RedisPod | None:
        """The pod that is master in the group's normal state; None where any server may be.

        Every group that is declared rightly has one (`groups.declared`), so None comes of no annotation yet.
        """
        return next((m for m in self.members if m.part is Part.MASTER), None)

    def is_at_home(self, acting: RedisPod) -> bool:
        """Whether the role is where it is in the group's normal state."""
        return self.home is None or acting is self.home


# Actions. `step` is the state that does it.


@dataclass(frozen=True, slots=True)
class Switch:
    """Make `new` the master in place of `old`."""

    old: RedisPod
    new: RedisPod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class RepointSentinels:
    """`new` is master already, and `old` its replica: tell the sentinels, of which some still name `old`."""

    old: RedisPod
    new: RedisPod
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Make it master again: a switch closed it to writes and was cut off before another one took over."""

    old: RedisPod
    server: Server
    reason: str
    step: RedisStep


@dataclass(frozen=True, slots=True)
class CutOff:
    """End the connections of clients that a switch left behind; nothing but its mark where it `is_master` still."""

    old: RedisPod
    is_master: bool
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
    by: RefreshBy
    step: RedisStep = RedisStep.REFRESH_SENTINELS


@dataclass(frozen=True, slots=True)
class AskSooner:
    """Have sentinels ask the master for INFO now, because they do not list a replica yet."""

    watchers: tuple[SentinelPod, ...]
    reason: str
    step: RedisStep = RedisStep.REFRESH_SENTINELS


@dataclass(frozen=True, slots=True)
class AskAsBefore:
    """Have one sentinel ask for INFO every ten seconds again: it was hurried, and left so."""

    watcher: SentinelPod
    reason: str
    step: RedisStep = RedisStep.REFRESH_SENTINELS


Action = (
    RedisHold
    | Stop
    | Switch
    | TakeBack
    | RepointSentinels
    | CutOff
    | Follow
    | MovePod
    | Refresh
    | AskSooner
    | AskAsBefore
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
        _closed,
        _untold,
        _absent,
        _sentinels,
        _left_behind,
        _replication,
        _undeclared,
        _unknown,
        _hurried,
        _replicas,
        _moving_sentinels,
        _moved_names,
        _roles,
        _master,
        _never_switched,
        _refresh,
    )
    for check in checks:
        if (action := check(seen, acting)) is not None:
            return action
    return Settled(f"{acting} is master, {len(seen.members) - 1} in sync, {len(seen.watchers)} sentinels agree")


def _acting(seen: SentinelGroupState, answering: list[tuple[RedisPod, Server]]) -> RedisPod | Action:
    """The server that has the data and takes writes."""
    masters = [(m, s) for m, s in answering if s.role is Role.MASTER]
    if not masters:
        return _no_master(seen)
    if len(masters) == 1:
        member, server = masters[0]
        return RedisHold(f"{member} is loading its data set") if server.loading else member
    names = " and ".join(str(m) for m, _ in masters)
    leading = [(m, s) for m, s in masters if any(f.online for f in s.followers)]
    if len(leading) > 1:
        return _ask(seen, f"{names} are both masters with replicas")
    if len(masters) > 2:
        return _ask(seen, f"{names} are all masters")
    named = [m for m, _ in masters if _named_by_most(seen, m)]
    if not named:
        # Following throws away what it has: not before a majority vouches for the other one [S1].
        return RedisHold(f"{names} are both masters, and too few sentinels answer to tell which one counts")
    (counts,) = named
    other, passed_over = next((m, s) for m, s in masters if m is not counts)
    if any(f.online for f in passed_over.followers):
        return _ask(seen, f"{names} are both masters, and the sentinels name {counts}, which no replica follows")
    if other is seen.home:
        return Follow(
            other, passed_over, counts, f"{other} came back as a master without replicas", RedisStep.ATTACH_MASTER
        )
    if not leading:
        return _ask(seen, f"{names} are both masters, and the sentinels name {counts}, which no replica follows")
    if not _nobody_names(seen, other):
        return RedisHold(f"{names} are both masters; the sentinels demote {other}")
    # A switch that was cut off before the old master followed: no client was ever sent to the new one [S1].
    return Follow(other, passed_over, counts, f"{other} is a master that no sentinel names", _switch_step(seen))


def _no_master(seen: SentinelGroupState) -> Action:
    if (action := _handing_over(seen, None) or _closed(seen, None)) is not None:
        return action
    silent = [f"{m} {m.server.reason}" for m in seen.members if isinstance(m.server, Silent)]
    found = f"no server is master now{_listing(silent)}"
    servers = [(m, m.server) for m in seen.members if isinstance(m.server, Server)]
    electing = any(view.failing_over for _, view in _views(seen))
    if silent or electing or not servers or seen.waited < _until_second_election(seen):
        return RedisHold(f"{found}; the sentinels promote one{_cannot_elect(seen)}")
    # What they name answers, so they do not take it for dead, and wait for a master that waits for them.
    best, server = max(servers, key=lambda each: each[1].offset)
    return Stop(
        f"{found}, and the sentinels have promoted none in {seen.waited:.0f} s: make one the master, with REPLICAOF NO "
        f"ONE; {best} has the most ({server.offset:,} bytes of the stream)"
    )


def _until_second_election(seen: SentinelGroupState) -> float:
    """Seconds. One that elected nobody, as where votes were split, is followed by another after twice
    failover-timeout (redis.io, Sentinel)."""
    second = [2 * view.failover_timeout_ms / 1000 for _, view in _views(seen)]
    return min(NO_MASTER_SECONDS + max(second, default=0.0), LONGEST_WITHOUT_MASTER_SECONDS)


def _cannot_elect(seen: SentinelGroupState) -> str:
    """Why the sentinels promote nobody, where that is known."""
    for watcher, view in _views(seen):
        if not view.quorum_ok:
            return f", but {watcher} has no quorum ({view.quorum_says})"
        if view.replicas and not any(r.priority for r in view.replicas):
            return f", but {watcher} knows none that may become one: every replica's priority is 0"
    return ""


def _ask(seen: SentinelGroupState, found: str) -> Action:
    """A person decides, unless it is the passing state of a failover: after a cut between zones, say."""
    if seen.waited < PATIENCE_SECONDS or any(view.failing_over for _, view in _views(seen)):
        return RedisHold(f"{found}; the sentinels may be about to demote one")
    return Stop(f"{found}: decide which one's data counts, and make the other follow")


def _named_by_most(seen: SentinelGroupState, member: RedisPod) -> bool:
    views = [w.view for w in seen.watchers if isinstance(w.view, Sentinel)]
    return sum(member.is_at(v.current) for v in views) * 2 > len(seen.watchers)


def _nobody_names(seen: SentinelGroupState, member: RedisPod) -> bool:
    """Whether every sentinel answers, none names it, and none is electing."""
    views = [w.view for w in seen.watchers]
    return all(isinstance(v, Sentinel) and not v.failing_over and not member.is_at(v.current) for v in views)


def _handing_over(seen: SentinelGroupState, acting: RedisPod | None) -> Action | None:
    for member in seen.members:
        server = member.server
        if not isinstance(server, Server) or server.failover == "no-failover":
            continue
        if acting and acting is not member and acting.is_at(server.master):
            # The other one has taken over already: the sentinels are to be told.
            continue
        # A FAILOVER of somebody else's: a roll sends none.
        return RedisHold(f"{member} hands over ({server.failover})", _switch_step(seen))
    return None


def _closed(seen: SentinelGroupState, acting: RedisPod | None) -> Action | None:
    """A master that a switch closed to writes, and that was cut off before it followed the new one [S1]."""
    for member in seen.members:
        server = member.server
        if not isinstance(server, Server) or server.role is Role.MASTER or server.master != NOWHERE:
            continue
        if acting is not None and (_has_as_much(acting, server) or _named_by_most(seen, acting)):
            # It was promoted with all that this one had, or elected by the sentinels, which would do the same.
            return Follow(member, server, acting, f"{member} was closed, and {acting} is master", _switch_step(seen))
        if all(isinstance(w.view, Sentinel) and not w.view.failing_over for w in seen.watchers) and all(
            member.is_at(view.current) for _, view in _views(seen)
        ):
            # A master that came back empty counts for nobody [S1].
            return TakeBack(member, server, f"{member} was closed, and nobody took over", _switch_step(seen))
        if acting is not None:
            return RedisHold(f"{member} was closed, and the master {acting} has less", _switch_step(seen))
    return None


def _has_as_much(acting: RedisPod, closed: Server) -> bool:
    return isinstance(acting.server, Server) and acting.server.offset >= closed.offset


def _switch_step(seen: SentinelGroupState) -> RedisStep:
    """Which of the two handovers is due, or under way: away from the master pod while that has to move, else back."""
    return RedisStep.FAIL_OVER if seen.home is None or _on(seen, seen.home) else RedisStep.FAIL_BACK


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


def _untold(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """A switch that was cut off before every sentinel was told: clients are sent to a server that is read-only."""
    views = list(_views(seen))
    wrong = [v for _, v in views if not acting.is_at(v.current)]
    if not wrong or len(views) * 2 <= len(seen.watchers) or any(v.failing_over for _, v in views):
        return None
    old = next((m for m in seen.members if m is not acting and all(m.is_at(v.current) for v in wrong)), None)
    if old is None or not isinstance(old.server, Server) or not acting.is_at(old.server.master):
        # Only who follows the acting master has all its data there [S1].
        return None
    told = [v.epoch for _, v in views if acting.is_at(v.current)]
    if max(told, default=0) > max(v.epoch for v in wrong) and seen.waited <= GOSSIP_SECONDS:
        return None
    most = "the sentinels" if len(wrong) == len(views) else "some sentinels"
    return RepointSentinels(old, acting, f"{acting} is master, and {most} still name {old}", _switch_step(seen))


def _sentinels(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Whether every sentinel names the acting master and nothing else is under way."""
    name = seen.group.master_name
    for watcher, view in _views(seen):
        if not view.known:
            return Stop(f"sentinel {watcher} monitors no master {name}: correct its configuration or the annotation")
        if view.failing_over:
            return RedisHold(f"sentinel {watcher} is failing over", _switch_step(seen))
    if wrong := {str(w): v.current for w, v in _views(seen) if not acting.is_at(v.current)}:
        named = " and ".join(sorted({str(address or "nobody") for address in wrong.values()}))
        return RedisHold(f"{', '.join(wrong)} do not name {acting} yet, but {named}", _switch_step(seen))
    for watcher, view in _views(seen):
        if not acting.is_at(view.master):
            return RedisHold(f"sentinel {watcher} ends its failover", _switch_step(seen))
        if view.flags != {"master"}:
            return RedisHold(f"sentinel {watcher} says of {acting}: {', '.join(sorted(view.flags))}")
    return None


def _left_behind(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    for member in seen.members:
        if member.handing_over and member is not acting and isinstance(member.server, Server):
            reason = f"{member} handed over to {acting}; its clients are cut off"
            return CutOff(member, is_master=False, reason=reason, step=_switch_step(seen))
    return None


def _never_switched(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    if not acting.handing_over:
        return None
    return CutOff(acting, is_master=True, reason=f"{acting} did not hand over", step=_switch_step(seen))


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
            return RedisHold(f"{member} is loading its data set", step)
        if server.syncing:
            return synchronizing(str(member), server, source, seen.waited, step)
        follower = _follower(source, member)
        if not server.link_up or follower is None or not follower.online:
            chained = _is_replica_of(acting, next((m for m in seen.members if m.is_at(server.master)), None))
            if not acting.is_at(server.master) and (chained or seen.waited > PATIENCE_SECONDS):
                return Follow(member, server, acting, f"{member} follows {server.master}, not {acting}", step)
            return RedisHold(f"{member} has no link to {acting}{held_up(source)}", step)
        # By its own word: what the master has heard of it is up to a second old, and at some MB/s always far behind.
        if source.offset - server.offset > NEAR_BYTES:
            return RedisHold(f"{member} is {source.offset - server.offset:,} bytes behind", step)
    return None


def _is_replica_of(acting: RedisPod, member: RedisPod | None) -> bool:
    server = member.server if member else None
    return isinstance(server, Server) and server.role is Role.REPLICA and acting.is_at(server.master)


def _follower(source: Server, member: RedisPod) -> Follower | None:
    return next((f for f in source.followers if member.is_at(f.address)), None)


def _undeclared(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Who answers and is no pod of the group would come back after every refresh: a replica, which could be promoted,
    or a sentinel, which has a vote."""
    if not seen.is_at_home(acting):
        # The master pod's former address is among them for a moment, and nothing moves before it is master again.
        return None
    colleagues = {view.run_id for _, view in _views(seen)}
    for watcher, view in _views(seen):
        for entry in view.replicas:
            if _answers(entry) and not any(m.is_at(entry.address) for m in seen.members):
                found = f"sentinel {watcher} lists {entry.address}, a replica that answers and that nobody declared"
                return _stranger(
                    seen, found, f"declare its StatefulSet, or have it follow another master than {acting}"
                )
        for other in view.sentinels:
            # A lone sentinel was told of a master in the name of nobody, who seems to answer while it connects.
            nobody = other.address.host == NOWHERE.host
            if _answers(other) and not nobody and other.run_id not in colleagues:
                found = f"sentinel {watcher} lists a sentinel at {other.address} that answers and that nobody declared"
                return _stranger(
                    seen, found, f"declare its StatefulSet, or have it monitor another master than {acting}"
                )
    return None


def _answers(entry: KnownReplica | KnownSentinel) -> bool:
    return entry.alive and entry.silent_for < ANSWERS_SECONDS


def _stranger(seen: SentinelGroupState, found: str, remedy: str) -> Action:
    if seen.waited < PATIENCE_SECONDS:
        return RedisHold(found, RedisStep.REFRESH_SENTINELS)
    return Stop(f"{found}: {remedy}")


def _unknown(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Whether every sentinel knows all that live [S1]."""
    failing_back = _failing_back(seen, acting)
    if failing_back and not _resolve_names(seen):
        # No pod moves before the master pod is master again, and that switch tells them of it.
        return None
    for watcher, view in _views(seen):
        if failing_back and _stale(seen, acting, watcher, view):
            # A refresh finds what lives sooner.
            continue
        for member in seen.members:
            entry = _entry(view, member)
            if member is acting or member.is_hidden or (entry is not None and entry.alive):
                continue
            if entry is not None:
                return RedisHold(f"sentinel {watcher} takes for down {member}", RedisStep.REFRESH_SENTINELS)
            return _not_listed(seen, acting, f"sentinel {watcher} does not list {member}")
        known = {s.run_id for s in view.sentinels if s.alive}
        for colleague, other in _views(seen):
            if colleague is not watcher and other.run_id not in known:
                return RedisHold(f"sentinel {watcher} does not know {colleague} yet", RedisStep.REFRESH_SENTINELS)
        if not view.quorum_ok and not _stale(seen, acting, watcher, view):
            return RedisHold(f"sentinel {watcher} has no quorum ({view.quorum_says})", RedisStep.REFRESH_SENTINELS)
    return None


def _not_listed(seen: SentinelGroupState, acting: RedisPod, reason: str) -> Action:
    """They learn of it within ten seconds; at once if they may be told to ask now."""
    asked = tuple(w for w, v in _views(seen) if can_hurry(v) and lists_not(v, seen, acting))
    if asked and seen.waited < INFO_SECONDS:
        return AskSooner(asked, reason)
    return RedisHold(reason, RedisStep.REFRESH_SENTINELS)


def can_hurry(view: Sentinel) -> bool:
    """Whether it can be told to ask the master now: since Redis 7, where permitted, and nobody chose another period."""
    return view.info_period == INFO_SECONDS


def lists_not(view: Sentinel, seen: SentinelGroupState, acting: RedisPod) -> list[RedisPod]:
    """The replicas of the acting master that a sentinel does not list, and should."""
    return [m for m in seen.members if m is not acting and not m.is_hidden and _entry(view, m) is None]


def _hurried(seen: SentinelGroupState, _: RedisPod) -> Action | None:
    for watcher, view in _views(seen):
        if view.info_period == HURRIED_SECONDS:
            return AskAsBefore(watcher, f"sentinel {watcher} was hurried, and asks every ten seconds again")
    return None


def _failing_back(seen: SentinelGroupState, acting: RedisPod) -> bool:
    """Whether the master pod is where it shall be, and another one is master."""
    return seen.home is not None and acting is not seen.home and not _on(seen, seen.home)


def _resolve_names(seen: SentinelGroupState) -> bool:
    return any(view.resolves_names for _, view in _views(seen))


def _moved_names(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Before the fail back a sentinel that resolves names forgets the master pod's former address.

    It was given that as a name, and its entry follows the name to the pod's new address, late perhaps. By then the pod
    would be master, and the sentinel would take its own master for a replica that claims to be one, and have it follow
    itself (sentinel.c, +convert-to-slave): nobody would be master [S1]. By a reset, whatever the group asks for: a
    sentinel that starts resolves the master pod's name, and would be misled.
    """
    if not _failing_back(seen, acting) or not _resolve_names(seen):
        return None
    return _forget_stale(seen, acting, RefreshBy.RESET)


def _refresh(seen: SentinelGroupState, acting: RedisPod, *, sentinels_only: bool = False) -> Action | None:
    # A sentinel that starts resolves the master pod's name: until that pod is master again it would be misled.
    if not seen.is_at_home(acting):
        return None
    return _forget_stale(seen, acting, seen.group.refresh_by, sentinels_only=sentinels_only)


def _forget_stale(
    seen: SentinelGroupState, acting: RedisPod, by: RefreshBy, *, sentinels_only: bool = False
) -> Action | None:
    """The sentinels that list what is gone, one at a time: the next one to ask the master for its replicas first."""
    due = [
        (watcher, view, why)
        for watcher, view in _views(seen)
        if (why := _stale(seen, acting, watcher, view, sentinels_only=sentinels_only))
    ]
    if not due:
        return None
    watcher, view, why = max(due, key=lambda each: each[1].info_age)
    reason = f"sentinel {watcher} {why}"
    late = not can_hurry(view) and view.info_age < DUE_SECONDS
    if by is RefreshBy.RESET and late and seen.waited < INFO_SECONDS:
        return RedisHold(reason, RedisStep.REFRESH_SENTINELS, max(0.5, DUE_SECONDS - view.info_age))
    return Refresh(watcher, reason, by)


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
    if not sentinels_only and _hides_what_is_gone(seen, acting, view):
        return "knows a replica that it lists to nobody and that is gone"
    return ""


def _hides_what_is_gone(seen: SentinelGroupState, acting: RedisPod, view: Sentinel) -> bool:
    """Whether it knows more replicas than it lists and the group hides: a hidden one has moved, and is counted twice.

    One that nobody declared is counted as well; while it follows the master, a reset would only find it again.
    """
    hidden = sum(m.is_hidden for m in seen.members if m is not acting)
    followers = acting.server.followers if isinstance(acting.server, Server) else ()
    stranger = any(not any(m.is_at(f.address) for m in seen.members) for f in followers)
    return hidden > 0 and not stranger and (view.known_replicas or 0) > len(view.replicas) + hidden


def _entry(view: Sentinel, member: RedisPod) -> KnownReplica | None:
    found = [r for r in view.replicas if member.is_at(r.address)]
    return next((r for r in found if r.alive), found[0] if found else None)


def _roles(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    """Back to the master pod, unless it still has to move."""
    home = seen.home
    if home is None or acting is home:
        return None
    if _on(seen, home):
        assert home.pod is not None  # noqa: S101 (it is on a node)
        return MovePod(home.pod, f"{acting} is master; the master pod {home} moves", RedisStep.MOVE_MASTER)
    if why := _too_small(home, acting):
        return Stop(f"{why}: raise its maxmemory ({acting} is master meanwhile)")
    return _switch(acting, home, RedisStep.FAIL_BACK)


def _on(seen: SentinelGroupState, member: RedisPod) -> bool:
    return bool(seen.node) and member.pod is not None and member.pod.node == seen.node


def _replicas(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    for member in seen.members:
        if seen.is_at_home(acting) and member is not acting and _on(seen, member) and member.pod:
            return MovePod(member.pod, f"replica {member} moves", RedisStep.MOVE_REPLICA)
    return None


def _moving_sentinels(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    for watcher in seen.watchers:
        if seen.is_at_home(acting) and seen.node and watcher.pod and watcher.pod.node == seen.node:
            # Sentinels that are gone still count as voters, so no leader could be elected once another one moves.
            ghosts = _refresh(seen, acting, sentinels_only=True)
            return ghosts or MovePod(watcher.pod, f"sentinel {watcher} moves", RedisStep.MOVE_SENTINEL)
    return None


def _master(seen: SentinelGroupState, acting: RedisPod) -> Action | None:
    if not _on(seen, acting):
        return None
    able = [m for m in seen.members if m is not acting and isinstance(m.server, Server) and m.server.priority]
    if not able:
        return Stop(f"{acting} has no replica that may become master: every replica's priority is 0")
    # One that stays where it is, if there is one.
    target = min(able, key=lambda m: (bool(_too_small(m, acting)), m.is_hidden, m.leaving, m.name))
    if why := _too_small(target, acting):
        return Stop(f"{why}: raise its maxmemory")
    return _switch(acting, target, RedisStep.FAIL_OVER)


def _too_small(member: RedisPod, acting: RedisPod) -> str:
    if not isinstance(member.server, Server) or not isinstance(acting.server, Server):
        return ""
    return too_small(str(member), member.server, acting.server)


def _switch(old: RedisPod, new: RedisPod, step: RedisStep) -> Action:
    if isinstance(old.server, Server) and old.server.paused:
        # A switch pauses as well, and would end the pause of somebody who wants nobody to write now.
        return RedisHold(f"writes on {old} are paused (CLIENT PAUSE): its role moves when the pause has ended", step)
    if isinstance(old.server, Server) and old.server.read_only is False:
        return Stop(
            f"{old} takes writes as a replica too (replica-read-only no), and once it is one they would be lost: set "
            "replica-read-only to yes"
        )
    return Switch(old, new, f"{new} becomes master in place of {old}", step)


def _listing(parts: list[str]) -> str:
    return f" ({'; '.join(parts)})" if parts else ""
