"""The report's timeline and charts, as positions for `report.html.j2`. Pure.

Positions are per cent of the whole roll's time. Nothing is shown by colour alone: each kind of wait has a letter, each
chart a sentence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from eks_rolling import state_names
from eks_rolling.documents.report import NodePage, Report, StepRecord
from eks_rolling.payloads import HoldKind
from eks_rolling.report.words import KIND_WORDS, duration, offset
from eks_rolling.wording import counted, short

ROWS_SHOWN = 60
"""Nodes in the timeline: of more, those that failed and those that took longest. The table has all."""


BUDGETS_SHOWN = 12


LETTER_WIDTH = 3.0
"""Per cent of the timeline that a letter needs; a word needs 0.9 for each of its own, on a phone 2.4."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch on a row; `kind` "" is work, "wave" a wave."""

    left: float
    width: float
    kind: str
    title: str
    word: str = ""


@dataclass(frozen=True, slots=True)
class ChartMark:
    """A moment on a row."""

    left: float
    title: str
    sign: str


@dataclass(frozen=True, slots=True)
class ChartRow:
    """An execution, or a Redis group, in the timeline."""

    name: str
    detail: str
    label: str
    bars: tuple[Bar, ...]
    marks: tuple[ChartMark, ...] = ()
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


def node_rows(report: Report, axis: Axis) -> list[ChartRow]:
    """A row for each node, in the order in which they were begun."""
    zones = {p.instance: p.zone for p in report.plan}
    chosen = {n.instance for n in sorted(report.nodes, key=lambda n: (not n.failure, -n.seconds))[:ROWS_SHOWN]}
    return [
        ChartRow(
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


def _failure_mark(node: NodePage, axis: Axis) -> tuple[ChartMark, ...]:
    return (ChartMark(axis.at(node.ended), node.failure, "✕"),) if node.failure and node.ended else ()


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
    return Bar(left, width, kind, title, word if width >= max(LETTER_WIDTH, 0.9 * len(word)) else "")


def roll_row(report: Report, axis: Axis) -> ChartRow | None:
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
    return ChartRow("the roll", counted(waves, "wave") if waves else "", "The roll's own steps.", tuple(bars))


WAVE = state_names.REPLACE_NODE
"""The roll's state during which a wave's nodes are replaced."""


def redis_rows(report: Report, axis: Axis) -> list[ChartRow]:
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
        marks = [ChartMark(axis.at(f.at), f"{f.step}: {f.reason}", "◆" if f.completed else "◇") for f in switches]
        done = sum(f.completed for f in switches)
        stalls = [f.stalled_ms for f in switches if f.stalled_ms is not None]
        longest = f", longest stall {max(stalls):,} ms" if stalls else ""
        detail = f"{counted(done, 'failover')}{longest}"
        rows.append(ChartRow(group, detail, f"Redis group {group}: {detail}.", tuple(bars), tuple(marks)))
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
        charts.append(Chart(name, detail, label, area, line, _y(limit, 0.0, top), budget.exceeded))
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
