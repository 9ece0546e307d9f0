"""What tenants make by the thousand: each object costs a request, and a function has a minute or two.

Here each request takes as long as many would together.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied
from eks_rolling.observed.aws import Group, GroupInstance, InstanceState
from eks_rolling.observed.kubernetes import STRATEGY_ANNOTATION, Budget, Selector, Strategy
from eks_rolling.observed.marks import INSTANCE_REPLACES
from eks_rolling.payloads import RollRequest
from eks_rolling.plan.permissions import needed_to_restart
from eks_rolling.redis.groups import GROUP, PART, Part, RedisGroup, declared
from eks_rolling.roll import lock
from eks_rolling.runtime import run_step
from eks_rolling.steps import restore
from eks_rolling.steps.plan import observe
from stacks.functions import SIZES
from tests.asl import PAYLOAD_LIMIT
from tests.hostile.worlds import effect_number, engine_for, stopped_after
from tests.model.situations import cache, settings, shards, shop
from tests.world import World

MANY = 1000
REQUEST_SECONDS = 0.3

LOCK = "kube-system/eks-rolling"

FOLLOWED = {PART: str(Part.CLUSTER)}
BROKEN = {PART: "master"}


def declare(world: World, said: dict[str, str], count: int = MANY) -> None:
    """So many Redis groups in one tenant's namespace, none of which has a pod."""
    for number in range(count):
        world._add("StatefulSet", "tenant-x", f"x-{number}", 0, {GROUP: f"x-{number}", **said})


def half_moved(by: str) -> tuple[World, Clients, RedisGroup]:
    """A cluster that roll-1 has locked, and its Redis group, which `by` began to move."""
    world = cache(new_version=False)
    ((group,), _) = declared(world.workloads())
    clients = world.clients(settings())
    lock.acquire(clients, "roll-1", LOCK)
    lock.acquire(clients, by, group.lease)
    return world, clients, group


