"""Restore in pieces [R5]: one object that cannot be put back keeps no other from it; what is others' is kept."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from eks_rolling.errors import AccessDenied, Conflict, NotFound, Permanent, Transient
from eks_rolling.observed.kubernetes import Node, Owner
from eks_rolling.observed.marks import (
    EXCLUDE_LABEL,
    INSTANCE_REPLACES,
    NODE_EXCLUDED,
    NODE_LAUNCH,
    NODE_SCALE_DOWN,
    NODE_TARGETS,
    SCALE_DOWN_DISABLED,
    token_of,
)
from eks_rolling.redis.groups import GROUP, PART
from eks_rolling.roll import lock
from eks_rolling.steps.restore import decide_node
from tests import scope
from tests.asl import Stopped
from tests.hostile.worlds import (
    Call,
    Frozen,
    breaker,
    effect_number,
    engine_for,
    recorder,
    stopped_after,
    with_a_replacement_that_drains_for_ever,
)
from tests.model.situations import AUTOSCALER, outdated, shop
from tests.world import ZONES, Delays, Killed, World

LOCK = "kube-system/eks-rolling"
TURN = f"{LOCK}-launch"

STOPS = ("suspend", "create budget", "deregister", "unschedulable=True", "launch ")
"""Effects after which a roll is stopped: what is left of it differs."""

LOCKS = {("lease", LOCK), ("put_lease", LOCK)}
"""Without these it cannot be told whether another roll is at work, so nothing may be changed [R4]."""

NOT_OF_RESTORE = {"save", "load", "notify", "history"}
"""Calls of the steps after it."""

GONE_IS_DONE = {"register", "resume", "protect", "untag_instance", "update_node", "delete_budget", "update_workload"}

REPLACEMENT = {"tags", "groups", "protected", "cordons", "marks", "targets"}
"""Where a replacement shows that is not given back."""

HANGS_ON = {
    "nodes": REPLACEMENT | {"taints", "labels"},
    "instances": REPLACEMENT,
    "groups": REPLACEMENT | {"taints", "labels"},
    "budgets": {"budgets"},
    # Where cluster-autoscaler's pod finds room decides whether a replacement is in use.
    "workload": REPLACEMENT | {"workloads"},
    "update_workload": REPLACEMENT | {"workloads"},
    # The step before, which finishes Redis migrations, waits for it, and pods move on meanwhile.
    "workloads": REPLACEMENT,
    "register": {"marks"} | REPLACEMENT,
    # The node that a replacement was launched for is opened before that is closed.
    "update_node": {"groups", "tags", "protected", "targets"},
    "protect": {"protected", "tags"},
    **dict.fromkeys(
        ("launch", "tag_instance", "pods_on", "services", "targets_of", "deregister", "terminate"), REPLACEMENT
    ),
}
"""What cannot be put back where that cannot be seen or done."""


def state_of(world: World) -> dict[str, Any]:
    targets = sorted(f"{group} {instance}" for group, instance in world.targets)
    return world.snapshot() | {"targets": targets}


def restored(world: World, **more: Any) -> dict[str, Any]:
    """Runs the watchdog's restore on it to its end; answers its last step's output."""
    restore = engine_for(world, **more).run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    world.advance(120)
    output: dict[str, Any] = restore.output["output"]
    return output


def items(part: Any) -> set[str]:
    pairs = part.items() if isinstance(part, Mapping) else [(item, "") for item in part]
    return {f"{key} {value}" for key, value in pairs}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, set[str]]:
    found = {part: items(one[part]) ^ items(other[part]) for part in one}
    return {part: what for part, what in found.items() if what}


@cache
def unbroken(effect: int) -> tuple[list[Call], set[str], dict[str, Any]]:
    """What a restore calls after a roll that was stopped there, what it leaves behind, and how it leaves the world."""
    calls: list[Call] = []
    world = stopped_after(effect)
    left_behind = set(restored(world, before=recorder(calls))["left_behind"])
    return calls, left_behind, state_of(world)


@pytest.mark.drawn
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize(
    "error",
    [AccessDenied("The role may not."), Transient("It is away."), NotFound("It is not there."), ValueError("odd")],
    ids=lambda error: type(error).__name__,
)
def test_each_single_call_of_restore_may_fail_for_ever(stop: str, error: Any, pytestconfig: pytest.Config) -> None:
    """R5: everything else is put back, the lock is released, and the report names the one. A sample: each sixth."""
    effect = effect_number(stop)
    calls, usual, intact = unbroken(effect)
    tried = sorted({call for call in calls if call not in LOCKS and call[0] not in NOT_OF_RESTORE})
    if pytestconfig.option.scope != scope.ALL:
        tried = scope.dice(pytestconfig, f"{stop} {type(error).__name__}").sample(tried, (len(tried) + 5) // 6)
    wrong = {call: what_one_broken_call_spoils(effect, call, error, intact, usual) for call in tried}
    assert {call: what for call, what in wrong.items() if what} == {}


def what_one_broken_call_spoils(
    effect: int, call: Call, error: Any, intact: dict[str, Any], usual: set[str]
) -> dict[str, Any]:
    """Whatever is not as after a restore without the fault, but for what hangs on that call."""
    world = stopped_after(effect)
    output = restored(world, before=breaker(call, error))
    method, name = call
    different = differences(state_of(world), intact)
    if HANGS_ON.get(method, set()) >= REPLACEMENT:
        # One that was closed, and is not given back, bears the taint of its cordon.
        closed = {f"{n.name} " for n in world.nodes_by_name.values() if n.instance not in world.planned}
        different = {part: what - closed if part == "taints" else what for part, what in different.items()}
        different = {part: what for part, what in different.items() if what}
    spoilt: dict[str, Any] = {
        part: what
        for part, what in different.items()
        if part not in HANGS_ON.get(method, ())
        and not all(name and name.removeprefix("node-") in item for item in what)
    }
    said = set(output["left_behind"]) - usual
    # A replacement that could not be closed is kept by cluster-autoscaler's pod, and said to be in use.
    named = (str(error), f"node {name}, instance ") if method == "update_node" else (str(error),)
    if different and not isinstance(error, NotFound) and not any(word in one for one in said for word in named):
        spoilt["not said"] = (different, said)
    kept = method == "update_node" and any("launched for a node that was not replaced" in one for one in said)
    if isinstance(error, NotFound) and method in GONE_IS_DONE and said and not kept:
        spoilt["said though it is gone"] = said
    if world.leases[LOCK].holder:
        spoilt["lock"] = world.leases[LOCK]
    return spoilt


def test_a_replacement_that_cannot_be_terminated_takes_traffic_again_and_the_next_roll_goes_on() -> None:
    """R2, R5: taken from its load balancers first, it was one for which the next roll would wait until its deadline."""
    world = stopped_after(effect_number("deregister"))
    world.node_services = [replace(s, local_traffic=False) for s in world.node_services]
    forbidden = AccessDenied("The role may not terminate.")

    def fail(call: Call) -> None:
        if call[0] == "terminate":
            raise forbidden

    output = restored(world, before=fail)
    assert any(str(forbidden) in said for said in output["left_behind"])
    again = engine_for(world).run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")


@pytest.mark.parametrize("call", sorted(LOCKS))
def test_without_the_lock_nothing_is_changed(call: Call) -> None:
    """R4: another roll may be at work."""
    world = stopped_after(effect_number("deregister"))
    before = state_of(world)
    restore = engine_for(world, breaker(call, AccessDenied("The role may not."))).run(
        "restore", "watchdog-1", {"roll": "roll-1"}
    )
    assert (restore.status, restore.error) == ("FAILED", "AccessDenied")
    assert {k: v for k, v in state_of(world).items() if k != "lock"} == {k: v for k, v in before.items() if k != "lock"}


def test_what_can_wait_for_nothing_comes_first() -> None:
    """R5: the autoscaler, then processes, before any node, instance or load balancer."""
    world = stopped_after(effect_number("deregister"))
    at = len(world.effects)
    restored(world)
    # A replacement that goes is closed before, and the node that it was launched for opened.
    done = [e for e in world.effects[at:] if e.split()[0] not in {"lease", "untag"} and not e.startswith("update node")]
    assert "cluster-autoscaler" in done[0]
    assert [e.split()[0] for e in done[1:3]] == ["resume", "resume"]


def test_the_autoscalers_own_pod_keeps_no_replacement_that_was_not_needed() -> None:
    """R2: with `autoscaler.mode: pause` it comes back first, and would go to the emptiest node."""
    world = shop((2, 1))
    before = world.snapshot()
    ready = Frozen(world, 10_000, 0, lambda _: False)
    stopped: list[float] = []

    def stop(step: str) -> None:
        # Once the first replacement is Ready: nothing is on it yet.
        if step == "taint_no_schedule" and not stopped:
            stopped.append(world.time)
            ready.engine.stop()
            ready.engine.start("restore", "watchdog-1", {"roll": "roll-1"}, after=1)

    ready.engine.before_call = stop
    with pytest.raises(Stopped):
        ready.engine.run("roll", "roll-1", {})
    ready.engine.let_pass(1200)
    (restore,) = [e for e in ready.engine.executions if e.machine == "restore"]
    assert (restore.status, restore.output["output"]["left_behind"]) == ("SUCCEEDED", [])
    assert world.snapshot() == before
    assert sum(m.alive for m in world.machines.values()) == 3


@pytest.mark.parametrize("standby", [True, False])
def test_a_node_whose_instance_is_stopped_is_put_back_too(*, standby: bool) -> None:
    """R2: somebody stopped it, and starts it again once nobody remembers the roll. AWS registers none that is stopped,
    and an instance on standby when that ends: where the latter is not so, the record stays."""
    world = stopped_after(effect_number("unschedulable=True"))
    (node,) = [n for n in world.nodes_by_name.values() if n.unschedulable and n.instance in world.planned]
    machine = world.machines[node.instance]
    machine.state, machine.standby = "stopped", standby
    left = restored(world)["left_behind"]
    now = world.nodes_by_name[node.name]
    marks = sorted(key for key in now.annotations if "eks-rolling" in key)
    assert (now.unschedulable, now.taints, marks) == (False, (), [] if standby else [NODE_TARGETS])
    assert any("it is not running" in said for said in left) is not standby


def test_a_target_group_that_is_gone_counts_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: it was deleted in mid-roll; nothing is left behind for it."""
    world = stopped_after(effect_number("deregister"))
    world.targets.clear()

    def gone(*_: Any) -> None:
        raise NotFound("Cannot register i-1 with web: TargetGroupNotFound: One or more target groups not found")

    monkeypatch.setattr(World, "register", gone)
    assert not any("in web" in said for said in restored(world)["left_behind"])
    assert world.workloads_by_owner[AUTOSCALER].workload.desired == 1
    assert state_of(world)["marks"] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (NODE_TARGETS, "oops"),
        (NODE_TARGETS, "[1]"),
        (NODE_TARGETS, "[" * 5000),
        (NODE_TARGETS, '[["arn:aws:iam::1:role/x", 80, false]]'),
        (NODE_TARGETS, '[["web", "eighty", true]]'),
        (NODE_LAUNCH, "x@y"),
        (NODE_LAUNCH, "desired:many@1"),
        (NODE_LAUNCH, "@"),
    ],
)
def test_a_mark_that_no_roll_wrote_holds_nothing_up(key: str, value: str) -> None:
    """T1: a kubelet may write any annotation of its own Node."""
    world = shop((2, 1))
    before = world.snapshot()
    spoiled: list[str] = []

    def spoil(current: World) -> None:
        """On a replacement, once the first node was replaced."""
        if not spoiled and any(e.startswith("terminate") for e in current.effects):
            node = next(n for n in current.nodes_by_name.values() if n.instance not in current.planned)
            spoiled.append(node.name)
            current._set_node(replace(node, annotations=node.annotations | {key: value}))

    world.watchers.append(spoil)
    roll = engine_for(world).run("roll", "roll-1", {})
    assert (roll.status, roll.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert world.snapshot() == before
    report = json.loads(world.documents["rolls/roll-1/report.json"])
    assert (key == NODE_TARGETS) == any(NODE_TARGETS in said for said in report["left_behind"])
    assert not any(NODE_TARGETS in said for said in report["restored"])


FOREIGN = "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/theirs/0123456789abcdef"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (NODE_TARGETS, f'[["{FOREIGN}", 80, false]]'),
        (NODE_LAUNCH, "desired:1:raised@1"),
        (NODE_LAUNCH, "TOKEN@NOW"),
    ],
    ids=["targets", "raised", "token"],
)
@pytest.mark.parametrize("planned", [True, False])
def test_a_kubelets_well_formed_mark_on_its_own_node_has_no_effect_in_the_account(
    key: str, value: str, planned: bool
) -> None:
    """T1: it may write whatever a roll would; restore registers, launches, claims and terminates nothing for it."""
    world = stopped_after(effect_number("suspend") if not planned else effect_number("deregister"))
    bears = [n for n in world.nodes_by_name.values() if n.annotations.get(NODE_TARGETS)]
    node = bears[0] if planned else next(n for n in world.nodes_by_name.values() if NODE_LAUNCH not in n.annotations)
    token = token_of("roll-2", node.instance, 1)
    group = world.machines[node.instance].group
    world.groups_by_name[group] = replace(world.groups_by_name[group], maximum=9)
    # Somebody's instance, empty, which came after the forged request.
    theirs = world._launch(group, node.zone)
    world.groups_by_name[group] = replace(
        world.groups_by_name[group], desired=sum(m.alive for m in world.machines.values() if m.group == group)
    )
    forged = value.replace("TOKEN", token).replace("NOW", f"{world.time - 60:.0f}")
    world._set_node(replace(node, annotations=node.annotations | {key: forged}))
    before, instances = len(world.effects), set(world.machines)
    report = report_of_restore(world)
    done = world.effects[before:]
    assert FOREIGN not in {group for group, _ in world.targets}
    assert not [e for e in done if e.startswith("tag ")]
    assert set(world.machines) == instances
    assert theirs.alive
    assert INSTANCE_REPLACES not in theirs.tags
    # Whether or not the look that ignored it was the last one.
    assert any(node.name in said and "no roll" in said for said in report["left_behind"])
    assert not any("no roll" in said for said in report["restored"])


