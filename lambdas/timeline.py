"""What an execution did and waited for, read from its history: the only record of a roll's times."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class Hold:
    """A stretch of time in which a step gave the same reason to wait."""

    reason: str
    since: float
    seconds: float = 0.0


@dataclass(slots=True)
class StepTime:
    """One step, from its entry to the exit after which another step began. Times are epoch seconds."""

    name: str
    started: float
    ended: float
    looks: int = 0
    holds: list[Hold] = field(default_factory=list)
    last: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As the report keeps it."""
        return {
            "name": self.name,
            "started": self.started,
            "ended": self.ended,
            "looks": self.looks,
            "result": self.last,
            "redis": next((o["redis"] for o in self.outputs if o.get("redis")), ""),
            "holds": [asdict(h) for h in self.holds],
        }


def steps_of(history: Iterable[dict[str, Any]]) -> list[StepTime]:
    """The steps of an execution in their order, their waiting looks folded into holds. One that came again after others
    is there again.

    `history` is GetExecutionHistory's events, oldest first. A step's answers are the outputs of its Task state.
    """
    steps: list[StepTime] = []
    for event in history:
        kind, when = event["type"], _seconds(event["timestamp"])
        if kind == "TaskStateEntered":
            name = event["stateEnteredEventDetails"]["name"]
            if not steps or steps[-1].name != name:
                steps.append(StepTime(name, when, when))
            _close_hold(steps[-1], when)
        elif kind == "TaskStateExited":
            details = event["stateExitedEventDetails"]
            step = next(s for s in reversed(steps) if s.name == details["name"])
            step.ended = when
            step.looks += 1
            _note(step, _answer(details.get("output", "")), when)
    # A step without an answer is the one that reads this.
    return [step for step in steps if step.looks]


def _note(step: StepTime, answer: dict[str, Any], when: float) -> None:
    step.last = answer.get("reason", "")
    step.outputs.append(answer.get("output") or {})
    if answer.get("status") == "wait" and (not step.holds or step.holds[-1].reason != step.last):
        step.holds.append(Hold(step.last, when))


def _close_hold(step: StepTime, when: float) -> None:
    if step.holds:
        step.holds[-1].seconds = when - step.holds[-1].since


def _answer(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _seconds(timestamp: datetime | float) -> float:
    return timestamp.timestamp() if isinstance(timestamp, datetime) else float(timestamp)


def explain(failure: dict[str, Any] | None) -> str:
    """A state's error output as one sentence: what a function raised, or what a child execution ended with."""
    if not failure:
        return ""
    error, cause = str(failure.get("Error") or "error"), str(failure.get("Cause") or "")
    document = _answer(cause)
    if "errorMessage" in document:
        kind = document.get("errorType", error)
        return document["errorMessage"] if kind != error or error in _OURS else f"{kind}: {document['errorMessage']}"
    if "Cause" in document:
        return explain({"Error": document.get("Error"), "Cause": document["Cause"]})
    return cause if error in _OURS and cause else f"{error}: {cause}" if cause else error


_OURS = frozenset(
    {
        "AccessDenied",
        "BadRequest",
        "DeadlineExceeded",
        "LockLost",
        "NotFound",
        "Permanent",
        "Refused",
        "Transient",
    }
)
