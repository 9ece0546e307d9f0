"""The report's shape: `rolls/<roll>/report.json`, which the page is drawn from and the command reads.

Times are epoch seconds, durations are seconds unless a name says otherwise. A reader ignores fields that it does not
know, and every field but the roll's name, cluster and outcome has a default: documents of other versions can be read.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from eks_rolling.documents.finding import Finding
from eks_rolling.payloads import HoldKind

VERSION = 1


class ReportPart(BaseModel):
    """A part of a report."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Ending(StrEnum):
    """How a roll ended."""

    REPLACED = "replaced"
    NOTHING = "nothing"
    DRY_RUN = "dry-run"
    BLOCKED = "blocked"
    FAILED = "failed"
    ABORTED = "aborted"
    STOPPED = "stopped"
    NOT_APPROVED = "not-approved"


class NodeEnding(StrEnum):
    """What became of a node for which an execution was started."""

    REPLACED = "replaced"
    FAILED = "failed"
    ABORTED = "aborted"
    NOT_BEGUN = "not-begun"
    """Before anything was asked for, a person ended the roll, or another node of its wave was not replaced."""


class HoldRecord(ReportPart):
    """A stretch of time in which a step gave the same reason to wait."""

    reason: str
    since: float
    seconds: float = 0.0
    kind: HoldKind = HoldKind.OTHER


class StepRecord(ReportPart):
    """One state of an execution, from its entry to the exit after which another began; its waits are `holds`.

    `faults` are invocations that failed and were run again, or that ended the step.
    """

    name: str
    started: float
    ended: float
    looks: int = 0
    result: str = ""
    redis: str = ""
    faults: int = 0
    holds: tuple[HoldRecord, ...] = ()


class Failover(ReportPart):
    """A master's role that changed hands, or did not after all (`completed`). `stalled_ms` is for how long writes were
    paused; None where not measured.
    """

    at: float
    group: str
    node: str = ""
    step: str = ""
    reason: str = ""
    stalled_ms: int | None = None
    completed: bool = True


class Refusal(ReportPart):
    """An eviction that the API server refused; the pod was asked for again later."""

    at: float
    reason: str


class Capacity(ReportPart):
    """How many nodes were Ready and not closed to new pods, by zone, when a step looked."""

    at: float
    zones: dict[str, int]


class BudgetLook(ReportPart):
    """A disruption budget when a step looked: `allowed` evictions, `healthy` pods, `needed` ones, `expected` ones."""

    at: float
    allowed: int
    healthy: int
    needed: int
    expected: int

    @property
    def unavailable(self) -> int:
        return max(0, self.expected - self.healthy)

    @property
    def limit(self) -> int:
        """How many pods may be unavailable before the budget is broken."""
        return max(0, self.expected - self.needed)


class BudgetLine(ReportPart):
    """One budget over time; `ours` was made for the roll and removed with it."""

    budget: str
    ours: bool = False
    looks: tuple[BudgetLook, ...] = ()

    @property
    def exceeded(self) -> bool:
        """Whether more were unavailable than the budget allows, and not already when first observed."""
        return any(look.unavailable > look.limit for look in self.looks) and not (
            self.looks[0].unavailable > self.looks[0].limit
        )


class StepCalls(ReportPart):
    """What a step called: `autoscaling:LaunchInstances`, `patch nodes`."""

    step: str
    calls: tuple[str, ...] = ()


