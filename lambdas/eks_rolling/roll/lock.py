"""One roll at a time on one cluster [R4]: a Lease in the cluster, held by the execution's name.

Every step of a roll renews it; a holder that is silent for the lease's duration has lost it. The Lease also carries,
as annotations, what people ask of a running roll (pause, abort, keep taints), `failed`, after which no further node is
begun, and `ended`, with which a restore turns away steps of the roll that are still on their way.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Conflict, LockLost
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.observed.marks import moment

NAME = "eks-rolling"
PAUSE = "eks-rolling.io/pause"
PAUSED_AT = "eks-rolling.io/paused-at"
ABORT = "eks-rolling.io/abort"
FAILED = "eks-rolling.io/failed"
ENDED = "eks-rolling.io/ended"
KEEP_TAINTS = "eks-rolling.io/keep-taints"
PROOF = "proof.eks-rolling.io/"
"""Beginning of annotations that prove a node's marks: see `roll.proofs`. They outlast their roll, until a restore."""

ACCEPTED = "eks-rolling.io/accepted"
"""Codes of findings that the roll's request accepts, as JSON."""


LOOK_SECONDS = 10.0
"""How soon a step looks again at a roll that was just paused."""

LONGEST_LOOK_SECONDS = 900.0
"""A history has room for 25,000 events, and each look costs nine: a pause of a week has to fit beside the nodes."""
STEPS_UNTIL = "eks-rolling.io/steps-until"
"""Until when steps that act may be at work, whatever has become of their roll (epoch seconds)."""

AHEAD_SECONDS = 10
"""By how much more that is put off each time, so that parallel steps seldom write it one after another."""

LONGEST_INVOCATION = 900
"""Seconds: no function of Lambda's runs for longer (Lambda quotas)."""

TRIES = 5
"""How often that is written anew where somebody else writes the Lease at the same moment."""


@dataclass(frozen=True, slots=True)
class Take:
    """Write this lease: we hold the lock then."""

    lease: Lease
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """We hold it already, and renewed it lately."""

    reason: str = "the lock is ours"


@dataclass(frozen=True, slots=True)
class Busy:
    """Another roll holds it. `seconds` until its lease runs out if it is dead."""

    holder: str
    seconds: float


def lock_name(namespace: str) -> str:
    """The Lease's full name."""
    return f"{namespace}/{NAME}"


def launch_name(namespace: str) -> str:
    """The Lease under which groups that mix purchase options launch one instance at a time."""
    return f"{namespace}/{NAME}-launch"


def decide(lease: Lease | None, roll: str, now: float, name: str, duration: float) -> Take | Held | Busy:
    """Whether `roll` may hold the lock called `name`, and what to write for it.

    A lease of our own is renewed when a quarter of its duration has passed, so that parallel steps of one roll
    seldom write at the same time. A free or expired one is taken over; what was asked of the former holder goes.
    While the roll is paused the lease outlasts the long waits between two looks.
    """
    if lease is None:
        return Take(Lease(name, roll, now, duration), "the lock was free")
    if lease.holder == roll:
        marked = _paused_at_marked(lease, now)
        lasting = max(duration, 3 * pause_look(marked, now)) if PAUSE in marked.annotations else duration
        if marked is lease and lease.duration <= lasting and now < lease.renewed + duration / 4:
            return Held()
        return Take(replace(marked, renewed=now, duration=lasting), "the lock is renewed")
    if not lease.holder:
        return Take(_taken(lease, roll, now, duration), "the lock was free")
    if lease.expired(now) and now >= steps_until(lease):
        why = f"the lock of {lease.holder}, silent for {now - lease.renewed:.0f} s, was taken over"
        return Take(_taken(lease, roll, now, duration), why)
    return Busy(lease.holder, max(lease.renewed + lease.duration, steps_until(lease)) - now)