def test_a_mark_that_could_not_be_put_back_is_still_proven_for_the_next_restore() -> None:
    """R2: the proof outlasts the roll and its restore, and goes with the mark."""
    world = stopped_after(effect_number("deregister"))
    targets = [n.name for n in world.nodes_by_name.values() if NODE_TARGETS in n.annotations]
    assert targets

    def fail(call: Call) -> None:
        if call[0] == "register":
            raise AccessDenied("The role may not.")

    restored(world, before=fail)
    assert [n.name for n in world.nodes_by_name.values() if NODE_TARGETS in n.annotations] == targets
    assert [key for key in world.leases[LOCK].annotations if key.startswith(lock.PROOF)]
    engine_for(world).run("restore", "by-hand", {"roll": "by-hand"})
    assert not [n.name for n in world.nodes_by_name.values() if NODE_TARGETS in n.annotations]
    assert world.leases[LOCK].annotations == {}


def test_a_lock_that_somebody_deleted_leaves_a_sentence_that_names_the_target_groups() -> None:
    """R2: its proofs are gone with it, so nothing is registered; but nobody else knows where the node was."""
    world = stopped_after(effect_number("deregister"))
    bears = [n.name for n in world.nodes_by_name.values() if NODE_TARGETS in n.annotations]
    assert bears
    del world.leases[LOCK]
    # The mark goes at the first look, so it is told then, whatever is waited for after it.
    said = report_of_restore(world)["left_behind"]
    assert [s for s in said if f"of node {bears[0]} was written by no roll" in s and s.endswith("(it names web)")]
    assert world.workloads_by_owner[AUTOSCALER].workload.desired == 1
    assert state_of(world)["marks"] == []


