"""A world whose clients can be watched and broken call by call, and rolls that are stopped in the middle of it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import RollError
from eks_rolling.roll.fence import timeout
from tests.asl import Engine, Execution, Stopped
from tests.assembly import synthesize
from tests.model.situations import settings, shop
from tests.redis_world import RedisWorld
from tests.world import Killed, World

Call = tuple[str, str]
"""A method of a client, and the object that it is called for ("" for none)."""


def subject(argument: Any) -> str:
    """The name of what a call is about."""
    if isinstance(argument, (list, tuple)):
        return ""
    return str(getattr(argument, "name", getattr(argument, "owner", argument)))


class Watched:
    """The world as a client, or its Redis: every call goes by `before` first, which may raise in its stead."""

    def __init__(self, world: World | RedisWorld, before: Callable[[Call], None]) -> None:
        self._world = world
        self._before = before

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._world, name)
        if not callable(real) or name.startswith("_"):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._before((name, subject(args[0]) if args else ""))
            return real(*args, **kwargs)

        return call


def clients_of(world: World, before: Callable[[Call], None]) -> Clients:
    """The world's clients, watched."""
    watched: Any = Watched(world, before)
    redis: Any = Watched(world.redis, before)
    return Clients(watched, watched, redis, settings(), lambda: world.time, world.advance, world)


def recorder(calls: list[Call]) -> Callable[[Call], None]:
    """Notes each call once."""

    def note(call: Call) -> None:
        if call not in calls:
            calls.append(call)

    return note


def breaker(broken: Call, error: RollError) -> Callable[[Call], None]:
    """Lets one call fail, for ever."""

    def fail(call: Call) -> None:
        if call == broken:
            raise error

    return fail


def engine_for(world: World, before: Callable[[Call], None] = lambda _: None) -> Engine:
    return Engine(synthesize(), world, clients_of(world, before))


@cache
def effects_of_a_roll() -> tuple[str, ...]:
    """What a roll over the small shop does, from its first effect to its last."""
    probe = shop((2, 1))
    engine_for(probe).run("roll", "roll-1", {})
    return tuple(probe.effects)


def effect_number(what: str) -> int:
    """Which effect of a roll over the small shop is the first that says so."""
    return 1 + next(i for i, effect in enumerate(effects_of_a_roll()) if what in effect)


def stopped_after(effect: int) -> World:
    """The small shop, with a roll that was stopped right after that effect."""
    world = shop((2, 1))
    engine = engine_for(world)
    engine.kills_stop_execution = True
    world.kill_after = effect
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    return world


def with_a_replacement_that_drains_for_ever() -> World:
    """The small shop, with a roll that was stopped once it had launched a replacement, whose target groups never let
    go of it."""
    world = stopped_after(effect_number("launch "))
    # Otherwise pods would find it while the restore waits for the roll's steps, and it would stay.
    world.new_nodes_never_join = True
    world.delays.deregistration = 100_000
    (name,) = {m.group for m in world.machines.values() if m.id not in world.planned}
    for machine in [m for m in world.machines.values() if m.group == name]:
        world._register_targets(machine)
    return world


class Frozen:
    """An invocation that stands still at the `at`th of the calls that count, while its roll is stopped and restored.

    After `seconds` it goes on, if its function's timeout has not killed it by then; and so does the restore.
    """

    def __init__(self, world: World, at: int, seconds: float, counts: Callable[[Call], bool]) -> None:
        self.world = world
        self.engine = engine_for(world, self._before)
        self.engine.before_call = self._began
        self.restore: Execution | None = None
        self.call: Call | None = None
        self.effects_when_thawed = 0
        self.calls_to_come = at
        self._seconds, self._counts = seconds, counts
        self._ends = 0.0
        self._inside = False

    def run(self, afterwards: float = 120) -> Execution | None:
        """The restore, `afterwards` seconds after its end; None where the roll was over before the call came."""
        try:
            self.engine.run("roll", "roll-1", {})
        except Stopped:
            assert self.restore is not None
            self.engine.follow(self.restore)
            self.world.advance(afterwards)
        return self.restore

    def _began(self, step: str) -> None:
        if self.restore is None:
            self._ends = self.world.time + timeout(step)
            self._inside = step not in {"restore", "report", "find_orphans", "plan", "take_lock", "settle_redis"}

    def _before(self, call: Call) -> None:
        if self.restore is not None or not self._inside or not self._counts(call):
            return
        self.calls_to_come -= 1
        if self.calls_to_come:
            return
        self.call = call
        self.engine.stop()
        self.restore = self.engine.start("restore", "watchdog-1", {"roll": "roll-1"}, after=1)
        self.engine.let_pass(self._seconds)
        self.effects_when_thawed = len(self.world.effects)
        if self.world.time >= self._ends:
            raise Killed("the function's timeout")
