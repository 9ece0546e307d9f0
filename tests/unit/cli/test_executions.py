"""Histories are read again and again, and each event once."""

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from eks_rolling.errors import NotFound
from eks_rolling_cli.executions import Executions

Json = dict[str, Any]


class Client:
    """Step Functions with one execution, whose history grows; every event that it hands out is counted."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.handed_out = 0

    def grow(self, count: int) -> None:
        for _ in range(count):
            number = len(self.events) + 1
            self.events.append(
                {"id": number, "type": "TaskStateEntered", "timestamp": datetime.fromtimestamp(number, UTC)}
            )

    def get_paginator(self, _: str) -> "Client":
        return self

    def paginate(self, *, PaginationConfig: Json, **_: Any) -> Iterator[Json]:  # noqa: N803 (the SDK's name)
        newest_first, size = list(reversed(self.events)), PaginationConfig["PageSize"]
        for start in range(0, len(newest_first), size):
            page = newest_first[start : start + size]
            self.handed_out += len(page)
            yield {"events": page}


def test_only_events_that_came_since_are_asked_for() -> None:
    client = Client()
    executions = Executions(cast(Any, client))
    client.grow(2500)
    assert [e["id"] for e in executions.history("arn")] == list(range(1, 2501))
    assert client.handed_out == 2500
    client.grow(30)
    assert [e["id"] for e in executions.history("arn")] == list(range(1, 2531))
    assert client.handed_out == 2600
    assert executions.history("arn")[-1]["timestamp"] == 2530.0


class AlreadyExistsError(ClientError):
    """As the SDK makes one for each code of a service."""


class Lagging:
    """Step Functions that does not know any execution yet."""

    exceptions = SimpleNamespace(ExecutionAlreadyExists=AlreadyExistsError)

    def start_execution(self, **asked: str) -> Json:
        return {"executionArn": f"arn:{asked['name']}"}

    def describe_execution(self, **_: str) -> Json:
        raise ClientError({"Error": {"Code": "ExecutionDoesNotExist", "Message": "no such"}}, "DescribeExecution")

    def get_paginator(self, _: str) -> "Lagging":
        return self

    def paginate(self, **_: Any) -> Iterator[Json]:
        raise ClientError({"Error": {"Code": "ExecutionDoesNotExist", "Message": "no such"}}, "GetExecutionHistory")


def test_what_was_just_started_runs_although_nothing_knows_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Step Functions describes is eventually consistent (API reference of DescribeExecution)."""
    executions = Executions(cast(Any, Lagging()))
    arn = executions.start("machine", "roll-1", {"nodes": ["node-1"]})
    begun = executions.describe(arn)
    assert (begun.name, begun.running, begun.input) == ("roll-1", True, {"nodes": ["node-1"]})
    assert executions.history(arn) == []
    for read in (executions.describe, executions.history):
        with pytest.raises(NotFound):
            read("arn:of-somebody-else")
    monkeypatch.setattr("time.time", lambda: begun.started + 61)
    for read in (executions.describe, executions.history):
        with pytest.raises(NotFound):
            read(arn)


def test_a_start_whose_answer_was_lost_is_the_one_that_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK asks again; a dry run may have ended by then, and its name is taken."""

    def refuse(_: Lagging, **__: str) -> Json:
        raise AlreadyExistsError({"Error": {"Code": "ExecutionAlreadyExists", "Message": "taken"}}, "StartExecution")

    monkeypatch.setattr(Lagging, "start_execution", refuse)
    machine = "arn:aws:states:eu-central-1:123456789012:stateMachine:eks-rolling-demo-roll"
    arn = Executions(cast(Any, Lagging())).start(machine, "plan-1", {})
    assert arn == "arn:aws:states:eu-central-1:123456789012:execution:eks-rolling-demo-roll:plan-1"


def test_an_empty_history_is_no_fault() -> None:
    assert Executions(cast(Any, Client())).history("arn") == []