def test_a_tenants_declaration_holds_nothing_up() -> None:
    """R5: a StatefulSet with two annotations, made in mid-roll in a namespace where we may do nothing."""
    world = shop((2, 1))
    before = world.snapshot()

    def tenants(call: Call) -> None:
        if call[0] in {"lease", "put_lease"} and call[1].startswith("tenant-x/"):
            raise AccessDenied("Cannot get the Lease: leases.coordination.k8s.io is forbidden.")

    def tenant(current: World) -> None:
        owner = Owner("StatefulSet", "tenant-x", "nothing")
        if any("launch " in e for e in current.effects) and owner not in current.workloads_by_owner:
            current._add("StatefulSet", "tenant-x", "nothing", 0, {GROUP: "x", PART: "cluster"})
            lease = current.leases[LOCK]
            current.leases[LOCK] = replace(lease, annotations=dict(lease.annotations) | {lock.ABORT: "enough"})

    world.watchers.append(tenant)
    roll = engine_for(world, tenants).run("roll", "roll-1", {})
    world.advance(120)
    assert "enough" in roll.cause
    after = world.snapshot()
    for part in before:
        if part != "workloads":
            assert after[part] == before[part], part
    assert world.workloads_by_owner[AUTOSCALER].workload.desired == 1


# What others did meanwhile is theirs


