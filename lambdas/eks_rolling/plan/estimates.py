"""How long a roll takes if nothing holds it, and how many state transitions it costs. Pure.

The seconds are what clusters on EC2 usually need; the plan lists them as its assumptions. Redis' are measured
(docs/redis.md); the others are rounded up from experience, so the sum says hours or days, not minutes.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from eks_rolling.documents.plan import Estimate, Move, Way
from eks_rolling.payloads import backoff, bake_look

LAUNCH_SECONDS = 120
"""From the launch to a node that is Ready, with its DaemonSets and healthy as a target."""

POD_SECONDS = 30
"""From an eviction to the pod Ready elsewhere."""

VOLUME_SECONDS = 30
"""What a volume adds to that: detached, attached, mounted."""

BALANCER_SECONDS = 60
"""Leaving load balancers: part of the deregistration delay, the rest of which passes beside the evictions."""

TERMINATE_SECONDS = 60

REDIS_POD_SECONDS = 60
"""A Redis pod that moves with its role, without the time of its data."""

REDIS_BYTES_PER_SECOND = 50_000_000

ROLL_STATES = 40
"""States that a roll enters beside its nodes' and its waves'."""

WAVE_STATES = 8

NODE_STATES = 30
"""States that a node's execution enters if it never waits."""

POLL_STATES = 3
"""A wait costs three: the Wait itself, the task again, the question whether it is done."""

ROLL_EVENTS, WAVE_EVENTS, NODE_EVENTS, LOOK_EVENTS = 150, 20, 8, 9
"""What a roll writes into its history: once, for a wave, for a node, for each look of a wait (counted in the tests)."""

HISTORY_LIMIT, HISTORY_KEPT = 25_000, 5_000
"""Events that a history may have (Step Functions quotas), and what is kept for pauses, holds and retries."""

REDIS_POD_STATES = 100
"""What moving a Redis pod with its role adds, its waits included."""

ASSUMPTIONS = (
    f"a replacement is ready {LAUNCH_SECONDS} s after its launch, an evicted pod {POD_SECONDS} s after its eviction",
    f"a volume takes {VOLUME_SECONDS} s more, load balancers {BALANCER_SECONDS} s, a node's end {TERMINATE_SECONDS} s",
    f"a Redis pod takes {REDIS_POD_SECONDS} s and a second for every {REDIS_BYTES_PER_SECOND // 1_000_000} MB of data",
    "budgets allow as much as now, and nothing holds",
)


def node_seconds(moves: Iterable[Move], redis_bytes: float) -> float:
    """How long one node takes: pods of one owner go as its budget allows, pods with volumes one at a time."""
    together: Counter[tuple[str, int]] = Counter()
    alone = redis = 0
    for move in moves:
        if move.way is Way.MIGRATE:
            redis += 1
        elif move.volumes or move.owner.startswith("StatefulSet"):
            alone += 1
        else:
            together[move.owner, max(1, move.allowed or 1)] += 1
    rounds = max((math.ceil(count / allowed) for (_, allowed), count in together.items()), default=0)
    evicting = rounds * POD_SECONDS + alone * (POD_SECONDS + VOLUME_SECONDS)
    migrating = redis * REDIS_POD_SECONDS + redis_bytes / REDIS_BYTES_PER_SECOND
    return LAUNCH_SECONDS + migrating + BALANCER_SECONDS + evicting + TERMINATE_SECONDS


def estimate(waves: Sequence[Sequence[float]], surge: int, bake_seconds: float, redis_pods: int = 0) -> Estimate:
    """The whole roll: within a wave `surge` nodes at a time, each as long as `waves` says; then the bake time."""
    lengths = [_makespan(nodes, surge) for nodes in waves]
    seconds = sum(lengths) + bake_seconds * len(waves)
    nodes = sum(NODE_STATES + POLL_STATES * polls(s) for wave in waves for s in wave)
    gates = len(waves) * (WAVE_STATES + POLL_STATES * polls(bake_seconds))
    return Estimate(
        seconds=round(seconds),
        waves=len(waves),
        transitions=ROLL_STATES + gates + nodes + REDIS_POD_STATES * redis_pods if waves else 0,
        assumptions=ASSUMPTIONS if waves else (),
    )


def wave_count(nodes: int, wave: int, *, canary: bool) -> int:
    """In how many waves so many nodes are replaced."""
    first = min(nodes, 1 if canary else wave)
    return (first > 0) + math.ceil((nodes - first) / wave)


def history_events(nodes: int, waves: int, bake_seconds: float) -> int:
    """Events of the roll's own history if nothing holds it: a node's execution has a history of its own."""
    looks = math.ceil(bake_seconds / bake_look(bake_seconds))
    return ROLL_EVENTS + NODE_EVENTS * nodes + (WAVE_EVENTS + LOOK_EVENTS * looks) * waves


def polls(seconds: float) -> int:
    """How often a step looks during a wait of so many seconds."""
    waited, count = 0.0, 0
    while waited < seconds:
        waited += backoff(waited)
        count += 1
    return count


def _makespan(lengths: Sequence[float], at_once: int) -> float:
    """When the last of these ends, with so many running at a time, in their order."""
    ends: list[float] = []
    for length in lengths:
        begins = heapq.heappop(ends) if len(ends) >= at_once else 0.0
        heapq.heappush(ends, begins + length)
    return max(ends, default=0.0)
