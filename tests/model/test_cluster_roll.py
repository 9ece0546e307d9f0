"""Whole rolls over a Redis Cluster, in memory: to the end, and killed after every single command."""

from functools import cache

import pytest

from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.marks import SOFT_TAINT
from eks_rolling.redis.stand_in import LABEL
from tests.model.situations import by_zone, cluster_is_normal, cluster_roles, outdated, shards
from tests.model.test_roll import engine_for, stop_after
from tests.scope import at_kill_points
from tests.world import World


@cache
def effects_of_a_roll() -> tuple[str, ...]:
    world = shards()
    engine_for(world).run("roll", "roll-1", {})
    return tuple(world.effects)


def commands_of_a_roll() -> list[int]:
    """The numbers of a roll's effects that concern Redis; the others' kills are tried without it, and quicker."""
    return [n for n, effect in enumerate(effects_of_a_roll(), 1) if "redis" in effect]


def switching() -> list[int]:
    """Those of them that move one master and one replica, but for writes of a Lease, which only remembers how often
    something was tried, and for the second stand-in's greeting, which is as the first one's: the other pods move by the
    same commands."""
    effects = effects_of_a_roll()
    said = {n: effects[n - 1] for n in commands_of_a_roll()}
    deleted = [n for n, effect in said.items() if effect.startswith("delete") and effect.endswith("-stand-in")]
    master, _, replica = deleted[:3]
    assert not any("FAILOVER" in said[n] for n in said if deleted[1] < n <= replica)
    greets = {n for n in said if n > master and "MEET" in said[n] and said[n].endswith("-stand-in")}
    moving = (n for n in said if n <= master or deleted[1] < n <= replica)
    return [n for n in moving if n not in greets and not said[n].startswith("lease")]


def watch_copies(world: World) -> list[int]:
    """The fewest copies in sync that a shard had, seen so far."""
    fewest = [world.redis.cluster.copies()]
    world.watchers.append(lambda w: fewest.__setitem__(0, min(fewest[0], w.redis.cluster.copies())))
    return fewest


def test_the_cluster_in_memory_is_normal_and_takes_writes() -> None:
    world = shards()
    assert cluster_is_normal(world)
    assert len(world.redis.cluster.acked) > 10
    assert world.redis.cluster.lost() == set()
    assert world.redis.cluster.copies() == 2


def test_a_roll_moves_every_pod_and_loses_nothing() -> None:
    """C1, C2."""
    world = shards()
    before, zones, roles = world.snapshot(), by_zone(world), cluster_roles(world)
    fewest = watch_copies(world)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.cluster.lost() == set()
    assert world.redis.cluster.unserved == []
    assert fewest == [2]
    assert cluster_is_normal(world)
    assert cluster_roles(world) == roles
    assert world.redis.cluster.failovers == 2 * 3
    assert world.redis.cluster.longest_pause < 0.1
    assert world.redis.cluster.risks <= set(roles), "no stand-in may be elected before it gets what is written"
    assert world.snapshot() == before


def test_nobody_forgets_a_stand_in_before_it_knows_who_serves_its_slots() -> None:
    """C1: who forgets the node that it has slots with takes them for unserved until it hears otherwise."""
    world = shards()
    world.redis.cluster.late = "redis-b-1"
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert world.redis.cluster.unserved == []
    assert cluster_is_normal(world)


@pytest.mark.long  # a roll of six nodes; tests/unit/steps/test_inspect_redis.py and test_evict.py have both decisions
def test_a_stand_in_on_a_node_that_is_emptied_meanwhile_is_not_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: it went where no pod of its group is, before that node was closed. The node waits for the migration's end."""
    world = shards(sizes=(4, 2))
    before, roles, place = world.snapshot(), cluster_roles(world), world._place
    fewest, homes = watch_copies(world), set[str]()

    def placed(pod: Pod) -> str:
        if LABEL not in pod.labels:
            return place(pod)
        used = {p.pod.node for p in world.pods_by_name.values() if p.pod.owner and "redis" in p.pod.owner.name}
        old = (n for n in world.nodes_by_name.values() if n.taints == (SOFT_TAINT,) and n.zone == pod.labels["zone"])
        home = next((n.name for n in old if n.name not in used), "")
        homes.add(home)
        return home or place(pod)

    monkeypatch.setattr(world, "_place", placed)
    execution = engine_for(world).run("roll", "roll-1", {"surge": 4})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert homes - {""}, "none stood on a node that was to be emptied"
    assert [e for e in world.effects if e.startswith("evict") and e.endswith("-stand-in")] == []
    assert (world.redis.cluster.lost(), world.redis.cluster.unserved, fewest) == (set(), [], [2])
    assert cluster_is_normal(world)
    assert (outdated(world), cluster_roles(world), world.snapshot()) == ([], roles, before)


@at_kill_points(commands_of_a_roll, switches=switching)
def test_a_function_killed_after_any_command_loses_no_write(after: int) -> None:
    """C1, C2, R3: the next invocation finishes."""
    world = shards()
    before, zones, roles = world.snapshot(), by_zone(world), cluster_roles(world)
    fewest = watch_copies(world)
    world.kill_after = after
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.cluster.lost() == set()
    assert world.redis.cluster.unserved == []
    assert fewest == [2]
    assert world.redis.cluster.risks <= set(roles)
    assert cluster_is_normal(world)
    assert cluster_roles(world) == roles
    assert world.snapshot() == before


@at_kill_points(commands_of_a_roll, every=2, switches=switching)
def test_a_roll_stopped_after_any_command_leaves_the_cluster_normal_and_the_next_one_finishes(after: int) -> None:
    """R2, C2: the watchdog's restore finishes the migration that was begun; R3 by the next roll."""
    world = shards()
    before, zones, roles = world.snapshot(), by_zone(world), cluster_roles(world)
    engine = engine_for(world)
    stop_after(engine, after)
    restore = engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    assert cluster_is_normal(world)
    assert world.redis.cluster.lost() == set()
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.cluster.lost() == set()
    assert cluster_is_normal(world)
    assert cluster_roles(world) == roles
    assert world.snapshot() == before


@at_kill_points(commands_of_a_roll, every=4, switches=switching)
def test_a_roll_that_dies_unnoticed_is_taken_over_with_its_half_moved_cluster(after: int) -> None:
    """R4, R1: the next roll waits for the leases, and goes on from what it finds."""
    world = shards()
    before, zones, roles = world.snapshot(), by_zone(world), cluster_roles(world)
    engine = engine_for(world)
    stop_after(engine, after)
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.redis.cluster.lost() == set()
    assert cluster_is_normal(world)
    assert cluster_roles(world) == roles
    assert world.snapshot() | {"lock": {}} == before
