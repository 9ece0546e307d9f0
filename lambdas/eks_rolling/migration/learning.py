"""Having sentinels learn what lives: they ask the master for its replicas every ten seconds, or sooner if told to.

A sentinel that was reset knows no replica until it asks again, and no other sentinel until that one says hello, every
two seconds. So it is told those hellos at once, and to ask ten times a second (SENTINEL DEBUG, since Redis 7), in the
same invocation, until it knows what lives. Wherever that is cut off the sentinel asks too often, which harms nobody,
and the next look puts it right (`sentinel.decide`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import assert_never

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import RollError
from eks_rolling.migration.polling import within
from eks_rolling.observed.redis import Endpoint, Sentinel
from eks_rolling.redis.actions import Done
from eks_rolling.redis.sentinel import (
    HURRIED_SECONDS,
    INFO_SECONDS,
    AskAsBefore,
    AskSooner,
    RedisPod,
    Refresh,
    SentinelGroupState,
    SentinelPod,
    can_hurry,
    lists_not,
)

LEARN_SECONDS = 3.0
"""For the next INFO, and for the hellos of other sentinels that it could not be told, which come every two seconds."""

ASK_SECONDS = 0.05
"""Between two looks at whether it has: half of what it takes to ask."""


def learn(action: Refresh | AskSooner | AskAsBefore, seen: SentinelGroupState, clients: Clients) -> Done:
    """Does the action, and where sentinels can be told to hurry, waits until they know what lives.

    Raises what the clients raise.
    """
    match action:
        case Refresh(watcher):
            with _hurried((watcher,), clients) as hurried:
                clients.redis.reset(_endpoint(watcher), seen.group.master_name)
                _introduce(watcher, seen, clients)
                _learned(hurried, seen, clients)
            return Done(action.reason)
        case AskSooner(watchers):
            with _hurried(watchers, clients) as hurried:
                return Done(action.reason, acted=_learned(hurried, seen, clients))
        case AskAsBefore(watcher):
            clients.redis.ask_every(_endpoint(watcher), INFO_SECONDS)
            return Done(action.reason)
        case _:
            assert_never(action)


@contextmanager
def _hurried(watchers: Sequence[SentinelPod], clients: Clients) -> Iterator[list[SentinelPod]]:
    """Those of them that can be told to hurry; as long as it lasts they ask for INFO ten times a second."""
    able = [w for w in watchers if isinstance(w.view, Sentinel) and can_hurry(w.view)]
    try:
        for watcher in able:
            clients.redis.ask_every(_endpoint(watcher), HURRIED_SECONDS)
        yield able
    finally:
        for watcher in able:
            with suppress(RollError):
                clients.redis.ask_every(_endpoint(watcher), INFO_SECONDS)


def _introduce(watcher: SentinelPod, seen: SentinelGroupState, clients: Clients) -> None:
    """Tells a sentinel that was just reset of those of its peers that live, as it listed them: what they say themselves
    within two seconds. Until then it would know nobody to elect a master with [S1].

    Nothing else is said: no master and no epoch but those that it has.
    """
    view = watcher.view
    if not isinstance(view, Sentinel) or view.current is None:
        return
    living = {w.view.run_id for w in seen.watchers if isinstance(w.view, Sentinel) and w is not watcher}
    for peer in view.sentinels:
        if peer.run_id in living:
            # Whom it cannot be told of it hears from themselves.
            with suppress(RollError):
                clients.redis.announce(_endpoint(watcher), seen.group.master_name, view.current, view.epoch, peer)


def _learned(watchers: Sequence[SentinelPod], seen: SentinelGroupState, clients: Clients) -> bool:
    acting = next((m for m in seen.members if _is_master(m, watchers)), None)
    if not watchers or acting is None:
        return False
    colleagues = {w.view.run_id for w in seen.watchers if isinstance(w.view, Sentinel)}

    def knows_all(watcher: SentinelPod) -> bool:
        view = clients.redis.sentinel(_endpoint(watcher), seen.group.master_name)
        if not isinstance(view, Sentinel) or lists_not(view, seen, acting):
            return False
        return colleagues <= {view.run_id, *(s.run_id for s in view.sentinels)}

    return within(LEARN_SECONDS, lambda: all(knows_all(w) for w in watchers), clients, every=ASK_SECONDS)


def _is_master(member: RedisPod, watchers: Sequence[SentinelPod]) -> bool:
    return any(isinstance(w.view, Sentinel) and member.is_at(w.view.current) for w in watchers)


def _endpoint(watcher: SentinelPod) -> Endpoint:
    assert watcher.endpoint is not None  # noqa: S101 (it answered)
    return watcher.endpoint
