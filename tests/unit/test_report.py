"""The report: what it makes of a history, and what its page says of it."""

import json
import re
from typing import Any

import pytest

from eks_rolling.documents.report import BudgetLine, BudgetLook, Capacity, Ending, NodePage, Report
from eks_rolling.observed.kubernetes import Effect, Node, Taint, ready_nodes
from eks_rolling.payloads import HoldKind, NodeOutcomeTask, ReportTask
from eks_rolling.report import charts, timeline
from eks_rolling.report.charts import Axis
from eks_rolling.report.page import node_lines, page, restored
from eks_rolling.report.verdict import answers, headline
from eks_rolling.report.words import duration, offset
from eks_rolling.steps import record_node
from eks_rolling.steps.report import summary
from tests import reports


def entered(name: str, when: float) -> dict[str, Any]:
    return {"type": "TaskStateEntered", "timestamp": when, "stateEnteredEventDetails": {"name": name}}


def exited(name: str, when: float, answer: dict[str, Any]) -> dict[str, Any]:
    details = {"name": name, "output": json.dumps(answer)}
    return {"type": "TaskStateExited", "timestamp": when, "stateExitedEventDetails": details}


def look(name: str, when: float, **answer: Any) -> list[dict[str, Any]]:
    """A look that took a second."""
    return [entered(name, when), exited(name, when + 1, {"status": "wait", "reason": "why"} | answer)]


def history(*events: list[dict[str, Any]]) -> list[timeline.StepTime]:
    return timeline.steps_of(e for part in events for e in part)