def test_a_maximum_that_somebody_sets_in_mid_roll_stays_and_is_said() -> None:
    """R1."""
    world = shop((2, 1))

    def person(current: World) -> None:
        group = current.groups_by_name["ng-a"]
        if any(e.startswith("terminate") for e in current.effects) and group.maximum != 10:
            current.groups_by_name["ng-a"] = replace(group, maximum=10)

    world.watchers.append(person)
    assert engine_for(world).run("roll", "roll-1", {}).status == "SUCCEEDED"
    assert world.groups_by_name["ng-a"].maximum == 10
    report = json.loads(world.documents["rolls/roll-1/report.json"])
    said = "group ng-a: the maximum size stays 10, which somebody set during the roll (it was 2 before)"
    assert said in report["restored"]
    assert world.snapshot()["tags"] == []


def test_an_autoscaler_that_somebody_scales_in_mid_roll_stays_so_and_is_said() -> None:
    """R1, the same kind."""
    world = stopped_after(effect_number("deregister"))
    state = world.workloads_by_owner[AUTOSCALER]
    state.workload = replace(state.workload, desired=3)
    assert "cluster-autoscaler: stays at 3, set by somebody during the roll" in report_of_restore(world)["restored"]
    assert world.workloads_by_owner[AUTOSCALER].workload.desired == 3


