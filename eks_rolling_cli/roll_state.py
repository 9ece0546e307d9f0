"""A roll as it stands: gathered from its executions' histories, the plan that it wrote and the cluster's lock."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from eks_rolling import state_names
from eks_rolling.documents.failure import explain
from eks_rolling.documents.report import NodeEnding, Orphan, untold, way_back
from eks_rolling.names import node_execution_suffix, node_execution_suffix_once
from eks_rolling.report.timeline import begun_of, ending_of, node_ending, steps_of, work_of
from eks_rolling_cli.execution_history import (
    PAUSED,
    Position,
    Span,
    Wave,
    answers,
    merged,
    pauses,
    plan_answer,
    position,
    waves,
)
from eks_rolling_cli.executions import PAGE, Execution, Executions

Json = dict[str, Any]

DETAILED = 20
"""Nodes that were replaced and are still read one by one, for the names of their replacements."""

UNREADABLE_SECONDS = 60.0
"""How long to wait before reading again what could not be read: a bucket, or the cluster's lock."""


NOWHERE = Position()


class Stage(StrEnum):
    """Where a node of the plan is."""

    WAITING = "waiting"
    REPLACING = "replacing"
    REPLACED = "replaced"
    FAILED = "failed"
    ABORTED = "aborted"
    STOPPED = "stopped"
    UNTOUCHED = "untouched"


@dataclass(frozen=True, slots=True)
class RollNodeState:
    """A node of the plan. Times are epoch seconds; `reason` is why it waits, since `held_since`."""

    node: str
    instance: str
    group: str = ""
    zone: str = ""
    wave: int = 0
    stage: Stage = Stage.WAITING
    replacement: str = ""
    began: float | None = None
    ended: float | None = None
    at: Position = NOWHERE


@dataclass(frozen=True, slots=True)
class RollState:
    """A roll at one moment. Times are epoch seconds; `nodes` are in the plan's order."""

    roll: str
    execution: str
    status: str
    began: float
    ended: float | None
    looked: float
    at: Position
    trigger: str = ""
    plan: str = ""
    result: str = ""
    error: str = ""
    failure: str = ""
    surge: int = 1
    waves: tuple[Wave, ...] = ()
    nodes: tuple[RollNodeState, ...] = ()
    asked: dict[str, str] = field(default_factory=dict)
    """What people asked for, as the lock's annotations say: "pause" or "abort", and why."""

    expected: float | None = None
    """Seconds that the plan gave the whole roll."""

    pauses: tuple[Span, ...] = ()
    left_behind: tuple[str, ...] = ()
    """What could not be put back, once it has ended; so do the orphans that were found then."""

    way_back: tuple[str, ...] = ()
    """What was done about former versions, once it has ended."""

    rollback: str = ""
    """The roll that replaces the new nodes of this one, which failed."""

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"

    def staged(self, *stages: Stage) -> tuple[RollNodeState, ...]:
        return tuple(n for n in self.nodes if n.stage in stages)

    @property
    def replaced(self) -> int:
        return len(self.staged(Stage.REPLACED))

    @property
    def paused(self) -> bool:
        """Whether nothing moves any more because of a pause: the roll itself, or every node that it has in work."""
        in_work = self.staged(Stage.REPLACING)
        held = [n.at.reason for n in in_work] or [self.at.reason]
        return self.running and all(reason.startswith(PAUSED) for reason in held)

    def worked(self, start: float, end: float) -> float:
        """Seconds between two moments in which the roll was not paused."""
        held = sum(max(0.0, min(end, until) - max(start, since)) for since, until in self.pauses)
        return max(0.0, end - start - held)

    @property
    def nodes_per_hour(self) -> float | None:
        """Since the first node was begun, pauses left out; None before one is replaced."""
        begun = [n.began for n in self.nodes if n.began]
        if not self.replaced:
            return None
        seconds = self.worked(min(begun), self.ended or self.looked)
        return self.replaced * 3600 / seconds if seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last node is replaced, pauses left out: at the pace of those that were; before one was, as the plan
        has it. None where neither says anything, and once the plan's time is over."""
        if not self.running:
            return None
        took = [self.worked(n.began, n.ended) for n in self.staged(Stage.REPLACED) if n.ended and n.began]
        if not took:
            begun = [n.began for n in self.nodes if n.began]
            left = (self.expected or 0.0) - (self.worked(min(begun), self.looked) if begun else 0.0)
            return left if left > 0 else None
        each = sum(took) / len(took)
        begun_ones = sum(
            max(0.0, each - self.worked(n.began or self.looked, self.looked)) for n in self.staged(Stage.REPLACING)
        )
        return (begun_ones + each * len(self.staged(Stage.WAITING))) / max(1, self.surge)

    def to_json(self) -> Json:
        """The document of `watch --json`; its shape is in docs/command.md."""
        return {
            "roll": self.roll,
            "execution": self.execution,
            "status": self.status,
            "began": self.began,
            "ended": self.ended,
            "looked": self.looked,
            "trigger": self.trigger,
            "plan": self.plan,
            "result": self.result,
            "failure": self.failure,
            "asked": self.asked,
            "paused": self.paused,
            "left_behind": list(self.left_behind),
            "rollback": self.rollback,
            "surge": self.surge,
            "replaced": self.replaced,
            "nodes_per_hour": self.nodes_per_hour,
            "seconds_left": self.seconds_left,
            **_where(self.at),
            "waves": [{"number": w.number, "began": w.began, "nodes": list(w.nodes.values())} for w in self.waves],
            "nodes": [_node_json(n) for n in self.nodes],
        }


