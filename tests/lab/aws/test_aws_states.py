"""Executions of the deployed state machines, by the definitions that CDK wrote."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.aws_lab import Server, document, role
from tests.waiting import until

pytestmark = pytest.mark.lab

HEARTBEAT_SECONDS = 2


@pytest.fixture(scope="module", autouse=True)
def _role(aws: Server) -> Iterator[None]:
    """The role of machines of the tests' own, which may call everything."""
    with role(aws, "test", document("*")):
        yield


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
    assert "ProbeMachineRole" in calls["s3", "PutObject"]
    assert "ProbeMachineRole" in calls["sns", "Publish"]


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
        assert aws.ended(child)["status"] == "ABORTED"


def test_a_machine_can_be_started_twice_without_a_name(aws: Server, deployed: dict[str, str]) -> None:
    names = {start(aws, deployed["NodeArn"], {"node": "quick"}).rsplit(":", 1)[1] for _ in range(2)}
    assert len(names) == 2
    client = aws.client("stepfunctions")
    with pytest.raises(client.exceptions.ClientError, match="less than or equal to 80"):
        start(aws, deployed["NodeArn"], {"node": "quick"}, name="x" * 81)


def machine(aws: Server, states: dict[str, Any]) -> str:
    """A state machine of the test's own, in JSONata; it starts at its first state."""
    definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states}
    made = aws.client("stepfunctions").create_state_machine(
        name=f"test-{time.time_ns()}",
        definition=json.dumps(definition),
        roleArn="arn:aws:iam::123456789012:role/test",
    )
    return str(made["stateMachineArn"])


def test_a_task_that_takes_too_long_times_out_and_can_be_caught(aws: Server, deployed: dict[str, str]) -> None:
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": "probe-work", "Payload": {"node": "slow", "round": 0}},
        "TimeoutSeconds": "{% $states.input.limit %}",
        "Catch": [{"ErrorEquals": ["States.Timeout"], "Next": "late"}],
        "End": True,
    }
    late = {"Type": "Pass", "Output": "{% $states.input.Error %}", "End": True}
    ended = aws.ended(start(aws, machine(aws, {"work": task, "late": late}), {"limit": 1}))
    assert json.loads(ended["output"]) == "States.Timeout"


def test_a_waiting_task_lives_as_long_as_its_heart_beats(aws: Server, deployed: dict[str, str]) -> None:
    client = aws.client("stepfunctions")
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sns:publish.waitForTaskToken",
        "Arguments": {"TopicArn": deployed["Topic"], "Message": {"token": "{% $states.context.Task.Token %}"}},
        "HeartbeatSeconds": HEARTBEAT_SECONDS,
        "TimeoutSeconds": 60,
        "End": True,
    }
    execution = start(aws, machine(aws, {"wait": task}), {})

    def tokens() -> list[str]:
        messages = [json.loads(m["message"]) for m in aws.lab("GET", "messages") if m["topic"] == deployed["Topic"]]
        return [message["token"] for message in messages if "token" in message]

    (token,) = until(tokens, "the token is sent")
    began = time.monotonic()

    def lives_on() -> bool:
        client.send_task_heartbeat(taskToken=token)
        return time.monotonic() - began > 2 * HEARTBEAT_SECONDS

    until(lives_on, "it has lived longer than without heartbeats")
    assert client.describe_execution(executionArn=execution)["status"] == "RUNNING"
    assert aws.ended(execution)["error"] == "States.Timeout"
    with pytest.raises(client.exceptions.TaskTimedOut):
        client.send_task_success(taskToken=token, output="{}")


def test_an_execution_is_started_without_waiting_for_it(aws: Server, deployed: dict[str, str]) -> None:
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution",
        "Arguments": {"StateMachineArn": deployed["NodeArn"], "Input": {"node": "quick"}},
        "Output": "{% $states.result.ExecutionArn %}",
        "End": True,
    }
    child = json.loads(aws.ended(start(aws, machine(aws, {"start": task}), {}))["output"])
    assert aws.ended(child)["status"] == "SUCCEEDED"


def test_a_maps_concurrency_can_be_an_expression(aws: Server) -> None:
    each = {
        "Type": "Map",
        "Items": [1, 2, 3, 4],
        "MaxConcurrency": "{% $states.input.width %}",
        "ItemProcessor": {"StartAt": "w", "States": {"w": {"Type": "Wait", "Seconds": 1, "End": True}}},
        "End": True,
    }
    execution = start(aws, machine(aws, {"each": each}), {"width": 2})
    assert aws.ended(execution)["status"] == "SUCCEEDED"
    steps = {"MapIterationStarted": 1, "MapIterationSucceeded": -1}
    at_work = list(itertools.accumulate(steps.get(event["type"], 0) for event in events(aws, execution)))
    assert (max(at_work), at_work[-1]) == (2, 0)
