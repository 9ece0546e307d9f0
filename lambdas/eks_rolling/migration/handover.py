"""The switch of a Sentinel group's master: the one critical section that polls instead of coming back.

Writes are paused on the old master, and once the new one has all of them the old one is closed: told to follow nobody.
It takes no write from then on, pause or no pause. Only when the new one has the last byte of it does that become
master, and the old one its replica [S1]. Then every sentinel is told, by a hello in the name of one of its peers, and
the clients of the old master are cut off, so that they ask the sentinels. Nobody is elected, and nothing waits for a
sentinel's timer (docs/decisions/2026-11-hello.md).

From the pause on clients wait, so it is whole inside one invocation. Wherever it is cut off, the pause ends by itself
on the server, and the next look (`sentinel.decide`) knows what is left to do.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied, Conflict, Permanent, RollError, Transient
from eks_rolling.migration.polling import CAUGHT_UP_SECONDS, caught_up, within
from eks_rolling.observed.redis import Address, Endpoint, KnownSentinel, Role, Sentinel, Server
from eks_rolling.redis.actions import Done
from eks_rolling.redis.sentinel import NOWHERE, RedisPod, SentinelGroupState, SentinelPod, Switch

PAUSE_MILLISECONDS = 3000
"""Longer than what follows takes by far, and short enough for clients to sit out if we die.

Sentinels' hellos are writes too, so a pause as long as down-after would make them take the master for down: half of
that at most.
"""

EQUAL_SECONDS = 0.5
"""For the replica to catch up under the pause: it takes 1 to 8 ms."""

NAMED_SECONDS = 0.5
"""For every sentinel to name the new master: it does so in its answer to the hello."""

TELLINGS = 2
"""A second time where somebody else's election took the same epoch in the same milliseconds."""

NOBODY = KnownSentinel(Address("192.0.2.1", 26379), "0" * 40, frozenset())
"""In whose name a sentinel is told that has no peer at all: an address that is nobody's (RFC 5737). It is then listed
as a sentinel that is gone, and is forgotten with the refresh that ends every migration."""


def switch(action: Switch, seen: SentinelGroupState, clients: Clients) -> Done:
    """Makes `action.new` the master. Answers what came of it; clients are never left paused by a refusal.

    Raises what the clients raise; then at worst writes stay paused until the pause's own end.
    """
    old, new, redis = action.old, action.new, clients.redis
    source, target = _endpoint(old), _endpoint(new)
    if not caught_up(target, source, clients):
        return Done(f"{new} did not catch up within {CAUGHT_UP_SECONDS} s; tried again later", acted=False)
    watchers = _look_again(seen, clients)
    _check_permissions(old, new, watchers)
    if reason := _not_now(old, watchers):
        return Done(f"{reason}; tried again later", acted=False)
    paused = clients.now()
    redis.pause_writes(source, _server(old), _pause(watchers))
    try:
        _, offset = redis.offset(source)
        if not within(EQUAL_SECONDS, lambda: _has_all(target, offset, clients), clients):
            redis.unpause(source)
            return Done(_late(new), clients.now() - paused)
        redis.follow(source, _server(old), NOWHERE)
    except RollError:
        redis.unpause(source)
        raise
    closed = replace(_server(old), role=Role.REPLICA, master=NOWHERE)
    if not _has_the_rest(target, source, closed, clients):
        take_back(source, closed, clients)
        return Done(_late(new), clients.now() - paused)
    try:
        redis.promote(target, _server(new))
    except (Conflict, Permanent):
        # Not promoted, certainly. Whoever did not answer may have been: the next look tells.
        take_back(source, closed, clients)
        raise
    redis.follow(source, closed, new.known_as)
    told = tell(old, new, replace(seen, watchers=watchers), clients)
    stall = clients.now() - paused
    _lead_others(old, new, seen, clients)
    said = action.reason if told else untold(new)
    return Done(f"{said} (writes stood still for {stall:.2f} s)", stall, failed_over=True, untold=not told)


def _late(new: RedisPod) -> str:
    return f"{new} did not catch up within {EQUAL_SECONDS} s; writes continue, and it is tried again later"


def untold(new: RedisPod) -> str:
    """What is said where a sentinel could not be told of the new master."""
    return f"{new} is master, and not every sentinel names it yet"


def _has_the_rest(target: Endpoint, source: Endpoint, closed: Server, clients: Clients) -> bool:
    """Whether the new master has all that the closed one ever acknowledged: a pause may have ended before it closed.

    Where it cannot be told, the old one is master again before the error goes on.
    """
    try:
        role, offset = clients.redis.offset(source)
        return role is Role.REPLICA and within(EQUAL_SECONDS, lambda: _has_all(target, offset, clients), clients)
    except RollError:
        take_back(source, closed, clients)
        raise


def take_back(old: Endpoint, closed: Server, clients: Clients) -> None:
    """Makes a closed master master again: nobody else is, and no client was sent elsewhere [S1]."""
    clients.redis.promote(old, closed)
    clients.redis.unpause(old)


