"""A roll put together out of its executions, and the picture and the lines that are made of it."""

import itertools
import json
from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console

from eks_rolling.names import node_execution_suffix
from eks_rolling.state_names import REPLACE_NODE
from eks_rolling_cli.execution_history import Position
from eks_rolling_cli.executions import Execution
from eks_rolling_cli.roll_state import RollReader, RollState, Stage, assemble
from eks_rolling_cli.watch_view import Told, changes, chosen, picture
from tests.unit.cli.histories import History, begun, planned
from tests.unit.cli.targets import NODE, ROLL, FakeExecutions

Json = dict[str, Any]
Children = dict[str, tuple[Execution, list[Json]]]

BUDGET = "pod shop/web-1: budget shop/web allows no disruption"


def execution(
    name: str, began: float, status: str = "RUNNING", ended: float | None = None, *, error: str = "", cause: str = ""
) -> Execution:
    return Execution(f"arn:{name}", name, status, began, ended, error=error, cause=cause)


def child(history: History, status: str = "RUNNING", **more: str) -> tuple[Execution, list[Json]]:
    began = history.events[0]["timestamp"]
    return execution("child", began, status, None if status == "RUNNING" else history.at, **more), history.events


def rolling(children: Children, *, looked: float = 1200.0, asked: dict[str, str] | None = None) -> RollState:
    """Four nodes; the first wave was one node, the second the others."""
    history = begun(planned("i-1", "i-2", "i-3", "i-4"), {"i-1": "a"}, {"i-2": "b", "i-3": "c", "i-4": "d"})
    plan = {"nodes": [{"instance": "i-4", "node": "d.internal", "zone": "zone-a", "group": "workers"}]}
    seen = execution("roll-1", 1000.0)
    return assemble(seen, history.events, children, plan=plan, asked=asked or {}, looked=looked)


def replaced(at: float, seconds: float) -> tuple[Execution, list[Json]]:
    history = History(at).done("Launch the replacement", replacement="i-9")
    history.done("Wait for the replacement", replacement_node="new.internal")
    history.at = at + seconds
    return child(history.done("Terminate the instance"), "SUCCEEDED")


def test_nodes_are_where_their_executions_are() -> None:
    failure = json.dumps({"errorMessage": "node c waited 3600 s", "errorType": "DeadlineExceeded"})
    seen = rolling(
        {
            "i-1": replaced(1010, 60),
            "i-2": child(History(1080).wait("Evict pods", BUDGET)),
            "i-3": child(History(1080).wait("Evict pods", BUDGET), "FAILED", error="X", cause=failure),
        }
    )
    stages = {n.node: n.stage for n in seen.nodes}
    assert stages == {
        "a": Stage.REPLACED, "b": Stage.REPLACING, "c": Stage.FAILED, "d.internal": Stage.WAITING,
    }  # fmt: skip
    a, b, c, d = seen.nodes
    assert (a.replacement, a.wave, d.wave) == ("new.internal", 1, 2)
    assert (b.at.reason, c.at.reason) == (BUDGET, "node c waited 3600 s")
    assert (d.zone, d.group) == ("zone-a", "workers")


def test_what_was_not_begun_when_a_roll_ended_is_untouched() -> None:
    history = begun(planned("i-1", "i-2"), {"i-1": "a"})
    seen = assemble(
        execution("roll-1", 1000, "ABORTED", 1100.0), history.events, {"i-1": replaced(1010, 60)}, plan={}, asked={},
        looked=1200,
    )  # fmt: skip
    assert [n.stage for n in seen.nodes] == [Stage.REPLACED, Stage.UNTOUCHED]


LAUNCH, RECORD = "Launch the replacement", "Record what was done"
ABORT = {"error": "Aborted", "cause": "The roll was aborted: lunch."}


def refused(history: History, step: str) -> History:
    """The step's last call raises, and the execution records that, and ends."""
    history.enter("Task", step).fault("The roll was aborted: lunch.", "Aborted")
    history.add("TaskStateExited", stateExitedEventDetails={"name": step, "output": json.dumps({"Error": "Aborted"})})
    return history.done(RECORD).enter("Fail", "Not replaced")


