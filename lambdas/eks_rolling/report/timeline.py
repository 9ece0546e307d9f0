"""What an execution did and waited for, read from its history: the only record of a roll's times."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from eks_rolling import state_names
from eks_rolling.documents.failure import error_of, explain, read_json
from eks_rolling.documents.report import (
    BudgetLine,
    BudgetLook,
    Capacity,
    Failover,
    HoldRecord,
    NodeEnding,
    Refusal,
    StepCalls,
    StepRecord,
)
from eks_rolling.errors import Aborted, NotBegun
from eks_rolling.payloads import HoldKind

KINDS: Mapping[str, HoldKind] = {
    state_names.RECEIVE_CHANGE: HoldKind.OTHER,
    state_names.APPROVAL: HoldKind.PERSON,
    state_names.TAKE_LOCK: HoldKind.LOCK,
    state_names.REHEARSE: HoldKind.OTHER,
    state_names.PAUSE: HoldKind.OTHER,
    state_names.TAINT: HoldKind.OTHER,
    state_names.REPLACE_UNJOINED: HoldKind.INSTANCE,
    state_names.FINISH_DEAD_MIGRATIONS: HoldKind.REDIS,
    state_names.FINISH_MIGRATIONS: HoldKind.REDIS,
    state_names.GATE: HoldKind.GATE,
    state_names.RESTORE: HoldKind.ENDING,
    state_names.LAUNCH: HoldKind.INSTANCE,
    state_names.AWAIT_READY: HoldKind.INSTANCE,
    state_names.CLOSE_NODE: HoldKind.OTHER,
    state_names.INSPECT_REDIS: HoldKind.REDIS,
    state_names.LEAVE_LOAD_BALANCERS: HoldKind.TRAFFIC,
    state_names.EVICT: HoldKind.PODS,
    state_names.AWAIT_LOAD_BALANCERS: HoldKind.TRAFFIC,
    state_names.AWAIT_VOLUMES: HoldKind.VOLUMES,
    state_names.TERMINATE: HoldKind.ENDING,
}
"""What each state waits for, unless its answer says otherwise (`kind`) or names a Redis group."""

AROUND_A_NODE = frozenset({state_names.HOOKS_BEFORE_NODE, state_names.HOOKS_AFTER_NODE, state_names.RECORD})
"""States of a node's execution that are no part of its replacement."""

FAULTS = frozenset({"TaskFailed", "TaskTimedOut", "TaskSubmitFailed", "TaskStartFailed"})
"""History events of a call that failed, whether it was tried again or not."""


@dataclass(slots=True)
class StepAnswer:
    """What a step answered at one look, and when."""

    at: float
    reason: str = ""
    output: dict[str, Any] = field(default_factory=dict)
    calls: tuple[str, ...] = ()


@dataclass(slots=True)
class Waiting:
    """A hold that has not ended."""

    reason: str
    since: float
    kind: HoldKind
    seconds: float = 0.0


@dataclass(slots=True)
class StepTime:
    """One step, from its entry to the exit after which another step began. Times are epoch seconds."""

    name: str
    started: float
    ended: float
    faults: int = 0
    holds: list[Waiting] = field(default_factory=list)
    answers: list[StepAnswer] = field(default_factory=list)

    @property
    def last(self) -> str:
        return self.answers[-1].reason if self.answers else ""

    @property
    def redis(self) -> str:
        """The Redis group that it worked on, if any."""
        return next((str(a.output["redis"]) for a in self.answers if a.output.get("redis")), "")

    def summary(self) -> StepRecord:
        """As the report keeps it."""
        return StepRecord(
            name=self.name,
            started=self.started,
            ended=self.ended,
            looks=len(self.answers),
            result=self.last,
            redis=self.redis,
            faults=self.faults,
            holds=tuple(HoldRecord(reason=h.reason, since=h.since, seconds=h.seconds, kind=h.kind) for h in self.holds),
        )


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
            _note(step, read_json(details.get("output", "")), when)
        elif kind in FAULTS and steps:
            steps[-1].faults += 1
            steps[-1].ended = when
    # A step that neither answered nor failed is the one that reads this.
    return [step for step in steps if step.answers or step.faults]


def node_ending(failure: Mapping[str, Any] | None, steps: Iterable[StepTime]) -> NodeEnding:
    """What became of a node whose execution ended with this failure, if with any, after these steps."""
    error = error_of(failure)
    if error not in {Aborted.__name__, NotBegun.__name__}:
        return NodeEnding.FAILED if failure else NodeEnding.REPLACED
    work = work_of(steps)
    if not any(map(_begins, work)):
        return NodeEnding.NOT_BEGUN
    if any(answer.output.get("terminating") for _, answer in _answers(work)):
        # The request came while its instance was on its way out.
        return NodeEnding.REPLACED
    return NodeEnding.ABORTED if error == Aborted.__name__ else NodeEnding.FAILED


def work_of(steps: Iterable[StepTime]) -> list[StepTime]:
    """The steps that replace a node, without what is asked and written down before and after them."""
    return [s for s in steps if s.name not in AROUND_A_NODE]


def _begins(step: StepTime) -> bool:
    """Whether it may have asked for something: a call whose answer was lost may have, and the last one was refused."""
    return step.name != state_names.LAUNCH or step.faults > 1 or any(a.output.get("requested") for a in step.answers)


