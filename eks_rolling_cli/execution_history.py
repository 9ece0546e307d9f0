"""What an execution's history says: where it is and what holds it. Pure; events as `Executions.history` has them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eks_rolling import state_names
from eks_rolling.documents.failure import explain, read_json

Json = dict[str, Any]


Span = tuple[float, float]
"""From when to when, in epoch seconds."""

PAUSED = "the roll is paused"
"""How a step's reason begins while it holds because a pause was asked for (`eks_rolling.roll.operator_requests`)."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where an execution is. Times are epoch seconds, 0 for never; `reason` is why it waits, "" if it does not.

    `redis` is the Redis group that it migrates, with what is left to synchronize and how fast that goes, if known.
    """

    state: str = ""
    entered: float = 0.0
    reason: str = ""
    held_since: float = 0.0
    redis: str = ""
    bytes_left: int | None = None
    bytes_per_second: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Until a Redis server is in sync, at its current rate."""
        if self.bytes_left is None or not self.bytes_per_second:
            return None
        return self.bytes_left / self.bytes_per_second


@dataclass(frozen=True, slots=True)
class Wave:
    """Nodes that were begun together: instance -> node."""

    number: int
    began: float
    nodes: dict[str, str] = field(default_factory=dict)


def position(events: Iterable[Json]) -> Position:
    """Where the execution was at its last event."""
    state, entered, loop = "", 0.0, ""
    reason, held_since, done = "", 0.0, ""
    output: Json = {}
    for event in events:
        kind, when = event["type"], event["timestamp"]
        name = event.get("stateEnteredEventDetails", {}).get("name", "")
        if kind == "MapStateEntered":
            loop = name
        elif kind == "MapStateExited":
            loop = ""
        if name:
            # "Evict pods: wait" and "Evict pods: done?" belong to the step "Evict pods"; what happens within a Map
            # is in the executions that it starts.
            step = loop or state_names.step_of(name)
            if step != state:
                # What was done to a Redis group is told while it is looked at for what comes next.
                reason = done if step == state_names.INSPECT_REDIS else ""
                state, entered, held_since, output, done = step, when, when if reason else 0.0, {}, ""
        elif kind == "TaskStateExited" and not loop:
            answer = read_json(event["stateExitedEventDetails"].get("output", ""))
            output = answer.get("output") or {}
            told = str(answer.get("reason", ""))
            done = told if answer.get("status") == "done" and "switches" in output else ""
            said = told if answer.get("status") == "wait" else ""
            if said != reason:
                # Counting down is one hold, not many.
                same = without_numbers(said) == without_numbers(reason)
                reason, held_since = said, held_since if same and said else when
        elif kind == "TaskFailed" and not loop:
            fault = event["taskFailedEventDetails"]
            said = explain({"Error": fault.get("error"), "Cause": fault.get("cause")})
            reason, held_since = f"tried again after a fault: {said}", held_since or when
    if state == state_names.APPROVAL and not reason:
        reason, held_since = "there is no answer yet; `eks-rolling approve` or `eks-rolling refuse` gives one", entered
    return Position(
        state,
        entered,
        reason,
        held_since if reason else 0.0,
        str(output.get("redis", "")),
        output.get("bytes_left"),
        output.get("bytes_per_second"),
    )


def without_numbers(text: str) -> str:
    return "".join(c for c in text if not c.isdigit())


def pauses(events: Iterable[Json], until: float) -> list[Span]:
    """When the execution stood still because it was paused; a pause that has not ended lasts `until` now."""
    found: list[Span] = []
    since: float | None = None
    for event in events:
        if event["type"] != "TaskStateExited":
            continue
        answer = read_json(event["stateExitedEventDetails"].get("output", ""))
        held = answer.get("status") == "wait" and str(answer.get("reason", "")).startswith(PAUSED)
        if held and since is None:
            since = event["timestamp"]
        elif not held and since is not None:
            found.append((since, event["timestamp"]))
            since = None
    return found if since is None else [*found, (since, until)]


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same time, each moment once."""
    union: list[Span] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = union[-1][0], max(union[-1][1], end)
        else:
            union.append((start, end))
    return union


def answers(events: Iterable[Json], state: str) -> list[tuple[float, Json]]:
    """What a step answered each time it was called: when, and its JSON."""
    return [
        (event["timestamp"], read_json(event["stateExitedEventDetails"].get("output", "")))
        for event in events
        if event["type"] == "TaskStateExited" and event["stateExitedEventDetails"]["name"] == state
    ]


def held_lock(events: Iterable[Json]) -> bool:
    """Whether the roll has got the lock at some time, without which it changes nothing. It gives it back at its end,
    before it reports."""
    return any(answer.get("status") == "done" for _, answer in answers(events, state_names.TAKE_LOCK))


def plan_answer(events: Iterable[Json]) -> Json:
    """What the plan step answered last; {} before."""
    found = answers(events, state_names.PLAN)
    return found[-1][1] if found else {}


def waves(events: Iterable[Json]) -> tuple[Wave, ...]:
    """The waves that were begun."""
    picked = answers(events, state_names.SELECT_WAVE)
    begun = [(when, (answer.get("output") or {}).get("wave") or []) for when, answer in picked]
    return tuple(
        Wave(number, when, {n["instance"]: n["node"] for n in nodes})
        for number, (when, nodes) in enumerate(((w, n) for w, n in begun if n), start=1)
    )


def approval_token(events: Sequence[Json]) -> str:
    """The token of the task that waits for a person now; "" if none does."""
    token, waits = "", False
    for event in events:
        if event["type"] == "TaskStateEntered":
            waits = event["stateEnteredEventDetails"]["name"] == state_names.APPROVAL
        elif event["type"] in {"TaskStateExited", "TaskFailed", "TaskTimedOut", "ExecutionAborted"}:
            token = ""
        elif event["type"] == "TaskScheduled" and waits:
            given = read_json(event["taskScheduledEventDetails"].get("parameters", ""))
            token = str((given.get("Payload") or {}).get("token", ""))
    return token
