"""What to type once a roll has ended badly: every command that is printed then, typed as printed, leaves nothing.

The command is the real one: its parser, its prompts, its own plan. Behind it are the synthesized definitions, on the
cluster in memory.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from eks_rolling.observed.marks import INSTANCE_REPLACES, NODE_LAUNCH
from eks_rolling.roll.lock import ABORT
from eks_rolling_cli import cli_context, planning
from eks_rolling_cli.app import app
from eks_rolling_cli.executions import Execution as Shown
from tests.asl import Engine, Execution, StateFault, Stopped
from tests.assembly import synthesize
from tests.model.situations import by_zone, outdated, settings, shop
from tests.model.test_control import CASES, Person
from tests.model.test_plan import days_pass
from tests.model.test_roll import SMALL, engine_for, stop_after
from tests.unit.cli.targets import FakeTarget
from tests.world import World

Json = dict[str, Any]
Ended = Callable[[str, World, Engine], None]
"""Brings a roll called roll-1, in the named cluster of `CASES`, to some end."""


class ModelExecutions:
    """Step Functions as the command sees it. An execution runs when it is looked at: whoever starts one watches it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, machine: str, status: str | None = None, **_: Any) -> Iterator[Shown]:
        found = [self._shown(e) for e in reversed(self._engine.executions) if f"machine:{e.machine}" == machine]
        return (e for e in found if status in {None, e.status})

    def describe(self, arn: str) -> Shown:
        execution = self._named(arn)
        if execution.status == "RUNNING":
            self._engine.follow(execution)
        return self._shown(execution)

    def history(self, arn: str) -> list[Json]:
        return list(self._named(arn).events)

    def start(self, machine: str, name: str, given: Json) -> str:
        self._engine.start(machine.rpartition(":")[2], name, given)
        # It is there once its first state was entered.
        self._engine.let_pass(0)
        return f"execution:{machine.rpartition(':')[2]}:{name}"

    def _named(self, arn: str) -> Execution:
        return next(e for e in self._engine.executions if e.arn == arn)

    def _shown(self, execution: Execution) -> Shown:
        times = [e["timestamp"] for e in execution.events] or [self._engine.world.time]
        ended = None if execution.status == "RUNNING" else times[-1]
        return Shown(
            execution.arn, execution.name, execution.status, times[0], ended, execution.input or {},
            execution.error, execution.cause, execution.output or {},
        )  # fmt: skip


class ModelTarget(FakeTarget):
    """A deployment in memory: what the command starts runs, and what rolls wrote can be read."""

    def __init__(self, world: World, engine: Engine) -> None:
        super().__init__(world)
        self.__dict__ |= {"executions": ModelExecutions(engine), "settings": settings()}

    def document(self, roll: str, name: str) -> Json:
        text = self.world.documents.get(f"rolls/{roll}/{name}")
        return json.loads(text) if text else {}


