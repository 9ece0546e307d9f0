"""Executions of the deployed state machines, as Step Functions reports them. Read repeatedly, each event once."""

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from eks_rolling.documents.failure import read_json

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.type_defs import HistoryEventTypeDef

Json = dict[str, Any]
Seen = TypeVar("Seen")
Status = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"]

PAGE = 1000
"""Events, or executions, per request: the most that is answered."""

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 30.0
"""Until a look that failed is made again: at first, and at most."""

SPREADING_SECONDS = 60.0
"""How long Step Functions may not know an execution that was just started: what it describes is eventually consistent
(API reference of DescribeExecution)."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution; times are epoch seconds, `ended` None while it runs.

    A listed one has no input, output, error or cause.
    """

    arn: str
    name: str
    status: str
    started: float
    ended: float | None = None
    input: Json = field(default_factory=dict)
    error: str = ""
    cause: str = ""
    output: Json = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"


def patiently(look: Callable[[], Seen], say_line: Callable[[str], None], *, patience: float = math.inf) -> Seen:
    """Looks until it works: whoever follows an execution outlives lost connections and throttling.

    Raises Transient after `patience` seconds without an answer.
    """
    from eks_rolling.errors import Transient

    wait, failed, began = RETRY_SECONDS, False, time.monotonic()
    while True:
        try:
            seen = look()
        except Transient as error:
            if time.monotonic() - began >= patience:
                raise
            say_line(f"no connection: {' '.join(str(error).split())} Trying again in {wait:.0f} s.")
            failed = True
            time.sleep(wait)
            wait = min(LONGEST_RETRY_SECONDS, wait * 2)
        else:
            if failed:
                say_line("connected again")
            return seen


def new_name(what: str = "roll") -> str:
    """An execution's name, which sorts by time."""
    return f"{what}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Executions:
    """Step Functions, read. Faults of AWS are raised as `eks_rolling.errors`."""

    def __init__(self, client: "SFNClient") -> None:
        self._client = client
        self._seen: dict[str, list[Json]] = {}
        self._begun: dict[str, Execution] = {}
        """Those that were started here."""

    def machines(self) -> dict[str, str]:
        """Every state machine of the region: name -> ARN."""
        with _translated("list state machines"):
            pages = self._client.get_paginator("list_state_machines").paginate()
            return {m["name"]: m["stateMachineArn"] for page in pages for m in page["stateMachines"]}

    def of(self, machine: str, status: Status | None = None, *, at_once: int = 100) -> Iterator[Execution]:
        """The executions of a machine, the newest first, asked for page by page, `at_once` in each."""
        chosen: Any = {"statusFilter": status} if status else {}
        with _translated("list executions"):
            pages = self._client.get_paginator("list_executions").paginate(
                stateMachineArn=machine, PaginationConfig={"PageSize": at_once}, **chosen
            )
            for page in pages:
                for item in page["executions"]:
                    stopped = item.get("stopDate")
                    yield Execution(
                        item["executionArn"],
                        item["name"],
                        item["status"],
                        item["startDate"].timestamp(),
                        stopped.timestamp() if stopped else None,
                    )

    def describe(self, arn: str) -> Execution:
        """An execution, as running where it was just started here and Step Functions does not know it yet."""
        from eks_rolling.errors import NotFound

        try:
            with _translated(f"describe execution {arn}"):
                item = self._client.describe_execution(executionArn=arn)
        except NotFound:
            if begun := self._just_begun(arn):
                return begun
            raise
        stopped = item.get("stopDate")
        return Execution(
            arn,
            item["name"],
            item["status"],
            item["startDate"].timestamp(),
            stopped.timestamp() if stopped else None,
            read_json(item.get("input", "")),
            item.get("error", ""),
            item.get("cause", ""),
            read_json(item.get("output", "")),
        )

    def history(self, arn: str) -> list[Json]:
        """An execution's events, oldest first. Those that were read before are remembered; there are none of one that
        was just started here and that Step Functions does not know yet."""
        from eks_rolling.errors import NotFound

        try:
            return self._history(arn)
        except NotFound:
            if self._just_begun(arn):
                return []
            raise

    def _just_begun(self, arn: str) -> Execution | None:
        begun = self._begun.get(arn)
        return begun if begun and time.time() - begun.started < SPREADING_SECONDS else None

    def _history(self, arn: str) -> list[Json]:
        seen = self._seen.setdefault(arn, [])
        last = seen[-1]["id"] if seen else 0
        fresh: list[Json] = []
        with _translated(f"read the history of {arn}"):
            pages = self._client.get_paginator("get_execution_history").paginate(
                executionArn=arn, reverseOrder=True, PaginationConfig={"PageSize": PAGE if not seen else 100}
            )
            for event in (event for page in pages for event in page["events"]):
                if event["id"] <= last:
                    break
                fresh.append(_plain(event))
        seen += reversed(fresh)
        return list(seen)

    def start(self, machine: str, name: str, given: Json) -> str:
        """Starts an execution, whose name nobody else uses (`new_name`); its ARN."""
        with _translated("start an execution"):
            try:
                arn = self._client.start_execution(stateMachineArn=machine, name=name, input=json.dumps(given))[
                    "executionArn"
                ]
            except self._client.exceptions.ExecutionAlreadyExists:
                # The SDK has asked again after an answer that was lost, and what it had started has ended meanwhile.
                arn = f"{machine.replace(':stateMachine:', ':execution:', 1)}:{name}"
        self._begun[arn] = Execution(arn, name, "RUNNING", time.time(), input=given)
        return arn

    def stop(self, arn: str, cause: str) -> None:
        with _translated(f"stop execution {arn}"):
            self._client.stop_execution(executionArn=arn, cause=cause)

    def approve(self, token: str, output: Json) -> None:
        """Answers a task that waits for its token. Raises NotFound where it does not wait any more."""
        self._answer(lambda: self._client.send_task_success(taskToken=token, output=json.dumps(output)))

    def refuse(self, token: str, cause: str) -> None:
        """As `approve`, with a failure that the workflow calls Refused."""
        self._answer(lambda: self._client.send_task_failure(taskToken=token, error="Refused", cause=cause))

    def _answer(self, send: Callable[[], object]) -> None:
        from eks_rolling.errors import NotFound

        over = self._client.exceptions
        with _translated("answer the roll that waits"):
            try:
                send()
            except (over.TaskTimedOut, over.TaskDoesNotExist) as error:
                raise NotFound(
                    "The roll does not wait for an answer any more: somebody else has given one, or it has ended."
                ) from error


def _plain(event: "HistoryEventTypeDef") -> Json:
    return {**event, "timestamp": event["timestamp"].timestamp()}


def _translated(doing: str) -> Any:
    # Late: the SDK takes half a second to import.
    from eks_rolling.clients.aws import translated

    return translated(doing)
