"""The report as one HTML file: what `report.html.j2` shows, computed from the document alone. Pure."""

import json
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, Template, select_autoescape

from eks_rolling.documents.finding import HEADINGS, Finding, Severity, by_severity
from eks_rolling.documents.remedies import typed, way_out
from eks_rolling.documents.report import NodePage, PlannedReplacement, Report
from eks_rolling.legible import line
from eks_rolling.report.charts import (
    BUDGETS_SHOWN,
    ROWS_SHOWN,
    WAVE,
    Axis,
    budget_charts,
    capacity_charts,
    node_rows,
    redis_rows,
    roll_row,
)
from eks_rolling.report.verdict import VERDICTS, answers, headline
from eks_rolling.report.words import KIND_WORDS, clock, duration, offset
from eks_rolling.wording import short


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
        remedy=way_out(typed("start", cluster=report.cluster)),
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
        finalize=lambda value: line(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "offset": offset, "clock": clock, "short": short}
    return environment.get_template("report.html.j2")