@pytest.mark.parametrize("theirs", [False, True])
def test_what_somebody_writes_in_the_place_of_a_rolls_value_on_a_node_stays(*, theirs: bool) -> None:
    """R1."""
    value = "false" if theirs else "true"
    marks = {NODE_SCALE_DOWN: "true", SCALE_DOWN_DISABLED: value, NODE_EXCLUDED: "true"}
    undo = decide_node(Node("node-1", annotations=marks, labels={EXCLUDE_LABEL: value}), keep_taints=False)
    assert undo is not None
    assert (SCALE_DOWN_DISABLED in undo.annotations, EXCLUDE_LABEL in undo.labels) == (not theirs, not theirs)
    assert {NODE_SCALE_DOWN, NODE_EXCLUDED} <= undo.annotations.keys()


def report_of_restore(world: World) -> dict[str, list[str]]:
    """What it writes for the dead roll."""
    execution = engine_for(world).run("restore", "watchdog-1", {"roll": "roll-1"})
    assert execution.status == "SUCCEEDED"
    report: dict[str, list[str]] = json.loads(world.documents["rolls/roll-1/report.json"])
    return report


def test_an_instance_that_somebody_scaled_out_is_not_claimed() -> None:
    """N4: between a dead roll's launch mark and a request that never went out."""
    world = stopped_after(effect_number(NODE_LAUNCH))
    assert not any(e.startswith("launch ") for e in world.effects)
    world.advance(120)
    group = world.groups_by_name["ng-a"]
    world.groups_by_name["ng-a"] = replace(group, maximum=group.maximum + 2, desired=group.desired + 1)
    theirs = world._launch("ng-a", "zone-a")
    world.advance(40)
    restored(world)
    world.advance(60)
    assert theirs.state == "running"
    assert theirs.tags == {}
    assert world.groups_by_name["ng-a"].desired == 3
    assert sum(m.alive for m in world.machines.values() if m.group == "ng-a") == 3


def test_an_instance_of_a_mixed_group_that_somebody_scaled_out_is_not_claimed() -> None:
    """The same where no client token proves anything."""
    probe = mixed()
    engine_for(probe).run("roll", "roll-1", {})
    world = mixed()
    world.kill_after = 1 + next(i for i, e in enumerate(probe.effects) if NODE_LAUNCH in e)
    engine = engine_for(world)
    engine.kills_stop_execution = True
    with pytest.raises(Exception, match="launch"):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    marked = next(n for n in world.nodes_by_name.values() if NODE_LAUNCH in n.annotations)
    name = world.machines[marked.instance].group
    group = world.groups_by_name[name]
    before = set(world.machines)
    world.groups_by_name[name] = replace(group, desired=group.desired + 1)
    world.advance(40)
    (theirs,) = set(world.machines) - before
    assert any("nothing proves whose it is" in said for said in report_of_restore(world)["left_behind"])
    assert world.machines[theirs].alive


