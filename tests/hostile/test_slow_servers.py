"""Redis groups with many servers that drip or are silent, and groups that vanish: what they keep waiting is their own.

Each server has its own end (`test_redis_answers.py`); a function has one too.
"""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied
from eks_rolling.migration.asking import LOOK_SECONDS, LOOKS_SECONDS, NOT_ASKED
from eks_rolling.migration.next_action import QUICK_SECONDS, look, look_at_all
from eks_rolling.observed.redis import Endpoint, Silent
from eks_rolling.payloads import Hold, RollRequest
from eks_rolling.redis.actions import RedisHold
from eks_rolling.redis.groups import GROUP, PART, Part, declared
from eks_rolling.steps.health_gate import decide
from eks_rolling.steps.plan import observe
from stacks.functions import SIZES, USUAL
from tests.hostile.worlds import engine_for
from tests.model.situations import cache, outdated, redis_is_normal, settings, shards
from tests.world import World

DRIP = 6.0
"""Seconds: as long as an answer may drip (`clients.redis.EXCHANGE_SECONDS`)."""

AWAY = 900.0
"""Seconds for which a tenant's group is not what it was: less than the gate's deadline."""


class Dripping:
    """Servers of tenants' pods take as long as they may, and answer nothing; others answer at once."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._world.redis, name)

        def ask(endpoint: Endpoint, *more: Any) -> Any:
            if not endpoint.name.startswith("tenant-"):
                return real(endpoint, *more)
            self._world.time += DRIP
            return Silent(endpoint.address, "the answer has not ended")

        return ask if callable(real) else real


def with_tenants(world: World, namespaces: int, replicas: int) -> Clients:
    """Each tenant declares a group with so many servers, all of which drip."""
    for number in range(namespaces):
        said = {GROUP: "x", PART: str(Part.CLUSTER)}
        world._add("StatefulSet", f"tenant-{number}", "x", replicas, said)
    world.ready()
    redis: Any = Dripping(world)
    return replace(world.clients(settings()), redis=redis)


@pytest.mark.parametrize("replicas", [6, 60])
def test_a_look_at_a_group_ends_in_time_however_many_of_its_servers_drip(replicas: int) -> None:
    world = shards(new_version=False)
    clients = with_tenants(world, 1, replicas)
    groups, _ = declared(world.workloads())
    (slow,) = [g for g in groups if g.namespace.startswith("tenant-")]
    began = world.time
    due = look(slow, "", clients)
    assert world.time - began <= LOOK_SECONDS + DRIP
    assert isinstance(due.action, RedisHold)
    # Two looks, and what is done between them, fit a function.
    assert USUAL.timeout > QUICK_SECONDS + LOOK_SECONDS + 2 * DRIP


@pytest.mark.parametrize("tenants", [1, 3, 12])
def test_groups_of_tenants_that_drip_fail_no_plan_and_others_are_looked_at(tenants: int) -> None:
    """T1, R5."""
    world = shards()
    clients = with_tenants(world, tenants, 8)
    began = world.time
    view = observe(RollRequest(), clients)
    assert world.time - began <= LOOKS_SECONDS + LOOK_SECONDS + DRIP < SIZES["plan"].timeout - 40
    seen = {str(each.group): each for each in view.redis}
    assert len(seen) == tenants + 1
    if tenants <= 3:
        assert (seen["default/shards"].fault, seen["default/shards"].seen is None) == ("", False)
    late = [each for each in view.redis if each.fault == NOT_ASKED]
    assert bool(late) == (tenants == 12)


def test_the_groups_of_one_namespace_take_the_time_of_that_one() -> None:
    """A tenant may declare as many groups as it likes."""
    world = shards()
    for number in range(12):
        said = {GROUP: f"x-{number}", PART: str(Part.CLUSTER)}
        world._add("StatefulSet", "tenant-0", f"a-{number}", 8, said)
    clients = with_tenants(world, 0, 0)
    view = observe(RollRequest(), clients)
    seen = {str(each.group): each.fault for each in view.redis}
    assert seen["default/shards"] == ""
    assert NOT_ASKED in seen.values()


def test_what_the_gate_cannot_look_at_holds_it_and_is_named() -> None:
    world = cache(new_version=False)
    clients = world.clients(settings())
    due, faults = look_at_all(["default/cache", "default/gone", "tenant-9/../x"], clients)
    assert [str(each.group) for each in due] == ["default/cache"]
    assert [fault.partition(" ")[0] for fault in faults] == ["default/gone", "tenant-9/../x"]
    held = decide([], [], (), 100.0, 60.0, due, (), faults)
    assert isinstance(held, Hold)
    assert "default/gone (No StatefulSet declares the Redis group default/gone any more" in held.reason


def test_a_group_that_its_tenant_locks_for_a_while_holds_the_gate_and_fails_no_roll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R5, S2: its password is changed, and the Secret follows a quarter of an hour later."""
    world = cache()
    taken: list[float] = []
    server = world.redis.server

    def denied(endpoint: Endpoint) -> Any:
        if taken and world.time < taken[0] + AWAY:
            raise AccessDenied(f"{endpoint} does not accept the password.")
        return server(endpoint)

    def tenant(step: str) -> None:
        if step == "health_gate" and not taken:
            taken.append(world.time)

    monkeypatch.setattr(world.redis, "server", denied)
    engine = engine_for(world)
    engine.before_call = tenant
    roll = engine.run("roll", "roll-1", {})
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    assert taken
    assert world.time > taken[0] + AWAY
    assert outdated(world) == []
    assert redis_is_normal(world)
    assert world.redis.lost() == set()
