"""What is counted of steps' answers, and how it is written."""

import json

import pytest

from eks_rolling.errors import Conflict
from eks_rolling.payloads import NodeOutcomeTask, StepResult, Task
from eks_rolling.report import metrics
from eks_rolling.report.metrics import Metric, Name, of_fault, of_result

TASK = Task(roll="roll-1")
NODE = NodeOutcomeTask(roll="roll-1", instance="i-1", node="n1", group="g", execution="arn")


def names(found: list[Metric]) -> list[tuple[Name, float, str]]:
    return [(m.name, m.value, m.part) for m in found]


def test_a_wait_counts_its_seconds_by_what_is_waited_for() -> None:
    wait = StepResult.wait("pod a: no budget", 7, refused=2, evicted=1)
    assert names(of_result("evict", TASK, wait)) == [
        (Name.PODS_EVICTED, 1, ""),
        (Name.EVICTIONS_REFUSED, 2, ""),
        (Name.WAIT_SECONDS, 7, "eviction"),
    ]
    assert names(of_result("some_new_step", TASK, StepResult.wait("x", 1)))[0][2] == "some new step"


def test_a_switch_of_redis_counts_for_how_long_writes_stood_still() -> None:
    wait = StepResult.wait("switched", 1, redis="default/cache", stall_seconds=0.21)
    assert names(of_result("fail_over", TASK, wait))[0] == (Name.REDIS_STALL_SECONDS, 0.21, "")


def test_a_roll_begins_with_its_lock_and_ends_with_its_report() -> None:
    assert names(of_result("take_lock", TASK, StepResult.done("the lock was free"))) == [(Name.ROLLS_STARTED, 1, "")]
    report = StepResult.done("x", outcome="blocked")
    assert names(of_result("report", TASK, report)) == [(Name.ROLLS_ENDED, 1, "blocked")]
    assert of_result("evict", TASK, StepResult.done("empty")) == []


def test_a_node_is_counted_once_however_it_ended() -> None:
    replaced, failed = (StepResult.done("said", outcome=outcome) for outcome in ("replaced", "failed"))
    assert names(of_result("record_node", NODE, replaced)) == [(Name.NODES_REPLACED, 1, "")]
    refused = NODE.model_copy(update={"failure": {"Error": "Refused"}})
    assert names(of_result("record_node", refused, failed)) == [(Name.NODES_FAILED, 1, "")]
    aborted = NODE.model_copy(update={"failure": {"Error": "Aborted"}})
    assert names(of_result("record_node", aborted, replaced)) == [(Name.NODES_REPLACED, 1, "")]


@pytest.mark.parametrize("error", ["Aborted", "NotBegun"])
def test_a_node_that_a_person_or_another_node_kept_from_being_replaced_has_not_failed(error: str) -> None:
    aborted = NODE.model_copy(update={"failure": {"Error": error}})
    assert of_result("record_node", aborted, StepResult.done("said", outcome="aborted")) == []


def test_a_metric_is_a_line_of_the_log_with_the_roll_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.emit(
        [Metric(Name.ROLLS_ENDED, part="replaced"), *of_fault(Conflict("x"))], "demo", roll="roll-1", node=None
    )
    ended, fault = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (described,) = ended["_aws"]["CloudWatchMetrics"]
    assert described["Namespace"] == "EksRolling"
    assert described["Dimensions"] == [["cluster", "outcome"]]
    assert (ended["cluster"], ended["outcome"], ended["RollsEnded"]) == ("demo", "replaced", [1.0])
    assert ended["roll"] == "roll-1"
    assert "node" not in ended
    assert fault["error"] == "Conflict"


def test_every_metric_with_a_second_dimension_says_its_value() -> None:
    """CloudWatch refuses a dimension without a value."""
    every = [
        *of_result("report", TASK, StepResult.done("x", outcome="failed")),
        *of_result("gate", TASK, StepResult.wait("x", 1)),
        *of_fault(Conflict("x")),
    ]
    assert {m.name for m in every} == metrics.SPLIT.keys()
    assert all(m.part for m in every)
