"""Whole rolls on the in-memory world, by the synthesized definition: to the end, killed anywhere, interleaved."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eks_rolling.clients.protocols import HttpAnswer
from eks_rolling.documents.report import Ending, Report
from eks_rolling.errors import AccessDenied, RollError, Transient
from eks_rolling.names import node_execution_suffix
from eks_rolling.observed.aws import InstanceState
from eks_rolling.observed.kubernetes import Node, Owner, Taint
from eks_rolling.observed.marks import GROUP_RESUME, HARD_TAINT, INSTANCE_REPLACES, LaunchMark
from eks_rolling.payloads import HoldKind
from eks_rolling.report.messages import Topic
from eks_rolling.roll.lock import ABORT, PAUSE
from eks_rolling.settings import PageCheck
from tests.asl import Engine, Execution, StateFault, Stopped
from tests.assembly import synthesize
from tests.model.situations import AUTOSCALER, by_zone, outdated, shop, watch_unavailable
from tests.model.situations import settings as roll_settings
from tests.scope import at_kill_points
from tests.world import World

SMALL = (2, 1)


def engine_for(world: World, shuffle: int | None = None) -> Engine:
    return Engine(synthesize(), world, world.clients(roll_settings()), shuffle)


def effects_of_a_roll() -> range:
    world = shop(SMALL)
    engine_for(world).run("roll", "roll-1", {})
    return range(1, len(world.effects) + 1)


def launches(world: World) -> int:
    return sum(1 for effect in world.effects if effect.startswith("launch "))


def test_a_roll_replaces_every_outdated_node_in_its_zone_and_leaves_nothing_behind() -> None:
    """N1 to N4 are checked by the world after every effect; R2 here."""
    world = shop()
    before, zones, web = world.snapshot(), by_zone(world), watch_unavailable(world)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert by_zone(world) == zones
    assert launches(world) == 6
    assert web["most"] == 1
    assert world.snapshot() == before


def test_the_first_wave_is_a_single_node() -> None:
    world = shop()
    engine = engine_for(world)
    roll = engine.run("roll", "roll-1", {})
    waves = "\n".join(roll.visited).split("Replace nodes\n")[1:]
    assert [wave.count("Replace node\n") for wave in waves] == [1, 5]


def test_no_more_nodes_are_in_flight_than_the_surge_allows() -> None:
    world = shop()
    most = 0

    def look(current: World) -> None:
        nonlocal most
        closed = [n for n in current.nodes_by_name.values() if HARD_TAINT in n.taints and n.ready]
        most = max(most, len(closed))

    world.watchers.append(look)
    engine_for(world).run("roll", "roll-1", {"surge": 1})
    assert most == 1


@at_kill_points(effects_of_a_roll)
def test_a_function_killed_after_any_effect_changes_nothing_in_the_result(after: int) -> None:
    """R3: the workflow runs the step again; nothing happens twice."""
    world = shop(SMALL)
    before, zones, web = world.snapshot(), by_zone(world), watch_unavailable(world)
    world.kill_after = after
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world), launches(world)) == ([], zones, 3)
    assert web["most"] == 1
    assert world.snapshot() == before


@at_kill_points(effects_of_a_roll)
def test_a_roll_stopped_after_any_effect_is_restored_and_the_next_one_finishes(after: int) -> None:
    """R2 by the watchdog, R3 by the next roll."""
    world = shop(SMALL)
    before, zones, web = world.snapshot(), by_zone(world), watch_unavailable(world)
    engine = engine_for(world)
    stop_after(engine, after)

    restore = engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    restored = world.snapshot()
    for part in ("workloads", "budgets", "lock", "taints", "cordons", "labels", "marks", "protected"):
        assert restored[part] == before[part], part
    assert world.workloads_by_owner[AUTOSCALER].workload.desired == 1
    told = Report.model_validate_json(world.documents["rolls/roll-1/report.json"])
    assert (told.outcome, told.planned) == (Ending.STOPPED, 3)
    assert told.reason == "The roll's execution was stopped: stopped in the middle."

    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert web["most"] == 1
    assert world.snapshot() == before


@at_kill_points(effects_of_a_roll, every=3)
def test_a_roll_that_dies_unnoticed_is_taken_over_once_its_lock_runs_out(after: int) -> None:
    """R4: the next roll waits for the lease, resumes the half-states, and puts back the first one's originals [R1]."""
    world = shop(SMALL)
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    stop_after(engine, after)
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.snapshot() == before