def asked_for() -> History:
    return History(1080).wait(LAUNCH, "a replacement was requested", requested=True)


def test_a_node_is_told_as_failed_only_if_a_step_of_its_own_failed() -> None:
    """An abort, or another node of the wave, kept those from beginning that had asked for nothing yet."""
    full = History(1080).wait(LAUNCH, "group workers is at its maximum size 5")
    lost = full.enter("Task", LAUNCH).fault("the answer was lost")
    ends = {
        "i-1": child(refused(History(1080), LAUNCH), "FAILED", **ABORT),
        "i-2": child(refused(asked_for(), LAUNCH), "FAILED", **ABORT),
        "i-3": child(refused(asked_for().done("Wait for the replacement"), "Evict pods"), "FAILED", **ABORT),
        "i-4": child(refused(History(1080), LAUNCH), "FAILED", error="NotBegun", cause="not started, because b ..."),
    }
    assert [(n.stage, n.at.state) for n in rolling(ends).nodes] == [
        (Stage.UNTOUCHED, ""), (Stage.ABORTED, LAUNCH), (Stage.ABORTED, "Evict pods"), (Stage.UNTOUCHED, ""),
    ]  # fmt: skip
    ends = {
        "i-1": child(refused(lost, LAUNCH), "FAILED", **ABORT),
        "i-2": child(refused(History(1080), LAUNCH), "FAILED", error="Refused", cause="it is no longer instance i-2"),
        "i-3": child(History(1080).wait("Evict pods", BUDGET), "ABORTED"),
        "i-4": child(History(1080).wait("Evict pods", BUDGET), "TIMED_OUT"),
    }
    assert [n.stage for n in rolling(ends).nodes] == [Stage.ABORTED, Stage.FAILED, Stage.STOPPED, Stage.FAILED]


def test_a_node_that_an_abort_came_too_late_for_is_told_as_replaced() -> None:
    going = asked_for().done("Wait for the replacement").wait("Terminate the instance", "i-1 is g", terminating=True)
    seen = rolling({"i-1": child(refused(going, "Terminate the instance"), "FAILED", **ABORT)})
    assert (seen.nodes[0].stage, seen.nodes[0].at.reason, seen.replaced) == (Stage.REPLACED, "", 1)


def test_what_ended_a_roll_is_said_once_and_not_beside_each_of_its_nodes() -> None:
    nodes = {"i-1": replaced(1010, 60), "i-2": child(refused(asked_for(), "Evict pods"), "FAILED", **ABORT)}
    seen = replace(rolling(nodes), status="FAILED", error="Aborted", failure=ABORT["cause"], ended=1200.0)
    assert drawn(seen).count("lunch") == 1
    assert "aborted" in next(line for line in drawn(seen).splitlines() if "Evict pods" in line)
    lines = list(changes(rolling({}), seen))
    assert "b: aborted at: Evict pods: The roll was aborted: lunch." in lines
    assert not any("failed" in line for line in lines)


def test_a_roll_that_was_stopped_is_not_explained_by_its_plan() -> None:
    """The console stops an execution without a cause."""
    history = begun(planned("i-1"), {"i-1": "a"}).add("ExecutionAborted")
    seen = assemble(execution("roll-1", 1000, "ABORTED", 1100.0), history.events, {}, plan={}, asked={}, looked=1200)
    assert seen.failure == "The roll's execution was stopped."
    lines = list(changes(rolling({}), seen))
    assert any(line.startswith("stopped after") and line.endswith(seen.failure) for line in lines)


def test_pace_and_time_left_follow_the_nodes_that_were_replaced() -> None:
    seen = rolling({"i-1": replaced(1000, 100), "i-2": child(History(1150).wait("Evict pods", BUDGET))})
    # One node in 200 s, which took 100.5 s; half of the second is left, and two more, two at once.
    assert (seen.nodes_per_hour, seen.seconds_left) == (18.0, 125.75)


