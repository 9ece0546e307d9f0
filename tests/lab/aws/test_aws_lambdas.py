"""Lambda: what a function sees, and what its caller is told when it goes wrong."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.aws_lab import Server
from tests.waiting import until

pytestmark = pytest.mark.lab


def work(aws: Server, node: str) -> tuple[Any, str | None]:
    return aws.invoke("probe-work", {"node": node, "round": 0})


@pytest.fixture(autouse=True)
def _deployed(deployed: dict[str, str]) -> None:
    """Every test here needs the functions."""


def test_a_function_runs_with_its_own_configuration_and_nothing_of_the_lab(aws: Server) -> None:
    answer, error = work(aws, "whoami")
    assert error is None
    assert (answer["function"], answer["memory"]) == ("probe-work", "256")
    assert 2_000 < answer["remaining_ms"] <= 3_000
    assert answer["variables"] == {
        "GREETING": "hello",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": aws.endpoint,
    }
    assert answer["path"] == []


def test_a_function_has_the_credentials_of_its_role(aws: Server) -> None:
    answer, _ = aws.invoke("probe-identity", {})
    account, role = "123456789012", aws.client("lambda").get_function(FunctionName="probe-identity")["Configuration"]
    assert answer["arn"] == f"arn:aws:sts::{account}:assumed-role/{role['Role'].split('/')[-1]}/probe-identity"
    (call,) = [c for c in aws.lab("GET", "calls") if c["action"] == "GetCallerIdentity"][-1:]
    assert call["role"] == role["Role"]


def test_an_environment_is_used_again(aws: Server) -> None:
    first, _ = work(aws, "whoami")
    second, _ = work(aws, "whoami")
    assert first["pid"] == second["pid"]


def test_an_exceptions_class_is_the_errors_type(aws: Server) -> None:
    answer, error = work(aws, "broken-1")
    assert error == "Unhandled"
    assert (answer["errorType"], answer["errorMessage"]) == ("Permanent", 'broken-1 is "broken"')


def test_a_process_that_ends_is_an_exit_error(aws: Server) -> None:
    answer, error = work(aws, "crash")
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert "exit status 3" in answer["errorMessage"]


def test_a_function_that_takes_more_than_its_memory_is_killed(aws: Server) -> None:
    answer, error = work(aws, "greedy")
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert "signal: killed" in answer["errorMessage"]


def test_a_function_that_takes_too_long_is_killed(aws: Server) -> None:
    before = time.monotonic()
    answer, error = work(aws, "slow")
    assert (error, answer["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert "timed out after 3.00 seconds" in answer["errorMessage"]
    assert time.monotonic() - before >= 3


def test_a_handler_that_cannot_be_imported_says_so(aws: Server) -> None:
    client = aws.client("lambda")
    client.update_function_configuration(FunctionName="probe-work", Handler="handlers.nothing.handler")
    try:
        answer, error = work(aws, "quick")
    finally:
        client.update_function_configuration(FunctionName="probe-work", Handler="handlers.work.handler")
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ImportModuleError")
    assert work(aws, "quick") == ({"status": "done"}, None)


def test_an_unknown_function_is_not_found(aws: Server) -> None:
    client = aws.client("lambda")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nothing", Payload="{}")


def test_an_event_is_taken_at_once_and_tried_again_when_it_fails(aws: Server) -> None:
    log = aws.paths.logs / "lambda" / "probe-work.log"
    starts = _starts(log)
    answer = aws.client("lambda").invoke(
        FunctionName="probe-work", InvocationType="Event", Payload=json.dumps({"node": "broken-event", "round": 0})
    )
    assert answer["StatusCode"] == 202
    until(lambda: _starts(log) == starts + 3, "the event is tried twice more")


def _starts(log: Path) -> int:
    return log.read_text().count("START RequestId") if log.exists() else 0


def test_a_process_that_is_killed_before_it_begins_has_done_nothing(aws: Server) -> None:
    aws.lab("PUT", "faults", {"lambda_kill": {"seed": 7, "share": 1, "within_seconds": 0}})
    try:
        answers = [work(aws, "whoami")[0] for _ in range(20)]
        assert {answer.get("errorType") for answer in answers} == {"Runtime.ExitError"}
        assert aws.lab("GET", "faults")["kills"] == 20
    finally:
        aws.lab("PUT", "faults", {})


def test_a_seeded_share_of_invocations_loses_its_process(aws: Server) -> None:
    def round_of_ten() -> list[str]:
        aws.lab("PUT", "faults", {"lambda_kill": {"seed": 7, "share": 0.5, "within_seconds": 0.2}})
        return [(work(aws, "nap-1")[0]).get("errorType", "none") for _ in range(10)]

    try:
        first = round_of_ten()
        assert set(first) == {"none", "Runtime.ExitError"}
        assert aws.lab("GET", "faults")["kills"] == first.count("Runtime.ExitError")
        assert round_of_ten() == first
    finally:
        aws.lab("PUT", "faults", {})
    assert set(aws.lab("GET", "faults").values()) == {0}


def test_a_function_that_nobody_called_for_long_has_to_wake_first(aws: Server) -> None:
    client = aws.client("lambda")
    aws.lab("PUT", "faults", {"asleep": {"waking_seconds": 0.5}})
    try:
        with pytest.raises(client.exceptions.ResourceNotReadyException) as caught:
            work(aws, "whoami")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502

        def awake() -> bool:
            try:
                return work(aws, "quick") == ({"status": "done"}, None)
            except client.exceptions.ResourceNotReadyException:
                return False

        until(awake, "the function is awake")
    finally:
        aws.lab("PUT", "faults", {})


def test_an_event_waits_for_its_function_to_wake(aws: Server) -> None:
    log = aws.paths.logs / "lambda" / "probe-work.log"
    starts = _starts(log)
    aws.lab("PUT", "faults", {"asleep": {"waking_seconds": 4}})
    try:
        aws.client("lambda").invoke(FunctionName="probe-work", InvocationType="Event", Payload='{"node": "quick"}')
        until(lambda: _starts(log) > starts, "the event was handled")
        assert aws.lab("GET", "faults")["asleep"] > 3
    finally:
        aws.lab("PUT", "faults", {})


def test_a_task_sees_a_sleeping_function_as_a_fault_of_its_own_name(aws: Server, deployed: dict[str, str]) -> None:
    aws.lab("PUT", "faults", {"asleep": {"waking_seconds": 600, "functions": "probe-work"}})
    try:
        started = aws.client("stepfunctions").start_execution(
            stateMachineArn=deployed["NodeArn"], input='{"node": "x"}'
        )
        ended = aws.ended(started["executionArn"])
        assert (ended["status"], ended["error"]) == ("FAILED", "Lambda.ResourceNotReadyException"), ended
    finally:
        aws.lab("PUT", "faults", {})
