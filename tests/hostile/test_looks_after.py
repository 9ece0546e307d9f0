"""The look that follows what a Redis step did: whatever it meets, what was done is told [S1]."""

from collections.abc import Callable
from typing import Any

import pytest

from eks_rolling.errors import MALFORMED, AccessDenied, Conflict, Transient
from eks_rolling.migration import next_action
from eks_rolling.migration.next_action import Next, migrate
from eks_rolling.payloads import RedisActionTask, StepResult
from eks_rolling.redis.actions import Done, RedisStep
from eks_rolling.redis.groups import RedisGroup, declared
from eks_rolling.redis.sentinel import Refresh, SentinelGroupState, SentinelPod
from eks_rolling.roll import lock
from tests.model.situations import cache, settings

FAULTS = [
    Transient("It is away."), Conflict("It was changed."), AccessDenied("It may not."), OverflowError("too large"),
    *(kind("odd") for kind in MALFORMED),
]  # fmt: skip


def refreshing(monkeypatch: pytest.MonkeyPatch, then: Callable[[], Any]) -> StepResult:
    """A step whose action is done, and whose next look is `then`."""
    world = cache(new_version=False)
    clients = world.clients(settings())
    (group,), _ = declared(world.workloads())
    lock.acquire(clients, "roll-1", lock.lock_name(clients.settings.namespace))
    looks: list[Next] = []

    def look(group: RedisGroup, node: str, _: Any, waits: float) -> Next:
        if looks:
            then()
        action = Refresh(SentinelPod("sentinel-0"), "lists what is gone", group.refresh_by)
        seen = SentinelGroupState(group, (), (), node, waits)
        looks.append(Next(group, seen, action, waits, lambda: Done("it was told", stall=0.2, failed_over=True)))
        return looks[0]

    monkeypatch.setattr(next_action, "look", look)
    given = {"roll": "roll-1", "instance": "i-1", "node": "node-1", "group": "ng-a", "redis_group": str(group)}
    return migrate(RedisActionTask(**given, action=RedisStep.REFRESH_SENTINELS), clients)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_what_was_done_is_told_whatever_the_next_look_meets(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def meet() -> None:
        raise fault

    answer = refreshing(monkeypatch, meet)
    assert (answer.status, answer.reason) == ("wait", "it was told")
    assert answer.output["stall_seconds"] == 0.2
    assert [s["completed"] for s in answer.output["switches"]] == [True]