class Desk:
    """A person at a terminal who says yes to every question."""

    def __init__(self, world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._target = ModelTarget(world, engine)
        monkeypatch.setattr(cli_context, "Target", lambda options: self._aimed(options.cluster, options.region))
        monkeypatch.setattr(planning, "confirmed", lambda _, **__: True)
        for module in ("watching", "restoring"):
            monkeypatch.setattr(f"eks_rolling_cli.{module}.LOOK_SECONDS", 0.0)

    def _aimed(self, cluster: str, region: str) -> ModelTarget:
        assert (cluster, region or "eu-central-1") == ("demo", "eu-central-1"), "a remedy names another place"
        return self._target

    def types(self, command: str) -> Result:
        name, *arguments = shlex.split(command)
        assert name == "eks-rolling"
        return CliRunner().invoke(app, arguments)


def broken_at(step: str) -> Ended:
    """The step fails for as long as nobody mends what it failed of; so does the restore that comes after the roll."""

    def end(_: str, __: World, engine: Engine) -> None:
        def fail(called: str) -> None:
            if called == step:
                raise StateFault("Permanent", json.dumps({"errorType": "Permanent", "errorMessage": "It is broken."}))

        engine.before_call = fail
        engine.run("roll", "roll-1", {})
        engine.run("restore", "watchdog-1", {"roll": "roll-1"})

    return end


def aborted_at(share: float) -> Ended:
    def end(case: str, world: World, engine: Engine) -> None:
        Person(world, engine, max(2, int(len(calls(case)) * share)), ABORT)
        engine.run("roll", "roll-1", {})

    return end


def stopped_at(share: float, *, restore_dies: bool = False) -> Ended:
    """Stopped, or timed out: either way no state of it runs any more, and the watchdog's restore comes, or dies too."""

    def end(case: str, world: World, engine: Engine) -> None:
        stop_after(engine, max(2, int(effects(case) * share)))
        if restore_dies:
            engine.kills_stop_execution = True
            world.kill_after = len(world.effects) + 2
            with pytest.raises(Stopped):
                engine.run("restore", "watchdog-1", {"roll": "roll-1"})
            engine.kills_stop_execution, world.kill_after = False, None
        else:
            engine.run("restore", "watchdog-1", {"roll": "roll-1"})

    return end


def out_of_time(_: str, world: World, engine: Engine) -> None:
    """A step's deadline."""
    world.new_nodes_never_join = True
    engine.run("roll", "roll-1", {})


def with_taints_kept(_: str, world: World, engine: Engine) -> None:
    """What was asked to stay is left behind."""
    world.alarms.add("shop-errors")
    engine.run("roll", "roll-1", {"keep_taints": True})


@cache
def calls(case: str) -> tuple[str, ...]:
    """The steps that a roll calls, in order."""
    engine = engine_for(CASES[case].make())
    made: list[str] = []
    engine.before_call = made.append
    engine.run("roll", "roll-1", {})
    return tuple(made)


@cache
def effects(case: str) -> int:
    world = CASES[case].make()
    engine_for(world).run("roll", "roll-1", {})
    return len(world.effects)


SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)

STEPS = (
    "check_permissions", "plan", "take_lock", "restore", "pause_interference", "taint_nodes", "settle_redis",
    "select_wave", "launch_replacement", "await_ready", "taint_no_schedule", "leave_load_balancers", "evict",
    "await_volumes", "await_load_balancers", "terminate", "health_gate", "find_orphans", "report",
    "record_node", "inspect_redis",
)  # fmt: skip


def with_its_lock_left(case: str, world: World, engine: Engine) -> None:
    """Every node is replaced and everything put back: the restore died before it gave the lock up."""
    stop_after(engine, effects(case) - 1)
    engine.kills_stop_execution, world.kill_after = True, len(world.effects) + 1
    with pytest.raises(Stopped):
        engine.run("restore", "watchdog-1", {"roll": "roll-1"})


ENDS: dict[str, Ended] = {
    **{f"aborted at {share:.0%}": aborted_at(share) for share in SHARES},
    **{f"stopped at {share:.0%}": stopped_at(share) for share in SHARES},
    **{f"stopped at {share:.0%}, and so was its restore": stopped_at(share, restore_dies=True) for share in SHARES},
    **{f"failed in {step}": broken_at(step) for step in STEPS},
    "out of time": out_of_time,
    "taints kept": with_taints_kept,
    "its lock left": with_its_lock_left,
}


def mended(world: World, engine: Engine) -> None:
    """What made the roll fail is gone: remedies are for what is left, not for the cause."""
    engine.before_call = lambda _: None
    engine.kills_stop_execution, world.kill_after = False, None
    world.new_nodes_never_join = False
    world.alarms.clear()


LOOKS = ("rolls", "orphans", "watch --once")
"""The commands that people type to see how a roll ended."""


def printed(world: World, desk: Desk) -> list[str]:
    """Every command that people find afterwards: in messages, in the report, and by the commands that look."""
    texts = [world.told[-1].text] if world.told else []
    texts += [text for key, text in world.documents.items() if key.endswith("report.html")]
    texts += [desk.types(f"eks-rolling {look} --cluster demo").output for look in LOOKS]
    found = [c.strip() for text in texts for c in re.findall(r"eks-rolling (?:start|restore)[^`\n<]*", text)]
    return list(dict.fromkeys(found))


