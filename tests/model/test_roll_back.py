"""Rolls that fail at their canary or gate and go back: the former version first, then the new nodes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.documents.report import Ending, Report
from eks_rolling.errors import AccessDenied
from eks_rolling.observed.aws import Group, LaunchTemplate
from eks_rolling.observed.kubernetes import Owner
from eks_rolling.observed.marks import GROUP_PUT_BACK
from eks_rolling.report.messages import Topic
from eks_rolling.settings import OnInterference, Settings
from stacks.functions import SIZES, USUAL
from tests.asl import Engine, Execution, StateFault, Stopped
from tests.assembly import with_way_back, with_way_back_document
from tests.model.situations import by_zone, shop, watch_unavailable
from tests.scope import at_kill_points
from tests.world import World

SECOND = "rollback-roll-1"


def settings() -> Settings:
    return Settings.parse(with_way_back_document()["settings"])


def engine_for(world: World) -> Engine:
    return Engine(with_way_back(), world, world.clients(settings()))


def by_default(world: World) -> None:
    """Both groups name their templates' default version, the former one."""
    for name in ("ng-a", "ng-b"):
        named(world, name, "$Default", 1)


def named(world: World, group: str, version: str, default: int) -> None:
    template = f"lt-{group}"
    world.groups_by_name[group] = replace(world.groups_by_name[group], template=LaunchTemplate(template, version))
    world.templates[template] = (world.templates[template][0], default)


def shop_with_a_bad_version(names: str = "$Default", sizes: tuple[int, int] = (2, 1)) -> World:
    """Its alarm fires from the moment on at which a node of the new version is there, for as long as one is."""
    world = shop(sizes, new_version=False)
    for name in ("ng-a", "ng-b"):
        named(world, name, "1" if names == "number" else names, 1)
        world.new_template_version(name)
    world.planned = set(world.machines)

    def fire(current: World) -> None:
        bad = any(m.alive and m.template.endswith(":2") for m in current.machines.values())
        (current.alarms.add if bad else current.alarms.discard)("shop-errors")
        # The second roll replaces what the first one made; until there is one, a restore may give it back.
        if any(default == 1 for _, default in current.templates.values()):
            current.planned |= {m.id for m in current.machines.values() if m.template.endswith(":2")}

    world.watchers.append(fire)
    return world


def versions(world: World) -> set[str]:
    return {m.template.rpartition(":")[2] for m in world.machines.values() if m.alive}


def second_of(engine: Engine) -> Execution:
    (found,) = [e for e in engine.executions if e.name == SECOND]
    return found


def rolled(engine: Engine, name: str = "roll-1", request: dict[str, Any] | None = None) -> Execution:
    """The roll, and what it has started, to their ends."""
    first = engine.run("roll", name, request or {})
    for other in engine.beside:
        if other.status == "RUNNING":
            engine.follow(other)
    return first


def report(world: World, roll: str) -> Report:
    return Report.model_validate_json(world.documents[f"rolls/{roll}/report.json"])


def without_record(snapshot: dict[str, Any]) -> dict[str, Any]:
    groups = {
        name: (*rest, tuple(t for t in tags if t[0] != GROUP_PUT_BACK))
        for name, (*rest, tags) in snapshot["groups"].items()
    }
    return {**snapshot, "groups": groups}


@pytest.mark.parametrize("names", ["$Default", "number"])
def test_a_gate_that_does_not_open_puts_the_version_back_and_a_second_roll_replaces_the_new_node(names: str) -> None:
    """N1 to N4 are checked by the world after every effect; R1 by its versions, R2 here."""
    world = shop_with_a_bad_version(names)
    before, zones, web = world.snapshot(), by_zone(world), watch_unavailable(world)
    engine = engine_for(world)
    first = rolled(engine)
    second = second_of(engine)
    assert (first.status, first.error) == ("FAILED", "ChecksFailed")
    assert (second.status, second.cause) == ("SUCCEEDED", "")
    assert second.input["rolls_back"] == "roll-1"
    assert versions(world) == {"1"}
    assert by_zone(world) == zones
    assert web["most"] == 1
    assert without_record(world.snapshot()) == without_record(before)
    told = report(world, "roll-1")
    assert (told.outcome, told.rollback, told.replaced) == (Ending.FAILED, SECOND, 1)
    assert told.put_back[0] == "group ng-a: back from lt-ng-a:2 to lt-ng-a:1"
    again = report(world, SECOND)
    assert (again.outcome, again.rolls_back, again.replaced, again.rollback) == (Ending.REPLACED, "roll-1", 1, "")
    ended = [m for m in world.told if m.kind is Topic.ENDED]
    assert "the roll rollback-roll-1 replaces the new nodes again" in ended[0].text
    assert "watch rollback-roll-1" in ended[0].text
    assert "the failed roll roll-1 is rolled back" in ended[1].text


