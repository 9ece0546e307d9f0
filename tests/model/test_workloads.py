"""Whole rolls over workloads as clusters have them: Jobs, controllers of any kind, admission that denies."""

import json
from dataclasses import replace

import pytest

from eks_rolling.observed.kubernetes import STRATEGY_ANNOTATION, Owner, Strategy
from tests.asl import Engine
from tests.assembly import synthesize
from tests.model.situations import outdated, shop, watch_unavailable
from tests.model.situations import settings as roll_settings
from tests.world import World

SMALL = (2, 1)


def engine_for(world: World) -> Engine:
    return Engine(synthesize(), world, world.clients(roll_settings()))


def with_clones(replicas: int) -> tuple[World, Owner]:
    world = shop(SMALL, new_version=False)
    clones = world.custom("CloneSet", "clones", replicas)
    world.ready()
    for group in ("ng-a", "ng-b"):
        world.new_template_version(group)
    world.planned = set(world.machines)
    return world, clones


def test_of_a_controller_of_any_kind_one_pod_is_away_at_a_time_over_all_nodes() -> None:
    world, clones = with_clones(8)
    before, most = world.snapshot(), watch_unavailable(world, clones)
    execution = engine_for(world).run("roll", "roll-1", {"surge": 3})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert most["most"] == 1
    assert world.snapshot() == before


def test_without_labels_of_its_own_its_pods_are_counted() -> None:
    """Another controller's pods carry the same labels, so no budget can be made."""
    world, clones = with_clones(4)
    other = world.custom("CloneSet", "others", 1)
    world.workloads_by_owner[other].labels = dict(world.workloads_by_owner[clones].labels)
    world.ready()
    most = watch_unavailable(world, clones)
    execution = engine_for(world).run("roll", "roll-1", {"surge": 1})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert most["most"] == 1


def test_nobody_waits_for_pods_that_only_keep_room() -> None:
    """Others took the room that they kept, so they stay Pending; their Deployment is not waited for, nor kept whole."""
    world = shop(SMALL, new_version=False)
    room = Owner("Deployment", "default", "room")
    world.priorities[room] = -10
    world.deployment("room", 3)
    world.ready()
    for group in ("ng-a", "ng-b"):
        world.new_template_version(group)
    world.planned = set(world.machines)
    world.room_for[room] = 1
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    plan = json.loads(world.documents["rolls/roll-1/plan.json"])
    assert [f["severity"] for f in plan["findings"] if f["object"] == str(room)] == ["note"]


@pytest.mark.parametrize("accept", [[], ["batch-pod:Job default/import"]])
def test_a_job_ends_before_its_node_does_unless_that_is_accepted(accept: list[str]) -> None:
    world = shop(SMALL)
    world.job("import", 900)
    world.advance(10)
    execution = engine_for(world).run("roll", "roll-1", {"accept": accept})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert ("evict default/import-pod" in world.effects) is bool(accept)


def test_a_job_that_takes_longer_than_it_is_given_is_evicted() -> None:
    world = shop(SMALL)
    world.job("import", 100_000)
    world.advance(10)
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"
    assert "evict default/import-pod" in world.effects


def test_a_denied_eviction_is_asked_for_again_and_holds_with_the_words_of_admission() -> None:
    world = shop(SMALL)
    (db,) = (str(p) for p in world.pods() if p.name == "db-0")
    world.denials[db] = 'admission webhook "guard" denied the request: the primary is being moved'
    execution = engine_for(world).run("roll", "roll-1", {})
    assert execution.status == "FAILED"
    assert "pod default/db-0: its eviction is denied" in execution.cause
    assert "the primary is being moved" in execution.cause
    assert 10 < world.asked_to_evict.count(db) < 500


def test_a_roll_goes_on_once_admission_agrees() -> None:
    world = shop(SMALL)
    (db,) = (str(p) for p in world.pods() if p.name == "db-0")
    world.denials[db] = "denied"
    end = world.time + 900

    def agree(current: World) -> None:
        if current.time > end:
            current.denials.clear()

    world.watchers.append(agree)
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"
    assert outdated(world) == []


def test_a_budget_that_never_allows_is_asked_about_so_that_a_webhook_can_move_the_pod() -> None:
    world = shop(SMALL)
    world.budget("db", "db", 0)
    (db,) = (str(p) for p in world.pods() if p.name == "db-0")
    execution = engine_for(world).run("roll", "roll-1", {"accept": ["budget-never-allows"]})
    assert execution.status == "FAILED"
    assert "budget default/db needs 1 healthy pods and has 1" in execution.cause
    assert db in world.asked_to_evict


def test_a_group_with_a_launch_configuration_is_rolled_one_node_at_a_time() -> None:
    world = World()
    world.group("old-ways", ["zone-a"], maximum=3, configuration="lc-1")
    for _ in range(3):
        world.add_node("old-ways", "zone-a")
    web = world.deployment("web", 3)
    world.deployment("cluster-autoscaler", 1, namespace="kube-system")
    world.ready()
    world.groups_by_name["old-ways"] = replace(world.groups_by_name["old-ways"], configuration="lc-2")
    world.planned = set(world.machines)
    before, most = world.snapshot(), watch_unavailable(world, web)
    execution = engine_for(world).run("roll", "roll-1", {"surge": 2})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert {m.template for m in world.machines.values() if m.alive} == {"lc:lc-2"}
    assert most["most"] == 1
    assert world.snapshot() == before


def test_a_deployment_is_restarted_once_in_a_roll_and_not_once_for_each_node() -> None:
    world = shop((3, 3), new_version=False)
    web = world.deployment("spread", 6, annotations={STRATEGY_ANNOTATION: Strategy.RESTART})
    world.ready()
    for group in ("ng-a", "ng-b"):
        world.new_template_version(group)
    world.planned = set(world.machines)
    homes = {p.node for p in world.pods() if p.owner == web}
    most = watch_unavailable(world, web)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    restarts = [e for e in world.effects if e.startswith(f"update {web}: ") and "restarted-for" in e]
    assert len(homes) > 2
    assert 1 <= len(restarts) < len(homes)
    assert most["most"] == 0


def test_where_a_quota_takes_no_budget_of_ours_pods_are_counted() -> None:
    """N1: of each workload one pod is away at a time, whatever its kind."""
    world, clones = with_clones(4)
    world.budget_denials["default"] = "exceeded quota: no-budgets, requested: count/poddisruptionbudgets.policy=1"
    api = Owner("Deployment", "default", "api")
    most = [watch_unavailable(world, owner) for owner in (clones, api)]
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert [m["most"] for m in most] == [1, 1]
    assert not [e for e in world.effects if e.startswith("create budget")]
    (node,) = [text for key, text in world.documents.items() if "/nodes/" in key and "exceeded quota" in text][:1]
    assert "no budget can be made, so its pods are counted" in node
