"""Finishing Redis migrations that were begun: how long each group is waited for."""

from dataclasses import replace

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.migration.next_action import Next
from eks_rolling.migration.repetition import WAITS_SINCE, waited
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import SettleTask
from eks_rolling.redis.actions import Done, RedisHold
from eks_rolling.redis.groups import RedisGroup, RefreshBy, declared
from eks_rolling.redis.sentinel import Refresh, SentinelGroupState, SentinelPod
from eks_rolling.roll import lock
from eks_rolling.settings import Settings
from eks_rolling.steps import settle_redis
from tests.model.situations import cache

SETTINGS = Settings(cluster="demo")
LOOKS, SECONDS = 5, 10.0


def test_what_one_group_waits_for_is_not_hidden_by_the_progress_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: else a group that a person has to decide about waits for as long as any other one is busy."""
    world = cache(new_version=False)
    clients = world.clients(SETTINGS)
    (busy,), _ = declared(world.workloads())
    stuck = replace(busy, name="stuck")
    lock.acquire(clients, "roll-2", lock.lock_name(SETTINGS.namespace))
    for group in (busy, stuck):
        lock.acquire(clients, "roll-1/node", group.lease)
    patience: dict[str, list[float]] = {busy.name: [], stuck.name: []}

    def look(group: RedisGroup, node: str, _: Clients, waits: float) -> Next:
        patience[group.name].append(waits)
        seen = SentinelGroupState(group, (), (), node, waits)
        if group.name == stuck.name:
            return Next(group, seen, RedisHold("nothing happens"), waits, lambda: Done(""))
        # Another sentinel every time: a first try each.
        watcher = SentinelPod(f"sentinel-{len(patience[busy.name])}")
        action = Refresh(watcher, "lists what is gone", RefreshBy.RESET)
        return Next(group, seen, action, waits, lambda: Done(action.reason))

    monkeypatch.setattr(settle_redis, "declared", lambda _: ([busy, stuck], []))
    monkeypatch.setattr(settle_redis, "look", look)
    for _ in range(LOOKS):
        settle_redis.run(SettleTask(roll="roll-2", ending=False), clients)
        world.time += SECONDS
    assert patience[stuck.name] == [SECONDS * n for n in range(LOOKS)]
    assert patience[busy.name] == [0.0, *[SECONDS] * (LOOKS - 1)]


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 10.0), ("", 0.0), ("soon", 0.0), ("nan", 0.0), ("-inf", 0.0), ("200", 0.0)]
)
def test_patience_counts_from_a_time_that_somebody_wrote_only_if_it_is_one(written: str, seconds: float) -> None:
    assert waited(Lease("shop/eks-rolling-redis-cache", annotations={WAITS_SINCE: written}), 100.0) == seconds


def test_a_group_that_nothing_is_written_of_has_not_waited() -> None:
    assert waited(Lease("shop/eks-rolling-redis-cache"), 100.0) == 0.0