def _taken(lease: Lease, roll: str, now: float, duration: float) -> Lease:
    """What is proven about marks that a dead roll left stays; all else was said to that roll."""
    kept = {key: value for key, value in lease.annotations.items() if key.startswith(PROOF)}
    return replace(lease, holder=roll, renewed=now, duration=duration, annotations=kept)


def steps_until(lease: Lease) -> float:
    """Until when steps of the holder may be at work; 0 where none has said so.

    Whoever says so renews the lease with it, so what is later than a function's longest time from then no step said.
    """
    said = lease.annotations.get(STEPS_UNTIL, "")
    until = float(said) if said.isascii() and said.isdigit() and len(said) < 13 else 0.0
    return min(until, lease.renewed + LONGEST_INVOCATION + AHEAD_SECONDS)


def announce(clients: Clients, roll: str, ends: float) -> None:
    """Writes on the roll's lock that a step of it may be at work until `ends`, unless that is there already.

    Raises LockLost where the roll does not hold the lock, or where a restore has begun; Conflict.
    """
    name = lock_name(clients.settings.namespace)
    for attempt in range(TRIES):
        lease = _ours(clients, roll, name)
        if steps_until(lease) >= ends:
            return
        annotations = dict(lease.annotations) | {STEPS_UNTIL: str(math.ceil(ends) + AHEAD_SECONDS)}
        try:
            clients.kubernetes.put_lease(replace(lease, renewed=clients.now(), annotations=annotations))
        except Conflict:
            if attempt == TRIES - 1:
                raise
        else:
            return


def pause_look(lease: Lease, now: float) -> float:
    """Seconds until a paused roll looks again: a twentieth of the time that it has been paused.

    Who lets it go on within the first minutes sees it move at once, after a day within a quarter of an hour; three days
    cost 370 looks.
    """
    since = moment(lease.annotations.get(PAUSED_AT, ""))
    paused = 0.0 if since is None else now - since
    return min(LONGEST_LOOK_SECONDS, max(LOOK_SECONDS, paused / 20))


def _paused_at_marked(lease: Lease, now: float) -> Lease:
    """The lease with the time at which its pause was first seen; without it where it is not paused."""
    if (PAUSE in lease.annotations) == (PAUSED_AT in lease.annotations):
        return lease
    others = {key: value for key, value in lease.annotations.items() if key != PAUSED_AT}
    return replace(lease, annotations=others | ({PAUSED_AT: f"{now:.0f}"} if PAUSE in others else {}))


def acquire(clients: Clients, holder: str, name: str) -> Take | Held | Busy:
    """Takes or renews a lock if it may be had. Raises Conflict if another write came at the same moment."""
    lease = clients.kubernetes.lease(name)
    decision = decide(lease, holder, clients.now(), name, clients.settings.lease_seconds)
    if isinstance(decision, Take):
        clients.kubernetes.put_lease(decision.lease)
    return decision


def confirm(clients: Clients, roll: str) -> Lease:
    """Renews the lock that the roll must hold, and answers it as it was seen.

    Raises LockLost where the roll does not hold it, or where a restore has begun.
    """
    name = lock_name(clients.settings.namespace)
    lease = _ours(clients, roll, name)
    decision = decide(lease, roll, clients.now(), name, clients.settings.lease_seconds)
    if isinstance(decision, Take):
        try:
            clients.kubernetes.put_lease(decision.lease)
        except Conflict:
            # A parallel step of this roll renewed it, or another roll took it over: the next read will show.
            return _ours(clients, roll, name)
    return lease


def outlast(clients: Clients, roll: str, seconds: float) -> None:
    """Lets the lock last through a wait of so many seconds, in which nobody renews it. Raises Conflict, LockLost."""
    lease = _ours(clients, roll, lock_name(clients.settings.namespace))
    if 3 * seconds > lease.duration:
        clients.kubernetes.put_lease(replace(lease, renewed=clients.now(), duration=3 * seconds))