def _node_json(node: RollNodeState) -> Json:
    given = asdict(node)
    del given["at"]
    return given | _where(node.at)


def _where(at: Position) -> Json:
    return {
        "state": at.state,
        "entered": at.entered or None,
        "reason": at.reason,
        "held_since": at.held_since or None,
        "redis": at.redis,
        "bytes_left": at.bytes_left,
        "bytes_per_second": at.bytes_per_second,
    }


def assemble(
    execution: Execution,
    events: list[Json],
    children: Mapping[str, tuple[Execution, list[Json]]],
    *,
    plan: Json,
    asked: dict[str, str],
    looked: float,
    report: Json | None = None,
) -> RollState:
    """The roll out of what was read: `children` are its Node executions by instance, `plan` and `report` what it wrote,
    {} where it did not."""
    answer = plan_answer(events)
    output = answer.get("output") or {}
    begun = waves(events)
    known = {n["instance"]: n for n in plan.get("nodes", ())}
    names = {instance: node for wave in begun for instance, node in wave.nodes.items()}
    waves_of = {instance: wave.number for wave in begun for instance in wave.nodes}
    listed = list(dict.fromkeys([*(output.get("nodes") or ()), *waves_of])) if output.get("outcome") == "roll" else []
    histories = (events, *(read for _, read in children.values()))
    return RollState(
        roll=execution.name,
        execution=execution.arn,
        status=execution.status,
        began=execution.started,
        ended=execution.ended,
        looked=looked,
        at=position(events),
        trigger=_trigger(execution.input),
        plan=str(answer.get("reason", "")),
        result=next((str(a.get("reason", "")) for _, a in answers(events, state_names.REPORT)), ""),
        error=execution.error,
        failure=explain({"Error": execution.error, "Cause": execution.cause}) or ending_of(events),
        surge=int(output.get("surge") or 1),
        waves=begun,
        nodes=tuple(
            _node(
                instance,
                str(known.get(instance, {}).get("node") or names.get(instance, instance)),
                known.get(instance, {}),
                waves_of.get(instance, 0),
                children.get(instance),
                over=not execution.running,
            )
            for instance in listed
        ),
        asked=asked,
        expected=(plan.get("estimate") or {}).get("seconds") or None,
        pauses=tuple(merged(span for read in histories for span in pauses(read, looked))),
        left_behind=left_behind(events, report or {}),
        way_back=way_back(report or {}),
        rollback=str((report or {}).get("rollback") or ""),
    )


def left_behind(events: Iterable[Json], report: Json) -> tuple[str, ...]:
    """What a roll's end left: as its report says, which a restore after it may have written, else its own restore."""
    if report:
        left = tuple(str(each) for each in report.get("left_behind") or ())
        orphans = untold(left, (Orphan.model_validate(o) for o in report.get("orphans") or ()))
        return (*left, *(f"{o.kind} {o.object}" for o in orphans))
    restored = answers(events, state_names.RESTORE)
    told = (str(each) for _, a in restored for each in (a.get("output") or {}).get("left_behind") or ())
    return tuple(dict.fromkeys(told))


def _node(
    instance: str, name: str, planned: Json, wave: int, child: tuple[Execution, list[Json]] | None, *, over: bool
) -> RollNodeState:
    group, zone = str(planned.get("group", "")), str(planned.get("zone", ""))
    if child is None:
        return RollNodeState(name, instance, group, zone, wave, Stage.UNTOUCHED if over else Stage.WAITING)
    execution, events = child
    stage = _stage(execution, events)
    if stage is Stage.UNTOUCHED:
        return RollNodeState(name, instance, group, zone, wave, stage)
    at = position(events) if execution.running else _end(execution, events)
    if stage is Stage.REPLACED:
        # An abort came too late to keep it from that.
        at = replace(at, reason="")
    return RollNodeState(
        name,
        instance,
        group,
        zone,
        wave,
        stage,
        _replacement(events),
        execution.started,
        execution.ended,
        at,
    )


def _end(execution: Execution, events: list[Json]) -> Position:
    """The last step of the replacement, and why it was the last: its own states follow a failure."""
    last = work_of(steps_of(events))[-1:]
    why = explain({"Error": execution.error, "Cause": execution.cause})
    return Position(last[0].name, last[0].started, why) if last else Position(reason=why)