class TestTimeline:
    def test_a_call_that_failed_is_a_fault_of_its_step_even_where_it_never_answered(self) -> None:
        failed = {"type": "TaskFailed", "timestamp": 5.0}
        (step,) = history([entered("Evict pods", 1.0), failed, {**failed, "timestamp": 9.0}])
        assert (step.faults, step.started, step.ended) == (2, 1.0, 9.0)

    def test_the_step_that_reads_the_history_is_not_in_it(self) -> None:
        steps = history(look("Evict pods", 1), [entered("Record what was done", 3)])
        assert [s.name for s in steps] == ["Evict pods"]

    def test_what_a_failed_state_passed_on_is_explained(self) -> None:
        cause = json.dumps({"errorType": "Refused", "errorMessage": "No."})
        (step,) = history([entered("Evict pods", 1), exited("Evict pods", 2, {"Error": "Refused", "Cause": cause})])
        assert step.last == "No."

    @pytest.mark.parametrize(
        ("name", "output", "kind"),
        [
            ("Evict pods", {"kind": "budget"}, HoldKind.BUDGET),
            ("Evict pods", {}, HoldKind.PODS),
            ("Evict pods", {"kind": "weather"}, HoldKind.PODS),
            ("Move the replica", {"redis": "shop/cache"}, HoldKind.REDIS),
            ("Open the gate to the next wave", {"kind": "person"}, HoldKind.PERSON),
            ("Something new", {}, HoldKind.OTHER),
        ],
    )
    def test_a_wait_is_of_the_kind_that_its_step_says_or_its_state_means(
        self, name: str, output: dict[str, Any], kind: HoldKind
    ) -> None:
        (step,) = history(look(name, 1, output=output))
        assert step.holds[0].kind is kind

    def test_capacity_is_kept_where_it_changed(self) -> None:
        counts = [{"a": 2}, {"a": 2}, {"a": 3}, {"a": 2}]
        steps = history(*(look("Wait", i * 10, output={"ready_nodes": zones}) for i, zones in enumerate(counts)))
        assert [(c.at, c.zones["a"]) for c in timeline.capacity(steps)] == [(1, 2), (21, 3), (31, 2)]

    def test_budgets_are_kept_where_they_changed_and_know_whose_they_are(self) -> None:
        numbers = [[1, 6, 5, 6, 0], [1, 6, 5, 6, 0], [0, 5, 5, 6, 0]]
        steps = history(
            *(
                look("Evict pods", i * 10, output={"budgets": {"s/w": n, "s/t": [1, 1, 0, 1, 1]}})
                for i, n in enumerate(numbers)
            )
        )
        ours, web = timeline.budgets(steps)
        assert (ours.budget, ours.ours, len(ours.looks)) == ("s/t", True, 1)
        assert [(b.at, b.unavailable, b.limit) for b in web.looks] == [(1, 0, 1), (21, 1, 1)]

    def test_switches_refusals_and_calls_are_found(self) -> None:
        switches = [
            {"group": "s/cache", "stalled_ms": 480, "completed": True},
            {"group": "s/cache", "completed": False},
        ]
        steps = history(
            look("Fail over to a replica", 1, output={"redis": "s/cache", "switches": switches}, calls=["get pods"]),
            look("Evict pods", 5, output={"refusals": ["pod a: no"]}, calls=["list pods", "get pods"]),
        )
        assert [(f.stalled_ms, f.completed, f.node) for f in timeline.failovers(steps, "n")] == [
            (480, True, "n"),
            (None, False, "n"),
        ]
        assert [r.reason for r in timeline.refusals(steps)] == ["pod a: no"]
        assert [(c.step, c.calls) for c in timeline.calls(steps)] == [
            ("Fail over to a replica", ("get pods",)),
            ("Evict pods", ("get pods", "list pods")),
        ]

    @pytest.mark.parametrize(
        ("event", "words"),
        [
            (
                {"type": "ExecutionAborted", "executionAbortedEventDetails": {"cause": "lunch"}},
                "The roll's execution was stopped: lunch.",
            ),
            ({"type": "ExecutionAborted"}, "The roll's execution was stopped."),
            ({"type": "ExecutionTimedOut"}, "The roll's execution took longer than its deadline."),
            (
                {"type": "ExecutionFailed", "executionFailedEventDetails": {"error": "Refused", "cause": "No."}},
                "No.",
            ),
            ({"type": "ExecutionSucceeded"}, ""),
        ],
    )
    def test_why_an_execution_was_ended_from_outside_is_said(self, event: dict[str, Any], words: str) -> None:
        assert timeline.ending_of([event]) == words

    @pytest.mark.parametrize(
        ("error", "answers", "ending"),
        [
            ("", [], "replaced"),
            ("Refused", [], "failed"),
            ("DeadlineExceeded", [{"output": {"requested": True}}], "failed"),
            ("Aborted", [], "not-begun"),
            ("Aborted", [{"reason": "the roll is paused: lunch"}], "not-begun"),
            ("Aborted", [{"output": {"requested": True}}, {"reason": "at its maximum"}], "aborted"),
            ("NotBegun", [], "not-begun"),
        ],
    )
    def test_a_node_whose_launch_asked_for_nothing_was_not_begun(
        self, error: str, answers: list[dict[str, Any]], ending: str
    ) -> None:
        steps = history(
            look("Ask the hooks before the node", 1),
            *(look("Launch the replacement", 10 * i, **answer) for i, answer in enumerate(answers, start=1)),
            look("Record what was done", 90),
        )
        failure = {"Error": error, "Cause": "Why."} if error else None
        assert timeline.node_ending(failure, steps) == ending
        later = [*steps, *history(look("Evict pods", 80))]
        assert timeline.node_ending(failure, later) == (
            "aborted" if ending == "not-begun" and error == "Aborted" else "failed" if error == "NotBegun" else ending
        )

    def test_a_node_whose_instance_was_on_its_way_out_when_an_abort_came_was_replaced(self) -> None:
        """The function may have died after its call: only the next look then tells that the instance is going."""
        empty = look("Terminate the instance", 30, reason="volumes are attached: pv-1")
        going = look("Terminate the instance", 40, reason="i-1 is shutting down", output={"terminating": True})
        aborted = {"Error": "Aborted", "Cause": "The roll was aborted: lunch."}
        assert timeline.node_ending(aborted, history(empty)) == "aborted"
        assert timeline.node_ending(aborted, history(empty, going)) == "replaced"
        assert timeline.node_ending({"Error": "OldNodeHeld"}, history(empty, going)) == "failed"
        task = NodeOutcomeTask(
            roll="r", instance="i-1", node="n", group="g", replacement="i-2", replacement_node="n2", execution="arn",
            failure=aborted,
        )  # fmt: skip
        assert record_node.record(task, history(empty)).failure == aborted["Cause"]
        assert record_node.record(task, history(empty, going)).failure == ""

    def test_the_nodes_that_a_roll_began_are_those_whose_executions_it_started(self) -> None:
        """A wave is longer than its surge: of the rest there is nothing to record when a roll is stopped."""
        begun = entered("Replace node", 2.0)
        begun["stateEnteredEventDetails"]["input"] = json.dumps({"instance": "i-1", "node": "n-1", "group": "g"})
        wave = [{"instance": f"i-{i}", "node": f"n-{i}", "group": "g"} for i in (1, 2)]
        events = [*look("Pick the next nodes", 1, output={"wave": wave}), begun]
        assert timeline.begun_of(events) == {"i-1": "n-1"}


