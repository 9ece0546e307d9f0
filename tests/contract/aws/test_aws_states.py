"""Executions of the deployed state machines, by the definitions that CDK wrote."""

import json
import time
from typing import Any

import pytest

from tests.contract.aws.conftest import Server, until

pytestmark = pytest.mark.lab


def start(aws: Server, machine: str, given: Any, **more: Any) -> str:
    answer = aws.client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(given), **more)
    return str(answer["executionArn"])


def events(aws: Server, execution: str) -> list[dict[str, Any]]:
    pages = aws.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=execution)
    return [event for page in pages for event in page["events"]]


def test_a_map_of_nested_executions_polls_retries_and_catches(aws: Server, deployed: dict[str, str]) -> None:
    nodes = ["plain", f"flaky-{time.time_ns()}", "broken-1"]
    ended = aws.ended(start(aws, deployed["ProbeArn"], {"nodes": nodes}))
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"]) == {"ok": 2, "rounds": 4}
    children = aws.client("stepfunctions").list_executions(stateMachineArn=deployed["NodeArn"])["executions"][:3]
    histories = [[event["type"] for event in events(aws, child["executionArn"])] for child in children]
    assert sorted(history.count("TaskFailed") for history in histories) == [0, 1, 1]
    assert sum(history.count("WaitStateEntered") for history in histories) == 2


def test_the_report_is_in_the_bucket_and_the_summary_in_the_topic(aws: Server, deployed: dict[str, str]) -> None:
    name = f"report-{time.time_ns()}"
    ended = aws.ended(start(aws, deployed["ProbeArn"], {"nodes": ["quick-1"]}, name=name))
    assert ended["status"] == "SUCCEEDED", ended
    report = aws.client("s3").get_object(Bucket=deployed["Bucket"], Key=f"{name}.json")["Body"].read()
    assert json.loads(report) == {"ok": 1, "rounds": 1}
    messages = [m for m in aws.lab("GET", "messages") if m["topic"] == deployed["Topic"]]
    assert json.loads(messages[-1]["message"]) == {"done": {"ok": 1, "rounds": 1}}


def test_a_machines_calls_are_made_by_its_role(aws: Server, deployed: dict[str, str]) -> None:
    aws.ended(start(aws, deployed["ProbeArn"], {"nodes": ["quick-2"]}))
    calls = {(call["service"], call["action"]): call["role"] for call in aws.lab("GET", "calls")}
    assert "ProbeMachineRole" in calls["states", "StartExecution"]
    assert "NodeMachineRole" in calls["lambda", "InvokeFunction"]


def test_stopping_the_parent_stops_the_children(aws: Server, deployed: dict[str, str]) -> None:
    client = aws.client("stepfunctions")
    parent = start(aws, deployed["ProbeArn"], {"nodes": ["slow-1", "slow-2"]})

    def running() -> list[str]:
        listed = client.list_executions(stateMachineArn=deployed["NodeArn"], statusFilter="RUNNING")
        return [execution["executionArn"] for execution in listed["executions"]]

    children = until(lambda: len(running()) == 2 and running(), "both children run")
    client.stop_execution(executionArn=parent, error="Operator", cause="enough")
    described = client.describe_execution(executionArn=parent)
    assert (described["status"], described["error"], described["cause"]) == ("ABORTED", "Operator", "enough")
    for child in children:
        assert aws.ended(child, 5)["status"] == "ABORTED"


def test_a_machine_can_be_started_twice_without_a_name(aws: Server, deployed: dict[str, str]) -> None:
    names = {start(aws, deployed["NodeArn"], {"node": "quick"}).rsplit(":", 1)[1] for _ in range(2)}
    assert len(names) == 2
    client = aws.client("stepfunctions")
    with pytest.raises(client.exceptions.ClientError, match="less than or equal to 80"):
        start(aws, deployed["NodeArn"], {"node": "quick"}, name="x" * 81)