def slow(world: World, monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    """What is asked about one object of a tenant's takes a while."""

    def slowly(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(about: Any, *more: Any, **how: Any) -> Any:
            if "tenant-x" in str(about):
                world.time += REQUEST_SECONDS
            return method(about, *more, **how)

        return called

    for name in methods:
        monkeypatch.setattr(world, name, slowly(getattr(world, name)))


def in_time(world: World, step: str, act: Callable[[], Any]) -> Any:
    """What the step answers, within its function's timeout."""
    began = world.time
    answered = act()
    assert world.time - began < SIZES[step].timeout - 20
    return answered


@pytest.mark.parametrize("granted", [True, False])
def test_thousands_of_declarations_end_no_plan_and_hide_no_other_group(
    monkeypatch: pytest.MonkeyPatch, *, granted: bool
) -> None:
    """T1, R5: whether the functions may migrate them is asked for each."""
    world = shards()
    declare(world, FOLLOWED)
    slow(world, monkeypatch, "group_may", "lease")
    if not granted:
        asked = world.group_may
        monkeypatch.setattr(world, "group_may", lambda verb: verb.namespace != "tenant-x" and asked(verb))
    view = in_time(world, "plan", lambda: observe(RollRequest(), world.clients(settings())))
    seen = {str(each.group): each for each in view.redis}
    assert len(seen) == MANY + 1
    assert (seen["default/shards"].fault, seen["default/shards"].seen is None) == ("", False)
    assert all(each.fault for name, each in seen.items() if not granted and name != "default/shards")


def test_thousands_of_deployments_that_ask_for_a_restart_end_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not asked about may not: the others' answers are there."""
    world = shop((2, 1))
    ours = world.deployment("site", 2, annotations={STRATEGY_ANNOTATION: str(Strategy.RESTART)})
    theirs = [
        world.deployment(f"x-{n}", 1, namespace="tenant-x", annotations={STRATEGY_ANNOTATION: str(Strategy.RESTART)})
        for n in range(MANY)
    ]
    slow(world, monkeypatch, "group_may")
    view = in_time(world, "plan", lambda: observe(RollRequest(), world.clients(settings())))
    assert needed_to_restart(ours) not in view.not_granted
    lacking = [owner for owner in theirs if needed_to_restart(owner) in view.not_granted]
    assert 0 < len(lacking) < MANY


@pytest.mark.parametrize("said", [FOLLOWED, BROKEN], ids=["followed", "broken"])
def test_thousands_of_declarations_keep_no_group_half_moved(
    said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2, R5: whoever began to move a group is on its Lease, and each has one."""
    world, clients, group = half_moved("roll-0/node")
    declare(world, said)
    slow(world, monkeypatch, "lease")
    task = {"roll": "roll-1", "ending": False}
    answer = in_time(world, "settle_redis", lambda: run_step("settle_redis", task, clients))
    assert world.leases[group.lease].holder == ""
    assert (answer["status"], "Redis groups in tenant-x were not looked at" in answer["reason"]) == ("done", True)


@pytest.mark.parametrize("said", [FOLLOWED, BROKEN], ids=["followed", "broken"])
def test_thousands_of_declarations_end_no_restore(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: it releases the lock, and says in one sentence which groups it did not look at."""
    world, clients, _ = half_moved("roll-1/node")
    declare(world, said)
    slow(world, monkeypatch, "lease")
    answer = in_time(world, "restore", lambda: run_step("restore", {"roll": "roll-1"}, clients))
    assert answer["status"] == "done"
    assert world.leases[LOCK].holder == ""
    assert [s for s in answer["output"]["left_behind"] if "default/cache is half moved" in s]
    assert len([s for s in answer["output"]["left_behind"] if "in tenant-x were not looked at" in s]) == 1


def test_thousands_of_declarations_hide_no_dead_roll(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: a look for orphans is what finds one that nobody restored."""
    world = shop((2, 1))
    clients = world.clients(settings())
    lock.acquire(clients, "roll-1", LOCK)
    world.time += 10_000
    declare(world, FOLLOWED)
    slow(world, monkeypatch, "lease")
    answer = in_time(world, "find_orphans", lambda: run_step("find_orphans", {"roll": "clock-1"}, clients))
    assert answer["output"]["dead"] == "roll-1"


def test_thousands_of_declarations_where_the_functions_have_no_role_fit_into_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No Catch sees a payload that is too large."""
    world = shop((2, 1))
    declare(world, FOLLOWED)
    read = world.lease

    def denied(name: str) -> Any:
        if name.startswith("tenant-x/"):
            raise AccessDenied(f"Cannot get the Lease {name}: {'leases.coordination.k8s.io is forbidden. ' * 10}")
        return read(name)

    monkeypatch.setattr(world, "lease", denied)
    answer = run_step("find_orphans", {"roll": "clock-1"}, world.clients(settings()))
    assert len(json.dumps(answer)) < PAYLOAD_LIMIT / 2
    assert answer["output"]["unseen"][-1] == f"and {MANY - 30} more"


def budgets(world: World, prefix: str, count: int = MANY) -> None:
    """With our label, as a tenant may write it."""
    for number in range(count):
        name = f"{prefix}-{number}"
        own = Budget("tenant-x", name, f"uid-{name}", Selector((("app", "x"),)), max_unavailable="1", ours=True)
        world.budgets_by_name["tenant-x", name] = own


def test_thousands_of_budgets_with_our_label_end_no_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: they go, look after look, and nothing waits for them but the lock."""
    world = shop((2, 1), new_version=False)
    clients = world.clients(settings())
    lock.acquire(clients, "roll-1", LOCK)
    budgets(world, "x")
    slow(world, monkeypatch, "delete_budget")
    answer = in_time(world, "restore", lambda: run_step("restore", {"roll": "roll-1"}, clients))
    assert (answer["status"], 0 < len(world.budgets_by_name) < MANY) == ("wait", True)
    assert "temporary budgets in tenant-x were not removed yet" in answer["reason"]


def test_budgets_that_a_tenant_makes_again_and_again_neither_hold_a_restore_nor_fill_what_it_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R2, R5: what was put back is kept in a variable, and one that is too large ends an execution."""
    world = stopped_after(effect_number("deregister"))
    monkeypatch.setattr(restore, "REQUESTS_SECONDS", 1.0)
    slow(world, monkeypatch, "delete_budget")
    made: list[float] = []

    def tenant(current: World) -> None:
        if len(current.budgets_by_name) < 50:
            made.append(current.time)
            budgets(current, f"{'x' * 200}-{len(made)}", 50)

    world.watchers.append(tenant)
    execution = engine_for(world).run("restore", "watchdog-1", {"roll": "roll-1"})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    assert len(made) > 10
    assert world.leases[LOCK].holder == ""
    report = json.loads(world.documents["rolls/roll-1/report.json"])
    assert report["restored"][-1] == "and more"
    assert [s for s in report["left_behind"] if "temporary budgets in tenant-x were not removed yet" in s]


def test_many_replacements_that_cost_seconds_each_end_no_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: in a region of many target groups; each look begins with another one, so that each has its turn."""
    world = shop((2, 1), new_version=False)
    clients = world.clients(settings())
    pairs = [(f"i-old{n}", f"i-new{n}") for n in range(40)]
    states = {
        instance: InstanceState(instance, "running", {INSTANCE_REPLACES: old} if instance == new else {})
        for old, new in pairs
        for instance in (old, new)
    }
    group = Group("ng-a", instances=tuple(GroupInstance(each, "zone-a") for each in states))
    seen, looked, waits = restore.Machines([group], [], states), set[str](), 0

    def look_at(state: InstanceState, group: Group, *_: object) -> restore.Replacement:
        world.time += 7
        looked.add(state.id)
        return restore.Replacement(state, group, None, (), ())

    monkeypatch.setattr(restore, "_look_at", look_at)
    for _ in range(20):
        began, progress = world.time, restore.RestoreProgress()
        taken = list(seen.replacements(clients, progress))
        assert world.time - began < SIZES["restore"].timeout / 2
        assert len(taken) + len(progress.waiting) == len(pairs)
        waits += len(progress.waiting)
        world.time += 6
    assert waits
    assert looked == {new for _, new in pairs}