def stop_after(engine: Engine, after: int, request: dict[str, object] | None = None) -> None:
    """Stops the roll's execution right after its `after`th effect."""
    engine.kills_stop_execution = True
    engine.world.kill_after = after
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", request or {})
    engine.kills_stop_execution = False


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shuffle=st.integers(0, 10_000),
    kills=st.lists(st.integers(1, 60), max_size=4),
    surge=st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 3), st.integers(0, 2)),
)
def test_any_interleaving_with_any_kills_ends_the_same(
    shuffle: int, kills: list[int], surge: int, sizes: tuple[int, int]
) -> None:
    world = shop(sizes)
    before, zones, web = world.snapshot(), by_zone(world), watch_unavailable(world)
    deaths = list(kills)

    def arm(current: World) -> None:
        if deaths and current.kill_after is None:
            current.kill_after = len(current.effects) + deaths.pop()

    world.watchers.append(arm)
    execution = engine_for(world, shuffle).run("roll", "roll-1", {"surge": surge})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world), launches(world)) == ([], zones, sum(sizes))
    assert web["most"] <= 1
    assert world.snapshot() == before


def test_people_are_told_once_that_a_roll_begins_by_whom_and_how_many_nodes_it_replaces() -> None:
    world = shop(SMALL)
    engine_for(world).run("roll", "roll-1", {"trigger": "a person"})
    (message,) = [m for m in world.told if m.kind is Topic.BEGUN]
    assert "asked for by a person" in message.text
    assert "3 nodes to replace" in message.subject


# What holds or ends a roll


def failed(execution: Execution) -> str:
    assert execution.status == "FAILED"
    return execution.cause


def test_nothing_outdated_ends_at_once_and_changes_nothing() -> None:
    world = shop(new_version=False)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert execution.status == "SUCCEEDED"
    assert world.effects == []
    assert "no node is outdated" in world.messages[-1][1]


def test_a_dry_run_plans_and_changes_nothing() -> None:
    world = shop()
    execution = engine_for(world).run("roll", "roll-1", {"dry_run": True})
    assert execution.status == "SUCCEEDED"
    assert world.effects == []
    assert json.loads(world.documents["rolls/roll-1/plan.json"])["outcome"] == "dry-run"


def test_only_the_nodes_asked_for_are_touched() -> None:
    """N4."""
    world = shop()
    chosen = next(iter(world.machines))
    world.planned = {chosen}
    engine_for(world).run("roll", "roll-1", {"nodes": [f"node-{chosen}"]})
    assert len(outdated(world)) == 5
    assert chosen not in outdated(world)


def test_a_replacement_that_never_joins_fails_the_canary_and_everything_is_put_back() -> None:
    """R2: the instance that was launched in vain is given back, the old node takes pods again."""
    world = shop()
    before = world.snapshot()
    world.new_nodes_never_join = True
    execution = engine_for(world).run("roll", "roll-1", {})
    assert "has not joined the cluster" in failed(execution)
    assert len(outdated(world)) == 6
    world.advance(60)
    assert world.snapshot() == before