@pytest.mark.heavy
def test_these_are_all_steps_of_a_roll() -> None:
    assert set(calls("shop")) == set(STEPS)


WITH_REDIS = [name for name in ENDS if name.startswith(("aborted", "stopped"))]
"""A group may be half moved then."""


@pytest.mark.heavy
@pytest.mark.drawn(keep=24)
@pytest.mark.parametrize(
    ("case", "name"),
    [*(("shop", name) for name in ENDS), *((case, name) for case in ("cache", "shards") for name in WITH_REDIS)],
)
def test_whatever_is_printed_after_an_end_leaves_nothing_when_it_is_typed(
    case: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2, from every end state: what was marked is as before, S2 and C2; `start` also finishes the roll."""
    make, normal = CASES[case].make, CASES[case].normal
    first = make()
    first_engine = engine_for(first)
    before = first.snapshot()
    ENDS[name](case, first, first_engine)
    mended(first, first_engine)
    commands = printed(first, Desk(first, first_engine, monkeypatch))
    if first.snapshot() != before:
        assert commands, "something is left, and nothing says what to type"
    # Messages print this wherever anything is left.
    for command in dict.fromkeys([*commands, "eks-rolling start --cluster demo"]):
        world = make()
        engine = engine_for(world)
        zones = by_zone(world)
        ENDS[name](case, world, engine)
        mended(world, engine)
        done = Desk(world, engine, monkeypatch).types(command)
        assert done.exit_code == 0, (command, done.output)
        world.advance(60)
        after = world.snapshot()
        differs = {k: (after[k], before[k]) for k in before if k != "labels" and after[k] != before[k]}
        assert differs == {}, command
        assert normal(world), command
        if " start" in command:
            assert (outdated(world), by_zone(world)) == ([], zones), command


FORCE: Json = {"force": True}
"""What a person asked for at first: the printed `start` does not ask for it again."""


def current() -> World:
    """No node of it is outdated."""
    world = shop(SMALL, new_version=False)
    world.planned = set(world.machines)
    return world


@cache
def calls_of_a_forced_roll() -> tuple[str, ...]:
    engine, made = engine_for(current()), list[str]()
    engine.before_call = made.append
    engine.run("roll", "roll-1", FORCE)
    return tuple(made)


def begun(world: World) -> set[str]:
    """Instances whose replacement is there beside them."""
    living = {m.id for m in world.machines.values() if m.alive}
    return {world.machines[i].tags.get(INSTANCE_REPLACES, "") for i in living} & living


def leaves_nothing(world: World, before: Json) -> None:
    world.advance(60)
    after = world.snapshot()
    parts = [part for part in before if part != "labels"]
    assert {part: after[part] for part in parts} == {part: before[part] for part in parts}
    assert begun(world) == set()


HALF_WAY = tuple(range(1, 13))


@pytest.mark.heavy
@pytest.mark.drawn(keep=4)
@pytest.mark.parametrize("stopped", [False, True], ids=["aborted", "stopped"])
@pytest.mark.parametrize("point", HALF_WAY)
def test_what_a_forced_roll_left_half_done_is_finished_by_the_start_that_is_printed(
    point: int, monkeypatch: pytest.MonkeyPatch, *, stopped: bool
) -> None:
    """R2, N4: no node is outdated, so only what the roll left shows which nodes are to be replaced still."""
    world = current()
    engine, before, zones = engine_for(world), world.snapshot(), by_zone(world)
    if stopped:
        stop_after(engine, forced_effects() * point // len(HALF_WAY) - 1, FORCE)
        engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    else:
        Person(world, engine, max(2, len(calls_of_a_forced_roll()) * point // len(HALF_WAY) - 1), ABORT)
        engine.run("roll", "roll-1", FORCE)
    mended(world, engine)
    half_done = begun(world)
    desk = Desk(world, engine, monkeypatch)
    if half_done:
        said = [c for c in printed(world, desk) if " start" in c]
        assert said, "a node is half replaced, and nothing says what to type"
        assert all("--force" not in c for c in said)
    alive = {m.id for m in world.machines.values() if m.alive}
    done = desk.types("eks-rolling start --cluster demo")
    assert done.exit_code == 0, done.output
    leaves_nothing(world, before)
    assert by_zone(world) == zones
    # Nothing else is replaced: those that the roll did not reach are nobody's half-done work.
    assert alive - {m.id for m in world.machines.values() if m.alive} == half_done


@cache
def forced_effects() -> int:
    world = current()
    engine_for(world).run("roll", "roll-1", FORCE)
    return len(world.effects)


@pytest.mark.heavy
def test_some_of_these_ends_leave_a_node_half_replaced() -> None:
    """Or they would show nothing."""
    world = half_replaced(engine_for, current(), FORCE)
    assert len(begun(world)) == 1


def half_replaced(engine_of: Callable[[World], Engine], world: World, request: Json) -> World:
    """Where a roll was aborted while a node's replacement was in use."""
    engine = engine_of(world)
    seen: list[str] = []

    def abort_once_in_use(step: str) -> None:
        seen.append(step)
        if step == "evict" and seen.count("evict") == 4:
            Person(world, engine, 0, ABORT)._before(step)

    engine.before_call = abort_once_in_use
    execution = engine.run("roll", "roll-1", request)
    assert execution.error == "Aborted", execution.cause
    engine.before_call = lambda _: None
    assert begun(world), "its replacement was given back"
    return world


@pytest.mark.heavy
def test_what_a_roll_for_age_left_half_done_is_finished_though_the_limit_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R2: the reason that the earlier roll had may be gone."""
    world = current()
    before, zones = world.snapshot(), by_zone(world)
    days_pass(world, 6)

    def aging(world: World) -> Engine:
        return Engine(synthesize(), world, world.clients(settings().model_copy(update={"max_age_days": 5})))

    half_replaced(aging, world, {})
    (old,) = begun(world)
    engine = engine_for(world)
    done = Desk(world, engine, monkeypatch).types("eks-rolling start --cluster demo")
    assert done.exit_code == 0, done.output
    leaves_nothing(world, before)
    assert (by_zone(world), world.machines[old].alive) == (zones, False)


@pytest.mark.heavy
def test_a_forced_roll_after_one_that_was_aborted_leaves_no_instance_too_many() -> None:
    """R2: the replacement that the first launched is not replaced as well."""
    world = current()
    before, zones = world.snapshot(), by_zone(world)
    half_replaced(engine_for, world, FORCE)
    world.planned |= {m.id for m in world.machines.values() if m.alive}
    execution = engine_for(world).run("roll", "roll-2", FORCE)
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    leaves_nothing(world, before)
    assert by_zone(world) == zones


@pytest.mark.heavy
def test_a_start_by_an_event_finishes_what_a_forced_roll_left_half_done() -> None:
    """R2."""
    world = current()
    before, zones = world.snapshot(), by_zone(world)
    half_replaced(engine_for, world, FORCE)
    execution = engine_for(world).run("roll", "roll-2", {"trigger": "launch template lt-ng-a"})
    assert (execution.status, execution.cause) == ("SUCCEEDED", "")
    leaves_nothing(world, before)
    assert by_zone(world) == zones
    again = engine_for(world).run("roll", "roll-3", {})
    assert json.loads(world.documents["rolls/roll-3/plan.json"])["nodes"] == []
    assert again.status == "SUCCEEDED"


@pytest.mark.heavy
@pytest.mark.parametrize("between", [False, True], ids=["comes to the next roll", "comes between the rolls"])
def test_an_instance_that_is_owed_to_a_forced_roll_is_taken_by_the_start_that_is_printed(
    between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2: the restore keeps the request on record, for a roll that finds no outdated node."""
    world = serial(0, new_version=False)
    world.planned = set(world.machines)
    engine, before, zones = engine_for(world), world.snapshot(), by_zone(world)
    world.delays.scale_out = NEVER
    assert engine.run("roll", "roll-1", FORCE).status == "FAILED"
    desk = Desk(world, engine, monkeypatch)
    command = next(c for c in printed(world, desk) if " start" in c)
    capacity_is_back(world)
    if between:
        world.advance(120)
    done = desk.types(command)
    assert done.exit_code == 0, done.output
    leaves_nothing(world, before)
    assert by_zone(world) == zones


NEVER = 1e9
"""Seconds: longer than any deadline."""


def serial(maximum: int, *, new_version: bool = True) -> World:
    """Groups whose desired capacity is raised for a replacement, as those that mix purchasing are."""
    world = shop(SMALL, new_version=new_version)
    for name, group in world.groups_by_name.items():
        world.groups_by_name[name] = replace(group, mixed_purchasing=True, maximum=max(group.maximum, maximum))
    return world


def capacity_is_back(world: World) -> None:
    world.launch_failures, world.delays.scale_out = 0, 0
    world.scales_out_at.clear()


@pytest.mark.heavy
@pytest.mark.parametrize("room", [False, True], ids=["maximum raised", "maximum has room"])
@pytest.mark.parametrize("between", [False, True], ids=["comes to the next roll", "comes between the rolls"])
def test_after_launches_that_never_succeed_nothing_adds_up_and_the_remedy_finishes_it(
    between: bool, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2: EC2 has no capacity, for good or until somebody mends the group; each try asks for no more than the last."""
    world = serial(6 if room else 0)
    engine, before, zones = engine_for(world), world.snapshot(), by_zone(world)
    world.delays.scale_out = NEVER
    assert engine.run("roll", "roll-1", {}).status == "FAILED"
    owed = {name: group.desired for name, group in world.groups_by_name.items()}
    desk = Desk(world, engine, monkeypatch)
    commands = printed(world, desk)
    assert commands
    assert all(" start" in command for command in commands), commands
    assert desk.types(commands[0]).exit_code == 1
    assert {name: group.desired for name, group in world.groups_by_name.items()} == owed

    capacity_is_back(world)
    if between:
        world.advance(120)
    done = desk.types(commands[0])
    assert done.exit_code == 0, done.output
    world.advance(60)
    after = world.snapshot()
    assert {
        part: (after[part], before[part]) for part in before if part != "labels" and after[part] != before[part]
    } == {}
    assert (outdated(world), by_zone(world)) == ([], zones)


def test_a_restore_drops_the_request_of_a_group_whose_capacity_somebody_has_lowered_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R2, N3: what comes later comes for something else, and is nobody's replacement."""
    world = serial(0)
    engine, before = engine_for(world), world.snapshot()
    del before["labels"]
    world.delays.scale_out = NEVER
    assert engine.run("roll", "roll-1", {}).status == "FAILED"
    (owed,) = [node for node in world.nodes_by_name.values() if NODE_LAUNCH in node.annotations]
    group = world.groups_by_name[world.machines[owed.instance].group]
    world.groups_by_name[group.name] = replace(group, desired=group.desired - 1)
    restored = Desk(world, engine, monkeypatch).types("eks-rolling restore --cluster demo")
    assert restored.exit_code == 0, restored.output
    assert not any(NODE_LAUNCH in node.annotations for node in world.nodes_by_name.values())
    assert world.snapshot() | before == world.snapshot()


@pytest.mark.heavy
def test_launches_that_never_succeed_leave_nothing_where_each_is_asked_for_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R2."""
    world = shop(SMALL)
    engine, before = engine_for(world), world.snapshot()
    del before["labels"]
    world.launch_failures = 10**9
    assert engine.run("roll", "roll-1", {}).status == "FAILED"
    assert world.snapshot() | before == world.snapshot()
    desk = Desk(world, engine, monkeypatch)
    assert desk.types("eks-rolling start --cluster demo").exit_code == 1
    assert world.snapshot() | before == world.snapshot()
    capacity_is_back(world)
    assert desk.types("eks-rolling start --cluster demo").exit_code == 0
    assert (outdated(world), world.snapshot() | before) == ([], world.snapshot())
