"""Runs the synthesized state machines on the in-memory world, as far as they use the Amazon States Language.

Executions are generators that yield how long they sleep, so that nodes rolled in parallel interleave and time moves
only where everybody waits. A function that is killed fails with Runtime.ExitError, as on Lambda, and the definition's
own Retry and Catch decide what follows.
"""

import hashlib
import heapq
import importlib
import json
import random
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import jsonata
from jsonata.utils import Utils

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Transient
from eks_rolling.runtime import Handler, parse
from tests.assembly import Assembly
from tests.world import InvariantBroken, Killed, World

Run = Generator[float, None, Any]


class StateFault(Exception):
    """An error as a state sees it."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error, cause


class HistoryFull(Exception):
    """The execution's history has reached the events that it may have: Step Functions ends it, and no Catch sees it."""


HISTORY_LIMIT = 25_000
PAYLOAD_LIMIT = 262_144
"""Events of a history, bytes of a payload (Step Functions quotas)."""


NAME = r"[A-Za-z0-9_-]{1,80}"
"""An execution's name, of the characters that nothing forbids or breaks (API reference, StartExecution)."""


class Stopped(Exception):
    """The execution was stopped from outside: no Catch sees it."""


@dataclass
class Execution:
    """One run of a machine."""

    machine: str
    name: str
    input: Any
    status: str = "RUNNING"
    output: Any = None
    error: str = ""
    cause: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    visited: list[str] = field(default_factory=list)
    history_events: int = 0
    """How many events Step Functions would have written, which are more than `events` keeps."""

    def writes(self, events: int) -> None:
        self.history_events += events
        if self.history_events >= HISTORY_LIMIT:
            raise HistoryFull

    @property
    def arn(self) -> str:
        return f"execution:{self.machine}:{self.name}"