def test_of_two_failed_rolls_whose_long_names_begin_alike_each_is_rolled_back() -> None:
    """A name that is merely cut is that of the first one's rollback, and is taken for a start whose answer was lost."""
    earlier: list[Execution] = []
    for name in (f"{'r' * 71}-run001", f"{'r' * 71}-run002"):
        world = shop_with_a_bad_version()
        engine = engine_for(world)
        engine.beside += earlier
        first = rolled(engine, name)
        assert (first.status, first.error) == ("FAILED", "ChecksFailed")
        assert versions(world) == {"1"}
        second = next(e for e in engine.executions if e.name == report(world, name).rollback)
        assert (second.status, second.input["rolls_back"]) == ("SUCCEEDED", name)
        earlier = engine.beside


def effects_of_going_back() -> range:
    world = shop_with_a_bad_version()
    engine = engine_for(world)
    rolled(engine)
    return range(1, len(world.effects) + 1)


@at_kill_points(effects_of_going_back)
def test_a_function_killed_after_any_effect_changes_nothing_in_the_result(after: int) -> None:
    """R3: nothing is put back twice, and one second roll is started."""
    world = shop_with_a_bad_version()
    before, zones, web = world.snapshot(), by_zone(world), watch_unavailable(world)
    world.kill_after = after
    engine = engine_for(world)
    first = rolled(engine)
    assert (first.status, second_of(engine).status) == ("FAILED", "SUCCEEDED")
    assert (versions(world), by_zone(world)) == ({"1"}, zones)
    assert web["most"] == 1
    assert without_record(world.snapshot()) == without_record(before)
    assert len([e for e in world.effects if e.startswith("default version")]) == 2


@at_kill_points(effects_of_going_back, every=3)
def test_a_roll_stopped_after_any_effect_is_restored_and_the_next_one_makes_the_nodes_one_again(after: int) -> None:
    """R2 by the watchdog, R3 by the next roll: all nodes have what their group launches, whichever that is."""
    world = shop_with_a_bad_version()
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    engine.kills_stop_execution = True
    world.kill_after = after
    with pytest.raises(Stopped):
        rolled(engine)
    engine.kills_stop_execution = False
    for execution in [e for e in engine.executions if e.machine == "roll"]:
        restore = engine.run("restore", f"watchdog-{execution.name}", {"roll": execution.name})
        assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    world.watchers.clear()
    world.alarms.clear()
    world.planned = set(world.machines)
    again = engine.run("roll", "roll-2", {})
    assert (again.status, again.cause) == ("SUCCEEDED", "")
    assert len(versions(world)) == 1
    assert by_zone(world) == zones
    assert without_record(world.snapshot()) == without_record(before)


def test_a_canary_that_never_joins_puts_the_version_back_and_nothing_is_left_to_replace() -> None:
    world = shop_with_a_bad_version()
    world.new_nodes_never_join = True
    engine = engine_for(world)
    first = rolled(engine)
    assert (first.status, first.error) == ("FAILED", "Refused")
    assert second_of(engine).status == "SUCCEEDED"
    assert (versions(world), report(world, SECOND).outcome) == ({"1"}, Ending.NOTHING)
    assert world.templates["lt-ng-a"] == (2, 1)
    # Those that the roll had not come to as well: what was changed together goes back together.
    assert world.templates["lt-ng-b"] == (2, 1)


