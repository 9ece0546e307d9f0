"""EventBridge: events of the account, matched against the deployed rules, delivered to their targets."""

import copy
import json
import logging
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.events.models import EventsBackend, Rule

from lab.aws import ACCOUNT_ID
from lab.aws.account import Account
from lab.aws.calls import Call, Gate
from lab.aws.compat.registry import around, replace
from lab.aws.faults import Faults
from lab.aws.lambdas import Lambdas

LOG = logging.getLogger(__name__)
_PLACEHOLDER = re.compile(r'"(?:\\.|[^"\\])*"|<([A-Za-z0-9_.-]+)>')
_IN_TEXT = re.compile(r"<([A-Za-z0-9_.-]+)>")

Json = Any


class EventBus:
    """The account's default bus. Events are delivered in the background, in order, as EventBridge does."""

    def __init__(self, account: Account, lambdas: Lambdas, faults: Faults, gate: Gate) -> None:
        self._account = account
        self._gate = gate
        self._lambdas = lambdas
        self._faults = faults
        self._waiting: queue.SimpleQueue[tuple[Any, Json]] = queue.SimpleQueue()
        threading.Thread(target=self._deliver_all, name="event-bus", daemon=True).start()

    def publish(self, source: str, detail_type: str, detail: Json, resources: list[str] | None = None) -> None:
        """Sends an event of an AWS service to every rule that its pattern matches."""
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": ACCOUNT_ID,
            "time": datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self._account.region,
            "resources": resources or [],
            "detail": detail,
        }
        for rule in list(self._account.events.event_buses["default"].rules.values()):
            self.offer(rule, event)

    def offer(self, rule: Any, event: Json) -> None:
        """Delivers the event to the rule's targets, if the rule is enabled, has a pattern, and the pattern matches."""
        if rule.state != "ENABLED" or not rule.event_pattern.get_pattern():
            return
        if rule.event_pattern.matches_event(event):
            for target in list(rule.targets):
                for _ in range(2 if self._faults.spec.duplicate_events else 1):
                    self._waiting.put((target, event))

    def _deliver_all(self) -> None:
        while True:
            target, event = self._waiting.get()
            try:
                self._deliver(target, event["id"], target_input(target, event))
            except Exception:
                LOG.exception("an event could not be delivered to %s", target["Arn"])

    def _deliver(self, target: Json, event_id: str, payload: str) -> None:
        arn = target["Arn"]
        match arn.split(":")[2]:
            case "states":
                self._may_start(target["RoleArn"], arn)
                # EventBridge's own form of a name, 73 characters long.
                self._account.states.start_execution(arn, f"{event_id}_{uuid.uuid4()}", payload)
            case "lambda":
                self._lambdas.invoke_later(arn, payload.encode())
            case "sns":
                self._account.sns.topics[arn].publish(payload)
            case service:
                raise ValueError(f"the lab's EventBridge delivers to states, lambda and sns, and not to {service}")

    def _may_start(self, role: str, machine: str) -> None:
        parameters = {"stateMachineArn": machine}
        refused = self._gate.refusal_of_role(role, "events", "states:StartExecution", parameters)
        error = "AccessDeniedException" if refused else None
        status = 403 if refused else 200
        self._gate.passed(Call(time.time(), "states", "StartExecution", role, parameters, status, error))
        if refused:
            raise PermissionError(refused)


def target_input(target: Json, event: Json) -> str:
    """What a target receives, as JSON: its constant Input, a part of the event, a filled-in template, or the event."""
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        return json.dumps(_at(event, target["InputPath"]))
    if transformer := target.get("InputTransformer"):
        values = {name: _at(event, path) for name, path in transformer.get("InputPathsMap", {}).items()}
        values |= {"aws.events.event": event, "aws.events.event.json": event}
        return _fill_in(transformer["InputTemplate"], values)
    return json.dumps(event)


def _at(event: Json, path: str) -> Json:
    """The value at a path like `$.detail.instance-id`; None where there is none."""
    value = event
    for part in re.findall(r"[^.\[\]]+", path.removeprefix("$")):
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _fill_in(template: str, values: dict[str, Json]) -> str:
    """Replaces `<name>`: by JSON where it stands alone, by the value's text inside a text."""

    def in_text(found: re.Match[str]) -> str:
        value = values.get(found[1])
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        return json.dumps(text)[1:-1]

    def fill(found: re.Match[str]) -> str:
        return _IN_TEXT.sub(in_text, found[0]) if found[1] is None else json.dumps(values.get(found[1]))

    return _PLACEHOLDER.sub(fill, template)


def install(bus: EventBus) -> None:
    """Lets PutEvents reach the same targets; moto knows neither Step Functions nor Lambda nor SNS there."""

    def send_to_targets(self: Any, original_event: Json, transform_input: bool = True) -> None:
        del transform_input
        event = copy.deepcopy(original_event)
        event.pop("ingestion-time", None)
        if not isinstance(event["time"], str):
            event["time"] = datetime.fromtimestamp(float(event["time"]), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        bus.offer(self, event)

    def put_events(original: Any, self: Any, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        refused = {
            "ErrorCode": "NotAuthorizedForSourceException",
            "ErrorMessage": "Not authorized for the source.",
        }
        return [
            dict(refused) if str(event.get("Source", "")).startswith("aws.") else original(self, [event])[0]
            for event in events
        ]

    replace(Rule, "send_to_targets", send_to_targets)
    around(EventsBackend, "put_events", put_events)


def execution_listener(bus: EventBus) -> Callable[[Any], None]:
    """Sends a Step Functions Execution Status Change event for each change that it is called with."""

    def changed(execution: Any) -> None:
        bus.publish(
            "aws.states",
            "Step Functions Execution Status Change",
            execution_detail(execution),
            resources=[execution.exec_arn],
        )

    return changed


def execution_detail(execution: Any) -> dict[str, Any]:
    """The detail of a status change event; times in milliseconds since the epoch, None for what is not there yet."""
    status = str(getattr(execution.exec_status, "value", execution.exec_status))
    succeeded, running = status == "SUCCEEDED", status == "RUNNING"
    return {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": status,
        "startDate": _milliseconds(execution.start_date),
        "stopDate": None if running else _milliseconds(execution.stop_date),
        "input": execution.execution_input,
        "output": json.dumps(execution.output, default=str) if succeeded else None,
        "stateMachineVersionArn": None,
        "stateMachineAliasArn": None,
        "redriveCount": 0,
        "redriveDate": None,
        "redriveStatus": "NOT_REDRIVABLE",
        "inputDetails": {"included": True},
        "outputDetails": {"included": True} if succeeded else None,
        "error": execution.error,
        "cause": execution.cause,
    }


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