class NodePage(ReportPart):
    """What was done to one node: the document `rolls/<roll>/nodes/<instance>.json`."""

    node: str
    instance: str
    group: str
    replacement: str = ""
    replacement_node: str = ""
    outcome: str = NodeEnding.REPLACED
    failure: str = ""
    started: float | None = None
    ended: float | None = None
    evicted: int = 0
    refused: int = 0
    steps: tuple[StepRecord, ...] = ()
    failovers: tuple[Failover, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    capacity: tuple[Capacity, ...] = ()
    budgets: tuple[BudgetLine, ...] = ()
    calls: tuple[StepCalls, ...] = ()

    @property
    def begun(self) -> bool:
        return self.outcome != NodeEnding.NOT_BEGUN

    @property
    def failed(self) -> bool:
        return self.outcome == NodeEnding.FAILED

    @property
    def seconds(self) -> float:
        return (self.ended or 0.0) - (self.started or 0.0)


class PlannedReplacement(ReportPart):
    """A node of the plan: where it was, what it ran (`before`), what it was to become (`to`)."""

    node: str
    instance: str = ""
    group: str = ""
    zone: str = ""
    before: str = Field("", alias="from", serialization_alias="from")
    to: str = ""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class RedisEvent(ReportPart):
    """Something done to a Redis group, or waited for."""

    group: str
    node: str
    step: str
    reason: str
    since: float
    seconds: float = 0.0


class WaitTotal(ReportPart):
    """All waits of one kind together; parallel ones count each. `longest` is the longest single one, `reason` its."""

    kind: HoldKind
    seconds: float
    times: int
    longest: float = 0.0
    reason: str = ""


class Orphan(ReportPart):
    """Something that no roll owns any more, and what to do about it."""

    kind: str = ""
    object: str = ""
    since: str = ""
    remedy: str = ""

    @property
    def by_hand(self) -> str:
        """What only a person can do about it; "" where the one command does it that is printed for all that is left."""
        return "" if "`eks-rolling " in self.remedy else self.remedy


def untold(left_behind: Iterable[str], orphans: Iterable[Orphan]) -> tuple[Orphan, ...]:
    """The orphans that no sentence on what was left behind names: a group whose maximum size stays raised, say, is one
    thing, and its tag is not another."""
    told = "\n".join(left_behind)
    return tuple(o for o in orphans if not re.search(rf"{re.escape(_subject(o))}(?![\w.-])", told))


def _subject(orphan: Orphan) -> str:
    """What an orphan hangs on, as sentences name it: "group workers-a"."""
    return f"{orphan.kind.rpartition(' ')[2]} {orphan.object.partition(':')[0]}"


def way_back(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What a report's document, however much of it there is, says of going back to a former version, as sentences."""
    said = [f"this roll rolls back {report['rolls_back']}"] if report.get("rolls_back") else []
    said += [str(each) for each in report.get("put_back") or ()]
    if report.get("rollback"):
        said.append(f"the roll {report['rollback']} replaces the new nodes again")
    if report.get("not_started"):
        said.append(f"the roll that replaces the new nodes again was not started: {report['not_started']}")
    return tuple(said)


class Report(ReportPart):
    """The whole report."""

    version: int = VERSION
    roll: str
    cluster: str
    outcome: Ending
    reason: str = ""
    request: Any = None
    trigger: str = ""
    approved_by: str = Field("", description="who let the roll begin; empty where nobody was asked")
    execution: str = ""
    started: str = ""
    began: float | None = None
    ended: float | None = None
    planned: int = 0
    replaced: int = 0
    evicted: int = 0
    refused: int = 0
    plan: tuple[PlannedReplacement, ...] = ()
    nodes: tuple[NodePage, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    redis: tuple[RedisEvent, ...] = ()
    failovers: tuple[Failover, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    capacity: tuple[Capacity, ...] = ()
    budgets: tuple[BudgetLine, ...] = ()
    waits: tuple[WaitTotal, ...] = ()
    findings: tuple[Finding, ...] = ()
    restored: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    rolls_back: str = Field("", description="the failed roll that this one rolls back; empty: it does not")
    put_back: tuple[str, ...] = Field((), description="of each group what was done about its former version")
    rollback: str = Field("", description="the roll that was started to replace the new nodes; empty: none was")
    not_started: str = Field("", description="why it was not, although a version was put back")
    calls: tuple[StepCalls, ...] = ()
    gaps: tuple[str, ...] = Field((), description="what this report could not learn, and why")

    @property
    def seconds(self) -> float:
        """How long the roll took; 0 where that is not known."""
        return self.ended - self.began if self.began is not None and self.ended is not None else 0.0

    @property
    def untold(self) -> tuple[Orphan, ...]:
        """The orphans beside what was left behind, each thing once."""
        return untold(self.left_behind, self.orphans)

    @property
    def way_back(self) -> tuple[str, ...]:
        """What there is to say of going back to a former version, as sentences."""
        return way_back(self.model_dump(include={"rolls_back", "put_back", "rollback", "not_started"}))

    @property
    def longest_stall_ms(self) -> int | None:
        """The longest pause of a Redis group's writers, by the switches that measured it."""
        return max((f.stalled_ms for f in self.failovers if f.stalled_ms is not None), default=None)