def test_a_canary_for_which_there_is_no_capacity_says_nothing_against_the_version() -> None:
    world = shop_with_a_bad_version()
    world.launch_failures = 100_000
    engine = engine_for(world)
    first = rolled(engine)
    assert (first.status, first.error) == ("FAILED", "Refused")
    assert [e.name for e in engine.executions if e.machine == "roll"] == ["roll-1"]
    assert world.templates["lt-ng-a"] == (2, 2)


def test_a_roll_that_a_person_ends_goes_back_nowhere() -> None:
    world = shop_with_a_bad_version()
    engine = engine_for(world)
    first = engine.start("roll", "roll-1", {})
    engine.let_pass(120)
    (lock,) = [name for name in world.leases if name.endswith("/eks-rolling")]
    lease = world.leases[lock]
    world.leases[lock] = replace(lease, annotations={**lease.annotations, "eks-rolling.io/abort": "ana: enough"})
    engine.follow(first)
    assert first.error == "Aborted"
    assert [e.name for e in engine.executions if e.machine == "roll"] == ["roll-1"]
    assert world.templates["lt-ng-a"] == (2, 2)


def test_what_somebody_sets_meanwhile_stays_and_is_said() -> None:
    world = shop_with_a_bad_version()
    engine = engine_for(world)
    set_by_hand = False

    def newer(step: str) -> None:
        nonlocal set_by_hand
        if step == "put_back_version" and not set_by_hand:
            set_by_hand = True
            world.new_template_version("ng-a")

    engine.before_call = newer
    rolled(engine)
    assert world.templates["lt-ng-a"] == (3, 3)
    said = report(world, "roll-1").put_back[0]
    assert said == "group ng-a: the version stays: it launches lt-ng-a:3 now, which somebody set during the roll"
    # The other group is put back, and none of its nodes is new.
    assert report(world, SECOND).outcome is Ending.NOTHING
    assert "2" in versions(world)


def test_a_default_version_that_ec2_describes_late_is_not_taken_for_somebody_elses() -> None:
    """EC2 is eventually consistent; the second roll looks at the version again before it plans."""
    world = shop_with_a_bad_version()
    world.templates_lag = 15
    engine = engine_for(world)
    rolled(engine)
    assert (second_of(engine).status, second_of(engine).cause) == ("SUCCEEDED", "")
    assert versions(world) == {"1"}


