"""The report as one HTML file: what `report.html.j2` shows, computed from the document alone.

Positions are per cent of the whole roll's time. Nothing is told by colour alone: each kind of wait has a letter, each
verdict a word, each chart a sentence.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, Template, select_autoescape

from eks_rolling import state_names
from eks_rolling.documents.finding import HEADINGS, Finding, Severity, blockers, by_severity
from eks_rolling.documents.report import BudgetLine, Ending, NodePage, PlannedReplacement, Report, StepRecord
from eks_rolling.payloads import HoldKind
from eks_rolling.wording import counted, moment, short

KIND_WORDS: Mapping[HoldKind, tuple[str, str]] = {
    HoldKind.INSTANCE: ("N", "a new node"),
    HoldKind.BUDGET: ("B", "a disruption budget"),
    HoldKind.PODS: ("P", "pods: ending, or Ready again elsewhere"),
    HoldKind.TRAFFIC: ("T", "load balancers and their connections"),
    HoldKind.VOLUMES: ("V", "volumes to detach"),
    HoldKind.REDIS: ("R", "Redis: moves, synchronization, switches"),
    HoldKind.GATE: ("G", "the gate: health, alarms, bake time"),
    HoldKind.PERSON: ("H", "a person: approval, pause"),
    HoldKind.LOCK: ("L", "another roll"),
    HoldKind.ENDING: ("E", "the old instance's end, and what is put back"),
    HoldKind.OTHER: ("O", "other things"),
}
"""Kind -> its letter in the timeline, and what was waited for."""

ROWS_SHOWN = 60
"""Nodes in the timeline: of more, those that failed and those that took longest. The table has all."""

BUDGETS_SHOWN = 12

LETTER_WIDTH = 3.0
"""Per cent of the timeline that a letter needs."""


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """One of the questions with which somebody opens a report. `mood` is good, bad, warn or plain."""

    question: str
    mood: str
    headline: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch on a row; `kind` "" is work, "wave" a wave."""

    left: float
    width: float
    kind: str
    title: str
    word: str = ""


@dataclass(frozen=True, slots=True)
class RowMark:
    """A moment on a row."""

    left: float
    title: str
    sign: str