def test_a_kubelet_newer_than_the_control_plane_fails_the_canary_and_everything_is_put_back() -> None:
    """R2: no pod moves to such a node."""
    world = shop()
    before = world.snapshot()
    world.kubelet_of_new_nodes = "v1.32.0-eks-0000000"
    execution = engine_for(world).run("roll", "roll-1", {})
    assert "its kubelet (1.32) is newer than the control plane (1.31)" in failed(execution)
    # Closed before the restore begins: cluster-autoscaler's pod comes back first, to wherever there is room.
    closed = next(n for n, effect in enumerate(world.effects) if effect.endswith("unschedulable=True"))
    assert closed < next(
        n for n, effect in enumerate(world.effects) if effect.startswith(f"update {AUTOSCALER}: replicas=1")
    )
    assert world.asked_to_evict == []
    assert len(outdated(world)) == 6
    world.advance(60)
    assert world.snapshot() == before


@pytest.mark.parametrize("old_lives", [True, False])
def test_an_unfit_node_that_pods_reached_first_stays_closed_and_is_named(old_lives: bool) -> None:
    """R2: what runs there is for a person to move; no restore opens such a node for more."""
    world = shop()
    world.baseline = None
    world.kubelet_of_new_nodes = "v1.32.0-eks-0000000"
    reached: list[Node] = []

    def reach(current: World) -> None:
        new = [n for n in current.nodes_by_name.values() if n.kubelet == current.kubelet_of_new_nodes]
        closed = [n for n in new if n.unschedulable]
        if closed and not reached:
            reached.extend(closed)
            pod = next(p for p in current.pods_by_name.values() if p.pod.owner == Owner("Deployment", "default", "web"))
            pod.pod = replace(pod.pod, node=closed[0].name)
            if not old_lives:
                current.machines[closed[0].instance].tags[INSTANCE_REPLACES] = "i-gone"

    world.watchers.append(reach)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert "its kubelet (1.32) is newer than the control plane (1.31)" in failed(execution)
    (node,) = reached
    assert world.nodes_by_name[node.name].unschedulable
    left = json.loads(world.documents["rolls/roll-1/report.json"])["left_behind"]
    assert any(f"node {node.name} ({node.instance}) is marked unfit" in said and "drain it" in said for said in left)
    assert not [e for e in world.effects if node.name in e and "unschedulable=False" in e]


