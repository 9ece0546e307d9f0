"""The group's lifecycle state decides whether an instance is there, before EC2's or the node's does."""

from dataclasses import replace

import pytest

from eks_rolling.documents.finding import Severity
from eks_rolling.observed.aws import Group, GroupInstance, InstanceState, LifecycleHook, as_their_groups_say
from eks_rolling.observed.kubernetes import Node
from eks_rolling.observed.marks import HARD_TAINT, NODE_ROLL
from eks_rolling.payloads import Hold
from eks_rolling.settings import Deadlines
from eks_rolling.steps import await_ready, terminate
from tests.unit.test_preflight import CLEAN, found

OLD, NEW = "i-0ld", "i-new"
NODE = Node("old", instance=OLD, unschedulable=True, taints=(HARD_TAINT,), annotations={NODE_ROLL: "roll-1"})
READY = Node("new", instance=NEW)


def group(old: str = "InService", new: str = "InService") -> Group:
    return Group("ng", maximum=3, desired=2, instances=(GroupInstance(OLD, "a", old), GroupInstance(NEW, "a", new)))


def terminating(seen: Group) -> str:
    view = terminate.BeforeTermination(InstanceState(OLD, "running"), NODE, READY, group=seen)
    decision = terminate.decide(view, OLD, "roll-1")
    return decision.reason if isinstance(decision, Hold) else type(decision).__name__


@pytest.mark.parametrize("lifecycle", ["Terminating", "Terminating:Wait", "Terminating:Proceed"])
def test_an_instance_that_its_group_ends_is_on_its_way_out_whatever_ec2_says(lifecycle: str) -> None:
    states = as_their_groups_say([group(lifecycle)], {OLD: InstanceState(OLD, "running")})
    assert states[OLD].state == "shutting-down"
    assert "is shutting down" in terminating(group(lifecycle))


@pytest.mark.parametrize("lifecycle", ["InService", "Pending:Wait", "Standby"])
def test_other_instances_are_what_ec2_says(lifecycle: str) -> None:
    states = {OLD: InstanceState(OLD, "running"), "i-else": InstanceState("i-else", "stopped")}
    assert as_their_groups_say([group(lifecycle)], states) == states


def test_an_instance_in_standby_is_not_terminated_for_its_desired_capacity_was_lowered_already() -> None:
    assert "is Standby in its group" in terminating(group("Standby"))


def test_no_instance_is_terminated_while_its_replacement_is() -> None:
    """N3."""
    assert terminating(group(new="Terminating:Wait")) == "the replacement new is being terminated by its group"
    assert terminating(group()) == "Terminate"


def ready(lifecycle: str) -> object:
    member = GroupInstance(NEW, "a", lifecycle)
    side = await_ready.Side(READY, frozenset())
    return await_ready.decide(NEW, InstanceState(NEW, "running"), side, side, member=member)


def test_a_replacement_is_ready_once_its_group_has_it_in_service() -> None:
    assert ready("InService") == await_ready.Ready("new")
    assert isinstance(ready("Pending:Wait"), Hold)
    assert isinstance(ready("Terminating:Wait"), await_ready.NeverReady)


@pytest.mark.parametrize(
    ("hook", "code", "severity"),
    [
        (LifecycleHook("ng", "drain", terminating=True, seconds=3600), "hook-outlasts-deadline", Severity.HOLDS),
        (LifecycleHook("ng", "drain", terminating=True, seconds=300), "lifecycle-hook", Severity.NOTE),
        (LifecycleHook("ng", "join", terminating=False, seconds=1200), "hook-outlasts-deadline", Severity.HOLDS),
        (LifecycleHook("ng", "join", terminating=False, seconds=60), "lifecycle-hook", Severity.NOTE),
    ],
)
def test_the_plan_compares_each_hook_with_the_step_it_holds(hook: LifecycleHook, code: str, severity: Severity) -> None:
    assert (Deadlines().terminate, Deadlines().await_ready) == (1200, 1200)
    (finding,) = found(replace(CLEAN, hooks=(hook,)))
    assert (finding.code, finding.severity, finding.object) == (code, severity, f"lifecycle hook {hook.name} of ng")
    assert finding.remedy


def test_hooks_of_groups_that_are_not_touched_are_not_told_of() -> None:
    hook = LifecycleHook("another", "drain", terminating=True, seconds=3600)
    assert found(replace(CLEAN, hooks=(hook,))) == []