def test_without_a_replaced_node_nothing_is_foretold() -> None:
    seen = rolling({"i-1": child(History(1010).wait("Evict pods", BUDGET))})
    assert (seen.nodes_per_hour, seen.seconds_left) == (None, None)


def drawn(seen: RollState, width: int = 140) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(picture(seen, "demo"))
    return console.export_text()


def test_the_picture_says_who_waits_for_what_and_since_when() -> None:
    history = History(1080)
    for _ in range(4):
        history.wait("Evict pods", BUDGET, seconds=20)
    text = drawn(rolling({"i-1": replaced(1010, 60), "i-2": child(history)}, asked={"pause": "lunch"}))
    lines = text.splitlines()
    (at,) = [i for i, line in enumerate(lines) if BUDGET in line]
    assert all(said in lines[at - 1] for said in ("replacing", "Evict pods", "2 min"))
    assert "1 of 4 nodes replaced" in text
    assert "PAUSING  lunch" in text


def test_the_picture_says_what_is_left_of_a_synchronization() -> None:
    history = History(1080).wait(
        "Wait for the pod's sync", "shards-0 synchronizes", redis="shop/shards", bytes_left=150_000_000,
        bytes_per_second=25_000_000,
    )  # fmt: skip
    assert "shop/shards  Wait for the pod's sync (b)  150.0 MB left, 25.0 MB/s, about 6 s" in drawn(
        rolling({"i-2": child(history)})
    )


def test_of_many_nodes_those_that_failed_or_are_in_work_are_shown() -> None:
    names = [f"i-{i}" for i in range(100)]
    history = begun(planned(*names), {name: name for name in names})
    children = {name: replaced(1000 + i, 60) for i, name in enumerate(names[:90])}
    children["i-90"] = child(History(1150).wait("Evict pods", BUDGET))
    children["i-7"] = child(History(1150).wait("Evict pods", BUDGET), "FAILED", error="X")
    seen = assemble(execution("r", 1000), history.events, children, plan={}, asked={}, looked=1200)
    shown = [n.node for n in chosen(seen, 12)]
    assert {"i-7", "i-90"} <= set(shown)
    assert len(shown) == 12
    assert "and 76 replaced" in drawn(seen).replace("│", "")


def test_lines_tell_changes_once() -> None:
    before = rolling({"i-1": child(History(1010).wait("Evict pods", BUDGET))})
    assert list(changes(before, replace(before, looked=1203.0))) == []
    after = rolling(
        {"i-1": replaced(1010, 60), "i-2": child(History(1080).wait("Leave the load balancers", "draining"))}
    )
    assert list(changes(before, after)) == [
        "a: replaced by new in 60 s",
        "b: Leave the load balancers: draining (for 2 min)",
    ]


def test_what_only_counts_down_is_told_once_a_minute() -> None:
    """A roll may wait for hours for another one."""

    def counting(seconds: int) -> RollState:
        history = History(1010)
        for left in range(seconds):
            history.wait("Take the lock", f"roll-0 is running (its lock expires in {90 - left % 9} s)", seconds=0.5)
        return replace(rolling({"i-2": child(history)}), looked=history.at)

    seen = [counting(seconds) for seconds in range(1, 200)]
    known: Told = {}
    told = [line for a, b in itertools.pairwise(seen) for line in changes(a, b, told=known)]
    assert [line.rpartition(" (for ")[2] for line in told] == ["60 s)", "2 min)", "3 min)"]
    other = replace(seen[-1], at=replace(seen[-1].at, state="Restore"))
    assert list(changes(seen[-1], other)) == ["Restore"]


