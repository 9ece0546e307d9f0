"""Corrections to how moto's interpreter runs a state machine's definition."""

import copy
import functools
import json
import logging
from datetime import datetime
from typing import Any, cast

from moto.stepfunctions.parser.api import (
    EvaluationFailedEventDetails,
    ExecutionFailedEventDetails,
    HistoryEventType,
)
from moto.stepfunctions.parser.asl.antlr.runtime.ASLLexer import ASLLexer
from moto.stepfunctions.parser.asl.antlt4utils.antlr4utils import is_terminal
from moto.stepfunctions.parser.asl.component.common.catch.catch_outcome import CatchOutcome
from moto.stepfunctions.parser.asl.component.common.error_name import custom_error_name
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.string.string_expression import (
    StringContextPath,
    StringJSONata,
    StringVariableSample,
)
from moto.stepfunctions.parser.asl.component.common.timeouts.heartbeat import HeartbeatSecondsJSONata
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import TimeoutSecondsJSONata
from moto.stepfunctions.parser.asl.component.eval_component import EvalComponent
from moto.stepfunctions.parser.asl.component.state.choice.state_choice import StateChoice
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration import iteration_worker
from moto.stepfunctions.parser.asl.component.state.exec.state_map.max_concurrency import MaxConcurrencyJSONata
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel import branches_decl
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.seconds import SecondsJSONata
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.states import States
from moto.stepfunctions.parser.asl.eval.variable_store import VariableStore
from moto.stepfunctions.parser.asl.parse import preprocessor
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str

from lab.aws.compat import jsonata
from lab.aws.compat.registry import around, correction, replace

LOG = logging.getLogger(__name__)
_MAX_SECONDS = 99_999_999


def evaluation_failed(env: Any, cause: str) -> Exception:
    """The States.QueryEvaluationError that AWS fails a state with, entered into the execution's history."""
    name = StatesErrorName(typ=StatesErrorNameType.StatesQueryEvaluationError)
    details = EvaluationFailedEventDetails(cause=cause, error=name.error_name)
    failure: Any = FailureEventException(
        FailureEvent(
            env=env,
            error_name=name,
            event_type=HistoryEventType.EvaluationFailed,
            event_details=EventDetails(evaluationFailedEventDetails=details),
        )
    )
    env.event_manager.add_event(
        context=env.event_history_context,
        event_type=HistoryEventType.EvaluationFailed,
        event_details=EventDetails(evaluationFailedEventDetails=failure.get_evaluation_failed_event_details()),
    )
    return cast(Exception, failure)


@correction
def jsonata_is_evaluated() -> None:
    """AWS evaluates JSONata; moto has no engine, and none for JSONPath's `$variable` either.

    AWS offers `$states.result` after a success and `$states.errorOutput` in a Catch, never both, and fails a state
    whose expression gives nothing at all. Variables are bound, not pasted into the expression: moto pastes them, so a
    value with a quotation mark breaks the next expression, and what stands between two divisions is taken for a
    regular expression.
    """

    def evaluate(env: Any, expression: str, variables: dict[str, Any]) -> Any:
        try:
            value = jsonata.evaluate(expression, variables)
        except jsonata.JsonataError as error:
            raise evaluation_failed(env, f"The JSONata expression '{expression}' threw an error: {error}") from error
        if value is jsonata.UNDEFINED:
            raise evaluation_failed(env, f"The JSONata expression '{expression}' returned nothing (undefined).")
        return value

    def eval_jsonata(self: Any, env: Any) -> None:
        names = jsonata.names_in(self.expression)
        variables = _assigned(env, names)
        if "states" in names:
            variables["states"] = _states(env)
        env.stack.append(evaluate(env, self.expression, variables))

    def eval_sample(self: Any, env: Any) -> None:
        env.stack.append(evaluate(env, self.expression, _assigned(env, jsonata.names_in(self.expression))))

    def set_result(self: Any, result: Any) -> None:
        # moto calls this with an error output too, right after having set it as such, and never unsets that.
        data = self._states_data
        failed = data.get("errorOutput") is not None and result == data["errorOutput"]
        data["result"], data["errorOutput"] = (None, result) if failed else (copy.deepcopy(result), None)

    replace(StringJSONata, "_eval_body", eval_jsonata)
    replace(StringVariableSample, "_eval_body", eval_sample)
    replace(States, "set_result", set_result)


