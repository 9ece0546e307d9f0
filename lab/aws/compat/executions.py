"""Corrections to moto's Step Functions API: starting, stopping and describing executions, task tokens."""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from moto.core.responses import ActionResult, EmptyResult
from moto.stepfunctions.exceptions import AWSError, InvalidToken
from moto.stepfunctions.parser import api
from moto.stepfunctions.parser import utils as parser_utils
from moto.stepfunctions.parser.api import (
    ExecutionAbortedEventDetails,
    ExecutionFailedEventDetails,
    ExecutionStatus,
    HistoryEventType,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventManager
from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded, ProgramError
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse

from lab.aws.compat.registry import around, correction, replace

_ENDED = (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT, ExecutionStatus.ABORTED)
_STARTED_WITHIN_SECONDS = 5.0

status_listeners: list[Callable[[Any], None]] = []
"""Called with the execution each time its status has changed, by the thread that changed it."""

HISTORY_LIMIT = 25_000
"""Events that an execution's history may have (Step Functions quotas)."""

_status_lock = threading.RLock()
_history_lock = threading.Lock()


@correction
def executions_have_names() -> None:
    """AWS gives an execution started without a name a UUID, and refuses names longer than 80 characters or with
    characters that it does not allow; moto calls it "None", and its second one fails."""

    def start_execution(
        original: Any, self: Any, state_machine_arn: str, name: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        if name:
            self._validate_name(name)
        return original(self, state_machine_arn, name or str(uuid.uuid4()), *args, **kwargs)

    around(StepFunctionsParserBackend, "start_execution", start_execution)


@correction
def stopping_takes_effect_at_once() -> None:
    """AWS ends an execution the moment it is stopped, with the error and cause given, whatever its task is doing, and
    records nothing after ExecutionAborted; moto drops both and waits for the task."""

    def stop_execution(self: Any) -> Any:
        arn = self._get_param("executionArn")
        execution = self.stepfunction_backend.describe_execution(arn)
        execution.stop(stop_date=None, error=self._get_param("error"), cause=self._get_param("cause"))
        return ActionResult({"stopDate": execution.stop_date})

    def stop(self: Any, stop_date: Any = None, error: str | None = None, cause: str | None = None) -> None:
        environment = _environment_of(self)
        with _status_lock:
            if self.exec_status != ExecutionStatus.RUNNING:
                return
            self.stop_date = stop_date or datetime.now(tz=UTC)
            self.error, self.cause = error, cause
            self.exec_status = ExecutionStatus.ABORTED
        environment.set_stop(stop_date=self.stop_date, error=error, cause=cause)
        environment.event_history_context.source_event_id = 0
        environment.event_manager.add_event(
            context=environment.event_history_context,
            event_type=HistoryEventType.ExecutionAborted,
            event_details=EventDetails(
                executionAbortedEventDetails=ExecutionAbortedEventDetails(error=error, cause=cause)
            ),
        )
        environment.event_manager.closed = True
        for endpoint in list(environment.callback_pool_manager._pool.values()):
            endpoint.interrupt_all()

    def add_event(original: Any, self: Any, context: Any, *args: Any, **kwargs: Any) -> int:
        if getattr(self, "closed", False):
            return int(context.last_published_event_id)
        return int(original(self, context, *args, **kwargs))

    def reflect(original: Any, self: Any) -> None:
        with _status_lock:
            if self.execution.exec_status == ExecutionStatus.RUNNING:
                original(self)

    replace(StepFunctionResponse, "stop_execution", stop_execution)
    replace(Execution, "stop", stop)
    around(EventManager, "add_event", add_event)
    around(BaseExecutionWorkerCommunication, "_reflect_execution_status", reflect)


@correction
def an_execution_that_has_ended_has_its_output() -> None:
    """With AWS an execution has its output, or its error and cause, from the moment it has ended; with moto a moment
    later, in which it is described without."""

    def reflect(original: Any, self: Any) -> None:
        execution = self.execution
        environment = execution.exec_worker.env
        ended = environment.program_state()
        with _status_lock:
            running = execution.exec_status == ExecutionStatus.RUNNING
            if running and isinstance(ended, ProgramEnded):
                execution.output = environment.states.get_input()
            elif running and isinstance(ended, ProgramError):
                execution.error, execution.cause = ended.error.get("error"), ended.error.get("cause")
            original(self)

    around(BaseExecutionWorkerCommunication, "_reflect_execution_status", reflect)


def _environment_of(execution: Any) -> Any:
    """The execution's environment, which its thread makes a moment after the start."""
    deadline = time.monotonic() + _STARTED_WITHIN_SECONDS
    while execution.exec_worker.env is None or execution.exec_worker.env.program_state() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{execution.exec_arn} has not begun within {_STARTED_WITHIN_SECONDS} s")
        time.sleep(0.005)
    return execution.exec_worker.env


@correction
def status_changes_are_announced() -> None:
    """AWS sends an event for each change of an execution's status; moto tells nobody. This calls `status_listeners`."""

    def announce(execution: Any) -> None:
        for listener in status_listeners:
            listener(execution)

    def start(original: Any, self: Any) -> None:
        # Before its thread runs: a short execution could have ended before it is said to have begun.
        announce(self._execution_communication.execution)
        original(self)

    def terminated(original: Any, self: Any) -> None:
        original(self)
        # An execution that was stopped has been announced by `stop`.
        if self.execution.exec_status != ExecutionStatus.ABORTED:
            announce(self.execution)

    def stop(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        running = self.exec_status == ExecutionStatus.RUNNING
        original(self, *args, **kwargs)
        if running:
            announce(self)

    around(ExecutionWorker, "start", start)
    around(Execution, "stop", stop)
    around(BaseExecutionWorkerCommunication, "terminated", terminated)


@correction
def ended_executions_have_a_stop_date() -> None:
    """AWS tells when a timed out execution ended; moto leaves that out of DescribeExecution and ListExecutions."""

    def describe(original: Any, self: Any) -> Any:
        answer = original(self)
        execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
        _add_stop_date(answer.result, execution)
        return answer

    def list_executions(original: Any, self: Any) -> Any:
        answer = original(self)
        backend = self.stepfunction_backend
        for listed in answer.result["executions"]:
            _add_stop_date(listed, backend.describe_execution(listed["executionArn"]))
        return answer

    around(StepFunctionResponse, "describe_execution", describe)
    around(StepFunctionResponse, "list_executions", list_executions)


def _add_stop_date(described: dict[str, Any], execution: Any) -> None:
    if execution.exec_status in _ENDED:
        described["stopDate"] = execution.stop_date


@correction
def outputs_are_json() -> None:
    """AWS describes an execution's output as JSON; moto leaves the quotation marks off an output that is a text."""

    def describe(original: Any, self: Any) -> Any:
        answer = original(self)
        execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
        if "output" in answer.result:
            answer.result["output"] = to_json_str(execution.output, separators=(",", ":"))
        return answer

    around(StepFunctionResponse, "describe_execution", describe)


@correction
def errors_have_codes() -> None:
    """AWS names what is wrong (InvalidDefinition, for one); moto's interpreter raises errors without a code."""
    named: list[Any] = [value for value in vars(api).values() if isinstance(value, type)]
    for error in named:
        if issubclass(error, AWSError) and error.TYPE is None and isinstance(error.code, str):
            error.TYPE = error.code


@correction
def histories_have_pages() -> None:
    """AWS answers GetExecutionHistory in pages of up to 1000 events (100 unless asked), backwards on request; moto
    answers all of it, forwards, and copies and serializes all of it for each answer."""

    def get_execution_history(self: Any) -> Any:
        execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
        environment = execution.exec_worker.env
        with _history_lock:
            events = _serialized.setdefault(execution, [])
            fresh = environment.event_manager._history_event_list[len(events) :] if environment else []
            status, headers, body = self.serialized(ActionResult({"events": fresh}))
            events += json.loads(body)["events"]
            ordered = events[::-1] if self._get_bool_param("reverseOrder") else events[:]
        token = self._get_param("nextToken")
        start = int(base64.b64decode(token)) if token else 0
        end = start + (self._get_int_param("maxResults") or 100)
        page: dict[str, Any] = {"events": ordered[start:end]}
        if end < len(ordered):
            page["nextToken"] = base64.b64encode(str(end).encode()).decode()
        return status, headers, json.dumps(page)

    replace(StepFunctionResponse, "get_execution_history", get_execution_history)


_serialized: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()
"""Execution -> its events as moto's serializer wrote them: none changes, and a roll is looked at all the time."""


@correction
def histories_end() -> None:
    """AWS ends an execution whose history reaches 25,000 events, and no Catch sees it; moto lets it go on for ever."""

    def add_event(original: Any, self: Any, context: Any, *args: Any, **kwargs: Any) -> int:
        if getattr(self, "closed", False) or len(self._history_event_list) < HISTORY_LIMIT - 1:
            return int(original(self, context, *args, **kwargs))
        error = "States.Runtime"
        cause = f"The execution reached the maximum number of history events ({HISTORY_LIMIT})."
        details = ExecutionFailedEventDetails(error=error, cause=cause)
        last = original(
            self,
            context=context,
            event_type=HistoryEventType.ExecutionFailed,
            event_details=EventDetails(executionFailedEventDetails=details),
        )
        self.closed = True
        for execution in _executions():
            environment = execution.exec_worker.env
            if environment is not None and environment.event_manager is self:
                environment.set_error(details)
                for endpoint in list(environment.callback_pool_manager._pool.values()):
                    endpoint.interrupt_all()
        return int(last)

    around(EventManager, "add_event", add_event)


def _executions() -> list[Any]:
    return [
        execution
        for account in stepfunctions_parser_backends.values()
        for backend in account.values()
        for execution in backend._get_executions()
    ]


@correction
def task_tokens_carry_causes_and_are_checked() -> None:
    """AWS keeps the cause of SendTaskFailure, refuses output that is no JSON with InvalidOutput, and answers
    TaskTimedOut for a token of an execution that has ended; moto drops the cause, fails the state with States.Runtime,
    and answers InvalidToken."""

    def send_task_failure(self: Any) -> Any:
        token, error, cause = (self._get_param(name) for name in ("taskToken", "error", "cause"))
        _of_living_task(self, token, lambda: self.stepfunction_backend.send_task_failure(token, error, cause))
        return EmptyResult()

    def send_task_success(self: Any) -> Any:
        token, output = self._get_param("taskToken"), self._get_param("output")
        try:
            json.loads(output)
        except ValueError as error:
            raise AWSError(f"Invalid Output: '{error}'", "InvalidOutput") from error
        _of_living_task(self, token, lambda: self.stepfunction_backend.send_task_success(token, output))
        return EmptyResult()

    def send_task_heartbeat(self: Any) -> Any:
        token = self._get_param("taskToken")
        _of_living_task(self, token, lambda: self.stepfunction_backend.send_task_heartbeat(token))
        return EmptyResult()

    for function in (send_task_failure, send_task_success, send_task_heartbeat):
        replace(StepFunctionResponse, function.__name__, function)


def _of_living_task(response: Any, token: str, send: Callable[[], Any]) -> None:
    try:
        send()
    except Exception as error:
        for execution in response.stepfunction_backend._get_executions():
            if execution.exec_worker.env.callback_pool_manager.get(token) is not None:
                raise AWSError("Task Timed Out: 'Provided task does not exist anymore'", "TaskTimedOut") from error
        raise InvalidToken(f"'{token}'") from error


@correction
def ended_threads_are_forgotten() -> None:
    """Not a matter of AWS: moto keeps every thread that its interpreter ever started."""

    def terminated(original: Any, self: Any) -> None:
        original(self)
        parser_utils.TMP_THREADS[:] = [thread for thread in parser_utils.TMP_THREADS if thread.is_alive()]

    around(BaseExecutionWorkerCommunication, "terminated", terminated)