def test_a_default_version_that_ec2_never_describes_is_waited_for_within_the_functions_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R3: one that is cut off is run again, and would be cut off again. Each look at the groups is slow here."""
    world = shop_with_a_bad_version()
    world.templates_lag = 100_000
    engine, groups, steps, looks = engine_for(world), world.groups, [""], list[float]()

    def slow(names: Sequence[str] = ()) -> list[Group]:
        if steps[-1] == "put_back_version":
            world.time += 4
            looks.append(world.time)
        return groups(names)

    monkeypatch.setattr(world, "groups", slow)
    engine.before_call = steps.append
    engine.run("roll", "roll-1", {})
    assert len(looks) > 5
    assert looks[-1] - looks[0] + 4 < SIZES.get("put_back_version", USUAL).timeout


@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_version_whose_image_is_gone_is_not_gone_back_to(*, meanwhile: bool) -> None:
    """It would leave groups that can launch nothing. Whether the image goes before the roll or during it."""
    world = shop_with_a_bad_version()
    engine = engine_for(world)

    def deregister(step: str) -> None:
        if step == "put_back_version":
            world.deregistered.add("ami-1")

    if meanwhile:
        engine.before_call = deregister
    else:
        world.deregistered.add("ami-1")
    first = rolled(engine)
    assert (first.status, first.error) == ("FAILED", "ChecksFailed")
    assert (world.templates["lt-ng-a"], world.templates["lt-ng-b"]) == ((2, 2), (2, 2))
    assert [e.name for e in engine.executions if e.machine == "roll"] == ["roll-1"]
    gone = "image ami-1 of lt-{0}:1 is gone, so nothing could be launched"
    told = report(world, "roll-1").put_back
    stays = tuple(f"group {name}: the version stays: {gone.format(name)}" for name in ("ng-a", "ng-b"))
    assert told == (stays if meanwhile else ())
    plan = json.loads(world.documents["rolls/roll-1/plan.json"])
    said = [f["reason"] for f in plan["findings"] if f["code"] == "no-way-back"]
    no_way = [f"if the roll fails, its version is not put back: {gone.format(name)}" for name in ("ng-a", "ng-b")]
    assert said == ([] if meanwhile else no_way)


def test_a_roll_to_a_version_whose_image_is_gone_is_blocked_before_it_changes_anything() -> None:
    world = shop_with_a_bad_version()
    world.deregistered.add("ami-2")
    first = rolled(engine_for(world))
    assert (first.status, first.error) == ("FAILED", "Blocked")
    assert "nothing can be launched from image ami-2 of lt-ng-a:2" in first.cause
    assert world.effects == []


MIXED: dict[str, Any] = {"mixed": True, "template": LaunchTemplate("lt-ng-a", "2")}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (MIXED, "its version number is part of its mixed instances policy"),
        (
            {"overrides": (("m6g.large", LaunchTemplate("lt-x", "1")),)},
            "its overrides have launch templates of their own",
        ),
    ],
)
def test_a_policy_that_somebody_gives_the_group_meanwhile_is_not_overwritten(change: dict[str, Any], why: str) -> None:
    """R1: to point such a group at a version by a number takes its policy away."""
    world = shop_with_a_bad_version()
    engine = engine_for(world)

    def newer(step: str) -> None:
        if step == "put_back_version":
            world.groups_by_name["ng-a"] = replace(world.groups_by_name["ng-a"], **change)

    engine.before_call = newer
    rolled(engine)
    now = world.groups_by_name["ng-a"]
    assert {key: getattr(now, key) for key in change} == change
    assert report(world, "roll-1").put_back[0] == (
        f"group ng-a: the version stays: {why}, which somebody set during the roll"
    )
    assert world.templates["lt-ng-b"] == (2, 1)


@pytest.mark.parametrize("together", [True, False])
def test_a_group_that_cannot_be_recorded_keeps_only_those_from_going_back_that_share_its_template(
    monkeypatch: pytest.MonkeyPatch, *, together: bool
) -> None:
    """R5, R1: without a record nothing of it is changed."""
    world = shop_with_a_bad_version()
    if together:
        shared(world, "ng-b")
    tag = world.tag_group

    def denied(group: str, tags: Mapping[str, str]) -> None:
        if group == "ng-a" and GROUP_PUT_BACK in tags:
            raise AccessDenied("Cannot tag ng-a: the role may not.")
        tag(group, tags)

    monkeypatch.setattr(world, "tag_group", denied)
    first = rolled(engine_for(world))
    assert (first.status, first.error) == ("FAILED", "ChecksFailed")
    assert world.templates["lt-ng-a"] == (2, 2)
    told = report(world, "roll-1").put_back
    assert told[0] == "group ng-a: the version stays: Cannot tag ng-a: the role may not."
    if together:
        assert told[1] == "group ng-b: the version stays: lt-ng-a's default version is also that of ng-a"
    else:
        assert told[1] == "group ng-b: back from lt-ng-b:2 to lt-ng-b:1"


def test_a_roll_that_is_stopped_after_it_went_back_leaves_a_sentence() -> None:
    """R2: its second roll is never started, and the new nodes stay."""
    world = shop_with_a_bad_version()
    engine = engine_for(world)
    engine.kills_stop_execution = True
    probe = shop_with_a_bad_version()
    rolled(engine_for(probe))
    world.kill_after = 1 + next(i for i, e in enumerate(probe.effects) if e.startswith("default version"))
    with pytest.raises(Stopped):
        rolled(engine)
    engine.kills_stop_execution = False
    restore = engine.run("restore", "watchdog-1", {"roll": "roll-1"})
    said = restore.output["output"]["left_behind"]
    assert [s.partition(":")[0] for s in said if "put lt-ng-a:1 back" in s] == ["group ng-a"]
    assert not [s for s in said if "ng-b" in s]


def shared(world: World, *groups: str) -> None:
    """Groups that launch the default version of one template, whose second version is the default."""
    for name in groups:
        world.groups_by_name[name] = replace(world.groups_by_name[name], template=LaunchTemplate("lt-ng-a", "$Default"))
    for machine in world.machines.values():
        machine.template = machine.template.replace("lt-ng-b", "lt-ng-a")


@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_group_that_the_roll_leaves_out_keeps_its_default_version(*, meanwhile: bool) -> None:
    """Its nodes are good. Whether it shares the template when the roll plans, or by the time of the change only."""
    world = shop_with_a_bad_version()
    engine = engine_for(world)

    def share(step: str) -> None:
        if step == "put_back_version":
            shared(world, "ng-b")

    if meanwhile:
        engine.before_call = share
    else:
        shared(world, "ng-b")
    first = rolled(engine, request={"groups": ["ng-a"]})
    assert (first.status, first.error) == ("FAILED", "ChecksFailed")
    assert world.templates["lt-ng-a"] == (2, 2)
    told = report(world, "roll-1")
    stays = ("group ng-a: the version stays: lt-ng-a's default version is also that of ng-b",)
    assert (told.put_back, told.rollback) == (stays if meanwhile else (), "")


def test_groups_that_share_a_default_version_go_back_together() -> None:
    world = shop_with_a_bad_version()
    shared(world, "ng-b")
    rolled(engine_for(world))
    assert world.templates["lt-ng-a"] == (2, 1)
    assert {m.template for m in world.machines.values() if m.alive} == {"lt-ng-a:1"}


def test_a_version_on_which_an_earlier_roll_left_nodes_stays() -> None:
    """The first roll ended for another reason; the wave with which the next one begins is not the version's first."""
    world = shop_with_a_bad_version(sizes=(3, 0))
    fire = world.watchers.pop()
    engine = engine_for(world)
    rolled(engine, request={"nodes": [next(iter(world.machines))]})
    assert versions(world) == {"1", "2"}
    world.watchers.append(fire)
    second = rolled(engine, "roll-2")
    assert (second.status, world.templates["lt-ng-a"]) == ("FAILED", (2, 2))
    assert [e.name for e in engine.executions if e.machine == "roll"] == ["roll-1", "roll-2"]


