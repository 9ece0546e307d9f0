"""What a plan promises, beside what the roll then does."""

from collections.abc import Callable

import pytest

from eks_rolling.documents.plan import PlanDocument, Way
from eks_rolling.documents.plan_text import plan_text
from tests.asl import Engine
from tests.assembly import synthesize
from tests.model.situations import cache, outdated, settings, shop
from tests.model.test_roll import engine_for
from tests.world import World


def planned(world: World) -> PlanDocument:
    return PlanDocument.model_validate_json(world.documents["rolls/roll-1/plan.json"])


@pytest.mark.parametrize("make", [shop, cache])
def test_state_transitions_are_no_more_than_told_and_not_much_less(make: Callable[[], World]) -> None:
    world = make()
    engine = engine_for(world)
    engine.run("roll", "roll-1", {})
    visited = sum(len(execution.visited) for execution in engine.executions)
    told = planned(world).estimate.transitions
    assert visited <= told <= 3 * visited


def test_nodes_are_replaced_in_the_order_and_the_waves_of_the_plan() -> None:
    world = shop()
    plan_first = engine_for(world)
    plan_first.run("roll", "roll-1", {"dry_run": True})
    nodes = planned(world).nodes
    assert [n.wave for n in nodes] == [1, 2, 2, 2, 2, 2]
    ended: list[str] = []

    def watch(current: World) -> None:
        gone = {m.id for m in current.machines.values() if not m.alive}
        ended.extend(n.instance for n in nodes if n.instance in gone and n.instance not in ended)

    world.watchers.append(watch)
    engine_for(world).run("roll", "roll-2", {"surge": 1})
    assert ended == [n.instance for n in nodes]


def replaced(world: World, request: dict[str, object], **more: object) -> set[str]:
    """The instances that a roll over a cluster without an outdated node replaced, all of them in its plan."""
    engine = Engine(synthesize(), world, world.clients(settings().model_copy(update=more)))
    before = {m.id for m in world.machines.values() if m.alive}
    execution = engine.run("roll", "roll-1", request)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    gone = before - {m.id for m in world.machines.values() if m.alive}
    assert gone == {n.instance for n in planned(world).nodes}
    return gone


def test_a_request_may_force_nodes_that_are_current() -> None:
    """N4: those that it names, or all; no new node is replaced again."""
    world = shop(new_version=False)
    everybody = set(world.machines)
    name = next(n.name for n in world.nodes() if n.instance == min(everybody))
    world.planned = {min(everybody)}
    assert replaced(world, {"force": True, "nodes": [name]}) == {min(everybody)}
    (node,) = planned(world).nodes
    assert (node.reason, node.before) == ("the request forces it", node.to)
    assert "replaced because the request forces it" in plan_text(planned(world))
    assert planned(world).reason == "1 node will be replaced"

    world = shop(new_version=False)
    world.planned = set(world.machines)
    assert replaced(world, {"force": True}) == set(everybody)


def days_pass(world: World, days: int) -> None:
    """Nothing happens in them."""
    usual, world.tick_seconds = world.tick_seconds, 3600.0
    world.advance(days * 24 * 3600)
    world.tick_seconds = usual


def test_nodes_that_are_too_old_are_replaced_although_they_are_current() -> None:
    world = shop(new_version=False)
    days_pass(world, 3)
    young = world.nodes_by_name[world.add_node("ng-a", "zone-a")].instance
    world.planned = set(world.machines) - {young}
    assert young not in replaced(world, {}, max_age_days=2)
    assert {n.reason for n in planned(world).nodes} == {"it is 3 days old (max_age_days 2)"}


def test_nodes_are_replaced_when_the_parameter_of_their_image_names_another() -> None:
    """The version stays; new nodes have the new image, and the next plan has nothing to do."""
    world = shop(new_version=False)
    world.image_parameter = "/aws/service/eks/optimized-ami/1.31/recommended/image_id"
    assert replaced(world, {}) == set()
    everybody = set(world.machines)
    world.image_now = "ami-2"
    world.planned = set(everybody)
    assert replaced(world, {}) == everybody
    said = "its image is ami-1, and its launch template's parameter names ami-2 now"
    assert {n.reason for n in planned(world).nodes} == {said}
    assert replaced(world, {}) == set()


def test_without_force_or_an_age_a_current_node_is_left_alone() -> None:
    world = shop(new_version=False)
    days_pass(world, 3)
    assert replaced(world, {}) == set()
    assert replaced(world, {}, max_age_days=4) == set()
    assert planned(world).reason == "no node is outdated"


def test_it_says_how_every_pod_leaves_and_what_the_new_version_changes() -> None:
    world = cache()
    engine_for(world).run("roll", "roll-1", {"dry_run": True})
    plan = planned(world)
    moves = {m.pod: m for n in plan.nodes for m in n.moves}
    assert (moves["default/redis-master-0"].way, moves["default/redis-master-0"].role) == (Way.MIGRATE, "master")
    assert moves["default/redis-replica-1"].role == "replica"
    assert moves["default/redis-sentinel-0"].role == "sentinel"
    assert {m.way for m in moves.values() if m.owner == "Deployment default/web"} == {Way.EVICT}
    assert {(c.what, c.before, c.after) for n in plan.nodes for c in n.changes} == {("ImageId", "ami-1", "ami-2")}
    assert [(z.group, z.zone, z.nodes, z.at_once) for z in plan.zones] == [
        ("ng-a", "zone-a", 2, 2),
        ("ng-b", "zone-b", 2, 2),
    ]
    assert [(g.group, g.raised_to) for g in plan.groups] == [("ng-a", 4), ("ng-b", 4)]
    assert outdated(world) == [m.id for m in world.machines.values()]


def outdated_and_suspended(world: World, group: str) -> None:
    """A group with an outdated node that cannot launch: a plan that touches it is blocked."""
    world.group(group, ["zone-a"], maximum=1, suspended=frozenset({"Launch"}))
    world.add_node(group, "zone-a")
    world.ready()
    world.new_template_version(group)


def test_messages_tell_the_plan_and_what_to_do_about_what_blocks_it() -> None:
    world = shop()
    outdated_and_suspended(world, "ng-c")
    engine_for(world).run("roll", "roll-1", {})
    ((subject, text),) = world.messages
    assert subject == "demo: roll blocked"
    assert text.startswith("demo: 7 outdated nodes; blocked by 1 finding\n")
    assert "  - group ng-c: its process Launch is suspended [launch-suspended]\n    -> find out why" in text
    assert "Replacements: 4 in zone-a, 3 in zone-b." in text
    assert "in 2 waves, 2 at once, if nothing holds it." in text
    assert "Pods: " in text
    assert "1 restarted elsewhere first" in text
    assert "wave 1, zone-a, ng-a, version 1 → 2 (ImageId)" in text


def test_who_approves_is_sent_the_plan() -> None:
    world = shop()
    engine_for(world).run("roll", "roll-1", {"approval": True})
    text = next(text for subject, text in world.messages if "approval" in subject)
    assert plan_text(planned(world)) in text


def test_a_reason_names_no_more_blockers_than_a_state_can_carry() -> None:
    world = shop()
    for number in range(50):
        outdated_and_suspended(world, f"bad-{number:02}")
    engine_for(world).run("roll", "roll-1", {})
    plan = planned(world)
    assert sum(f.severity == "blocks" for f in plan.findings) >= 50
    assert plan.reason.endswith("more, all in plan.json")
    assert plan.cluster == settings().cluster