def test_a_node_that_lies_about_its_kubelet_keeps_its_group_from_no_roll_that_a_person_accepts() -> None:
    """What the replacements say of their own decides then."""
    world = shop((2, 1))
    liar = world.add_node("ng-a", "zone-a")
    world.nodes_by_name[liar] = replace(world.nodes_by_name[liar], kubelet="v9.99.0")
    world.ready()
    failed(engine_for(world).run("roll", "roll-1", {}))
    findings = json.loads(world.documents["rolls/roll-1/plan.json"])["findings"]
    assert ("kubelet-newer", "blocks") in [(f["code"], f["severity"]) for f in findings]
    assert len(outdated(world)) == 3
    accepted = engine_for(world).run("roll", "roll-2", {"accept": ["kubelet-newer:group ng-a"]})
    assert (accepted.status, accepted.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []


def test_once_a_node_of_a_wave_has_failed_the_others_do_not_begin() -> None:
    world = shop()

    def spoil(current: World) -> None:
        current.new_nodes_never_join = any("terminate" in effect for effect in current.effects)

    world.watchers.append(spoil)
    cause = failed(engine_for(world).run("roll", "roll-1", {"surge": 2}))
    assert "has not joined the cluster" in cause
    assert "not started" not in cause
    pages = [json.loads(text) for key, text in world.documents.items() if "/nodes/" in key]
    assert Counter(page["outcome"] for page in pages) == {"replaced": 1, "failed": 2, "not-begun": 3}
    assert launches(world) == 3
    assert len(outdated(world)) == 5


def test_no_capacity_holds_the_launch_until_there_is_some() -> None:
    world = shop(SMALL)
    world.launch_failures = 3
    execution = engine_for(world).run("roll", "roll-1", {})
    assert execution.status == "SUCCEEDED"
    assert launches(world) == 3


def test_a_budget_that_stays_exhausted_fails_with_the_pod_and_the_budget_named() -> None:
    """N1: nothing is forced."""
    world = shop(SMALL)
    world.budget("api", "api", 1)
    api = Owner("Deployment", "default", "api")
    # Its pods never become Ready again once one of them has moved.
    world.broken.add(api)
    cause = failed(engine_for(world).run("roll", "roll-1", {}))
    assert "Deployment default/api: 2 of 3 pods are Ready again" in cause
    assert world.unavailable(api) == 1


def test_a_firing_alarm_holds_the_gate_and_no_second_wave_starts() -> None:
    world = shop()
    world.alarms.add("shop-errors")
    cause = failed(engine_for(world).run("roll", "roll-1", {}))
    assert "alarms are firing: shop-errors" in cause
    assert len(outdated(world)) == 5


def test_an_alarm_that_does_not_exist_is_found_before_anything_is_changed() -> None:
    """The gate would find it after the first wave."""
    world = shop()
    world.deleted_alarms.add("shop-errors")
    before = world.snapshot()
    cause = failed(engine_for(world).run("roll", "roll-1", {}))
    assert "alarm shop-errors" in cause
    assert world.snapshot() == before


def test_a_check_that_does_not_pass_holds_the_gate_until_it_does() -> None:
    url = "https://shop.example/health"
    world = shop()
    checked = roll_settings().model_copy(update={"checks": (PageCheck(url=url, contains="ok"),)})
    engine = Engine(synthesize(), world, world.clients(checked))
    seen: dict[str, float] = {}

    def break_it(_: World) -> None:
        """From the first launch on, for ten minutes."""
        began = seen.setdefault("began", world.time) if any(e.startswith("launch ") for e in world.effects) else None
        well = began is None or world.time > began + 600
        world.pages[url] = HttpAnswer(200, "ok") if well else HttpAnswer(503, "no")
        if well and began is not None:
            seen.setdefault("launched", sum(1 for e in world.effects if e.startswith("launch ")))

    world.watchers.append(break_it)
    assert engine.run("roll", "roll-1", {}).status == "SUCCEEDED"
    assert (seen["launched"], outdated(world)) == (1, [])
    report = Report.model_validate_json(world.documents["rolls/roll-1/report.json"])
    held = [h.reason for s in report.steps for h in s.holds]
    assert f"checks do not pass: {url} answers 503, not 200" in held


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (("Refused", "refused by ana: not on a Friday"), "refused by ana: not on a Friday"),
        (("States.Timeout", ""), "there was no answer within 24 h"),
    ],
    ids=["no", "no answer"],
)
def test_a_roll_that_is_not_approved_ends_before_any_change_and_says_why(refusal: tuple[str, str], why: str) -> None:
    world = shop()
    engine = engine_for(world)
    engine.refusal = refusal
    execution = engine.run("roll", "roll-1", {"approval": True})
    said = f"The roll was not approved: {why}. Nothing was changed."
    assert (execution.status, execution.error, execution.cause) == ("FAILED", "NotApproved", said)
    assert world.effects == []
    asked, told = world.messages
    assert "waits for approval" in asked[0]
    assert (told[0], said in told[1]) == ("demo: roll not approved", True)
    report = Report.model_validate_json(world.documents["rolls/roll-1/report.json"])
    assert (report.outcome, report.reason, report.approved_by) == (Ending.NOT_APPROVED, said, "")


def test_a_message_for_approval_that_cannot_be_sent_is_a_failure_and_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: str) -> None:
        raise AccessDenied("The role may not publish: allow sns:Publish.")

    world = shop()
    monkeypatch.setattr(World, "notify", refused)
    execution = engine_for(world).run("roll", "roll-1", {"approval": True})
    assert (execution.error, execution.cause) == ("AccessDenied", "The role may not publish: allow sns:Publish.")
    assert world.effects == []