def test_what_counts_seldom_is_told_too() -> None:
    """A pod or two become ready every few minutes: no minute ends between the look before and the look after."""

    seen = rolling({"i-2": child(History(1010).wait("Evict pods", BUDGET))})

    def at(seconds: int) -> RollState:
        ready = sum(seconds >= moment for moment in (90, 100, 210, 250))
        here = Position("Await readiness", 1000.0, f"{ready} of 6 pods are ready", held_since=1000.0)
        nodes = tuple(replace(n, at=here) if n.instance == "i-2" else n for n in seen.nodes)
        return replace(seen, at=here, nodes=nodes, looked=1000.0 + seconds)

    known: Told = {}
    told = list(changes(None, at(1), told=known))
    for looked in range(3, 400, 2):
        told += changes(at(looked - 2), at(looked), told=known)
    counted = ["0 of 6", "1 of 6", "2 of 6", "3 of 6", "4 of 6"]
    for what in ("Await readiness: ", "b: Await readiness: "):
        assert [line.removeprefix(what)[:6] for line in told if line.startswith(what)] == counted


def test_that_a_roll_gives_its_lock_back_withdraws_no_abort() -> None:
    before = rolling({}, asked={"abort": "wrong image"})
    assert list(changes(before, replace(before, asked={}))) == []
    paused = rolling({}, asked={"pause": "lunch"})
    assert list(changes(paused, replace(paused, asked={}))) == ["the request to pause was withdrawn"]


def test_the_first_line_says_which_roll_it_is() -> None:
    first, *_ = changes(None, rolling({}))
    assert first.startswith("roll roll-1, started at ")
    assert first.endswith("4 outdated nodes will be replaced")


def test_the_nodes_of_its_rollback_are_none_of_a_roll() -> None:
    fake = FakeExecutions()
    fake.add(ROLL, "x", begun(planned("i-1"), {"i-1": "a"}))
    fake.add(NODE, "i-1-x", History(1080).wait("Evict pods", BUDGET))
    fake.add(NODE, "i-2-rollback-x", History(1080).wait("Evict pods", "the roll is paused: lunch"))
    looker = RollReader(fake, NODE, asked=lambda _: {}, document=lambda *_: {})  # type: ignore[arg-type]
    assert [n.stage for n in looker.look("arn:x").nodes] == [Stage.REPLACING]
    assert looker.look("arn:x").pauses == ()


def test_of_two_rolls_whose_long_names_begin_alike_each_has_its_own_nodes() -> None:
    fake, names = FakeExecutions(), [f"{'r' * 60}-{n}" for n in (1, 2)]
    for name in names:
        fake.add(ROLL, name, begun(planned("i-1"), {"i-1": "a"}))
    for name, reason in zip(names, ("first", "second"), strict=True):
        fake.add(NODE, f"i-1{node_execution_suffix(name)}", History(1080).wait("Evict pods", reason))
    looker = RollReader(fake, NODE, asked=lambda _: {}, document=lambda *_: {})  # type: ignore[arg-type]
    assert [[n.at.reason for n in looker.look(f"arn:{name}").nodes] for name in names] == [["first"], ["second"]]


def test_nodes_that_an_earlier_version_started_are_those_of_the_roll_that_began_them() -> None:
    """It cut a roll's name after 60 characters, and the names of two could be one."""
    fake, names = FakeExecutions(), [f"{'r' * 60}-{n}" for n in (1, 2)]
    for name, instance in zip(names, ("i-1", "i-2"), strict=True):
        roll = begun(planned("i-1", "i-2"), {"i-1": "a"})
        node = {"instance": instance, "node": "a", "group": "workers"}
        roll.add("TaskStateEntered", stateEnteredEventDetails={"name": REPLACE_NODE, "input": json.dumps(node)})
        fake.add(ROLL, name, roll)
        fake.add(NODE, f"{instance}-{'r' * 60}", History(1080).wait("Evict pods", BUDGET))
    looker = RollReader(fake, NODE, asked=lambda _: {}, document=lambda *_: {})  # type: ignore[arg-type]
    stages = [[n.stage for n in looker.look(f"arn:{name}").nodes] for name in names]
    assert stages == [[Stage.REPLACING, Stage.WAITING], [Stage.WAITING, Stage.REPLACING]]