def mixed() -> World:
    world = shop((2, 1))
    for name, group in world.groups_by_name.items():
        world.groups_by_name[name] = replace(group, mixed_purchasing=True, maximum=6)
    return world


def test_the_instance_of_a_step_that_died_before_it_could_say_so_is_found_and_given_back() -> None:
    """R2: the request, made again, answers which it was."""
    world = stopped_after(effect_number("launch "))
    # Otherwise pods would find it while the restore waits for the roll's steps, and it would stay.
    world.new_nodes_never_join = True
    assert restored(world)["left_behind"] == []
    assert world.groups_by_name["ng-a"].desired == 2
    assert sum(m.alive for m in world.machines.values()) == 3


def test_an_instance_whose_tags_are_not_known_everywhere_yet_is_given_back_too() -> None:
    """R2: IAM refuses the tag that claims it for a while, because it does not know the group's own tags yet."""
    world = stopped_after(effect_number("launch "))
    world.new_nodes_never_join = True
    world.settling_seconds = 55
    assert restored(world)["left_behind"] == []
    assert sum(m.alive for m in world.machines.values()) == 3


@pytest.mark.parametrize("lag", [False, True], ids=["size at once", "size late too"])
@pytest.mark.parametrize("settling", [5, 20, 45], ids=lambda seconds: f"{seconds} s")
@pytest.mark.parametrize("frozen", [0, 50], ids=["at once", "50 s late"])
def test_an_instance_that_nothing_lists_yet_is_waited_for_and_given_back(
    monkeypatch: pytest.MonkeyPatch, frozen: float, settling: float, lag: bool
) -> None:
    """R2, R6: the step that launched it died; neither its group nor EC2 shows it when the restore looks."""
    world = shop((2, 1))
    before = world.snapshot()
    # Otherwise pods would find it, and it would stay.
    world.new_nodes_never_join = True
    world.settling_seconds, world.sizes_lag = settling, lag

    def dies(*_: Any) -> None:
        raise Killed("after its launch")

    monkeypatch.setattr(World, "tag_instance", dies)
    late = Frozen(world, 1, frozen, lambda call: call[0] == "launch")

    def restoring(_: World) -> None:
        lease = world.leases.get(LOCK)
        if lease is not None and lock.ENDED in lease.annotations:
            monkeypatch.undo()

    world.watchers.append(restoring)
    restore = late.run()
    assert restore is not None
    assert any(e.startswith("launch ") for e in world.effects)
    assert (restore.status, restore.output["output"]["left_behind"]) == ("SUCCEEDED", [])
    assert {part: v for part, v in world.snapshot().items() if v != before[part]} == {}
    assert sum(m.alive for m in world.machines.values()) == 3


@pytest.mark.parametrize("mark", ["raised", "recorded"])
@pytest.mark.parametrize("scale_out", [10, 100, 200], ids=lambda seconds: f"{seconds} s")
def test_an_instance_that_the_group_has_yet_to_launch_is_waited_for(scale_out: float, mark: str) -> None:
    """R2: the desired capacity was raised, and Auto Scaling takes its time; unproven it is said instead [N4]."""
    probe = mixed()
    engine_for(probe).run("roll", "roll-1", {})
    at = next(i for i, effect in enumerate(probe.effects) if effect.startswith("desired of"))
    world = mixed()
    before = world.snapshot()
    world.delays.scale_out = scale_out
    world.new_nodes_never_join = True
    proven = mark == "raised"
    world.kill_after = 1 + at
    if proven:
        world.kill_after += 1 + next(i for i, e in enumerate(probe.effects[at + 1 :]) if NODE_LAUNCH in e)
    engine = engine_for(world)
    engine.kills_stop_execution = True
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    left = restored(world)["left_behind"]
    if proven:
        assert left == []
        assert world.snapshot() == before
    else:
        assert any("nothing proves whose it is: it stays; if it is nobody's, drain it" in said for said in left)
    assert sum(m.alive for m in world.machines.values()) == (3 if proven else 4)
    assert world.leases[LOCK].holder == ""


