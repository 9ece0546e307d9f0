"""Worlds in which one kind of action never has its effect, or is undone: a roll ends in bounded time and says why.

Each client method is replaced by one that is accepted and does nothing, for the whole of a roll.
"""

from collections import Counter

import pytest

from eks_rolling.migration import handover
from eks_rolling.migration.repetition import MOST_HANDOVERS, MOST_TRIES
from tests.asl import Execution
from tests.model.situations import cache, shards
from tests.model.test_roll import engine_for
from tests.world import World

LONGEST = 4 * 3600.0
"""Seconds: the longest deadline of a step that the worlds below meet, and a restore after it."""


class Ignored:
    """A method that is accepted, and does nothing; counts how often it was tried on what."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()

    def __call__(self, *args: object, **kwargs: object) -> None:
        self.tried[str(args[0])] += 1


def ends(world: World) -> Execution:
    """A roll, which must end in time although nobody changes anything."""
    began = world.time
    roll = engine_for(world).run("roll", "roll-1", {}, limit_seconds=int(LONGEST))
    assert world.time - began < LONGEST
    return roll


@pytest.mark.parametrize("method", ["follow", "announce", "reset"])
def test_what_sentinel_groups_do_not_do_is_tried_a_few_times(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: writes stand still at each try of a handover."""
    world, ignored = cache(), Ignored()
    world.baseline = None
    monkeypatch.setattr(world.redis, method, ignored)
    roll = ends(world)
    paused = sum(e.startswith("CLIENT PAUSE") for e in world.effects)
    # Sentinels that are not told hear of a new master by themselves, and forget by themselves.
    assert "default/" in roll.cause or roll.status == "SUCCEEDED"
    assert paused <= 2 * MOST_HANDOVERS


def test_a_replica_that_never_catches_up_under_a_pause_is_tried_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: each try lets writes stand still; two nodes' rolls would do so for hours."""
    world = cache()
    world.baseline = None
    monkeypatch.setattr(handover, "_has_all", lambda *_: False)
    roll = ends(world)
    paused = sum(e.startswith("CLIENT PAUSE") for e in world.effects)
    assert roll.status == "FAILED"
    assert f"Redis group default/cache: tried {MOST_HANDOVERS} times without lasting effect" in roll.cause
    assert "did not catch up within 0.5 s" in roll.cause
    assert paused == MOST_HANDOVERS
    assert world.redis.lost() == set()


@pytest.mark.parametrize("method", ["meet", "replicate", "take_over", "forget"])
def test_what_redis_clusters_do_not_do_is_tried_a_few_times(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1."""
    world, ignored = shards(), Ignored()
    world.baseline = None
    monkeypatch.setattr(world.redis, method, ignored)
    roll = ends(world)
    assert "default/" in roll.cause or roll.status == "SUCCEEDED"
    assert max(ignored.tried.values()) <= 2 * MOST_TRIES