class Engine:
    """Step Functions and Lambda for the world. `shuffle` seeds the order in which parallel executions take turns."""

    def __init__(self, assembly: Assembly, world: World, clients: Clients, shuffle: int | None = None) -> None:
        self.assembly = assembly
        self.definitions = {machine: assembly.definition(machine) for machine in ("roll", "node", "restore")}
        self.world = world
        self.clients = clients
        self.executions: list[Execution] = []
        self.beside: list[Execution] = []
        """Those that others started and do not wait for."""
        self.kills_stop_execution = False
        self.refusal: tuple[str, str] | None = None
        """Error and cause with which a person answers, or Step Functions for one who does not."""
        self.before_call: Callable[[str], None] = lambda _: None
        """Called with a step's name before every invocation."""
        self._random = random.Random(shuffle) if shuffle is not None else None
        self._queue: list[tuple[float, float, int, Run]] = []
        self._order = count()

    # Running

    def run(self, machine: str, name: str, request: Any, *, limit_seconds: float = 20_000) -> Execution:
        """Runs an execution to its end, and others that were started meanwhile as far as they come.

        Raises Stopped when a kill stops it, InvariantBroken, TimeoutError.
        """
        execution = self.start(machine, name, request)
        self.follow(execution, limit_seconds=limit_seconds)
        return execution

    def start(self, machine: str, name: str, request: Any, *, after: float = 0) -> Execution:
        """Starts an execution, `after` so many seconds; `follow` runs it."""
        execution = Execution(machine, name, request)
        self._push(self._execute(execution), after)
        return execution

    def stop(self) -> None:
        """Stops every execution from outside. A function that is at work for one of them goes on."""
        self._queue.clear()
        for execution in self.executions:
            if execution.status == "RUNNING":
                self._abort(execution, "stopped from outside")

    def _abort(self, execution: Execution, cause: str) -> None:
        execution.status = "ABORTED"
        event = {"type": "ExecutionAborted", "timestamp": self.world.time}
        execution.events.append(event | {"executionAbortedEventDetails": {"cause": cause}})

    def let_pass(self, seconds: float) -> None:
        """Lets so much time pass, and whatever is due run."""
        end = self.world.time + seconds
        while self._queue and self._queue[0][0] <= end:
            when, _, _, run = heapq.heappop(self._queue)
            self.world.advance(max(0.0, when - self.world.time))
            try:
                self._push(run, next(run))
            except StopIteration:
                continue
        self.world.advance(max(0.0, end - self.world.time))

    def follow(self, execution: Execution, *, limit_seconds: float = 20_000) -> None:
        """Lets time pass until the execution has ended. Raises as `run` does."""
        deadline = self.world.time + limit_seconds
        while execution.status == "RUNNING":
            if not self._queue:
                raise AssertionError("nothing is left to run, and the execution has not ended")
            when, _, _, run = heapq.heappop(self._queue)
            if when > self.world.time:
                self.world.advance(when - self.world.time)
            if self.world.time > deadline:
                raise TimeoutError(f"{execution.arn} did not end; last states: {execution.visited[-5:]}")
            try:
                delay = next(run)
            except StopIteration:
                continue
            except Killed as killed:
                self._queue.clear()
                self._abort(execution, "stopped in the middle")
                raise Stopped(str(killed)) from killed
            if execution.status == "ABORTED":
                raise Stopped("while a function was at work for it")
            self._push(run, delay)

    def _push(self, run: Run, delay: float) -> None:
        tie = self._random.random() if self._random else 0.0
        heapq.heappush(self._queue, (self.world.time + delay, tie, next(self._order), run))

    def _execute(self, execution: Execution) -> Run:
        self.executions.append(execution)
        self.world.histories[execution.arn] = execution.events
        context = {
            "Execution": {
                "Id": execution.arn,
                "Name": execution.name,
                "Input": execution.input,
                "StartTime": f"T+{self.world.time:.0f}",
            }
        }
        scope = Scope(context)
        try:
            execution.output = yield from self._states(
                self.definitions[execution.machine], execution.input, scope, execution
            )
            execution.status = "SUCCEEDED"
        except StateFault as fault:
            execution.status, execution.error, execution.cause = "FAILED", fault.error, fault.cause
        except HistoryFull:
            cause = f"The execution reached the maximum number of history events ({HISTORY_LIMIT})."
            execution.status, execution.error, execution.cause = "FAILED", "States.Runtime", cause

    def _states(self, machine: Mapping[str, Any], given: Any, scope: "Scope", execution: Execution) -> Run:
        name = machine["StartAt"]
        while True:
            state = machine["States"][name]
            execution.visited.append(name)
            execution.writes(2)  # entered and exited
            given, following = yield from self._state(name, state, given, scope, execution)
            if execution.status == "ABORTED":
                raise Stopped("while a function was at work for it")
            if following is None:
                return given
            name = following

    def _state(self, name: str, state: Mapping[str, Any], given: Any, scope: "Scope", execution: Execution) -> Run:
        here = {"input": given, "context": scope.context}
        match state["Type"]:
            case "Pass":
                output = scope.evaluate(state["Output"], here) if "Output" in state else given
                scope.assign(state.get("Assign"), here)
                return output, state.get("Next")
            case "Wait":
                yield float(scope.evaluate(state["Seconds"], here))
                return given, state["Next"]
            case "Choice":
                for choice in state["Choices"]:
                    if scope.evaluate(choice["Condition"], here):
                        scope.assign(choice.get("Assign"), here)
                        return given, choice["Next"]
                return given, state["Default"]
            case "Succeed":
                return given, None
            case "Fail":
                raise StateFault(str(scope.evaluate(state["Error"], here)), str(scope.evaluate(state["Cause"], here)))
            case "Map":
                return (yield from self._map(state, here, scope, execution))
            case "Task":
                return (yield from self._task(name, state, here, scope, execution))
            case other:
                raise AssertionError(f"the interpreter knows no {other} state")

    def _map(self, state: Mapping[str, Any], here: dict[str, Any], scope: "Scope", execution: Execution) -> Run:
        items = scope.evaluate(state["Items"], here)
        limit = int(scope.evaluate(state["MaxConcurrency"], here))
        results: list[Any] = [None] * len(items)
        waiting = list(enumerate(items))
        running = 0

        full: list[HistoryFull] = []

        def iterate(index: int, item: Any) -> Run:
            nonlocal running
            try:
                execution.writes(2)  # its iteration started and succeeded
                results[index] = yield from self._states(
                    state["ItemProcessor"], item, Scope(scope.context, scope), execution
                )
            except HistoryFull as fault:
                full.append(fault)
            running -= 1

        execution.writes(2)  # the Map started and succeeded
        while waiting or running:
            while waiting and running < limit:
                running += 1
                self._push(iterate(*waiting.pop(0)), 0)
            yield self.world.tick_seconds
            if full:
                raise full[0]
        here["result"] = results
        scope.assign(state.get("Assign"), here)
        return scope.evaluate(state["Output"], here), state["Next"]

    def _task(
        self, name: str, state: Mapping[str, Any], here: dict[str, Any], scope: "Scope", execution: Execution
    ) -> Run:
        execution.events.append(
            {
                "type": "TaskStateEntered",
                "timestamp": self.world.time,
                "stateEnteredEventDetails": {"name": name, "input": json.dumps(here["input"])},
            }
        )
        try:
            here["result"] = yield from self._retried(state, here, scope, execution)
        except StateFault as fault:
            # A timeout comes without a cause.
            here["errorOutput"] = {"Error": fault.error} | ({"Cause": fault.cause} if fault.cause else {})
            for catch in state.get("Catch", ()):
                if _names(catch["ErrorEquals"], fault.error):
                    output = scope.evaluate(catch["Output"], here) if "Output" in catch else here["errorOutput"]
                    scope.assign(catch.get("Assign"), here)
                    return output, catch["Next"]
            raise
        output = scope.evaluate(state["Output"], here) if "Output" in state else here["result"]
        scope.assign(state.get("Assign"), here)
        execution.events.append(
            {
                "type": "TaskStateExited",
                "timestamp": self.world.time,
                "stateExitedEventDetails": {"name": name, "output": json.dumps(output)},
            }
        )
        return output, state.get("Next")

    def _retried(self, state: Mapping[str, Any], here: dict[str, Any], scope: "Scope", execution: Execution) -> Run:
        attempts: dict[int, int] = {}
        while True:
            arguments = scope.evaluate(state["Arguments"], {**here, "context": {**scope.context, "Task": TOKEN}})
            # Scheduled, started, succeeded or failed; a nested execution is submitted as well.
            execution.writes(4 if "startExecution" in state["Resource"] else 3)
            try:
                return (yield from self._call(state["Resource"], arguments))
            except StateFault as fault:
                index, retry = next(
                    ((i, r) for i, r in enumerate(state.get("Retry", ())) if _names(r["ErrorEquals"], fault.error)),
                    (-1, None),
                )
                if retry is None or attempts.get(index, 0) >= retry["MaxAttempts"]:
                    raise
                done = attempts[index] = attempts.get(index, 0) + 1
                yield min(retry["IntervalSeconds"] * retry["BackoffRate"] ** (done - 1), retry["MaxDelaySeconds"])

    def _call(self, resource: str, arguments: Mapping[str, Any]) -> Run:
        service = resource.rpartition(":::")[2]
        if service.startswith("lambda:invoke"):
            payload = self.invoke(arguments["FunctionName"].removeprefix("step:"), arguments["Payload"])
            if service.endswith("waitForTaskToken"):
                if self.refusal:
                    raise StateFault(*self.refusal)
                return {"approved_by": "ana"}
            return {"Payload": payload}
        if service == "states:startExecution":
            return self._start_beside(re.split("[:-]", arguments["StateMachineArn"])[-1], arguments)
        if service.startswith("states:startExecution"):
            machine = re.split("[:-]", arguments["StateMachineArn"])[-1]
            child = Execution(machine, self._free(machine, arguments["Name"], self.executions), arguments["Input"])
            yield from self._execute(child)
            if child.status != "SUCCEEDED":
                document = {"Status": child.status, "Error": child.error, "Cause": child.cause}
                raise StateFault("States.TaskFailed", json.dumps(document))
            return {"Output": child.output}
        raise AssertionError(f"the interpreter knows no {resource}")

    def _start_beside(self, machine: str, arguments: Mapping[str, Any]) -> dict[str, str]:
        """An execution that nobody waits for. The same name and input of one that runs answers for it."""
        name = self._free(machine, arguments["Name"], self.beside)
        there = next((e for e in self.beside if (e.machine, e.name) == (machine, name)), None)
        if there is None:
            there = self.start(machine, name, arguments["Input"])
            self.beside.append(there)
        return {"ExecutionArn": there.arn}

    @staticmethod
    def _free(machine: str, name: str, known: Sequence[Execution]) -> str:
        """A name that a machine takes: 80 characters, and none that one has which has ended (API reference,
        StartExecution)."""
        if re.fullmatch(NAME, name) is None:
            raise StateFault("StepFunctions.InvalidNameException", f"Invalid Name: '{name}'")
        if any((e.machine, e.name) == (machine, name) and e.status != "RUNNING" for e in known):
            raise StateFault("StepFunctions.ExecutionAlreadyExistsException", f"Execution Already Exists: '{name}'")
        return name

    def invoke(self, step: str, event: dict[str, Any]) -> Any:
        """Calls a step as Lambda does, with the world as its clients."""
        self.before_call(step)
        handler: Handler[Any] = importlib.import_module(f"eks_rolling.steps.{step}").handler
        try:
            # Payloads cross as JSON.
            task = parse(json.loads(_payload(event)), handler.task_type)
            return json.loads(_payload(handler.run(task, self.clients).model_dump(mode="json")))
        except Killed:
            self.world.kill_after = None
            if self.kills_stop_execution:
                raise
            raise StateFault("Runtime.ExitError", "the process was killed") from None
        except (InvariantBroken, StateFault):
            raise
        except Exception as error:
            kind = Transient.__name__ if isinstance(error, Transient) else type(error).__name__
            cause = json.dumps({"errorType": kind, "errorMessage": str(error)})
            raise StateFault(kind, cause) from error