def test_an_approved_roll_goes_on_and_its_report_says_who_approved_it() -> None:
    world = shop(SMALL)
    assert engine_for(world).run("roll", "roll-1", {"approval": True}).status == "SUCCEEDED"
    assert outdated(world) == []
    assert Report.model_validate_json(world.documents["rolls/roll-1/report.json"]).approved_by == "ana"


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"surg": 2}, "surg is not a known field (known: accept, approval, dry_run, force, groups"),
        ({"surge": 0}, "surge: input should be greater than or equal to 1, not 0"),
        ({"groups": ["ng-z"]}, "group ng-z: there is no such Auto Scaling group"),
        ({"nodes": ["node-x"]}, "node node-x: neither a node of demo nor an instance of its groups"),
        ({"accept": ["everything"]}, "accept everything: this is not the code of a blocker"),
        ("now", "must be a JSON object"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_changed(request_: object, sentence: str) -> None:
    world = shop()
    cause = failed(engine_for(world).run("roll", "roll-1", request_))
    assert sentence in cause
    assert world.effects == []


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (Transient("The API server https://10.0.0.1 cannot be reached: timed out. Check its security group."), 5),
        (AccessDenied("The API server https://10.0.0.1 does not accept this role: give it an access entry."), 1),
    ],
    ids=["unreachable", "refused"],
)
def test_a_cluster_that_does_not_answer_is_one_sentence_before_anything_is_changed(
    monkeypatch: pytest.MonkeyPatch, fault: RollError, tries: int
) -> None:
    world = shop()
    asked = 0

    def nodes(_: World) -> list[Node]:
        nonlocal asked
        asked += 1
        raise fault

    monkeypatch.setattr(World, "nodes", nodes)
    began = world.time
    assert failed(engine_for(world).run("roll", "roll-1", {})) == str(fault)
    assert (world.effects, asked) == ([], tries)
    assert world.time - began < 30


def test_two_problems_of_a_request_are_both_named() -> None:
    world = shop()
    cause = failed(engine_for(world).run("roll", "roll-1", {"surg": 2, "groups": 7}))
    assert "2 problems" in cause
    assert "surg" in cause
    assert "groups" in cause


def test_a_managed_node_group_is_refused_by_name_and_left_alone_otherwise() -> None:
    """N4."""
    world = shop()
    world.group("managed", ["zone-a"], maximum=1, tags={"eks:nodegroup-name": "workers"})
    world.add_node("managed", "zone-a")
    world.baseline = world.capacity()
    world.new_template_version("managed")
    cause = failed(engine_for(world).run("roll", "roll-1", {"groups": ["managed"]}))
    assert "update the node group workers in EKS" in cause
    assert world.effects == []
    assert engine_for(world).run("roll", "roll-2", {}).status == "SUCCEEDED"
    assert [world.machines[i].group for i in outdated(world)] == ["managed"]


def test_the_taints_of_others_are_left_untouched() -> None:
    """N4: the world checks every write; here they are still there in the end."""
    world = shop(SMALL)
    name = next(iter(world.nodes_by_name))
    world.nodes_by_name[name] = replace(world.nodes_by_name[name], taints=(Taint("dedicated", "PreferNoSchedule"),))
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"


def test_taints_stay_where_they_are_asked_to() -> None:
    world = shop()
    world.alarms.add("shop-errors")
    engine_for(world).run("roll", "roll-1", {"keep_taints": True})
    tainted = [n for n in world.nodes_by_name.values() if n.roll_taint]
    assert len(tainted) == 5


def test_a_roll_node_started_by_hand_becomes_a_roll_for_that_node() -> None:
    world = shop()
    engine = engine_for(world)
    node = next(iter(world.nodes_by_name))
    assert engine.run("node", "by-hand", {"node": node}).status == "SUCCEEDED"
    (started,) = engine.beside
    engine.follow(started)
    assert (started.name, started.status) == ("node-by-hand", "SUCCEEDED")
    assert len(outdated(world)) == 5


def test_two_that_are_started_by_hand_become_two_rolls_however_alike_their_names_are() -> None:
    """A name that an ended roll had would be taken for the answer of a start that was lost."""
    engine = engine_for(shop())
    for name, node in zip(("n" * 75, f"{'n' * 75}-1", f"{'n' * 75}-2"), engine.world.nodes_by_name, strict=False):
        assert engine.run("node", name, {"node": node}).status == "SUCCEEDED"
    assert [started.name for started in engine.beside] == [f"node-{'n' * 75}", f"{'n' * 75}-1", f"{'n' * 75}-2"]


