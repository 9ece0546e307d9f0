"""Whole rolls over a Redis group under Sentinel, in memory: to the end, and killed after every single command."""

from eks_rolling.observed.redis import Role
from tests.model.situations import by_zone, cache, outdated, redis_is_normal
from tests.model.test_roll import engine_for, stop_after
from tests.scope import at_kill_points
from tests.world import World


def failovers(world: World) -> int:
    return sum(1 for effect in world.effects if effect.startswith("REPLICAOF NO ONE"))


def commands_of_a_roll() -> list[int]:
    """The numbers of a roll's effects that concern Redis; the others' kills are tried without it, and quicker."""
    world = cache()
    engine_for(world).run("roll", "roll-1", {})
    return [n for n, effect in enumerate(world.effects, 1) if "redis" in effect]


def switching() -> list[int]:
    """Those of them that are no writes of a Lease, which only remembers how often something was tried."""
    world = cache()
    engine_for(world).run("roll", "roll-1", {})
    return [n for n in commands_of_a_roll() if not world.effects[n - 1].startswith("lease")]


def test_the_group_in_memory_is_normal_and_takes_writes() -> None:
    world = cache()
    assert redis_is_normal(world)
    assert len(world.redis.acked) > 4
    assert world.redis.lost() == set()


def test_a_roll_moves_the_group_with_two_failovers_and_loses_nothing() -> None:
    """S1, S2."""
    world = cache()
    before, zones = world.snapshot(), by_zone(world)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.lost() == set()
    assert redis_is_normal(world)
    assert failovers(world) == 2
    assert world.redis.longest_stall < 1.1, (
        "the switch itself takes none of the time in memory; the next tick is a second later"
    )
    assert world.snapshot() == before


def test_writes_are_not_paused_for_a_replica_that_gets_none_yet() -> None:
    """S1: they would stand still for nothing."""
    world = cache()
    world.redis.stream_seconds = 40.0
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert world.redis.lost() == set()
    assert failovers(world) == 2
    assert sum(effect.startswith("CLIENT PAUSE") for effect in world.effects) == 2


def test_replicas_that_sentinels_list_to_nobody_are_forgotten_where_they_moved_from() -> None:
    """S2: nobody is told of them, so only their number shows it."""
    world = cache()
    world.redis.unannounced = True
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert world.redis.lost() == set()
    assert redis_is_normal(world)
    replicas = {host for host, server in world.redis.servers.items() if server.role is Role.REPLICA}
    assert [set(s.replicas) for s in world.redis.sentinels.values()] == [replicas] * 3


@at_kill_points(commands_of_a_roll, switches=switching)
def test_a_function_killed_after_any_command_loses_no_write(after: int) -> None:
    """S1, S2, R3: the next invocation finishes; nothing stays paused."""
    world = cache()
    before, zones = world.snapshot(), by_zone(world)
    world.kill_after = after
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.lost() == set()
    assert redis_is_normal(world)
    assert failovers(world) <= 3
    assert world.redis.longest_stall < 10
    assert world.snapshot() == before


@at_kill_points(commands_of_a_roll, switches=switching)
def test_a_roll_stopped_after_any_command_leaves_the_group_normal_and_the_next_one_finishes(after: int) -> None:
    """R2, S2: the watchdog's restore finishes the migration that was begun; R3 by the next roll."""
    world = cache()
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    stop_after(engine, after)
    restore = engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    assert redis_is_normal(world)
    assert world.redis.lost() == set()
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.lost() == set()
    assert redis_is_normal(world)
    assert world.snapshot() == before


@at_kill_points(commands_of_a_roll, every=2, switches=switching)
def test_a_roll_that_dies_unnoticed_is_taken_over_with_its_half_moved_group(after: int) -> None:
    """R4, R1: the next roll waits for the leases, and goes on from what it finds."""
    world = cache()
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    stop_after(engine, after)
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.lost() == set()
    assert redis_is_normal(world)
    # A roll that died with nothing left to do but to give up its lock leaves that to time.
    assert world.snapshot() | {"lock": {}} == before


def test_the_writer_would_notice_a_bare_failover() -> None:
    """S1: what everybody writes loses what the old master takes until it is demoted; the model knows."""
    world = cache()
    world.redis.elect(max(world.redis.sentinels))
    world.advance(40)
    assert len(world.redis.lost()) >= 8