def test_a_workload_of_a_tenant_that_holds_a_later_gate_takes_no_version_back() -> None:
    world = shop_with_a_bad_version(sizes=(3, 0))
    world.watchers.clear()
    engine = engine_for(world)

    def breaks(step: str) -> None:
        new = sum(m.alive and m.template.endswith(":2") for m in world.machines.values())
        if step == "health_gate" and new > 1:
            state = world.workloads_by_owner[Owner("Deployment", "default", "api")]
            state.workload = replace(state.workload, settled=False)

    engine.before_call = breaks
    first = rolled(engine)
    assert (first.status, first.error) == ("FAILED", "DeadlineExceeded")
    assert world.templates["lt-ng-a"] == (2, 2)


def test_what_somebody_sets_before_the_second_roll_plans_is_not_rolled_back_to() -> None:
    world = shop_with_a_bad_version()
    engine = engine_for(world)

    def newer(step: str) -> None:
        if step == "plan" and any(e.startswith("default version") for e in world.effects):
            world.templates["lt-ng-a"] = (3, 3)

    engine.before_call = newer
    rolled(engine)
    second = second_of(engine)
    assert (second.status, second.error) == ("FAILED", "Blocked")
    assert "somebody has set lt-ng-a:3 since" in second.cause
    assert "2" in versions(world)


def test_a_rollback_that_fails_is_not_rolled_back() -> None:
    """Whichever roll goes back: the second one, or one that a change or a person has started."""
    world = shop_with_a_bad_version()
    world.watchers.clear()
    world.alarms.add("shop-errors")
    engine = engine_for(world)
    world.watchers.append(_all_planned)
    rolled(engine)
    assert (second_of(engine).status, second_of(engine).error) == ("FAILED", "ChecksFailed")
    rolled(engine, "roll-3")
    names = [e.name for e in engine.executions if e.machine == "roll"]
    assert names == ["roll-1", SECOND, "roll-3"]
    assert world.templates["lt-ng-a"] == (2, 1)


def _all_planned(world: World) -> None:
    world.planned |= {m.id for m in world.machines.values()}