def test_an_instance_that_never_comes_is_said_and_all_else_is_put_back() -> None:
    """R2, R5: Auto Scaling finds no capacity, and may find some when nobody looks any more."""
    world = mixed()
    before = world.snapshot()
    world.delays.scale_out = 100_000
    engine = engine_for(world)
    engine.kills_stop_execution = True
    probe = mixed()
    engine_for(probe).run("roll", "roll-1", {})
    at = next(i for i, effect in enumerate(probe.effects) if effect.startswith("desired of"))
    world.kill_after = 2 + at + next(i for i, e in enumerate(probe.effects[at + 1 :]) if NODE_LAUNCH in e)
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    began = world.time
    left = restored(world)["left_behind"]
    assert any("may still come; the next roll takes it" in said for said in left)
    assert world.time - began < 900
    after = world.snapshot()
    # The request stays on record, for the next roll.
    assert {part for part in before if after[part] != before[part]} == {"groups", "marks"}


def test_a_request_that_never_went_out_is_not_waited_for_longer_than_aws_takes() -> None:
    """R5: nothing is left of it, and nothing is said."""
    world = stopped_after(effect_number(NODE_LAUNCH))
    before = world.time
    assert restored(world)["left_behind"] == []
    assert world.time - before < 400


def test_the_turn_to_launch_is_free_after_a_restore() -> None:
    """R2: the next roll would have to wait until the dead one's turn ran out."""
    world = mixed()
    engine = engine_for(world)
    engine.kills_stop_execution = True
    probe = mixed()
    engine_for(probe).run("roll", "roll-1", {})
    world.kill_after = 1 + next(i for i, e in enumerate(probe.effects) if NODE_LAUNCH in e)
    with pytest.raises(Exception, match="launch"):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    assert world.leases[TURN].holder
    restored(world)
    assert world.leases[TURN].holder == ""


def test_another_nodes_request_is_no_proof() -> None:
    """T1: a node that writes another's client token on itself gets no share in that one's replacement."""
    world = stopped_after(effect_number("launch "))
    # Otherwise pods would find it while the restore waits for the roll's steps, and it would stay.
    world.new_nodes_never_join = True
    marked = next(n for n in world.nodes_by_name.values() if NODE_LAUNCH in n.annotations)
    thief = next(n for n in world.nodes_by_name.values() if n.name != marked.name and n.zone == marked.zone)
    copied = thief.annotations | {NODE_LAUNCH: marked.annotations[NODE_LAUNCH]}
    world._set_node(replace(thief, annotations=copied))
    left = report_of_restore(world)["left_behind"]
    assert any(f"node {thief.name} bears a request" in said for said in left)
    assert sum(m.alive for m in world.machines.values()) == 3


def test_a_fault_that_passes_is_waited_for() -> None:
    """R5: what is away for a minute is not left behind."""
    world = stopped_after(effect_number("deregister"))
    until = world.time + 60

    def away(call: Call) -> None:
        if call[0] == "register" and world.time < until:
            raise Transient("It is away.")

    assert not any("away" in said for said in restored(world, before=away)["left_behind"])
    assert state_of(world)["marks"] == []


def test_what_never_ends_is_left_behind_before_the_deadline() -> None:
    """R5: the lock is not held for ever for the sake of one thing."""
    world = with_a_replacement_that_drains_for_ever()
    left = restored(world)["left_behind"]
    assert any("leaves its load balancers (still so after" in said for said in left)
    assert world.leases[LOCK].holder == ""


