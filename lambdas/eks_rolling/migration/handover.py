"""The switch of a Sentinel group's master: the one critical section that polls instead of coming back.

Sequence F of the research: pause writes, wait for equal offsets, hand over, lead the sentinels, cut old connections.
From the pause on clients wait, so it is whole inside one invocation. Wherever it is cut off, the pause ends by itself
on the server, and the next look (`sentinel.decide`) knows what is left to do.
"""

from collections.abc import Sequence
from dataclasses import replace

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Refused, RollError
from eks_rolling.migration.polling import CAUGHT_UP_SECONDS, caught_up, within
from eks_rolling.observed.redis import Endpoint, Role, Sentinel, Server
from eks_rolling.redis.actions import Done
from eks_rolling.redis.sentinel import RedisPod, RepointSentinels, SentinelPod, Switch

PAUSE_MILLISECONDS = 3000
"""Longer than what follows takes by far, and short enough for clients to sit out if we die.

Sentinels' hellos are writes too, so a pause as long as down-after would make them take the master for down: half of
that at most.
"""

EQUAL_SECONDS = 0.5
"""For the replica to catch up under the pause: it takes 1 to 8 ms."""

HAND_OVER_SECONDS = 0.5
"""For the role to change hands: it takes 10 to 100 ms."""

LED_SECONDS = 5.0
ALIGN_SECONDS = 11.0
"""A sentinel asks for INFO every 10 s."""

ALIGNED = (0.65, 0.8)
"""How old the leader's INFO of the target should be when the switch begins. In a failover it asks once a second, so
its next one comes just when the target has become master; unaligned it costs up to a second more.
"""


def switch(action: Switch, watchers: Sequence[SentinelPod], name: str, clients: Clients) -> Done:
    """Makes `action.new` the master. Answers what came of it; clients are never left paused by a refusal.

    Raises what the clients raise; then at worst writes stay paused until the pause's own end.
    """
    old, new = action.old, action.new
    source, target = _endpoint(old), _endpoint(new)
    expected = old.server
    assert isinstance(expected, Server)  # noqa: S101 (decided on)
    if not caught_up(target, source, clients):
        return Done(f"{new} did not catch up within {CAUGHT_UP_SECONDS} s; tried again later")
    _align(new, _leaders(watchers)[0], name, clients)
    redis, paused = clients.redis, clients.now()
    redis.pause_writes(source, expected, _pause(watchers))
    try:
        _, offset = redis.offset(source)
        if not within(EQUAL_SECONDS, lambda: redis.offset(target)[1] >= offset, clients):
            redis.unpause(source)
            late = f"{new} did not catch up within {EQUAL_SECONDS} s; writes go on, tried again later"
            return Done(late, clients.now() - paused)
        redis.hand_over(source, expected, new.known_as)
        ended = within(HAND_OVER_SECONDS, lambda: _handed_over(source, target, clients), clients)
    except RollError:
        redis.unpause(source)
        raise
    if not ended and take_back(old, new, watchers, clients):
        late = f"{old} did not hand over within {HAND_OVER_SECONDS} s; writes go on, tried again later"
        return Done(late, clients.now() - paused)
    said = lead(RepointSentinels(old, new, action.reason, action.step), watchers, name, clients)
    stall = clients.now() - paused
    return Done(f"{said} (writes stood still for {stall:.2f} s)", stall, failed_over=True)


def take_back(old: RedisPod, new: RedisPod | None, watchers: Sequence[SentinelPod], clients: Clients) -> bool:
    """Ends a hand-over, one way or the other. True if `old` is master again and takes writes; False if `new` is master.

    An abort may make two masters: the request to take over can be on its way still (redis.io, FAILOVER). So nobody
    writes to the old one until the new one has been seen to be a replica, with the connection cut that the request
    would come on; and a new master is followed. Raises what the clients raise; what is left then is decided on anew.
    """
    redis, source, before = clients.redis, _endpoint(old), old.server
    assert isinstance(before, Server)  # noqa: S101 (decided on)
    if new is not None:
        if redis.offset(_endpoint(new))[0] is Role.MASTER:
            return False
        redis.pause_writes(source, replace(before, role=redis.offset(source)[0]), _pause(watchers))
        redis.disconnect_clients(_endpoint(new))
    redis.abort_hand_over(source)
    if new is not None and redis.offset(_endpoint(new))[0] is Role.MASTER:
        redis.follow(source, replace(before, role=Role.MASTER), new.known_as)
        return False
    redis.unpause(source)
    return True


def lead(action: RepointSentinels, watchers: Sequence[SentinelPod], name: str, clients: Clients) -> str:
    """Makes the sentinels name the new master, then cuts the old one's connections so that clients ask them.

    No acknowledged write can be lost any more: the old master is read-only.
    """
    redis, new = clients.redis, action.new
    refusals = []
    for watcher in _leaders(watchers):
        try:
            redis.fail_over(_endpoint(watcher), name)
            break
        except Refused as error:
            refusals.append(f"{watcher}: {error}")
    else:
        return f"no sentinel fails over now ({'; '.join(refusals)})"
    led = within(LED_SECONDS, lambda: _all_name(new, watchers, name, clients), clients)
    source = _endpoint(action.old)
    redis.disconnect_clients(source)
    redis.unpause(source)
    return action.reason if led else f"{new} is master, and not every sentinel names it yet"


def _pause(watchers: Sequence[SentinelPod]) -> int:
    """For how long writes are paused, in milliseconds."""
    down_after = [w.view.down_after_ms // 2 for w in watchers if isinstance(w.view, Sentinel)]
    return min([PAUSE_MILLISECONDS, *down_after])


def _leaders(watchers: Sequence[SentinelPod]) -> list[SentinelPod]:
    """The last sentinel first. The one that leads is a second later than the others in SENTINEL MASTERS, by which some
    clients go (redis-py), and clients ask the first of their list first: measured 1.5 s of stall instead of 0.6 s.
    """
    return list(reversed(watchers))


def _align(new: RedisPod, leader: SentinelPod, name: str, clients: Clients) -> None:
    deadline = clients.now() + ALIGN_SECONDS
    while clients.now() < deadline:
        view = clients.redis.sentinel(_endpoint(leader), name)
        if not isinstance(view, Sentinel):
            return
        age = next((r.info_age for r in view.replicas if new.is_at(r.address)), None)
        if age is None or ALIGNED[0] <= age <= ALIGNED[1]:
            return
        # Until shortly before the moment; the sentinel's clock is looked at again then.
        ahead = ALIGNED[0] - age if age < ALIGNED[0] else 10.0 - age
        clients.sleep(min(1.0, max(0.04, ahead - 0.04)))


def _handed_over(source: Endpoint, target: Endpoint, clients: Clients) -> bool:
    return (
        clients.redis.offset(target)[0] is Role.MASTER
        and clients.redis.offset(source)[0] is Role.REPLICA
        and clients.redis.hand_over_state(source) == "no-failover"
    )


def _all_name(new: RedisPod, watchers: Sequence[SentinelPod], name: str, clients: Clients) -> bool:
    return all(new.is_at(clients.redis.current_master(_endpoint(w), name)) for w in watchers)


def _endpoint(of: RedisPod | SentinelPod) -> Endpoint:
    assert of.endpoint is not None  # noqa: S101 (decided on)
    return of.endpoint