TERMINAL = frozenset({"States.DataLimitExceeded", "States.Runtime"})
"""What States.ALL does not catch (Step Functions developer guide, error names)."""


def _names(errors: Sequence[str], error: str) -> bool:
    return error in errors or ("States.ALL" in errors and error not in TERMINAL)


def _payload(value: Any) -> str:
    """The value as it crosses. Raises StateFault where it is larger than Step Functions lets pass."""
    text = json.dumps(value)
    if len(text.encode()) > PAYLOAD_LIMIT:
        raise StateFault("States.DataLimitExceeded", f"a payload of {len(text)} bytes")
    return text


TOKEN = {"Token": "token"}


class Scope:
    """Variables of an execution; a Map's iteration sees its parent's and writes its own."""

    def __init__(self, context: Mapping[str, Any], parent: "Scope | None" = None) -> None:
        self.context = context
        self._parent = parent
        self._variables: dict[str, Any] = {}

    @property
    def variables(self) -> dict[str, Any]:
        return (self._parent.variables if self._parent else {}) | self._variables

    def assign(self, assignments: Mapping[str, Any] | None, here: Mapping[str, Any]) -> None:
        """All at once, as the language has it: no assignment sees another of the same state."""
        if assignments:
            assigned = {name: self.evaluate(value, here) for name, value in assignments.items()}
            # All of a state's together may be as large as a payload (Step Functions quotas).
            _payload(assigned)
            self._variables |= assigned

    def evaluate(self, value: Any, here: Mapping[str, Any]) -> Any:
        """A value with every JSONata string in it evaluated. Undefined results are an error, as on Step Functions."""
        if isinstance(value, Mapping):
            return {key: self.evaluate(item, here) for key, item in value.items()}
        if isinstance(value, list):
            return [self.evaluate(item, here) for item in value]
        if isinstance(value, str) and value.startswith("{%"):
            return self._expression(value[2:-2].strip(), here)
        return value

    def _expression(self, text: str, here: Mapping[str, Any]) -> Any:
        variables = self.variables | {"states": here}
        with suppress(KeyError):
            return _plain(text, variables)
        expression = _parsed(text)
        frame = expression.create_frame()
        for name, value in variables.items():
            if f"${name}" in text:
                frame.bind(name, _nulls_in(value))
        result = expression.evaluate(None, frame)
        if result is None:
            raise StateFault("States.QueryEvaluationError", f"{text} returned nothing (undefined)")
        return _nulls_out(result)


