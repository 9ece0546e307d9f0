"""Report: what was done, refused and left, as JSON, as a page and as a message. Always runs, and never fails a roll."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from eks_rolling import state_names
from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.failure import error_of, explain
from eks_rolling.documents.finding import Finding
from eks_rolling.documents.report import (
    BudgetLine,
    BudgetLook,
    Capacity,
    Ending,
    HoldRecord,
    NodeEnding,
    NodePage,
    Orphan,
    PlannedReplacement,
    RedisEvent,
    Report,
    StepCalls,
    StepRecord,
    WaitTotal,
)
from eks_rolling.errors import NOT_APPROVED, Aborted, Permanent, sentence
from eks_rolling.payloads import HoldKind, ReportTask, StepResult
from eks_rolling.report import messages, timeline
from eks_rolling.report.page import page
from eks_rolling.report.timeline import StepTime
from eks_rolling.runtime import handler_for, notify
from eks_rolling.wording import counted

UNWANTED = {Aborted.__name__: Ending.ABORTED, NOT_APPROVED: Ending.NOT_APPROVED}
"""Error -> how a roll ended that a person did not want."""


def summary(
    task: ReportTask,
    nodes: list[NodePage],
    plan: dict[str, Any],
    cluster: str,
    steps: list[StepTime] | None = None,
    now: float | None = None,
    gaps: tuple[str, ...] = (),
) -> Report:
    """The report as a document. `nodes` are the pages that RollNode executions left, `steps` the roll's own. A node
    that was not begun is told as those are to which no wave came."""
    steps = steps or []
    failure = explain(task.failure)
    replaced = [n for n in nodes if n.outcome == NodeEnding.REPLACED]
    listed = (PlannedReplacement.model_validate(n) for n in plan.get("nodes", []))
    # What never joined is called by its instance; its group replaces it, and it has no page of its own.
    apart = _outcome(task) == "roll"
    planned = tuple(p for p in listed if not (apart and p.node == p.instance))
    ordered = tuple(sorted((n for n in nodes if n.begun), key=lambda n: n.started or 0))
    # A change may have waited for days before there was anything to do.
    began = [s.started for s in steps if s.name != state_names.RECEIVE_CHANGE] + [n.started for n in nodes if n.started]
    request = plan.get("request") or {}
    return Report(
        roll=task.roll,
        cluster=cluster,
        outcome=_ending(task),
        reason=failure or _reason(task, len(replaced), len(planned), _kept(steps)),
        request=task.input,
        trigger=str(request.get("trigger", "")),
        execution=task.execution,
        started=task.started,
        began=min(began, default=None),
        ended=now,
        planned=len(planned),
        replaced=len(replaced),
        evicted=sum(n.evicted for n in nodes),
        refused=sum(n.refused for n in nodes),
        plan=planned,
        nodes=ordered,
        steps=tuple(s.summary() for s in steps),
        redis=redis_timeline(ordered),
        failovers=tuple(
            sorted((*timeline.failovers(steps), *(f for n in nodes for f in n.failovers)), key=lambda f: f.at)
        ),
        refusals=tuple(sorted((r for n in nodes for r in n.refusals), key=lambda r: r.at)),
        capacity=_capacity([timeline.capacity(steps), *(n.capacity for n in nodes)]),
        budgets=_budgets([timeline.budgets(steps), *(n.budgets for n in nodes)]),
        waits=waits([*(s.summary() for s in steps), *(s for n in nodes for s in n.steps)]),
        findings=tuple(Finding.model_validate(f) for f in plan.get("findings", [])),
        restored=tuple(dict.fromkeys(task.restored)),
        left_behind=task.left_behind,
        orphans=tuple(Orphan.model_validate(o) for o in task.orphans),
        rolls_back=str(request.get("rolls_back", "")),
        put_back=task.put_back,
        rollback=task.rollback,
        not_started=explain(task.not_started),
        calls=_calls([timeline.calls(steps), *(n.calls for n in nodes)]),
        gaps=gaps,
    )


def redis_timeline(nodes: Iterable[NodePage]) -> tuple[RedisEvent, ...]:
    """Everything that was done to Redis groups and waited for, in order: moves, syncs with their bytes, failovers."""
    return tuple(
        sorted(
            (event for node in nodes for step in node.steps if step.redis for event in _events(node, step)),
            key=lambda each: (each.group, each.since),
        )
    )


def _events(node: NodePage, step: StepRecord) -> Iterator[RedisEvent]:
    """What a step waited for, and what it came to. A switch is often done at the first look, without a wait."""
    told = [(hold.reason, hold.since, hold.seconds) for hold in step.holds]
    if step.result and step.result not in {hold.reason for hold in step.holds}:
        told.append((step.result, step.ended, 0.0))
    for reason, since, seconds in told:
        yield RedisEvent(group=step.redis, node=node.node, step=step.name, reason=reason, since=since, seconds=seconds)


def waits(steps: Iterable[Any]) -> tuple[WaitTotal, ...]:
    """Waits by kind, the longest sum first; parallel ones count each."""
    by_kind: defaultdict[HoldKind, list[HoldRecord]] = defaultdict(list)
    for step in steps:
        for hold in step.holds:
            by_kind[hold.kind].append(hold)
    found = []
    for kind, holds in by_kind.items():
        longest = max(holds, key=lambda h: h.seconds)
        found.append(
            WaitTotal(
                kind=kind,
                seconds=sum(h.seconds for h in holds),
                times=len(holds),
                longest=longest.seconds,
                reason=longest.reason,
            )
        )
    return tuple(sorted(found, key=lambda w: -w.seconds))


def _ending(task: ReportTask) -> Ending:
    if task.stopped:
        return Ending.STOPPED
    if task.failure:
        return UNWANTED.get(error_of(task.failure), Ending.FAILED)
    outcome = (task.plan or {}).get("output", {}).get("outcome", Ending.FAILED)
    return Ending.REPLACED if outcome == "roll" else Ending(outcome)


def _outcome(task: ReportTask) -> str:
    """What the plan came to."""
    return str((task.plan or {}).get("output", {}).get("outcome", ""))


def _kept(steps: list[StepTime]) -> int:
    """How many instances without a node were left as they are after all."""
    answers = [a for s in steps if s.name == state_names.REPLACE_UNJOINED for a in s.answers]
    return int(answers[-1].output.get("kept", 0)) if answers else 0


def _reason(task: ReportTask, replaced: int, planned: int, kept: int = 0) -> str:
    if _outcome(task) == "roll":
        unjoined = len((task.plan or {}).get("output", {}).get("unjoined", {})) - kept
        others = f" and {counted(unjoined, 'instance')} that never joined" if unjoined > 0 else ""
        return f"{replaced} of {planned} nodes{others} were replaced"
    return str((task.plan or {}).get("reason", "nothing was planned"))


def _capacity(parts: Iterable[tuple[Capacity, ...]]) -> tuple[Capacity, ...]:
    merged: list[Capacity] = []
    for look in sorted((look for part in parts for look in part), key=lambda c: c.at):
        if not merged or merged[-1].zones != look.zones:
            merged.append(look)
    return tuple(merged)


def _budgets(parts: Iterable[tuple[BudgetLine, ...]]) -> tuple[BudgetLine, ...]:
    looks: defaultdict[str, list[BudgetLook]] = defaultdict(list)
    ours: set[str] = set()
    for line in (line for part in parts for line in part):
        looks[line.budget] += line.looks
        if line.ours:
            ours.add(line.budget)
    return tuple(
        BudgetLine(budget=name, ours=name in ours, looks=tuple(sorted(seen, key=lambda look: look.at)))
        for name, seen in sorted(looks.items())
    )


def _calls(parts: Iterable[tuple[StepCalls, ...]]) -> tuple[StepCalls, ...]:
    made: defaultdict[str, set[str]] = defaultdict(set)
    for each in (each for part in parts for each in part):
        made[each.step].update(each.calls)
    return tuple(StepCalls(step=step, calls=tuple(sorted(names))) for step, names in made.items())


def run(task: ReportTask, clients: Clients) -> StepResult:
    aws = clients.aws
    prefix = f"rolls/{task.roll}"
    plan: dict[str, Any] = next((json.loads(text) for text in aws.load(f"{prefix}/plan.json")), {})
    nodes = [NodePage.model_validate_json(text) for text in aws.load(f"{prefix}/nodes/")]
    if task.stopped and aws.load(f"{prefix}/report.json"):
        if task.restored or task.left_behind:
            notify(clients, messages.restored(clients.settings, task.roll, task.restored, task.left_behind))
        return StepResult.done("the roll has already written its report")
    own = _own_history(task, clients)
    steps, ending, gaps = own.steps, own.ending, own.gaps
    if task.stopped and steps and not ending:
        return StepResult.done("the roll has not ended, and will write its own report")
    recorded = {n.instance for n in nodes}
    if unknown := [node for instance, node in own.begun.items() if instance not in recorded]:
        gaps = (*gaps, f"What was done to {', '.join(unknown)} is not in this report: its record was not there yet.")
    if task.unlooked:
        gaps = (*gaps, f"This report did not check what is left behind. {explain(task.unlooked)}")
    report = summary(task, nodes, plan, clients.settings.cluster, steps, clients.now(), gaps)
    report = report.model_copy(update={"approved_by": own.approver})
    if task.stopped:
        report = report.model_copy(update={"reason": ending or "The roll ended without a reason."})
    aws.save(f"{prefix}/report.json", report.model_dump_json(indent=2, by_alias=True), "application/json")
    address = aws.save(f"{prefix}/report.html", page(report), "text/html; charset=utf-8")
    notify(clients, messages.ending(clients.settings, report, address, plan))
    return StepResult.done(report.reason, outcome=report.outcome, report=address, replaced=report.replaced)


@dataclass(frozen=True, slots=True)
class OwnHistory:
    """What the roll's own execution did: `ending` is why it ended if from outside, `begun` its nodes, instance -> node,
    `gaps` what could not be read."""

    steps: list[StepTime] = field(default_factory=list)
    ending: str = ""
    approver: str = ""
    begun: Mapping[str, str] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()


def _own_history(task: ReportTask, clients: Clients) -> OwnHistory:
    """A history that cannot be read ends no report."""
    if not task.execution:
        return OwnHistory()
    try:
        history = clients.aws.history(task.execution)
    except Permanent as error:
        return OwnHistory(gaps=(f"The roll's own steps are not in this report. {sentence(error)}",))
    return OwnHistory(
        timeline.steps_of(history),
        timeline.ending_of(history),
        timeline.approver_of(history),
        timeline.begun_of(history),
    )


handler = handler_for(run, ReportTask, locked=False)