def test_two_rolls_whose_long_names_begin_alike_may_both_replace_a_node() -> None:
    """The first one could not, and the name of its execution for that node is not free any more."""
    world = shop(SMALL)
    engine = engine_for(world)
    world.launch_failures = 100_000
    assert engine.run("roll", f"{'r' * 60}-1", {}).status == "FAILED"
    world.launch_failures = 0
    second = engine.run("roll", f"{'r' * 60}-2", {})
    assert (second.status, second.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    names = [e.name for e in engine.executions if e.machine == "node"]
    assert {names.count(name) for name in names} == {1}
    for name in names:
        assert any(name.endswith(node_execution_suffix(f"{'r' * 60}-{n}")) for n in (1, 2))


def test_what_a_roll_suspended_is_resumed_although_its_record_is_removed_in_the_middle() -> None:
    """R2: Terraform takes tags away that it does not know."""
    world = shop(SMALL)
    before, removed = world.snapshot(), list[str]()

    def prune(current: World) -> None:
        for name, group in current.groups_by_name.items():
            if GROUP_RESUME in group.tags and name not in removed and launches(current):
                removed.append(name)
                tags = {key: value for key, value in group.tags.items() if key != GROUP_RESUME}
                current.groups_by_name[name] = replace(group, tags=tags)

    world.watchers.append(prune)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert sorted(removed) == ["ng-a", "ng-b"]
    assert world.snapshot() == before


def test_a_roll_for_a_node_is_started_once_although_no_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """R3."""
    world = shop()
    engine, start, lost = engine_for(world), Engine._start_beside, list[str]()

    def losing(self: Engine, machine: str, arguments: Mapping[str, Any]) -> dict[str, str]:
        answer = start(self, machine, arguments)
        if not lost:
            lost.append(machine)
            raise StateFault("StepFunctions.SdkClientException", "the connection broke")
        return answer

    monkeypatch.setattr(Engine, "_start_beside", losing)
    execution = engine.run("node", "by-hand", {"node": next(iter(world.nodes_by_name))})
    assert (execution.status, lost) == ("SUCCEEDED", ["roll"])
    (started,) = engine.beside
    engine.follow(started)
    assert (started.status, len(outdated(world))) == ("SUCCEEDED", 5)


def test_groups_that_mix_on_demand_and_spot_are_raised_one_at_a_time() -> None:
    world = shop(SMALL)
    for name in ("ng-a", "ng-b"):
        world.groups_by_name[name] = replace(world.groups_by_name[name], mixed_purchasing=True)
    before, zones = world.snapshot(), by_zone(world)
    execution = engine_for(world).run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.snapshot() == before


def test_no_instance_is_asked_for_twice_while_other_nodes_of_the_group_are_terminated() -> None:
    """R2: a termination lowers the desired capacity in the middle of another node's launch."""
    world = shop((4, 1))
    for name in ("ng-a", "ng-b"):
        world.groups_by_name[name] = replace(world.groups_by_name[name], mixed_purchasing=True)
    world.delays.scale_out = 60
    before, zones = world.snapshot(), by_zone(world)
    engine = Engine(synthesize(), world, world.clients(roll_settings().model_copy(update={"canary": False})))
    execution = engine.run("roll", "roll-1", {"surge": 2})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert (outdated(world), by_zone(world)) == ([], zones)
    assert world.snapshot() == before


def test_a_capacity_that_somebody_raises_in_that_moment_is_not_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """N2, N3: it can only be set to a number. To lower it would have AWS end instances of its choice."""
    world = shop(SMALL)
    for name, group in world.groups_by_name.items():
        world.groups_by_name[name] = replace(group, mixed_purchasing=True, maximum=9)
    engine, described, calls = engine_for(world), world.instances, list[str]()
    engine.before_call = calls.append

    def instances(ids: Sequence[str]) -> dict[str, InstanceState]:
        """Between the look at the group and the raise."""
        found = described(ids)
        asked = (LaunchMark.on(n) for n in world.nodes() if calls[-1] == "launch_replacement")
        group = world.groups_by_name["ng-a"]
        if any(m is not None and not m.raised for m in asked) and group.desired == SMALL[0]:
            world.groups_by_name["ng-a"] = replace(group, desired=group.desired + 2)
        return found

    monkeypatch.setattr(world, "instances", instances)
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    sizes = {name: group.desired for name, group in world.groups_by_name.items()}
    assert sizes == {"ng-a": SMALL[0] + 2, "ng-b": SMALL[1]}


def test_a_node_that_gets_no_instance_gives_up_its_turn_to_launch_one() -> None:
    """R2: at its deadline, not when the Lease runs out."""
    world = shop(SMALL)
    for name in ("ng-a", "ng-b"):
        world.groups_by_name[name] = replace(world.groups_by_name[name], mixed_purchasing=True)
    free: list[bool] = []

    def suspend(step: str) -> None:
        if step == "launch_replacement":
            for name in ("ng-a", "ng-b"):
                group = world.groups_by_name[name]
                world.groups_by_name[name] = replace(group, suspended=group.suspended | {"Launch"})
        # The restore is rehearsed before anything is launched.
        if step == "restore" and (lease := world.leases.get("kube-system/eks-rolling-launch")):
            free.append(not lease.holder)

    engine = engine_for(world)
    engine.before_call = suspend
    assert engine.run("roll", "roll-1", {}).status == "FAILED"
    assert free
    assert free[0]


def test_a_pause_holds_the_gate_without_a_deadline_and_an_abort_ends_the_roll() -> None:
    world = shop()
    engine = engine_for(world)
    asked = {"paused_at": 0.0}

    def ask(current: World) -> None:
        lease = current.leases.get("kube-system/eks-rolling")
        if lease is None or not lease.holder:
            return
        if not asked["paused_at"] and any("terminate" in e for e in current.effects):
            asked["paused_at"] = current.time
            current.leases[lease.name] = replace(lease, annotations={PAUSE: "lunch"})
        elif asked["paused_at"] and current.time > asked["paused_at"] + 5000 and PAUSE in lease.annotations:
            current.leases[lease.name] = replace(lease, annotations={ABORT: "enough for today"})

    world.watchers.append(ask)
    cause = failed(engine.run("roll", "roll-1", {}))
    assert "enough for today" in cause
    assert len(outdated(world)) == 5


# Whatever way a roll ended


def test_taints_that_were_to_stay_do_so_after_the_watchdog_too() -> None:
    """R2: it comes after every roll that failed, and after one that was stopped."""
    world = shop()
    world.alarms.add("shop-errors")
    engine = engine_for(world)
    engine.run("roll", "roll-1", {"keep_taints": True})
    restore = engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    assert restore.visited[-1] == "Nothing to restore"
    assert len([n for n in world.nodes_by_name.values() if n.roll_taint]) == 5


def test_taints_that_were_to_stay_do_so_after_a_stop() -> None:
    world = shop()
    engine = engine_for(world)
    engine.kills_stop_execution = True

    def stop(current: World) -> None:
        if current.kill_after is None and any(e.startswith("launch ") for e in current.effects):
            current.kill_after = len(current.effects) + 1

    world.watchers.append(stop)
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", {"keep_taints": True})
    world.watchers.remove(stop)
    engine.kills_stop_execution, world.kill_after = False, None
    assert engine.run("restore", "watchdog-1", {"roll": "roll-1"}).visited[-1] == "Restored"
    assert len([n for n in world.nodes_by_name.values() if n.roll_taint]) >= 5
    report = json.loads(world.documents["rolls/roll-1/report.json"])
    assert [o["kind"] for o in report["orphans"]].count("taint on node") >= 5


def test_a_restore_by_hand_leaves_a_living_roll_alone_and_says_so() -> None:
    """R4."""
    world = shop(SMALL)
    before = world.snapshot()
    engine = engine_for(world)
    restores: list[Execution] = []

    def interfere(current: World) -> None:
        done = sum("terminate" in effect for effect in current.effects)
        if len(restores) < 2 and done > len(restores):
            restores.append(engine.start("restore", f"by-hand-{done}", {}))

    world.watchers.append(interfere)
    execution = engine.run("roll", "roll-1", {})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert world.snapshot() == before
    assert [r.visited[-1] for r in restores] == ["Nothing to restore"] * 2
    assert "roll-1 is running on this cluster, and restores at its end" in restores[0].output["reason"]


def test_the_clock_finds_a_roll_whose_restore_died_too_and_restores() -> None:
    """R2: nothing is left behind for longer than it takes to be sure, and an hour."""
    world = shop(SMALL)
    before = world.snapshot()
    engine = engine_for(world)
    stop_after(engine, 12)
    engine.kills_stop_execution = True
    world.kill_after = len(world.effects) + 3
    with pytest.raises(Stopped):
        engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    engine.kills_stop_execution = False
    early = engine.run("restore", "clock-1", {"look": True})
    assert early.visited[-1] == "Looked"
    world.advance(3600)
    late = engine.run("restore", "clock-2", {"look": True})
    assert late.visited[-1] == "Restored"
    world.advance(60)
    assert world.snapshot() == before
    assert engine.run("restore", "clock-3", {"look": True}).output["output"]["orphans"] == []


def test_what_is_left_behind_is_in_the_report() -> None:
    world = shop(SMALL)
    group = world.groups_by_name["ng-b"]
    world.groups_by_name["ng-b"] = replace(group, minimum=2, maximum=2, desired=2)
    world.add_node("ng-b", "zone-b")
    world.new_nodes_never_join = True
    failed(engine_for(world).run("roll", "roll-1", {"keep_taints": True}))
    report = json.loads(world.documents["rolls/roll-1/report.json"])
    kinds = {o["kind"] for o in report["orphans"]}
    assert "taint on node" in kinds
    assert all(o["remedy"] for o in report["orphans"])


def test_a_report_without_a_look_for_what_is_left_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    world = shop(SMALL, new_version=False)

    def budgets(_: World) -> list[object]:
        if "rolls/roll-1/plan.json" in world.documents:
            raise AccessDenied("poddisruptionbudgets may not be listed.")
        return []

    monkeypatch.setattr(World, "budgets", budgets)
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"
    report = json.loads(world.documents["rolls/roll-1/report.json"])
    assert report["gaps"] == ["This report did not check what is left behind. poddisruptionbudgets may not be listed."]


def test_the_report_tells_what_the_roll_did() -> None:
    """N3 and R2, as an operator reads them afterwards."""
    world = shop(SMALL)
    at_start = dict(world.capacity())
    engine_for(world).run("roll", "roll-1", {})
    report = Report.model_validate_json(world.documents["rolls/roll-1/report.json"])
    assert (report.outcome, report.planned, report.replaced, report.gaps) == (Ending.REPLACED, 3, 3, ())
    assert report.evicted == sum(n.evicted for n in report.nodes) > 0
    assert report.capacity[0].zones == at_start
    assert all(look.zones[zone] >= count for look in report.capacity for zone, count in at_start.items())
    assert {look.zones[zone] - at_start[zone] for look in report.capacity for zone in at_start} >= {0, 1}
    assert all(look.unavailable <= look.limit for line in report.budgets for look in line.looks)
    assert {w.kind for w in report.waits} >= {HoldKind.INSTANCE, HoldKind.PODS, HoldKind.TRAFFIC, HoldKind.ENDING}
    assert "cluster-autoscaler: back at 1" in report.restored
    assert (report.left_behind, report.orphans) == ((), ())
    assert "3 of 3 nodes replaced" in world.documents["rolls/roll-1/report.html"]