class TestReadyNodes:
    @pytest.mark.parametrize(
        ("node", "ready"),
        [
            (Node("n", zone="a"), 1),
            (Node("n", zone="a", ready=False), 0),
            (Node("n", zone="a", unschedulable=True), 0),
            (Node("n", zone="a", taints=(Taint("eks-rolling", Effect.PREFER_NO_SCHEDULE),)), 1),
            (Node("n", zone="a", taints=(Taint("eks-rolling", Effect.NO_SCHEDULE),)), 0),
            (Node("n", zone="a", taints=(Taint("node.kubernetes.io/not-ready", Effect.NO_EXECUTE),)), 0),
            (Node("n", zone="a", taints=(Taint("dedicated", Effect.NO_SCHEDULE),)), 1),
        ],
    )
    def test_a_node_counts_while_it_takes_the_pods_that_it_is_for(self, node: Node, ready: int) -> None:
        """N3."""
        assert ready_nodes([node]) == {"a": ready}


class TestSummary:
    @staticmethod
    def of(task: ReportTask, *nodes: NodePage) -> Report:
        return summary(task, list(nodes), {"nodes": [{"node": "n", "instance": "i-1"}]}, "demo")

    @pytest.mark.parametrize(
        ("plan", "failure", "ending"),
        [
            ({"output": {"outcome": "roll"}}, None, Ending.REPLACED),
            ({"output": {"outcome": "dry-run"}}, None, Ending.DRY_RUN),
            ({"output": {"outcome": "blocked"}}, None, Ending.BLOCKED),
            ({"output": {"outcome": "roll"}}, {"Error": "Refused", "Cause": "No."}, Ending.FAILED),
            (
                {"output": {"outcome": "roll"}},
                {"Error": "Aborted", "Cause": "The roll was aborted: x."},
                Ending.ABORTED,
            ),
            (None, {"Error": "BadRequest", "Cause": "No."}, Ending.FAILED),
            (None, None, Ending.FAILED),
        ],
    )
    def test_the_ending_follows_from_the_plan_and_the_failure(
        self, plan: dict[str, Any] | None, failure: dict[str, Any] | None, ending: Ending
    ) -> None:
        assert self.of(ReportTask(roll="r", plan=plan, failure=failure)).outcome is ending

    def test_a_node_that_was_not_begun_is_told_as_those_to_which_no_wave_came(self) -> None:
        aborted = {"Error": "Aborted", "Cause": "The roll was aborted: x."}
        pages = [
            NodePage(node=f"n-{i}", instance=f"i-{i}", group="g", outcome=outcome, failure="The roll was aborted: x.")
            for i, outcome in enumerate(("aborted", "not-begun", "not-begun"))
        ]
        plan = {"nodes": [{"node": p.node, "instance": p.instance} for p in pages]}
        task = ReportTask(roll="r", plan={"output": {"outcome": "roll"}}, failure=aborted)
        report = summary(task, pages, plan, "demo")
        assert answers(report)[0].facts == (
            "0 of 3 nodes replaced",
            "1 node begun and not replaced",
            "2 nodes not begun",
        )
        assert [line.page is not None for line in node_lines(report)] == [True, False, False]

    def test_the_document_survives_the_way_through_json(self) -> None:
        """The command reads what the step wrote."""
        for make in reports.ALL.values():
            report = make()
            assert Report.model_validate_json(report.model_dump_json(by_alias=True)) == report

    def test_a_document_of_another_version_can_be_read(self) -> None:
        report = Report.model_validate({"roll": "r", "cluster": "c", "outcome": "replaced", "weather": "fine"})
        assert page(report)


def looks(*unavailable: int) -> BudgetLine:
    seen = [BudgetLook(at=i, allowed=0, healthy=6 - n, needed=5, expected=6) for i, n in enumerate(unavailable)]
    return BudgetLine(budget="shop/web", looks=tuple(seen))


