"""A report's summary on the terminal. Pure: the report's document in, Rich out."""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from eks_rolling.documents.remedies import way_out
from eks_rolling.documents.report import NodePage, Orphan, Report
from eks_rolling.wording import counted, short, spoken
from eks_rolling_cli.format import clock
from eks_rolling_cli.listing import Column, Listing, Row, advice, joined, whole
from eks_rolling_cli.plan_view import findings_by_severity

STYLES = {"replaced": "bold green", "nothing": "bold", "dry-run": "bold"}


def rendered(document: dict[str, Any], start: str) -> RenderableType:
    """The summary; the page has the rest. `start` is the command that starts a roll of this cluster."""
    report = Report.model_validate(document)
    parts: list[RenderableType] = [
        Text(f"{report.reason[:1].upper()}{report.reason[1:]}", style=STYLES.get(report.outcome, "bold red")),
        _facts(report),
    ]
    if report.nodes:
        parts.append(_nodes(report))
    parts += list(_lists(report, start))
    return Group(*parts)


def _facts(report: Report) -> RenderableType:
    facts = [report.cluster, report.roll]
    if report.began is not None:
        facts.append(f"began {clock(report.began)}")
    if report.seconds:
        facts.append(f"took {spoken(report.seconds)}")
    if report.trigger:
        facts.append(f"by {report.trigger}")
    if report.approved_by:
        facts.append(f"approved by {report.approved_by}")
    if report.nodes:
        facts += [counted(report.evicted, "eviction"), f"{report.refused:,} refused by budgets"]
    if report.failovers:
        stall = report.longest_stall_ms
        longest = "" if stall is None else f", longest stall of writes {stall:,} ms"
        facts.append(counted(sum(f.completed for f in report.failovers), "failover") + longest)
    return joined(facts, style="dim")


COLUMNS = (
    Column("node", keep=9),
    Column("by", keep=5, below="by "),
    Column("took", keep=7, right=True),
)


def _nodes(report: Report) -> Listing:
    rows = [
        Row(
            (short(node.node), short(node.replacement_node), spoken(node.seconds)),
            notes=tuple(map(Text, _notes(node))),
            style="red" if node.failure else "",
        )
        for node in report.nodes
    ]
    return Listing(COLUMNS, rows)


def _notes(node: NodePage) -> Iterator[str]:
    if node.failure:
        yield f"not replaced: {node.failure}"
    holds = [hold for step in node.steps for hold in step.holds]
    # What it failed with says what it waited for.
    if holds and not node.failed:
        longest = max(holds, key=lambda h: h.seconds)
        yield f"waited longest ({spoken(longest.seconds)}) because: {longest.reason}"


def _orphan(orphan: Orphan) -> str:
    what = f"{orphan.kind} {orphan.object}"
    return f"{what}: {orphan.by_hand}" if orphan.by_hand else what


def _lists(report: Report, start: str) -> Iterator[RenderableType]:
    for title, style, sentences in (
        ("version", "bold", report.way_back),
        ("restored", "green", report.restored),
        ("left behind", "bold red", report.left_behind),
        ("orphan", "bold red", tuple(map(_orphan, report.untold))),
        ("not known", "yellow", report.gaps),
    ):
        for sentence in sentences:
            yield whole(Text.assemble((f"{title}  ", style), sentence))
    if report.left_behind or report.orphans:
        yield advice(way_out(start))
    if report.outcome == "blocked":
        yield from findings_by_severity(report.findings)
