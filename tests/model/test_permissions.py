"""A roll that lacks a permission: stopped before anything is changed, or restored [R2]; and the permission is named."""

import json

import pytest

from eks_rolling.errors import AccessDenied
from eks_rolling.plan.permissions import Verb, needed, needed_for_notes
from eks_rolling.redis.groups import GROUP, PART, Part
from tests.asl import Engine
from tests.assembly import synthesize
from tests.model.situations import outdated, shop
from tests.model.situations import settings as roll_settings
from tests.world import World

VERBS = needed(roll_settings())


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.group} {verb}")
def test_a_missing_verb_stops_a_roll_before_anything_is_changed(verb: Verb) -> None:
    world = shop((2, 1))
    before = world.snapshot()
    world.forbidden = {verb}
    execution = Engine(synthesize(), world, world.clients(roll_settings())).run("roll", "roll-1", {})
    assert execution.status == "FAILED"
    assert f"{verb.group} may not {verb}." in execution.cause
    assert world.snapshot() == before
    assert world.effects == []


@pytest.mark.parametrize("verb", needed_for_notes(), ids=lambda verb: verb.resource)
def test_a_verb_that_only_findings_need_ends_no_roll_and_the_plan_says_what_it_did_not_look_at(verb: Verb) -> None:
    world = shop((2, 1))
    world.forbidden = {verb}
    # NetworkPolicies are looked at where a Redis Cluster is.
    clustered = {GROUP: "x", PART: str(Part.CLUSTER)}
    world._add("StatefulSet", "tenant", "nothing", 0, clustered)
    execution = Engine(synthesize(), world, world.clients(roll_settings())).run("roll", "roll-1", {})
    assert execution.status == "SUCCEEDED", execution.cause
    assert outdated(world) == []
    said = [
        f for f in json.loads(world.documents["rolls/roll-1/plan.json"])["findings"] if f["code"] == "not-looked-at"
    ]
    assert [(f["severity"], "apply deploy/rbac.yaml again" in f["remedy"]) for f in said] == [("note", True)]


def test_what_could_not_be_put_back_is_not_changed() -> None:
    """R2: the restore's own role is tried before the first change."""
    world = shop((2, 1))
    before = world.snapshot()
    world.cannot_restore = "Cannot resume processes of ng-a: the role Restore may not autoscaling:ResumeProcesses."
    execution = Engine(synthesize(), world, world.clients(roll_settings())).run("roll", "roll-1", {})
    assert execution.status == "FAILED"
    assert "Nothing was changed, because a restore could not put it back" in execution.cause
    assert "may not autoscaling:ResumeProcesses" in execution.cause
    assert world.snapshot() == before
    assert {effect.partition(" ")[0] for effect in world.effects} == {"lease"}


def test_a_replacement_that_may_not_be_terminated_does_not_keep_the_rest_from_being_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R2. It is said what is left and why."""
    world = shop((2, 1))
    before = world.snapshot()
    world.new_nodes_never_join = True

    def refused(self: World, instance: str) -> None:
        raise AccessDenied(f"Cannot terminate {instance}: the role Restore may not do that.")

    monkeypatch.setattr(World, "terminate", refused)
    execution = Engine(synthesize(), world, world.clients(roll_settings())).run("roll", "roll-1", {})
    assert execution.status == "FAILED"
    left = json.loads(world.documents["rolls/roll-1/report.json"])["left_behind"]
    assert any("which was not needed, stays: Cannot terminate" in said for said in left)
    after = world.snapshot()
    for part in ("workloads", "budgets", "lock", "marks", "taints", "cordons"):
        assert after[part] == before[part], part
    assert not any(group.suspended for group in world.groups_by_name.values())
