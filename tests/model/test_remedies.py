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

from eks_rolling.observed.marks import NODE_LAUNCH
from eks_rolling.roll.lock import ABORT
from eks_rolling_cli import cli_context, planning
from eks_rolling_cli.app import app
from eks_rolling_cli.executions import Execution as Shown
from tests.asl import Engine, Execution, StateFault, Stopped
from tests.model.situations import by_zone, outdated, settings, shop
from tests.model.test_control import CASES, Person
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


NEVER = 1e9
"""Seconds: longer than any deadline."""


def serial(maximum: int) -> World:
    """Groups whose desired capacity is raised for a replacement, as those that mix purchasing are."""
    world = shop(SMALL)
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