@dataclass(frozen=True, slots=True)
class Row:
    """An execution, or a Redis group, in the timeline."""

    name: str
    detail: str
    label: str
    bars: tuple[Bar, ...]
    marks: tuple[RowMark, ...] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Numbers over time: SVG paths in a box of 1000 by 40, with a dashed line at `limit`."""

    name: str
    detail: str
    label: str
    area: str
    line: str
    limit: float
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """The roll's time: from `first`, for `span` seconds."""

    first: float
    span: float

    @classmethod
    def of(cls, report: Report) -> "Axis | None":
        """None where no time is known."""
        steps = [*report.steps, *(s for n in report.nodes for s in n.steps)]
        if not steps:
            return None
        first, last = min(s.started for s in steps), max(s.ended for s in steps)
        return cls(first, max(last - first, 1e-3))

    def at(self, when: float) -> float:
        """Where it is, in per cent."""
        return min(100.0, max(0.0, 100 * (when - self.first) / self.span))

    @property
    def tick(self) -> float:
        """Seconds between two labels: at most seven of them."""
        steps = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
        return next((float(s) for s in steps if self.span / s <= 7), 172800.0)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        count = int(self.span // self.tick)
        # A label at the very end would be cut off.
        return [(self.at(self.first + i * self.tick), offset(i * self.tick)) for i in range(count + 1)]


# Words


def duration(seconds: float) -> str:
    """As people say it: "0.4 s", "58 s", "4 min 29 s", "2 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def offset(seconds: float) -> str:
    """Time since the roll began: "4:29", "1:02:00"."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def clock(when: float | None) -> str:
    """Date and time in UTC; "" for none."""
    return moment(when) if when else ""


NOUNS = {Severity.BLOCKS: "blocker", Severity.HOLDS: "hold", Severity.NOTE: "note"}

# The verdict

VERDICTS: Mapping[Ending, tuple[str, str]] = {
    Ending.REPLACED: ("good", "Replaced"),
    Ending.NOTHING: ("good", "Nothing to do"),
    Ending.DRY_RUN: ("plain", "Dry run"),
    Ending.BLOCKED: ("bad", "Blocked"),
    Ending.FAILED: ("bad", "Failed"),
    Ending.ABORTED: ("warn", "Aborted"),
    Ending.STOPPED: ("warn", "Stopped"),
    Ending.NOT_APPROVED: ("warn", "Not approved"),
}


def headline(report: Report) -> str:
    """The first thing that is read."""
    blocking = blockers(report.findings)
    match report.outcome:
        case Ending.BLOCKED:
            return f"The plan is blocked by {counted(blocking, 'finding')}; nothing was changed"
        case Ending.FAILED | Ending.ABORTED | Ending.STOPPED if report.planned:
            ended = {Ending.ABORTED: "was aborted", Ending.STOPPED: "was stopped"}.get(report.outcome, "failed")
            return f"The roll {ended}: {report.replaced} of {counted(report.planned, 'node')} replaced"
        case Ending.STOPPED | Ending.ABORTED:
            return "The roll was stopped and everything was put back"
        case Ending.FAILED:
            return "The roll failed before anything was changed" if not _changed(report) else "The roll failed"
        case Ending.NOT_APPROVED:
            return "The roll was not approved; nothing was changed"
        case Ending.DRY_RUN:
            return f"{counted(report.planned, 'node')} would be replaced; nothing was changed"
        case Ending.NOTHING:
            return "No node is outdated"
        case _:
            return f"{report.replaced} of {counted(report.planned, 'node')} replaced"


def _changed(report: Report) -> bool:
    return bool(report.nodes or report.restored or report.left_behind)


def answers(report: Report) -> list[ReportAnswer]:
    """Did it work, what did it cost meanwhile, and is anything left?"""
    if report.outcome in {Ending.DRY_RUN, Ending.BLOCKED, Ending.NOTHING, Ending.NOT_APPROVED}:
        return [_would_work(report), _left(report)]
    return [_worked(report), _meanwhile(report), _left(report)]


def _would_work(report: Report) -> ReportAnswer:
    counts = [counted(len(found), NOUNS[severity]) for severity, found in by_severity(report.findings).items()]
    facts = (
        f"{counted(report.planned, 'node')} of the plan",
        f"the plan found {', '.join(counts)}" if counts else "the plan found nothing to say",
    )
    match report.outcome:
        case Ending.BLOCKED:
            return ReportAnswer("Would it work?", "bad", "No, not yet", facts)
        case Ending.NOTHING:
            return ReportAnswer("Would it work?", "good", "Every node is up to date", facts[1:])
        case _:
            return ReportAnswer("Would it work?", "good", "Yes, by what the plan sees", facts)


def _worked(report: Report) -> ReportAnswer:
    failed = [n for n in report.nodes if n.failure]
    waiting = report.planned - len(report.nodes)
    facts = [f"{report.replaced} of {counted(report.planned, 'node')} replaced"]
    facts += [f"{counted(len(failed), 'node')} begun and not replaced"] if failed else []
    facts += [f"{counted(waiting, 'node')} not begun"] if waiting > 0 else []
    complete = report.outcome is Ending.REPLACED and report.replaced == report.planned
    mood = (
        "good" if complete else "warn" if report.outcome in {Ending.ABORTED, Ending.STOPPED, Ending.REPLACED} else "bad"
    )
    words = {"good": "Yes", "warn": "In part", "bad": "No" if not report.replaced else "In part"}
    return ReportAnswer("Did it work?", mood, words[mood], tuple(facts))


def _meanwhile(report: Report) -> ReportAnswer:
    lower = _lower_zones(report)
    broken = [b.budget for b in report.budgets if _exceeded(b)]
    facts = []
    if lower:
        facts += [f"Ready nodes in {zone} fell to {low}, from {start}" for zone, start, low in lower]
    elif report.capacity:
        facts.append("never fewer Ready nodes than at the start, in any zone")
    facts += [f"more pods of {budget} were unavailable than it allows" for budget in broken]
    refused = f", {counted(report.refused, 'eviction')} refused and asked again" if report.refused else ""
    facts.append(f"{counted(report.evicted, 'pod')} evicted within budgets{refused}")
    done = sum(f.completed for f in report.failovers)
    if report.failovers:
        stall = report.longest_stall_ms
        longest = f", longest stall of writes {stall:,} ms" if stall is not None else ""
        facts.append(f"{counted(done, 'Redis failover')}{longest}")
    if lower or broken:
        return ReportAnswer("Did capacity and budgets hold?", "warn", "Not all the time", tuple(facts))
    if not report.capacity:
        return ReportAnswer("Did capacity and budgets hold?", "plain", "It was not measured", tuple(facts))
    return ReportAnswer("Did capacity and budgets hold?", "good", "Yes", tuple(facts))


def _lower_zones(report: Report) -> list[tuple[str, int, int]]:
    """Zones with fewer Ready nodes than at the start: zone, start, lowest."""
    if not report.capacity:
        return []
    found = []
    for zone, start in sorted(report.capacity[0].zones.items()):
        low = min(look.zones.get(zone, 0) for look in report.capacity)
        if low < start:
            found.append((zone, start, low))
    return found


def _exceeded(line: BudgetLine) -> bool:
    """Whether more were unavailable than the budget allows, and not so already when it was first looked at."""
    return any(look.unavailable > look.limit for look in line.looks) and not (
        line.looks[0].unavailable > line.looks[0].limit
    )


def _left(report: Report) -> ReportAnswer:
    left, orphans = len(report.left_behind), len(report.orphans)
    if left or orphans:
        facts = [*report.left_behind[:3], *(f"{o.kind} {o.object}" for o in report.orphans[:3])]
        return ReportAnswer("Is anything left?", "bad", counted(left + orphans, "thing"), tuple(facts))
    if not _changed(report):
        return ReportAnswer("Is anything left?", "good", "Nothing was changed")
    back = (f"{counted(len(report.restored), 'original')} put back",) if report.restored else ()
    return ReportAnswer("Is anything left?", "good", "Nothing", back)


# The timeline


def node_rows(report: Report, axis: Axis) -> list[Row]:
    """A row for each node, in the order in which they were begun."""
    zones = {p.instance: p.zone for p in report.plan}
    chosen = {n.instance for n in sorted(report.nodes, key=lambda n: (not n.failure, -n.seconds))[:ROWS_SHOWN]}
    return [
        Row(
            name=short(node.node),
            detail=", ".join(part for part in (zones.get(node.instance, ""), duration(node.seconds)) if part),
            label=_label(node),
            bars=_bars(node.steps, axis),
            marks=_failure_mark(node, axis),
            failed=bool(node.failure),
        )
        for node in report.nodes
        if node.instance in chosen and node.started
    ]


def _label(node: NodePage) -> str:
    longest = sorted((h for s in node.steps for h in s.holds), key=lambda h: -h.seconds)[:3]
    waits = "; ".join(f"{duration(h.seconds)}: {h.reason}" for h in longest)
    end = f"not replaced: {node.failure}" if node.failure else f"replaced by {node.replacement_node}"
    return f"{node.node}, {duration(node.seconds)}, {end}." + (f" Longest waits: {waits}." if waits else "")


def _failure_mark(node: NodePage, axis: Axis) -> tuple[RowMark, ...]:
    return (RowMark(axis.at(node.ended), node.failure, "✕"),) if node.failure and node.ended else ()


def _bars(steps: Iterable[StepRecord], axis: Axis) -> tuple[Bar, ...]:
    """What was done, in the background colour, and on it what was waited for."""
    bars = []
    for step in steps:
        work = _bar(axis, step.started, step.ended, "", f"{step.name}, {duration(step.ended - step.started)}")
        bars.append(work)
        for kind, holds in groupby(step.holds, key=lambda h: h.kind):
            same = list(holds)
            begin, end = same[0].since, same[-1].since + same[-1].seconds
            longest = max(same, key=lambda h: h.seconds)
            title = f"{step.name}, {duration(end - begin)}: {longest.reason}"
            bars.append(_bar(axis, begin, end, kind.value, title, KIND_WORDS[kind][0]))
    return tuple(bars)


def _bar(axis: Axis, begin: float, end: float, kind: str, title: str, word: str = "") -> Bar:
    left = axis.at(begin)
    width = max(0.15, axis.at(end) - left)
    return Bar(left, width, kind, title, word if width >= LETTER_WIDTH else "")


def roll_row(report: Report, axis: Axis) -> Row | None:
    """The roll's own steps, the waves as bars of their own."""
    if not report.steps:
        return None
    bars: list[Bar] = []
    waves = 0
    for step in report.steps:
        if step.name == WAVE:
            waves += 1
            width = axis.at(step.ended) - axis.at(step.started)
            title = f"wave {waves}, {duration(step.ended - step.started)}"
            bars.append(
                Bar(axis.at(step.started), width, "wave", title, title.partition(",")[0] if width >= 9 else str(waves))
            )
        else:
            bars += _bars([step], axis)
    return Row("the roll", counted(waves, "wave") if waves else "", "The roll's own steps.", tuple(bars))


WAVE = state_names.REPLACE_NODE
"""The roll's state during which a wave's nodes are replaced."""


def redis_rows(report: Report, axis: Axis) -> list[Row]:
    """A row for each Redis group: what was done to it on which node, and its failovers."""
    rows = []
    groups = sorted({s.redis for n in report.nodes for s in n.steps if s.redis} | {f.group for f in report.failovers})
    for group in groups:
        bars = [
            _bar(
                axis,
                step.started,
                step.ended,
                HoldKind.REDIS.value,
                f"{step.name}, {short(node.node)}, {duration(step.ended - step.started)}",
            )
            for node in report.nodes
            for step in node.steps
            if step.redis == group
        ]
        switches = [f for f in report.failovers if f.group == group]
        marks = [RowMark(axis.at(f.at), f"{f.step}: {f.reason}", "◆" if f.completed else "◇") for f in switches]
        done = sum(f.completed for f in switches)
        stalls = [f.stalled_ms for f in switches if f.stalled_ms is not None]
        longest = f", longest stall {max(stalls):,} ms" if stalls else ""
        detail = f"{counted(done, 'failover')}{longest}"
        rows.append(Row(group, detail, f"Redis group {group}: {detail}.", tuple(bars), tuple(marks)))
    return rows


def capacity_charts(report: Report, axis: Axis) -> list[Chart]:
    """Ready nodes of each zone, with a line at what it had at the start."""
    charts = []
    for zone in sorted({zone for look in report.capacity for zone in look.zones}):
        points = [(look.at, look.zones.get(zone, 0)) for look in report.capacity]
        values = [value for _, value in points]
        start, low, high = values[0], min(values), max(values)
        floor, top = max(0.0, min(low, start) - 1.0), high + 0.5
        detail = f"{start} at the start, lowest {low}, highest {high}"
        area, line = _paths(points, axis, floor, top)
        label = f"Ready nodes in {zone or 'no zone'}: {detail}."
        charts.append(Chart(zone or "no zone", detail, label, area, line, _y(start, floor, top), low < start))
    return charts


def budget_charts(report: Report, axis: Axis) -> list[Chart]:
    """Unavailable pods of each budget, with a line at what it allows; the most disturbed first."""
    lines = sorted(report.budgets, key=lambda b: (-max((look.unavailable for look in b.looks), default=0), b.budget))
    charts = []
    for budget in [b for b in lines if b.looks][:BUDGETS_SHOWN]:
        points = [(look.at, look.unavailable) for look in budget.looks]
        most, limit = max(value for _, value in points), max(look.limit for look in budget.looks)
        top = max(most, limit) + 0.5
        detail = f"at most {most} unavailable, {limit} allowed, of {budget.looks[-1].expected}"
        area, line = _paths(points, axis, 0.0, top)
        name = budget.budget + (" (made for the roll)" if budget.ours else "")
        label = f"Pods of {name}: {detail}."
        charts.append(Chart(name, detail, label, area, line, _y(limit, 0.0, top), _exceeded(budget)))
    return charts


def _y(value: float, floor: float, top: float) -> float:
    """Within the box, a stroke's width from its edges."""
    return round(38.5 - 37 * (value - floor) / (top - floor), 1)


def _paths(points: list[tuple[float, int]], axis: Axis, floor: float, top: float) -> tuple[str, str]:
    """The stepped line, from its first look to the end of the roll, and the area below it."""
    begin = 10 * axis.at(points[0][0])
    line = f"M{begin:.1f} {_y(points[0][1], floor, top)}"
    for when, value in points[1:]:
        line += f"H{10 * axis.at(when):.1f}V{_y(value, floor, top)}"
    line += "H1000"
    return f"{line}V40H{begin:.1f}Z", line


# Tables


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node of the plan, before and after; `page` is None for one that was not begun."""

    plan: PlannedReplacement
    page: NodePage | None

    @property
    def longest(self) -> str:
        holds = [h for s in self.page.steps for h in s.holds] if self.page else []
        longest = max(holds, key=lambda h: h.seconds, default=None)
        return f"{duration(longest.seconds)}: {longest.reason}" if longest else ""


def node_lines(report: Report) -> list[NodeLine]:
    """The plan's nodes in the order in which they were begun, the others after them."""
    planned = {p.instance: p for p in report.plan}
    begun = [
        NodeLine(planned.get(n.instance, PlannedReplacement(node=n.node, instance=n.instance, group=n.group)), n)
        for n in report.nodes
    ]
    done = {n.instance for n in report.nodes}
    return begun + [NodeLine(p, None) for p in report.plan if p.instance not in done]


def restored(report: Report) -> list[tuple[str, list[str]]]:
    """What was put back, with its value, and on which objects: "scale-in protection lifted" -> six instances."""
    by_what: dict[str, list[str]] = {}
    for sentence in report.restored:
        subject, colon, what = sentence.partition(": ")
        by_what.setdefault(what if colon else sentence, []).append(subject if colon else "")
    return [(what, [s for s in subjects if s]) for what, subjects in by_what.items()]


def findings(report: Report) -> list[tuple[Severity, str, list[Finding]]]:
    """By severity: its name, its heading, what was found."""
    return [(severity, HEADINGS[severity], found) for severity, found in by_severity(report.findings).items()]


def redis_groups(report: Report) -> list[tuple[str, list[Any]]]:
    return [(group, list(events)) for group, events in groupby(report.redis, key=lambda e: e.group)]


def refused(report: Report) -> list[tuple[str, int]]:
    """What the API server said to evictions that it refused, and how often, the most frequent first."""
    counts: dict[str, int] = {}
    for refusal in report.refusals:
        counts[refusal.reason] = counts.get(refusal.reason, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def page(report: Report) -> str:
    """The report as one HTML file without external resources and without scripts."""
    axis = Axis.of(report)
    shown = Axis(0, 1) if axis is None else axis
    mood, word = VERDICTS[report.outcome]
    begun = sum(1 for n in report.nodes if n.started)
    return _template().render(
        report=report,
        mood=mood,
        word=word,
        headline=headline(report),
        answers=answers(report),
        axis=axis,
        tick=100 * shown.tick / shown.span,
        roll=roll_row(report, shown),
        rows=node_rows(report, shown),
        hidden=max(0, begun - ROWS_SHOWN),
        redis_rows=redis_rows(report, shown),
        capacity=capacity_charts(report, shown) if axis else [],
        budgets=budget_charts(report, shown) if axis else [],
        hidden_budgets=max(0, len(report.budgets) - BUDGETS_SHOWN),
        kinds=[(kind, *KIND_WORDS[kind]) for kind in KIND_WORDS if kind in {w.kind for w in report.waits}],
        kind_words=KIND_WORDS,
        longest_wait=max((w.seconds for w in report.waits), default=1) or 1,
        refused=refused(report),
        nodes=node_lines(report),
        findings=findings(report),
        restored=restored(report),
        redis_groups=redis_groups(report),
        faults=sum(s.faults for s in (*report.steps, *(s for n in report.nodes for s in n.steps)) if s.name != WAVE),
        request=json.dumps(report.request, ensure_ascii=False),
        first=shown.first,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("eks_rolling.report", "."),
        autoescape=select_autoescape(["j2", "html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "offset": offset, "clock": clock, "short": short}
    return environment.get_template("report.html.j2")
