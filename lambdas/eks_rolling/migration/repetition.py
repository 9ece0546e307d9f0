"""How often one action on a Redis group was tried for the node at hand: only a first try renews a deadline.

An action that has no effect, or whose effect somebody undoes, is decided on again and again. Its tries are counted on
the group's Lease, where a killed function does not lose them, and they end with the migration for that node.
"""

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from math import isfinite
from typing import Any

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import LockLost, Refused, sentence
from eks_rolling.observed.kubernetes import Lease, Pod
from eks_rolling.redis.actions import Done
from eks_rolling.redis.cluster import ClusterPod, FailOver
from eks_rolling.redis.groups import RedisGroup
from eks_rolling.redis.sentinel import RedisPod, SentinelPod, Switch

TRIES = "eks-rolling.io/tries"
"""On the group's Lease: how often which action was tried, as JSON."""

WAITS_SINCE = "eks-rolling.io/waits-since"
"""On the group's Lease: since when the group waits for what it needs now, in epoch seconds."""

MOST_TRIES = 20

MOST_HANDOVERS = 6
"""Each lets writes stand still, for half a second at least where it fails."""

MANY = 1000
"""No roll tries anything so often: what says so is no count."""

LONGEST_PAUSE = 30.0
"""Seconds between two tries, at most: the first second doubles with each."""


def refuse_more(action: Any, lease: Lease, group: RedisGroup) -> None:
    """Raises Refused where the action was tried once too often already, as the group's Lease says."""
    tries = _read(lease.annotations.get(TRIES, "")).get(key_of(action), 0)
    if tries > _most(action):
        raise Refused(
            f"Redis group {group}: tried {tries} times without lasting effect: {action.reason}. Find out what "
            "prevents or undoes it."
        )


def _most(action: Any) -> int:
    return MOST_HANDOVERS if isinstance(action, Switch | FailOver) else MOST_TRIES


def tried(action: Any, done: Done, group: RedisGroup, clients: Clients) -> int:
    """Counts one more try of the action, and answers how many there were; 0 where nothing was changed.

    Raises Refused where there were too many, Conflict, Transient.
    """
    if not done.acted:
        return 0
    lease = clients.kubernetes.lease(group.lease)
    if lease is None:
        return 1
    known = _read(lease.annotations.get(TRIES, ""))
    key = key_of(action)
    tries = known.get(key, 0) + 1
    written = {TRIES: json.dumps(known | {key: tries}, sort_keys=True)}
    if tries == 1:
        # After a first try another thing is waited for than before. A repetition is no progress.
        written |= waits_from(clients.now())
    clients.kubernetes.put_lease(replace(lease, annotations=dict(lease.annotations) | written))
    if tries >= _most(action) and not _ended_well(action, done):
        raise Refused(
            f"Redis group {group}: tried {tries} times without lasting effect: {action.reason}. The last time: "
            f"{done.said}. Find out what prevents or undoes it."
        )
    return tries


def failed(action: Any, error: Exception, group: RedisGroup, clients: Clients) -> int:
    """Counts a try of the action that raised that: writes may have stood still for it, too [S1].

    Answers how many there were; 0 where the roll may not act any more. Raises Refused where there were too many.
    """
    return 0 if isinstance(error, LockLost) else tried(action, Done(sentence(error).rstrip(".")), group, clients)


def waits_from(now: float) -> dict[str, str]:
    """The annotation that begins a group's wait."""
    return {WAITS_SINCE: f"{now:.0f}"}


def waited(lease: Lease, now: float) -> float:
    """Seconds for which the group that the Lease stands for has waited; 0 where nothing legible says since when."""
    try:
        since = float(lease.annotations.get(WAITS_SINCE, now))
    except ValueError:
        return 0.0
    # A time that is none ("nan", "-inf") makes nobody impatient.
    return max(0.0, now - since) if isfinite(since) else 0.0


def pause_after(tries: int) -> float:
    """Seconds until the next look after that many tries of the same."""
    return float(min(LONGEST_PAUSE, 2.0 ** max(0, min(tries, 10) - 1)))


def _ended_well(action: Any, done: Done) -> bool:
    return done.failed_over and isinstance(action, Switch | FailOver)


def _read(text: str) -> dict[str, int]:
    try:
        known = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, int) and 0 < v < MANY} if isinstance(known, dict) else {}


def key_of(action: Any) -> str:
    """What is done to whom: a pod that comes back is the same one here."""
    return " ".join([action.step, type(action).__name__, *_pods(action)])


def _pods(action: Any) -> Iterator[str]:
    for field in fields(action):
        value = getattr(action, field.name)
        if isinstance(value, Pod | ClusterPod | RedisPod | SentinelPod):
            yield value.name