def _assigned(env: Any, names: frozenset[str]) -> dict[str, Any]:
    store = env.variable_store
    scope = {**store._outer_scope, **store._inner_scope}
    return {name: scope[name] for name in names if name in scope}


def _states(env: Any) -> dict[str, Any]:
    data = env.states._states_data
    states = {"input": data["input"], "context": data["context"]}
    return states | {name: data[name] for name in ("result", "errorOutput") if data.get(name) is not None}


@correction
def assigned_variables_are_json() -> None:
    """AWS writes the variables that a state assigned into its history as JSON; moto puts bare quotes around text."""

    def get_assigned_variables(self: Any) -> dict[str, str]:
        return {name: to_json_str(self.get(name), separators=(",", ":")) for name in self._declaration_tracing}

    replace(VariableStore, "get_assigned_variables", get_assigned_variables)


@correction
def times_in_the_context_are_aws_times() -> None:
    """AWS writes Execution.StartTime and State.EnteredTime as `2025-01-31T12:00:00.000Z`; moto as Python does."""

    def get_context(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        _rewrite_times(self._states_data["context"])
        return original(self, *args, **kwargs)

    def eval_body(original: Any, self: Any, env: Any) -> None:
        _rewrite_times(env.states.context_object.context_object_data)
        original(self, env)

    around(States, "get_context", get_context)
    for expression in (StringJSONata, StringContextPath):
        around(expression, "_eval_body", eval_body)


def _rewrite_times(context: Any) -> None:
    for part, field in (("Execution", "StartTime"), ("State", "EnteredTime")):
        moment = (context.get(part) or {}).get(field)
        if isinstance(moment, datetime):
            context[part][field] = jsonata.aws_timestamp(moment)
        elif isinstance(moment, str) and not moment.endswith("Z"):
            context[part][field] = jsonata.aws_timestamp(datetime.fromisoformat(moment))


@correction
def seconds_and_concurrency_are_whole_numbers() -> None:
    """AWS takes only an integer from 0 to 99999999 out of JSONata for Seconds, TimeoutSeconds, HeartbeatSeconds and
    MaxConcurrency; moto cuts fractions off and reads text."""

    def whole(env: Any, expression: Any, field: str) -> int:
        expression.eval(env=env)
        value = env.stack.pop()
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_SECONDS:
            cause = f"The {field} field must be an integer from 0 to {_MAX_SECONDS}, but was: {to_json_str(value)}"
            raise evaluation_failed(env, cause)
        return value

    def reader(field: str) -> Any:
        return lambda self, env: whole(env, self.string_jsonata, field)

    replace(SecondsJSONata, "_get_wait_seconds", reader("Seconds"))
    replace(TimeoutSecondsJSONata, "_eval_seconds", reader("TimeoutSeconds"))
    replace(HeartbeatSecondsJSONata, "_eval_seconds", reader("HeartbeatSeconds"))
    replace(MaxConcurrencyJSONata, "_eval_max_concurrency", reader("MaxConcurrency"))


@correction
def choice_states_decide_as_aws_does() -> None:
    """AWS fails a Choice without Default where no rule matches with States.NoChoiceMatched, and evaluates the Choice's
    own Assign and Output only when Default is taken; moto says States.Runtime, and evaluates Default's Assign over that
    of a matching rule which leads to the same state."""

    def eval_state(self: Any, env: Any) -> None:
        for rule in self.choices_decl.rules:
            rule.eval(env)
            if env.stack.pop() is True:
                env.stack.append(rule.next_stmt.name)
                return
        if self.default_state is None:
            raise _execution_failed(env, StatesErrorNameType.StatesNoChoiceMatched, f"No rule of '{self.name}' matched")
        for part in (self.assign_decl, self.output):
            if part:
                part.eval(env=env)
        env.stack.append(self.default_state.state_name)

    def eval_state_output(self: Any, env: Any) -> None:
        env.next_state_name = env.stack.pop()
        if self.output_path:
            self.output_path.eval(env=env)

    replace(StateChoice, "_eval_state", eval_state)
    replace(StateChoice, "_eval_state_output", eval_state_output)


def _execution_failed(env: Any, error: Any, cause: str) -> Exception:
    name = StatesErrorName(typ=error)
    details = ExecutionFailedEventDetails(error=name.error_name, cause=cause)
    event = FailureEvent(
        env=env,
        error_name=name,
        event_type=HistoryEventType.ExecutionFailed,
        event_details=EventDetails(executionFailedEventDetails=details),
    )
    return cast(Exception, FailureEventException(event))


@correction
def states_errors_leave_maps_and_branches() -> None:
    """AWS lets a States.* error leave a Map iteration or a Parallel branch; moto allows only custom names there."""

    def any_name(error_name: str | None) -> Any:
        if error_name is not None and error_name.startswith(custom_error_name.ILLEGAL_CUSTOM_ERROR_PREFIX):
            return StatesErrorName.from_name(error_name)
        return custom_error_name.CustomErrorName(error_name)

    for module in (iteration_worker, branches_decl):
        replace(module, "CustomErrorName", any_name)


@correction
def runtime_errors_cannot_be_caught() -> None:
    """AWS matches neither States.Runtime nor States.DataLimitExceeded with States.ALL: the execution fails."""
    uncatchable = {
        StatesErrorNameType.StatesRuntime.to_name(),
        StatesErrorNameType.StatesStatesDataLimitExceeded.to_name(),
    }

    def eval_body(original: Any, self: Any, env: Any) -> None:
        name = env.stack[-1]
        original(self, env)
        if name is not None and name.error_name in uncatchable and name not in self.error_names:
            env.stack[-1] = False

    around(ErrorEqualsDecl, "_eval_body", eval_body)


@correction
def a_catch_may_lead_to_its_own_state() -> None:
    """AWS enters a state again whose Catch names the state itself; moto goes on to the state's Next."""

    def set_next(original: Any, self: Any, env: Any) -> None:
        if not (env.stack and env.stack[-1] is CatchOutcome.Caught):
            original(self, env)

    around(ExecutionState, "_set_next", set_next)


@correction
def the_map_item_is_seen_inside_the_iteration() -> None:
    """AWS shows `$states.context.Map.Item` to every state of an iteration; moto loses it inside Task states."""

    def as_inner_frame_of(original: Any, env: Any, *args: Any, **kwargs: Any) -> Any:
        frame = original(env, *args, **kwargs)
        outer = env.states.context_object.context_object_data
        if "Map" in outer:
            frame.states.context_object.context_object_data["Map"] = outer["Map"]
        return frame

    around(Environment, "as_inner_frame_of", as_inner_frame_of)


@correction
def definitions_are_json() -> None:
    """AWS reads a definition as JSON; moto leaves the escapes in some texts (variables' values, names), decodes others
    as Python would, and makes -1 a -1.0."""

    def decode(text: str) -> str:
        return str(json.loads(text)) if len(text) > 1 and text[0] == text[-1] == '"' else text

    def inner_string_of(parser_rule_context: Any) -> str | None:
        return None if is_terminal(parser_rule_context, ASLLexer.NULL) else decode(parser_rule_context.getText())

    def from_string_literal(parser_rule_context: Any) -> str:
        return decode(parser_rule_context.getText())

    def number(literal: Any) -> Any:
        return lambda _visitor, context: literal(value=json.loads(context.NUMBER().getText()))

    visitor = preprocessor.Preprocessor
    replace(visitor, "_inner_string_of", staticmethod(inner_string_of))
    replace(visitor, "visitAssign_template_value_terminal_float", number(preprocessor.AssignTemplateValueTerminalLit))
    replace(visitor, "visitJsonata_template_value_terminal_float", number(preprocessor.JSONataTemplateValueTerminalLit))
    replace(preprocessor, "from_string_literal", from_string_literal)


@correction
def definitions_are_parsed_once() -> None:
    """Not a matter of AWS: moto parses a definition for every execution, which costs more than running it."""

    @functools.lru_cache(maxsize=64)
    def parse(definition: str) -> Any:
        return original(definition)

    original = AmazonStateLanguageParser.parse
    replace(AmazonStateLanguageParser, "parse", staticmethod(parse))


@correction
def failures_are_not_printed_whole() -> None:
    """Not a matter of AWS: moto prints the whole state machine for every error that a state catches or retries."""

    def log(self: Any, **failure: Exception) -> None:
        LOG.debug("%s: %s", type(self).__name__, failure)

    replace(EvalComponent, "_log_failure_event_exception", log)
    replace(EvalComponent, "_log_exception", log)
