"""What a tenant's annotations ask for where the functions may not do it: it concerns the tenant's own pods alone."""

import json

import pytest

from eks_rolling.documents.finding import Severity
from eks_rolling.observed.kubernetes import STRATEGY_ANNOTATION, Owner, Strategy
from eks_rolling.payloads import OrphansTask, RollRequest
from eks_rolling.plan.permissions import Verb, needed_to_migrate, needed_to_restart
from eks_rolling.redis.groups import GROUP, MASTER_NAME, PART, Part, declared
from eks_rolling.steps import find_orphans
from eks_rolling.steps.plan import PlanOutcome, decide, observe
from tests.hostile.worlds import engine_for
from tests.model.situations import cache, outdated, redis_is_normal, settings, shop
from tests.world import World

RESTART = {STRATEGY_ANNOTATION: str(Strategy.RESTART)}
TENANT = Owner("Deployment", "tenant-x", "site")
CODE = "restart-not-permitted"


def asking(replicas: int) -> World:
    """The small shop, with a Deployment that asks for a restart in a namespace without the Role."""
    world = shop((2, 1), new_version=False)
    world.deployment("site", replicas, namespace="tenant-x", annotations=RESTART)
    world.ready()
    for group in ("ng-a", "ng-b"):
        world.new_template_version(group)
    world.planned = set(world.machines)
    world.forbidden = {needed_to_restart(TENANT)}
    return world


def planned(world: World, **request: object) -> tuple[str, dict[str, tuple[Severity, str]]]:
    """The plan's outcome, and what it says of the tenant's Deployment, by code."""
    asked = RollRequest.from_input(request)
    plan = decide(observe(asked, world.clients(settings())), asked, settings())
    return plan.outcome, {f.code: (f.severity, f.reason) for f in plan.findings if f.object == str(TENANT)}


def test_several_replicas_are_evicted_one_at_a_time_and_the_plan_says_so() -> None:
    """N1. Nothing of the Deployment is written."""
    world = asking(3)
    least = 3

    def look(current: World) -> None:
        nonlocal least
        least = min(least, current.workloads_by_owner[TENANT].workload.desired - current.unavailable(TENANT))

    world.watchers.append(look)
    outcome, said = planned(world)
    assert outcome == PlanOutcome.ROLL
    assert said[CODE] == (Severity.NOTE, "it asks for a restart, which no Role in its namespace lets a roll do: its "
                                         "pods are evicted")  # fmt: skip
    roll = engine_for(world).run("roll", "roll-1", {})
    assert roll.status == "SUCCEEDED", roll.cause
    assert outdated(world) == []
    assert least == 2
    assert not [e for e in world.effects if e.startswith(f"update {TENANT}")]


def test_a_single_replica_blocks_its_own_nodes_and_no_others() -> None:
    """N1: what it asks to be spared is done to it only once a person has accepted that."""
    world = asking(1)
    (where,) = {p.pod.node for p in world.pods_by_name.values() if p.pod.owner == TENANT}
    others = [name for name in world.nodes_by_name if name != where]
    outcome, said = planned(world)
    assert (outcome, said[CODE][0]) == (PlanOutcome.BLOCKED, Severity.BLOCKS)
    assert planned(world, nodes=others)[0] == PlanOutcome.ROLL
    blocked = engine_for(world).run("roll", "roll-1", {})
    assert blocked.status == "FAILED"
    assert f"{TENANT}: it asks for a restart, which no Role in its namespace lets a roll do" in blocked.cause
    assert world.effects == []
    roll = engine_for(world).run("roll", "roll-2", {"accept": [f"{CODE}:{TENANT}"]})
    assert roll.status == "SUCCEEDED", roll.cause
    assert outdated(world) == []


@pytest.mark.parametrize("replicas", [1, 3])
def test_an_annotation_in_mid_roll_fails_no_step(replicas: int) -> None:
    """N1, R2: the pods of one replica are held, and named, until the Role is there; those of several go."""
    world = asking(replicas)
    world.workloads_by_owner[TENANT].workload.annotations.clear()

    def tenant(current: World) -> None:
        if any("launch " in e for e in current.effects):
            current.workloads_by_owner[TENANT].workload.annotations.update(RESTART)

    def administrator(current: World) -> None:
        if current.time > began + 1800 and replicas == 1:
            current.forbidden = set()

    began = world.time
    world.watchers += [tenant, administrator]
    roll = engine_for(world).run("roll", "roll-1", {})
    assert roll.status == "SUCCEEDED", roll.cause
    assert outdated(world) == []
    restarted = [e for e in world.effects if e.startswith(f"update {TENANT}")]
    assert bool(restarted) == (replicas == 1)


@pytest.mark.parametrize("lacking", range(6))
def test_a_redis_group_where_the_functions_lack_a_verb_concerns_its_own_pods_alone(lacking: int) -> None:
    """S1, R5: named by the plan for its own nodes; nodes without its pods are rolled, and its Lease is nobody's."""
    world = cache()
    ((group,), _) = declared(world.workloads())
    missing = sorted(needed_to_migrate(group))[lacking]
    world.forbidden = {missing}
    roll = engine_for(world).run("roll", "roll-1", {})
    assert roll.status == "FAILED"
    assert f"Redis group default/cache: the functions may not {missing}" in roll.cause
    assert world.effects == []
    assert world.redis.lost() == set()


def test_a_declaration_without_pods_in_a_namespace_without_the_role_holds_no_roll_up() -> None:
    """R5."""
    world = shop((2, 1))
    said = {GROUP: "x", PART: str(Part.CLUSTER)}
    world._add("StatefulSet", "tenant-x", "nothing", 0, said)
    ((group,), _) = declared(world.workloads())
    namespace, _, lease = group.lease.partition("/")
    world.forbidden = {Verb("", "get", "coordination.k8s.io", "leases", namespace, lease), *needed_to_migrate(group)}
    roll = engine_for(world).run("roll", "roll-1", {})
    assert roll.status == "SUCCEEDED", roll.cause
    assert outdated(world) == []


def test_a_declaration_that_is_spoiled_in_mid_migration_hides_no_half_moved_group() -> None:
    """S2, R3: the report tells of it, the group is found afterwards; once that is mended the next roll finishes it."""
    world = cache()
    replicas = world.workloads_by_owner[Owner("StatefulSet", "default", "redis-replica")].workload.annotations
    right = dict(replicas)

    def person(current: World) -> None:
        if any(e.startswith("REPLICAOF NO ONE") for e in current.effects):
            replicas[MASTER_NAME] = "the master"

    world.watchers.append(person)
    engine = engine_for(world)
    assert engine.run("roll", "roll-1", {}).status == "FAILED"
    words = "Redis group default/cache may be half moved, and its declaration cannot be followed: StatefulSet default/"
    report = json.loads(world.documents["rolls/roll-1/report.json"])
    assert [said for said in report["left_behind"] if said.startswith(words) and "'the master'" in said]
    world.advance(600)
    found = find_orphans.run(OrphansTask(roll="orphans-1"), world.clients(settings())).output["orphans"]
    assert any("default/eks-rolling-redis-cache, held by roll-1/" in orphan["object"] for orphan in found)
    world.watchers.remove(person)
    replicas.update(right)
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), world.redis.lost()) == ([], set())
    assert redis_is_normal(world)