def test_nothing_is_put_back_where_the_latest_version_is_named_and_the_plan_says_so() -> None:
    world = shop_with_a_bad_version("$Latest")
    engine = engine_for(world)
    first = rolled(engine)
    assert first.status == "FAILED"
    assert versions(world) == {"1", "2"}
    assert [e.name for e in engine.executions if e.machine == "roll"] == ["roll-1"]
    plan = json.loads(world.documents["rolls/roll-1/plan.json"])
    said = [f["reason"] for f in plan["findings"] if f["code"] == "no-way-back"]
    assert (
        said
        == ["if the roll fails, its version is not put back: it launches whatever version is the latest ($Latest)"] * 2
    )
    told = report(world, "roll-1")
    assert (told.put_back, told.rollback) == ((), "")


def test_a_roll_that_succeeds_puts_nothing_back() -> None:
    world = shop_with_a_bad_version()
    world.watchers.clear()
    engine = engine_for(world)
    first = rolled(engine)
    assert (first.status, versions(world)) == ("SUCCEEDED", {"2"})
    assert all(GROUP_PUT_BACK not in g.tags for g in world.groups_by_name.values())


def test_a_launch_configuration_is_put_back_by_its_name() -> None:
    world = shop((2, 0), new_version=False)
    world.groups_by_name["ng-a"] = replace(world.groups_by_name["ng-a"], template=None, configuration="conf-1")
    for machine in world.machines.values():
        machine.template = "lc:conf-1"
    world.groups_by_name["ng-a"] = replace(world.groups_by_name["ng-a"], configuration="conf-2")
    world.planned = set(world.machines)

    def fire(current: World) -> None:
        bad = any(m.alive and m.template == "lc:conf-2" for m in current.machines.values())
        (current.alarms.add if bad else current.alarms.discard)("shop-errors")
        _all_planned(current)

    world.watchers.append(fire)
    engine = engine_for(world)
    rolled(engine)
    assert second_of(engine).status == "SUCCEEDED"
    assert {m.template for m in world.machines.values() if m.alive} == {"lc:conf-1"}


def test_web_stays_within_its_budget_while_it_goes_forth_and_back() -> None:
    """N1."""
    world = shop_with_a_bad_version(sizes=(3, 3))
    web = watch_unavailable(world, Owner("Deployment", "default", "web"))
    rolled(engine_for(world))
    assert web["most"] == 1


def test_a_second_roll_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise StateFault("StepFunctions.AccessDeniedException", "not authorized")

    monkeypatch.setattr(Engine, "_start_beside", refuse)
    world = shop_with_a_bad_version()
    first = rolled(engine_for(world))
    assert (first.status, first.error) == ("FAILED", "ChecksFailed")
    told = report(world, "roll-1")
    assert (told.rollback, "not authorized" in told.not_started) == ("", True)
    assert world.templates["lt-ng-a"] == (2, 1)
    ended = next(m for m in world.told if m.kind is Topic.ENDED)
    assert "the roll that replaces the new nodes again was not started" in ended.text


def test_a_change_of_what_the_roll_had_arranged_says_nothing_against_the_version() -> None:
    """Somebody resumes the group's processes again and again, and the setting wants that to hold the roll."""
    world = shop_with_a_bad_version()
    world.watchers.clear()
    holding = settings().model_copy(update={"on_interference": OnInterference.HOLD})
    engine = Engine(with_way_back(), world, world.clients(holding))

    def interfere(step: str) -> None:
        if step == "health_gate":
            world.groups_by_name["ng-a"] = replace(world.groups_by_name["ng-a"], suspended=frozenset())

    engine.before_call = interfere
    first = rolled(engine)
    assert (first.status, first.error) == ("FAILED", "Interfered")
    assert "somebody changed what the roll had arranged" in first.cause
    assert world.templates["lt-ng-a"] == (2, 2)
    assert [e.name for e in engine.executions if e.machine == "roll"] == ["roll-1"]


def test_a_person_who_ends_the_roll_while_it_is_about_to_go_back_is_heard() -> None:
    world = shop_with_a_bad_version()
    engine = engine_for(world)

    def abort(step: str) -> None:
        if step == "put_back_version":
            (lock,) = [name for name in world.leases if name.endswith("/eks-rolling")]
            said = {**world.leases[lock].annotations, "eks-rolling.io/abort": "ana: enough"}
            world.leases[lock] = replace(world.leases[lock], annotations=said)

    engine.before_call = abort
    first = rolled(engine)
    assert (first.status, first.error) == ("FAILED", "ChecksFailed")
    assert [e.name for e in engine.executions if e.machine == "roll"] == ["roll-1"]
    assert world.templates["lt-ng-a"] == (2, 2)