PATH = r"\$\w+(?:\.\w+)*"
PLAIN = re.compile(
    rf"(?P<path>{PATH})|(?P<null>null)|(?P<compared>{PATH}) = '(?P<word>[^'\\]*)'|\$exists\((?P<wanted>{PATH})\)"
)


def _plain(text: str, variables: Mapping[str, Any]) -> Any:
    """Nearly all evaluations are of a path, of whether it is there or is a word, and of a choice by that. These need no
    engine, which takes many times as long; `tests/model/test_expressions.py` judges them as all others.

    Raises KeyError where it is anything else, or something is missing.
    """
    whether, choice, parts = text.partition(" ? ")
    if choice:
        then, _, otherwise = parts.partition(" : ")
        chosen = _plain(whether, variables)
        if not isinstance(chosen, bool):
            raise KeyError(text)
        return _plain(then if chosen else otherwise, variables)
    if (found := PLAIN.fullmatch(text)) is None:
        raise KeyError(text)
    if path := found["path"]:
        return _at(path, variables)
    if found["null"]:
        return None
    if wanted := found["wanted"]:
        _at(wanted, variables)
        return True
    return bool(_at(found["compared"], variables) == found["word"])


def _at(path: str, variables: Any) -> Any:
    for name in path[1:].split("."):
        if not isinstance(variables, dict):
            raise KeyError(name)
        variables = variables[name]
    return variables


@cache
def _parsed(text: str) -> jsonata.Jsonata:
    expression = jsonata.Jsonata(text)
    # None is the library's undefined; JSON's null has a value of its own.
    expression.set_output_convert_nulls(False)
    # Step Functions' own (developer guide, "Transforming data with JSONata").
    expression.register_lambda("hash", _hash)
    return expression


def _hash(text: str, algorithm: str) -> str:
    return hashlib.new(algorithm.replace("-", ""), text.encode()).hexdigest()


def _nulls_in(value: Any) -> Any:
    match value:
        case None:
            return Utils.NULL_VALUE
        case dict():
            return {key: _nulls_in(item) for key, item in value.items()}
        case list() | tuple():
            return [_nulls_in(item) for item in value]
    return value


def _nulls_out(value: Any) -> Any:
    if value is Utils.NULL_VALUE:
        return None
    if isinstance(value, dict):
        return {key: _nulls_out(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nulls_out(item) for item in value]
    return value