def _stage(execution: Execution, events: list[Json]) -> Stage:
    stages = {"RUNNING": Stage.REPLACING, "SUCCEEDED": Stage.REPLACED, "ABORTED": Stage.STOPPED}
    if execution.status != "FAILED":
        return stages.get(execution.status, Stage.FAILED)
    match node_ending({"Error": execution.error, "Cause": execution.cause}, steps_of(events)):
        case NodeEnding.NOT_BEGUN:
            return Stage.UNTOUCHED
        case NodeEnding.ABORTED:
            return Stage.ABORTED
        case NodeEnding.REPLACED:
            return Stage.REPLACED
        case _:
            return Stage.FAILED


def _replacement(events: Iterable[Json]) -> str:
    """The node that takes the old one's place, or its instance while it has not joined."""
    events = list(events)
    ready = [a.get("output") or {} for _, a in answers(events, state_names.AWAIT_READY)]
    launched = [a.get("output") or {} for _, a in answers(events, state_names.LAUNCH)]
    named = [str(o["replacement_node"]) for o in ready if o.get("replacement_node")]
    asked = [str(o["replacement"]) for o in launched if o.get("replacement")]
    return next(iter(reversed([*asked, *named])), "")


def _trigger(given: Json) -> str:
    """Who asked, as far as the execution's input says."""
    if "detail-type" in given:
        detail = given.get("detail") or {}
        return str(detail.get("eventName") or given["detail-type"])
    return str(given.get("trigger") or "a person")


class RollReader:
    """Looks at rolls, again and again. `asked` reads the lock's annotations, `document` a document of a roll; what they
    cannot read is left out."""

    def __init__(
        self,
        executions: Executions,
        node_machine: str,
        *,
        asked: Callable[[str], dict[str, str]],
        document: Callable[[str, str], Json],
    ) -> None:
        self._executions = executions
        self._node_machine = node_machine
        self._asked = asked
        self._document = document
        self._plans: dict[str, Json] = {}
        self._ended: dict[str, tuple[Execution, list[Json]]] = {}
        self._not_before: dict[str, float] = {}

    def look(self, arn: str) -> RollState:
        """Looks now. Raises what `Executions` does."""
        # The execution first: what it has done by then is in the histories that are read after it.
        execution = self._executions.describe(arn)
        events = self._executions.history(arn)
        return assemble(
            execution,
            events,
            self._children(execution, events),
            plan=self._plan(execution.name, events),
            asked=self._unless_unreadable("lock", lambda: self._asked(execution.name)) if execution.running else {},
            looked=time.time(),
            report={} if execution.running else self._report(execution.name),
        )

    def _children(self, roll: Execution, events: list[Json]) -> dict[str, tuple[Execution, list[Json]]]:
        suffix, once = node_execution_suffix(roll.name), node_execution_suffix_once(roll.name)
        begun = begun_of(events) if once != suffix else {}
        found: dict[str, tuple[Execution, list[Json]]] = {}
        for child in self._executions.of(self._node_machine, at_once=PAGE):
            if child.started < roll.started - 1:
                break
            own = child.name.endswith(suffix)
            instance = child.name.removesuffix(suffix if own else once)
            # Another roll's name may end with this one's, as its rollback's does; and an earlier version's cut name may
            # be of another roll that begins alike: of two only one can have begun the same node by it.
            if instance.count("-") == 1 and (own or (child.name.endswith(once) and instance in begun)):
                found[instance] = self._child(child, detailed=len(found) < DETAILED)
        return found

    def _child(self, child: Execution, *, detailed: bool) -> tuple[Execution, list[Json]]:
        if child.running:
            return child, self._executions.history(child.arn)
        if child.arn not in self._ended:
            if child.status != "SUCCEEDED":
                child = self._executions.describe(child.arn)
            read = detailed or child.status != "SUCCEEDED"
            self._ended[child.arn] = child, self._executions.history(child.arn) if read else []
        return self._ended[child.arn]

    def _plan(self, roll: str, events: list[Json]) -> Json:
        if roll not in self._plans and plan_answer(events):
            plan = self._unless_unreadable(f"plan of {roll}", lambda: self._document(roll, "plan.json"))
            if plan:
                self._plans[roll] = plan
        return self._plans.get(roll, {})

    def _report(self, roll: str) -> Json:
        return self._unless_unreadable(f"report of {roll}", lambda: self._document(roll, "report.json"))

    def _unless_unreadable(self, what: str, read: Callable[[], Json]) -> Json:
        from eks_rolling.errors import RollError

        if time.monotonic() < self._not_before.get(what, 0.0):
            return {}
        try:
            return read()
        except RollError:
            self._not_before[what] = time.monotonic() + UNREADABLE_SECONDS
            return {}
