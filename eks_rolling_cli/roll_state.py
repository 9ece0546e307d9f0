"""A roll as it stands: gathered from its executions' histories, the plan that it wrote and the cluster's lock."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from eks_rolling.names import node_execution_suffix
from eks_rolling_cli.execution_history import Position, Wave, answers, fault_sentence, plan_answer, position, waves
from eks_rolling_cli.executions import PAGE, Execution, Executions

Json = dict[str, Any]

DETAILED = 20
"""Nodes that have ended and are still looked at one by one, for the names of their replacements."""

UNREADABLE_SECONDS = 60.0
"""For so long nothing is asked anew that could not be read: a bucket, or the cluster's lock."""


NOWHERE = Position()


class Stage(StrEnum):
    """Where a node of the plan is."""

    WAITING = "waiting"
    REPLACING = "replacing"
    REPLACED = "replaced"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class RollingNode:
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
class Rolling:
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
    nodes: tuple[RollingNode, ...] = ()
    asked: dict[str, str] = field(default_factory=dict)
    """What people asked for, as the lock's annotations say: "pause" or "abort", and why."""

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"

    def staged(self, *stages: Stage) -> tuple[RollingNode, ...]:
        return tuple(n for n in self.nodes if n.stage in stages)

    @property
    def replaced(self) -> int:
        return len(self.staged(Stage.REPLACED))

    @property
    def nodes_per_hour(self) -> float | None:
        """Since the first node was begun; None before one is replaced."""
        begun = [n.began for n in self.nodes if n.began]
        last = self.ended or self.looked
        if not self.replaced or last <= min(begun):
            return None
        return self.replaced * 3600 / (last - min(begun))

    @property
    def seconds_left(self) -> float | None:
        """Until the last node is replaced, at the pace of those that were; None before one was, or without any left."""
        took = [n.ended - n.began for n in self.staged(Stage.REPLACED) if n.ended and n.began]
        if not took or not self.running:
            return None
        each = sum(took) / len(took)
        begun = sum(max(0.0, each - (self.looked - (n.began or 0))) for n in self.staged(Stage.REPLACING))
        return (begun + each * len(self.staged(Stage.WAITING))) / max(1, self.surge)

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
            "surge": self.surge,
            "replaced": self.replaced,
            "nodes_per_hour": self.nodes_per_hour,
            "seconds_left": self.seconds_left,
            **_where(self.at),
            "waves": [{"number": w.number, "began": w.began, "nodes": list(w.nodes.values())} for w in self.waves],
            "nodes": [_node_json(n) for n in self.nodes],
        }


def _node_json(node: RollingNode) -> Json:
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
) -> Rolling:
    """The roll out of what was read: `children` are its Node executions by instance, `plan` is plan.json or {}."""
    answer = plan_answer(events)
    output = answer.get("output") or {}
    begun = waves(events)
    known = {n["instance"]: n for n in plan.get("nodes", ())}
    names = {instance: node for wave in begun for instance, node in wave.nodes.items()}
    waves_of = {instance: wave.number for wave in begun for instance in wave.nodes}
    listed = list(dict.fromkeys([*(output.get("nodes") or ()), *waves_of])) if output.get("outcome") == "roll" else []
    return Rolling(
        roll=execution.name,
        execution=execution.arn,
        status=execution.status,
        began=execution.started,
        ended=execution.ended,
        looked=looked,
        at=position(events),
        trigger=_trigger(execution.input),
        plan=str(answer.get("reason", "")),
        result=next((str(a.get("reason", "")) for _, a in answers(events, "Report")), ""),
        error=execution.error,
        failure=fault_sentence({"error": execution.error, "cause": execution.cause}),
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
    )


def _node(
    instance: str, name: str, planned: Json, wave: int, child: tuple[Execution, list[Json]] | None, *, over: bool
) -> RollingNode:
    group, zone = str(planned.get("group", "")), str(planned.get("zone", ""))
    if child is None:
        return RollingNode(name, instance, group, zone, wave, Stage.LEFT if over else Stage.WAITING)
    execution, events = child
    stages = {"RUNNING": Stage.REPLACING, "SUCCEEDED": Stage.REPLACED}
    at = position(events)
    if not execution.running:
        at = Position(at.state, at.entered, fault_sentence({"error": execution.error, "cause": execution.cause}))
    return RollingNode(
        name,
        instance,
        group,
        zone,
        wave,
        stages.get(execution.status, Stage.FAILED),
        _replacement(events),
        execution.started,
        execution.ended,
        at,
    )


def _replacement(events: Iterable[Json]) -> str:
    """The node that takes the old one's place, or its instance while it has not joined."""
    events = list(events)
    ready = [a.get("output") or {} for _, a in answers(events, "Wait for the replacement")]
    launched = [a.get("output") or {} for _, a in answers(events, "Launch the replacement")]
    named = [str(o["replacement_node"]) for o in ready if o.get("replacement_node")]
    asked = [str(o["replacement"]) for o in launched if o.get("replacement")]
    return next(iter(reversed([*asked, *named])), "")


def _trigger(given: Json) -> str:
    """Who asked, as far as the execution's input says."""
    if "detail-type" in given:
        detail = given.get("detail") or {}
        return str(detail.get("eventName") or given["detail-type"])
    return str(given.get("trigger") or "a person")


class Looker:
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

    def look(self, arn: str) -> Rolling:
        """Looks now. Raises what `Executions` does."""
        # The execution first: what it has done by then is in the histories that are read after it.
        execution = self._executions.describe(arn)
        events = self._executions.history(arn)
        return assemble(
            execution,
            events,
            self._children(execution),
            plan=self._plan(execution.name, events),
            asked=self._unless_unreadable("lock", lambda: self._asked(execution.name)) if execution.running else {},
            looked=time.time(),
        )

    def _children(self, roll: Execution) -> dict[str, tuple[Execution, list[Json]]]:
        suffix = node_execution_suffix(roll.name)
        found: dict[str, tuple[Execution, list[Json]]] = {}
        for child in self._executions.of(self._node_machine, at_once=PAGE):
            if child.started < roll.started - 1:
                break
            if child.name.endswith(suffix):
                found[child.name.removesuffix(suffix)] = self._child(child, detailed=len(found) < DETAILED)
        return found

    def _child(self, child: Execution, *, detailed: bool) -> tuple[Execution, list[Json]]:
        if child.running:
            return child, self._executions.history(child.arn)
        if child.arn not in self._ended:
            if child.status != "SUCCEEDED":
                child = self._executions.describe(child.arn)
            self._ended[child.arn] = child, self._executions.history(child.arn) if detailed else []
        return self._ended[child.arn]

    def _plan(self, roll: str, events: list[Json]) -> Json:
        if roll not in self._plans and plan_answer(events):
            plan = self._unless_unreadable(f"plan of {roll}", lambda: self._document(roll, "plan.json"))
            if plan:
                self._plans[roll] = plan
        return self._plans.get(roll, {})

    def _unless_unreadable(self, what: str, read: Callable[[], Json]) -> Json:
        from eks_rolling.errors import RollError

        if time.monotonic() < self._not_before.get(what, 0.0):
            return {}
        try:
            return read()
        except RollError:
            self._not_before[what] = time.monotonic() + UNREADABLE_SECONDS
            return {}