def _ours(clients: Clients, roll: str, name: str) -> Lease:
    lease = clients.kubernetes.lease(name)
    if lease is None or lease.holder != roll:
        holder = lease.holder if lease and lease.holder else "no roll"
        raise LockLost(f"The lock of the cluster is held by {holder}, not by {roll}: this roll has ended.")
    if ENDED in lease.annotations:
        raise LockLost(f"The roll {roll} is being restored: it makes no more changes.")
    return lease


def note_failure(clients: Clients, roll: str, node: str) -> None:
    """Notes that a node failed, if the roll still holds the lock; the first one's name stays. Raises Conflict."""
    lease = clients.kubernetes.lease(lock_name(clients.settings.namespace))
    if lease is not None and lease.holder == roll and FAILED not in lease.annotations:
        clients.kubernetes.put_lease(replace(lease, annotations=dict(lease.annotations) | {FAILED: node}))


def note_request(clients: Clients, roll: str, *, keep_taints: bool, accept: Sequence[str]) -> None:
    """Notes what the roll's request asks of steps that do not see it: that taints are to stay, for whoever restores,
    and which findings it accepts. Raises Conflict, LockLost."""
    lease = _ours(clients, roll, lock_name(clients.settings.namespace))
    said = {KEEP_TAINTS: "asked for"} if keep_taints else {}
    said |= {ACCEPTED: json.dumps(sorted(accept))} if accept else {}
    if said.items() - lease.annotations.items():
        clients.kubernetes.put_lease(replace(lease, annotations=dict(lease.annotations) | said))


def accepted(lease: Lease | None) -> frozenset[str]:
    """The codes, alone or as CODE:OBJECT, that the request of the lock's roll accepts; none where nobody's request says
    what stands there."""
    try:
        said = json.loads(lease.annotations.get(ACCEPTED, "[]")) if lease else []
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(code for code in said if isinstance(code, str)) if isinstance(said, list) else frozenset()


def end(clients: Clients, roll: str, by: str = "") -> Lease | Busy | None:
    """Turns further steps of the roll away, and takes its lock for the restore `by` name, if that is another's.

    Answers the lock as it is then; Busy where another roll holds it; None where the roll holds nothing any more,
    because it put everything back itself, or another one did. Raises Conflict.
    """
    name, holder = lock_name(clients.settings.namespace), by or roll
    lease = clients.kubernetes.lease(name) or Lease(name)
    now, duration = clients.now(), clients.settings.lease_seconds
    if lease.holder not in {"", roll, holder}:
        if not lease.expired(now):
            return Busy(lease.holder, lease.renewed + lease.duration - now)
        if roll != holder:
            return None
    if not lease.holder and roll != holder and lease.resource_version:
        return None
    if lease.holder != holder or ENDED not in lease.annotations or now > lease.renewed + duration / 4:
        annotations = dict(lease.annotations) | {ENDED: "restoring"}
        if until := steps_until(lease):
            # As it is believed now: each renewal would put off what no step said.
            annotations[STEPS_UNTIL] = f"{math.ceil(until)}"
        ended = replace(lease, holder=holder, renewed=now, duration=duration, annotations=annotations)
        return clients.kubernetes.put_lease(ended)
    return lease


def release(clients: Clients, holder: str | None, name: str, proofs: Mapping[str, str] | None = None) -> None:
    """Gives a lock up, whoever holds it where `holder` is None; not held any more is fine. `proofs` stay on it."""
    lease = clients.kubernetes.lease(name)
    if lease is not None and lease.holder and holder in {None, lease.holder}:
        clients.kubernetes.put_lease(replace(lease, holder="", annotations=dict(proofs or {})))


def begun_by(lease: Lease | None, roll: str, now: float) -> bool:
    """Whether a Redis group's migration was begun by this roll, or by a holder that has been silent since."""
    return lease is not None and bool(lease.holder) and (lease.holder.startswith(f"{roll}/") or lease.expired(now))