def test_a_broken_piece_is_a_sentence_of_ours() -> None:
    """Whatever the fault is."""
    world = stopped_after(effect_number("deregister"))
    left = restored(world, before=breaker(("register", "web"), Permanent("InvalidTarget.")))["left_behind"]
    assert sum(said.endswith("in web: InvalidTarget.") for said in left) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_replacement_is_not_closed_before_the_node_that_it_was_launched_for_is_open(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N3: a kubelet writes its Node at the same moment, say. The world checks that no zone has less room."""
    probe, world = (small() for _ in range(2))
    engine_for(probe).run("roll", "roll-1", {})
    world.kill_after = 1 + next(i for i, effect in enumerate(probe.effects) if "'NoSchedule'" in effect)
    engine = engine_for(world)
    engine.kills_stop_execution = True
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    update, left = world.update_node, [times]

    def contended(node: Node, **change: Any) -> Node:
        hard = any(t.effect == "NoSchedule" for t in node.taints)
        if left[0] and hard:
            left[0] -= 1
            raise Conflict(f"Node {node.name} changed.")
        return update(node, **change)

    monkeypatch.setattr(world, "update_node", contended)
    assert restored(world)["left_behind"] == []
    assert left == [0]
    assert sum(m.alive for m in world.machines.values()) == 3


def alone() -> World:
    """One node, the only target of its target group; a roll stopped when its replacement is the only healthy one."""
    worlds = [World(Delays(target_healthy=150)) for _ in range(2)]
    for world in worlds:
        world.group("ng", ZONES[:1], maximum=1)
        world.add_node("ng", ZONES[0])
        world.deployment("web", 2)
        world.budget("web", "web", 1)
        world.target_group("web", 30080, local=False, instances=list(world.machines))
        world.ready()
        world.new_template_version("ng")
        world.planned = set(world.machines)
    probe, world = worlds
    engine_for(probe).run("roll", "roll-1", {})
    world.kill_after = 1 + next(i for i, effect in enumerate(probe.effects) if effect.startswith("deregister"))
    engine = engine_for(world)
    engine.kills_stop_execution = True
    with pytest.raises(Stopped):
        engine.run("roll", "roll-1", {})
    world.kill_after = None
    # The old node's connections end before the restore registers it anew.
    world.advance(60)
    assert [t.state for t in world.targets.values()] == ["healthy"]
    return world


@pytest.mark.parametrize("times", [0, 3])
def test_a_replacement_stays_in_its_target_group_until_the_node_that_comes_back_is_healthy_there(times: int) -> None:
    """N3: a node that is registered is not healthy at once, nor is it where AWS throttles. The world refuses the loss
    of a last healthy target."""
    world, left = alone(), [times]

    def throttled(call: Call) -> None:
        if call[0] == "register" and left[0]:
            left[0] -= 1
            raise Transient("Rate exceeded.")

    assert restored(world, before=throttled)["left_behind"] == []
    assert left == [0]
    assert [(i in world.planned, t.state) for (_, i), t in world.targets.items()] == [(True, "healthy")]
    assert sum(m.alive for m in world.machines.values()) == 1


def test_where_a_node_cannot_be_registered_again_its_replacement_stays_and_both_are_named() -> None:
    """N3, R5."""
    world = alone()
    left = restored(world, before=breaker(("register", "web"), AccessDenied("The role may not.")))["left_behind"]
    assert sum(said.endswith("in web: The role may not.") for said in left) == 1
    assert sum(said.endswith("stays: the node that it is for is not open yet") for said in left) == 1
    assert [(i in world.planned, t.state) for (_, i), t in world.targets.items()] == [(False, "healthy")]
    again = engine_for(world).run("restore", "by-hand", {"roll": "by-hand"})
    assert (again.status, again.output["output"]["left_behind"]) == ("SUCCEEDED", [])
    assert [(i in world.planned, t.state) for (_, i), t in world.targets.items()] == [(True, "healthy")]


def test_a_replacement_whose_target_group_never_has_another_healthy_one_stays_in_it_and_is_named() -> None:
    """N3, R5: not for ever."""
    world = alone()
    world.delays.target_healthy = 1e6
    left = restored(world)["left_behind"]
    assert sum("stays in web until other targets are healthy (still so after" in said for said in left) == 1
    assert [t.state for _, t in sorted(world.targets.items())] == ["initial", "healthy"]
    assert world.leases[LOCK].holder == ""


def small() -> World:
    """Nodes that have room for all pods, so that none goes to a replacement."""
    world = World()
    world.group("ng", ZONES, maximum=3)
    for zone in (*ZONES[:1], *ZONES[1:2] * 2):
        world.add_node("ng", zone)
    world.deployment("web", 3)
    world.budget("web", "web", 1)
    world.ready()
    world.new_template_version("ng")
    world.planned = set(world.machines)
    return world