def tell(old: RedisPod, new: RedisPod, seen: SentinelGroupState, clients: Clients) -> bool:
    """Has the sentinels name the new master, then cuts the old one's connections so that clients ask them.

    Answers whether every sentinel names it. No acknowledged write can be lost any more: the old master is the new one's
    replica.
    """
    redis, name = clients.redis, seen.group.master_name
    # One that has no address begins anew when it has one, and is waited for then.
    there = tuple(w for w in seen.watchers if w.endpoint is not None)
    watchers, named = there, False
    for _ in range(TELLINGS):
        epoch = 1 + max((w.view.epoch for w in watchers if isinstance(w.view, Sentinel)), default=0)
        for watcher in watchers:
            # Whom this does not reach hears it from the others within 2 s.
            with suppress(Transient):
                redis.announce(_endpoint(watcher), name, _form(new, watcher), epoch, _peer(watcher, watchers))
        if named := within(NAMED_SECONDS, lambda: _all_name(new, there, name, clients), clients):
            break
        watchers = _look_again(replace(seen, watchers=watchers), clients)
    cut_off(old, clients)
    return named


def cut_off(old: RedisPod, clients: Clients) -> None:
    """Ends the old master's connections, and then its pause, so that no client is told of a write that is refused."""
    try:
        clients.redis.disconnect_clients(_endpoint(old))
    finally:
        clients.redis.unpause(_endpoint(old))


def _lead_others(old: RedisPod, new: RedisPod, seen: SentinelGroupState, clients: Clients) -> None:
    """The other replicas follow the new master at once; sentinels have them do so after failover-timeout only."""
    for member in seen.members:
        server = member.server
        if member.name in {old.name, new.name} or not isinstance(server, Server) or server.role is not Role.REPLICA:
            continue
        with suppress(RollError):
            clients.redis.follow(_endpoint(member), server, new.known_as)


def _look_again(seen: SentinelGroupState, clients: Clients) -> tuple[SentinelPod, ...]:
    name = seen.group.master_name
    return tuple(replace(w, view=clients.redis.sentinel(_endpoint(w), name)) for w in seen.watchers)


def _check_permissions(old: RedisPod, new: RedisPod, watchers: Sequence[SentinelPod]) -> None:
    """Raises AccessDenied: once the roles have changed it is too late to find out."""
    needed: list[tuple[RedisPod | SentinelPod, frozenset[str], set[str]]] = [
        (old, _server(old).denied, {"CLIENT PAUSE", "CLIENT UNPAUSE", "CLIENT KILL", "REPLICAOF"}),
        (new, _server(new).denied, {"REPLICAOF"}),
        *((w, w.view.denied, {"PUBLISH"}) for w in watchers if isinstance(w.view, Sentinel)),
    ]
    for subject, denied, commands in needed:
        if missing := sorted(denied & commands):
            raise AccessDenied(
                f"{_endpoint(subject)} does not know or permit {', '.join(missing)}: grant it as deploy/README.md says."
            )


def _not_now(old: RedisPod, watchers: Sequence[SentinelPod]) -> str:
    """Why no switch may begin now, "" if it may: whatever the look showed, it is seconds old."""
    for watcher in watchers:
        view = watcher.view
        if not isinstance(view, Sentinel):
            return f"sentinel {watcher} does not answer"
        if view.failing_over:
            return f"sentinel {watcher} is failing over"
        if not old.is_at(view.current):
            return f"sentinel {watcher} does not name {old} any more"
    return ""


def _pause(watchers: Sequence[SentinelPod]) -> int:
    """For how long writes are paused, in milliseconds."""
    down_after = [w.view.down_after_ms // 2 for w in watchers if isinstance(w.view, Sentinel)]
    return min([PAUSE_MILLISECONDS, *down_after])


def _form(new: RedisPod, watcher: SentinelPod) -> Address:
    """The new master's address as this sentinel writes it: a name perhaps, another port behind a forwarding.

    Whom it does not list, yet or ever (replica-announced no), it knows from the master by what that one announces.
    Under another address it would have the new master beside itself as a replica, and make it follow itself [S1].
    """
    view, known = watcher.view, new.known_as
    listed = [r.address for r in view.replicas if new.is_at(r.address)] if isinstance(view, Sentinel) else []
    by_name = isinstance(view, Sentinel) and (view.announces_names or (new.is_hidden and view.resolves_names))
    unlisted = known if by_name or not known.is_name else Address(_endpoint(new).address.host, known.port)
    return next(iter(listed), unlisted)


def _peer(watcher: SentinelPod, watchers: Sequence[SentinelPod]) -> KnownSentinel:
    """In whose name a sentinel is told: a peer that it knows, else one that it will know within seconds."""
    view = watcher.view
    known = sorted(view.sentinels, key=lambda s: not s.alive) if isinstance(view, Sentinel) else []
    others = [
        KnownSentinel(w.view.address, w.view.run_id, frozenset())
        for w in watchers
        if w is not watcher and isinstance(w.view, Sentinel) and w.view.run_id
    ]
    return next(iter([*known, *others]), NOBODY)


def _has_all(replica: Endpoint, offset: int, clients: Clients) -> bool:
    role, reached = clients.redis.offset(replica)
    return role is Role.REPLICA and reached >= offset


def _all_name(new: RedisPod, watchers: Sequence[SentinelPod], name: str, clients: Clients) -> bool:
    try:
        return all(new.is_at(clients.redis.current_master(_endpoint(w), name)) for w in watchers)
    except Transient:
        return False


def _server(of: RedisPod) -> Server:
    assert isinstance(of.server, Server)  # noqa: S101 (decided on)
    return of.server


def _endpoint(of: RedisPod | SentinelPod) -> Endpoint:
    assert of.endpoint is not None  # noqa: S101 (decided on)
    return of.endpoint