def ending_of(history: Iterable[dict[str, Any]]) -> str:
    """Why an execution ended that could not say so itself, as a sentence; "" for one that has not ended."""
    for event in history:
        if event["type"] == "ExecutionAborted":
            cause = event.get("executionAbortedEventDetails", {}).get("cause", "")
            return f"The roll's execution was stopped{': ' + cause if cause else ''}."
        if event["type"] == "ExecutionTimedOut":
            return "The roll's execution took longer than its deadline."
        if event["type"] == "ExecutionFailed":
            details = event.get("executionFailedEventDetails", {})
            return explain({"Error": details.get("error"), "Cause": details.get("cause")})
    return ""


def approver_of(history: Iterable[dict[str, Any]]) -> str:
    """Who approved the roll; "" if no approval was needed or given."""
    for event in history:
        details = event.get("stateExitedEventDetails", {})
        if event["type"] == "TaskStateExited" and details["name"] == state_names.APPROVAL:
            answer = read_json(details.get("output", ""))
            if "Error" not in answer:
                return str(answer.get("approved_by") or "someone who gave no name")
    return ""


def begun_of(history: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The nodes for which a roll started an execution, instance -> node: of a wave only as many as its surge."""
    entered = (e["stateEnteredEventDetails"] for e in history if e["type"] == "TaskStateEntered")
    nodes = [read_json(d.get("input", "")) for d in entered if d["name"] == state_names.REPLACE_NODE]
    return {str(node["instance"]): str(node.get("node", "")) for node in nodes if "instance" in node}


def _note(step: StepTime, answer: dict[str, Any], when: float) -> None:
    output = answer.get("output")
    reason = str(answer["reason"]) if "reason" in answer else explain(answer) if "Error" in answer else ""
    step.answers.append(StepAnswer(when, reason, output if isinstance(output, dict) else {}, _calls_in(answer)))
    if answer.get("status") == "wait" and (not step.holds or step.holds[-1].reason != step.last):
        step.holds.append(Waiting(step.last, when, _kind(step, step.answers[-1])))


def _calls_in(answer: dict[str, Any]) -> tuple[str, ...]:
    calls = answer.get("calls")
    return tuple(str(call) for call in calls) if isinstance(calls, list) else ()


def _kind(step: StepTime, answer: StepAnswer) -> HoldKind:
    said = answer.output.get("kind")
    if said in set(HoldKind):
        return HoldKind(said)
    return KINDS.get(step.name, HoldKind.REDIS if answer.output.get("redis") else HoldKind.OTHER)


def _close_hold(step: StepTime, when: float) -> None:
    if step.holds:
        step.holds[-1].seconds = when - step.holds[-1].since


# What the steps saw on their way, out of their answers.


def failovers(steps: Iterable[StepTime], node: str = "") -> tuple[Failover, ...]:
    """The switches of masters that steps did or tried, with the stalls that they measured."""
    return tuple(
        Failover(
            at=answer.at,
            group=str(each.get("group") or step.redis),
            node=node,
            step=step.name,
            reason=answer.reason,
            stalled_ms=each.get("stalled_ms"),
            completed=bool(each.get("completed")),
        )
        for step, answer in _answers(steps)
        for each in answer.output.get("switches", ())
    )


def refusals(steps: Iterable[StepTime]) -> tuple[Refusal, ...]:
    """Evictions that the API server refused, in its words."""
    return tuple(
        Refusal(at=answer.at, reason=str(reason))
        for _, answer in _answers(steps)
        for reason in answer.output.get("refusals", ())
    )


def capacity(steps: Iterable[StepTime]) -> tuple[Capacity, ...]:
    """Ready and schedulable nodes per zone, at the looks that counted them; only where the count changed."""
    found: list[Capacity] = []
    for _, answer in _answers(steps):
        zones = answer.output.get("ready_nodes")
        if isinstance(zones, dict) and (not found or found[-1].zones != zones):
            found.append(Capacity(at=answer.at, zones=zones))
    return tuple(found)


def budgets(steps: Iterable[StepTime]) -> tuple[BudgetLine, ...]:
    """The disruption budgets of what was evicted, at the looks that saw them; only where something changed."""
    lines: defaultdict[str, list[BudgetLook]] = defaultdict(list)
    ours: set[str] = set()
    for _, answer in _answers(steps):
        for budget, (allowed, healthy, needed, expected, made) in answer.output.get("budgets", {}).items():
            look = BudgetLook(at=answer.at, allowed=allowed, healthy=healthy, needed=needed, expected=expected)
            if made:
                ours.add(budget)
            if not lines[budget] or _numbers(lines[budget][-1]) != _numbers(look):
                lines[budget].append(look)
    return tuple(BudgetLine(budget=b, ours=b in ours, looks=tuple(looks)) for b, looks in sorted(lines.items()))


def calls(steps: Iterable[StepTime]) -> tuple[StepCalls, ...]:
    """What each step called."""
    made: defaultdict[str, set[str]] = defaultdict(set)
    for step, answer in _answers(steps):
        if answer.calls:
            made[step.name].update(answer.calls)
    return tuple(StepCalls(step=step, calls=tuple(sorted(names))) for step, names in made.items())


def _answers(steps: Iterable[StepTime]) -> Iterator[tuple[StepTime, StepAnswer]]:
    return ((step, answer) for step in steps for answer in step.answers)


def _numbers(look: BudgetLook) -> tuple[int, int, int, int]:
    return look.allowed, look.healthy, look.needed, look.expected


def _seconds(timestamp: datetime | float) -> float:
    return timestamp.timestamp() if isinstance(timestamp, datetime) else float(timestamp)
