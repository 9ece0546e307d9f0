"""Histories as `Executions.history` has them, made by hand in the order in which Step Functions writes them."""

import json
from typing import Any

Json = dict[str, Any]


class History:
    """Events one after another; the clock is moved by hand. Seconds are epoch seconds."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at
        self.events: list[Json] = []

    def add(self, kind: str, **details: Any) -> "History":
        self.events.append({"id": len(self.events) + 1, "type": kind, "timestamp": self.at, **details})
        return self

    def later(self, seconds: float) -> "History":
        self.at += seconds
        return self

    def enter(self, kind: str, name: str) -> "History":
        return self.add(f"{kind}StateEntered", stateEnteredEventDetails={"name": name})

    def call(self, step: str, answer: Json, *, seconds: float = 0.5) -> "History":
        """A task that is entered, called and left with an answer."""
        self.enter("Task", step).add("TaskScheduled", taskScheduledEventDetails={"parameters": "{}"})
        self.later(seconds)
        details = {"name": step, "output": json.dumps(answer)}
        return self.add("TaskSucceeded").add("TaskStateExited", stateExitedEventDetails=details)

    def wait(self, step: str, reason: str, *, seconds: float = 5, **output: Any) -> "History":
        """One look of a step that waits, and the wait."""
        answer = {"status": "wait", "reason": reason, "wait_seconds": seconds, "output": output}
        self.call(step, answer).enter("Choice", f"{step}: done?").enter("Wait", f"{step}: wait")
        return self.later(seconds)

    def done(self, step: str, reason: str = "", **output: Any) -> "History":
        self.call(step, {"status": "done", "reason": reason, "output": output})
        return self.enter("Choice", f"{step}: done?")

    def fault(self, cause: str, error: str = "Transient") -> "History":
        """The call at hand fails, and is tried again."""
        told = json.dumps({"errorMessage": cause, "errorType": error})
        return self.add("TaskFailed", taskFailedEventDetails={"error": error, "cause": told})


def planned(*nodes: str, surge: int = 2) -> History:
    """A roll whose plan names these instances."""
    history = History().enter("Pass", "Read the request")
    return history.done(
        "Plan the roll",
        f"{len(nodes)} outdated nodes will be replaced",
        outcome="roll",
        nodes=list(nodes),
        surge=surge,
    )


def begun(history: History, *waves: dict[str, str]) -> History:
    """Waves, instance -> node, each entered but the last one through its gate as well."""
    for number, wave in enumerate(waves):
        if number:
            history.add("MapStateExited", stateExitedEventDetails={"name": "Replace nodes"})
            history.done("Open the gate to the next wave", "the wave is healthy")
        nodes = [{"instance": i, "node": n, "group": "workers"} for i, n in wave.items()]
        history.done("Pick the next nodes", f"wave {number + 1}", wave=nodes, left=len(nodes))
        history.enter("Choice", "Is any node left?").enter("Map", "Replace nodes")
        for _ in wave:
            history.enter("Task", "Replace node")
    return history