class TestPage:
    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(0.41, "0.4 s"), (58, "58 s"), (269, "4 min 29 s"), (7500, "2 h 05 min"), (59.7, "1 min 00 s")],
    )
    def test_durations_are_said_as_people_say_them(self, seconds: float, words: str) -> None:
        assert duration(seconds) == words

    def test_offsets_are_clocks(self) -> None:
        assert (offset(269), offset(3720)) == ("4:29", "1:02:00")

    @pytest.mark.parametrize(("span", "count"), [(20, 5), (269, 5), (5400, 7), (3 * 86400, 7)])
    def test_the_axis_has_a_handful_of_labels(self, span: float, count: int) -> None:
        assert len(Axis(0, span).ticks) == count

    @pytest.mark.parametrize(
        ("budget", "mood"), [(looks(0, 1, 0), "good"), (looks(0, 2, 0), "warn"), (looks(2, 2, 0), "good")]
    )
    def test_a_budget_that_was_broken_meanwhile_is_said_and_one_that_was_before_is_not(
        self, budget: BudgetLine, mood: str
    ) -> None:
        report = reports.replaced().model_copy(update={"budgets": (budget,)})
        assert answers(report)[1].mood == mood

    def test_a_zone_that_fell_below_its_start_is_said(self) -> None:
        """N3."""
        seen = [Capacity(at=reports.BEGAN + at, zones={"a": count}) for at, count in ((0, 3), (9, 2), (20, 3))]
        answer = answers(reports.replaced().model_copy(update={"capacity": tuple(seen)}))[1]
        assert (answer.mood, answer.facts[0]) == ("warn", "Ready nodes in a fell to 2, from 3")

    def test_what_was_not_measured_is_not_called_good(self) -> None:
        assert answers(reports.replaced().model_copy(update={"capacity": ()}))[1].mood == "plain"

    def test_what_was_put_back_is_told_by_value_with_all_its_objects(self) -> None:
        assert restored(reports.replaced()) == [
            ("maximum size back to 3", ["group workers-a"]),
            ("AZRebalance, AlarmNotification resumed", ["group workers-a", "group workers-b"]),
            ("back at 1", ["cluster-autoscaler"]),
        ]

    def test_nodes_that_were_not_begun_are_listed_after_the_others(self) -> None:
        lines = node_lines(reports.aborted())
        assert [line.page is not None for line in lines] == [True, True, False, False, False, False]

    def test_of_many_nodes_the_failed_and_the_longest_are_drawn(self) -> None:
        report = reports.large(100)
        axis = Axis.of(report)
        assert axis
        assert len(charts.node_rows(report, axis)) == charts.ROWS_SHOWN

    @pytest.mark.parametrize(("seconds", "desk", "phone"), [(5, False, False), (10, True, False), (30, True, True)])
    def test_a_word_stands_only_on_a_bar_that_it_fits(self, seconds: int, *, desk: bool, phone: bool) -> None:
        """A first wave of one node is short beside the others."""
        wave = [reports.step("Replace node", 0, seconds), reports.step("Restore", seconds, 100)]
        html = page(reports.replaced().model_copy(update={"steps": tuple(wave), "nodes": ()}))
        (classes, word), *_ = re.findall(r'<i class="([^"]*wave[^"]*)"[^>]*>([^<]*)</i>', html)
        assert (word == "wave 1", " big" in classes) == (desk, phone)

    @pytest.mark.parametrize("name", reports.ALL)
    def test_every_page_is_whole_and_fetches_nothing(self, name: str) -> None:
        report = reports.ALL[name]()
        html = page(report)
        assert html.rstrip().endswith("</html>")
        assert headline(report)
        for forbidden in (
            "<script",
            "<link",
            "@import",
            "url(",
            "http:",
            "https:",
            "onerror=alert(1)>",
            '" onmouseover',
        ):
            assert forbidden not in html, forbidden


def test_the_page_says_what_to_type_where_something_is_left() -> None:
    """R2: the same command as everywhere else, and none where nothing is left."""
    fields: dict[str, Any] = {"roll": "roll-1", "cluster": "demo", "outcome": "aborted"}
    left = page(Report.model_validate(fields | {"left_behind": ["group ng-a keeps its maximum"]}))
    assert "group ng-a keeps its maximum" in left
    assert "eks-rolling start --cluster demo" in left
    assert "eks-rolling start" not in page(Report.model_validate(fields))
