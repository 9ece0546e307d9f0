"""How pods of DaemonSets that a Service leads to leave a node in the moment before its instance is terminated [N5].

A DaemonSet whose pods tolerate our taint makes another one at once, which may serve a second later. So they are
evicted, watched until they have ended, and the instance goes in the moment between: the second and last place where a
step polls (the first is the switch of a Redis master).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.kubernetes import Pod, Workload
from eks_rolling.payloads import Hold

WATCH_SECONDS = 20.0
"""How long one invocation watches pods end."""

POLL_SECONDS = 0.1

Decision = TypeVar("Decision")


@dataclass(frozen=True, slots=True)
class LeaveServices:
    """Evict these, watch them end, and look again at once."""

    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class WatchEnding:
    """They are ending: look again as soon as they have."""

    pods: tuple[Pod, ...]


def last_that_serve(serving: Iterable[Pod], clients: Clients) -> tuple[Pod, ...]:
    """Those of these pods that are Ready, and the only ones of their DaemonSet that are."""
    return tuple(p for p in serving if p.ready and not p.deleting and not _another_serves(p, clients))


def _another_serves(pod: Pod, clients: Clients) -> bool:
    # Of the namespace, as its selector is not known: DaemonSets may be listed only, and that list is a long one.
    there = clients.kubernetes.pods_of(Workload(pod.owner)) if pod.owner else []
    return any(p.owner == pod.owner and p.ready and not p.deleting and p.uid != pod.uid for p in there)


def decide_exit(serving: Iterable[Pod]) -> LeaveServices | WatchEnding | None:
    """What to do about pods that serve; None where the instance may be terminated now, its `successors` first."""
    pods = tuple(serving)
    if ready := tuple(p for p in pods if p.ready and not p.deleting):
        return LeaveServices(ready)
    if ending := tuple(p for p in pods if p.deleting and p.phase == "Running"):
        return WatchEnding(ending)
    return None


def successors(serving: Iterable[Pod]) -> tuple[Pod, ...]:
    """Pods that serve, made anew and not Ready yet: they are evicted just before the termination, and never serve."""
    return tuple(p for p in serving if not p.deleting)


def decide_once_left(decide: Callable[[], Decision], node: str, clients: Clients) -> Decision | Hold:
    """What `decide` says once serving pods have ended, asked again and again; an eviction that is refused holds."""
    end = clients.now() + WATCH_SECONDS
    while True:
        decision = decide()
        if isinstance(decision, LeaveServices):
            for pod in decision.pods:
                answer = clients.kubernetes.evict(pod)
                if not answer.granted:
                    return Hold(f"pod {pod}, which serves: its eviction is refused: {answer.reason}")
        elif not isinstance(decision, WatchEnding):
            return decision
        while clients.now() < end and _any_ends(node, clients):
            clients.sleep(POLL_SECONDS)
        if clients.now() >= end:
            return decision


def _any_ends(node: str, clients: Clients) -> bool:
    """Whether a DaemonSet's pod on the node is ending."""
    pods = clients.kubernetes.pods_on(node)
    return any(p.deleting and p.stays_with_node and not p.finished for p in pods)
