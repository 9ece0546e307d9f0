"""Instances that their group ends, or that somebody took out of service, while EC2 says that they run [N2]."""

from collections.abc import Callable

import pytest

from eks_rolling.observed.aws import LifecycleHook
from eks_rolling.observed.kubernetes import Effect
from eks_rolling.payloads import RestoreTask
from eks_rolling.roll import lock
from eks_rolling.roll.lock import ABORT
from eks_rolling.roll.restore_dry_run import rehearse
from tests.asl import Engine, Execution
from tests.assembly import synthesize
from tests.model.situations import outdated, shop
from tests.model.situations import settings as roll_settings
from tests.world import World

SMALL = (2, 1)


def roll(world: World) -> Execution:
    return Engine(synthesize(), world, world.clients(roll_settings())).run("roll", "roll-1", {})


def with_hook(seconds: float) -> World:
    world = shop(SMALL)
    world.hooks = [LifecycleHook(group, "drain", terminating=True, seconds=seconds) for group in ("ng-a", "ng-b")]
    return world


def once(condition: Callable[[World], bool], act: Callable[[World], None]) -> Callable[[World], None]:
    done = False

    def look(world: World) -> None:
        nonlocal done
        if not done and condition(world):
            done = True
            act(world)

    return look


def ask_to_abort(world: World) -> None:
    lease = world.leases["kube-system/eks-rolling"]
    lease.annotations[ABORT] = "{}"


def dying(world: World) -> list[str]:
    return [m.id for m in world.machines.values() if m.held_by_hook]


def test_a_hook_that_lets_go_in_time_only_makes_the_roll_slower() -> None:
    world = with_hook(300)
    before = world.snapshot()
    execution = roll(world)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert outdated(world) == []
    assert world.snapshot()["groups"] == before["groups"]


def test_an_instance_that_a_hook_holds_past_the_deadline_is_not_put_back() -> None:
    """Neither its balancers nor new pods may have it again: the world breaks N2 where a restore tries."""
    world = with_hook(100_000)
    execution = roll(world)
    assert execution.status == "FAILED"
    assert "is shutting down: Terminating:Wait" in execution.cause
    (instance,) = dying(world)
    node = world._node_of(instance)
    assert node is not None
    assert node.unschedulable
    assert any(t.key == "eks-rolling" and t.effect == Effect.NO_SCHEDULE for t in node.taints)
    assert not [key for key in world.targets if key[1] == instance]


def test_a_roll_that_is_aborted_while_a_hook_holds_puts_back_everything_but_that_instance() -> None:
    world = with_hook(600)
    world.watchers.append(once(lambda w: bool(dying(w)), ask_to_abort))
    before = world.snapshot()
    execution = roll(world)
    assert execution.status == "FAILED"
    after = world.snapshot()
    assert {k: after[k] for k in ("workloads", "budgets", "lock", "protected")} == {
        k: before[k] for k in ("workloads", "budgets", "lock", "protected")
    }


def test_an_instance_in_standby_loses_its_marks_and_is_not_registered() -> None:
    world = shop(SMALL)

    def stand_by(current: World) -> None:
        left = {m.id for m in current.machines.values()} - {instance for _, instance in current.targets}
        for instance in left & current.planned:
            current.machines[instance].standby = True
        ask_to_abort(current)

    def has_left(current: World) -> bool:
        draining = [i for (_, i), t in current.targets.items() if t.state == "draining"]
        registered = {i for _, i in current.targets}
        gone = [m for m in current.machines.values() if m.alive and m.id in current.planned and m.id not in registered]
        return bool(gone) and not draining

    world.watchers.append(once(has_left, stand_by))
    execution = roll(world)
    assert execution.status == "FAILED"
    out = [m for m in world.machines.values() if m.standby]
    assert out
    for machine in out:
        node = world._node_of(machine.id)
        assert node is not None
        assert not [key for key in node.annotations if "eks-rolling" in key]
        assert not [key for key in world.targets if key[1] == machine.id]


def test_a_restore_is_rehearsed_on_an_instance_that_neither_comes_nor_goes() -> None:
    """R2: AWS changes the protection of none that is Pending, as one is that comes back from Standby."""
    world = shop(SMALL)
    clients = world.clients(roll_settings())
    lock.acquire(clients, "roll-1", lock.lock_name("kube-system"))
    coming, *others = sorted(m.id for m in world.machines.values() if m.group == "ng-a")
    world.machines[coming].state, world.machines[coming].changes_at = "pending", world.time + 60
    task = RestoreTask(roll="roll-1", rehearse=True, groups=("ng-a",), nodes=(coming, *others))
    assert rehearse(task, clients).reason == "what the roll changes on group ng-a can be put back"
    task = RestoreTask(roll="roll-1", rehearse=True, groups=("ng-a",), nodes=(coming,))
    assert "has an instance to replace" in rehearse(task, clients).reason


@pytest.mark.parametrize("seconds", [100_000.0, 300.0])
def test_the_plan_compares_hooks_with_the_deadline(seconds: float) -> None:
    world = with_hook(seconds)
    execution = Engine(synthesize(), world, world.clients(roll_settings())).run("roll", "roll-1", {"dry_run": True})
    assert execution.status == "SUCCEEDED"
    text = next(t for k, t in world.documents.items() if k.endswith("plan.json"))
    assert ("hook-outlasts-deadline" in text) is (seconds > 1200)
    assert "lifecycle hook drain of ng-a" in text