def test_an_abort_comes_too_late_once_a_version_is_back() -> None:
    """R3: the function died in between, and is called again."""
    world = shop_with_a_bad_version()
    engine = engine_for(world)

    def abort(step: str) -> None:
        if step == "put_back_version" and any(e.startswith("default version") for e in world.effects):
            (lock,) = [name for name in world.leases if name.endswith("/eks-rolling")]
            said = {**world.leases[lock].annotations, "eks-rolling.io/abort": "ana: enough"}
            world.leases[lock] = replace(world.leases[lock], annotations=said)

    rolled(engine)
    first_change = next(i for i, e in enumerate(world.effects) if e.startswith("default version"))
    world = shop_with_a_bad_version()
    world.kill_after = first_change + 1
    engine = engine_for(world)
    engine.before_call = abort
    rolled(engine)
    assert (second_of(engine).status, versions(world)) == ("SUCCEEDED", {"1"})
    assert (world.templates["lt-ng-a"], world.templates["lt-ng-b"]) == ((2, 1), (2, 1))


def test_a_group_without_a_way_back_keeps_its_version_and_the_report_says_so() -> None:
    world = shop_with_a_bad_version()
    named(world, "ng-b", "$Latest", 1)
    engine = engine_for(world)
    rolled(engine)
    told = report(world, "roll-1")
    assert told.put_back == (
        "group ng-a: back from lt-ng-a:2 to lt-ng-a:1",
        "group ng-b: the version stays: the plan says why",
    )
    assert second_of(engine).status == "SUCCEEDED"
    assert {m.group: m.template for m in world.machines.values() if m.alive} == {
        "ng-a": "lt-ng-a:1",
        "ng-b": "lt-ng-b:1",
    }


def test_a_rollback_that_is_aborted_is_finished_by_the_next_roll() -> None:
    world = shop_with_a_bad_version(sizes=(3, 1))
    before, zones = world.snapshot(), by_zone(world)
    engine = engine_for(world)
    engine.run("roll", "roll-1", {})
    (second,) = engine.beside
    aborted = False

    def abort(step: str) -> None:
        nonlocal aborted
        if step == "evict" and not aborted:
            aborted = True
            (lock,) = [name for name in world.leases if name.endswith("/eks-rolling")]
            said = {**world.leases[lock].annotations, "eks-rolling.io/abort": "ana: enough"}
            world.leases[lock] = replace(world.leases[lock], annotations=said)

    engine.before_call = abort
    engine.follow(second)
    assert (second.error, aborted) == ("Aborted", True)
    third = engine.run("roll", "roll-3", {})
    assert (third.status, third.cause, versions(world)) == ("SUCCEEDED", "", {"1"})
    assert report(world, "roll-3").rolls_back == "roll-1"
    assert by_zone(world) == zones
    assert without_record(world.snapshot()) == without_record(before)


def test_a_version_that_somebody_sets_while_nodes_go_back_is_rolled_to_by_the_next_roll() -> None:
    world = shop_with_a_bad_version(sizes=(3, 1))
    zones = by_zone(world)
    engine = engine_for(world)
    engine.run("roll", "roll-1", {})
    (second,) = engine.beside
    changed = False

    def newer(step: str) -> None:
        nonlocal changed
        if step == "launch_replacement" and not changed:
            changed = True
            world.templates["lt-ng-a"] = (3, 3)
            world.watchers.clear()
            world.alarms.clear()

    engine.before_call = newer
    engine.follow(second)
    assert (second.status, second.cause, changed) == ("SUCCEEDED", "", True)
    world.planned = set(world.machines)
    third = engine.run("roll", "roll-3", {})
    assert (third.status, third.cause) == ("SUCCEEDED", "")
    assert {m.template for m in world.machines.values() if m.alive and m.group == "ng-a"} == {"lt-ng-a:3"}
    assert by_zone(world) == zones
