"""A plan as people read it. Pure: the plan's document in, Rich out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from eks_rolling.documents.finding import HEADINGS, Finding, Severity, by_severity
from eks_rolling.documents.plan import Move, PlanDocument
from eks_rolling.wording import counted, short, spoken
from eks_rolling_cli.format import clock, size
from eks_rolling_cli.listing import INDENT, Column, Listing, Row, advice, facts, indented

STYLES = {Severity.BLOCKS: "bold red", Severity.HOLDS: "bold yellow", Severity.NOTE: "bold cyan"}

SHOWN = 40
"""Nodes in the table; with --all every one, and every pod that moves."""

COLUMNS = (
    Column("", keep=9, right=True),
    Column("node", keep=9),
    Column("version", keep=8),
    Column("age", keep=5, below="age ", right=True),
    Column("zone", keep=4),
    Column("group", keep=3, below="group "),
    Column("what moves", keep=2, below="moves "),
)


def rendered(document: dict[str, Any], next_step: str, *, every: bool = False) -> RenderableType:
    """The whole plan, its sum last; `next_step` follows it, if there is one."""
    plan = PlanDocument.model_validate(document)
    parts: list[RenderableType] = [_headline(plan), _about(plan)]
    if plan.nodes:
        parts += [Text(), *_nodes(plan, every=every), Text(), facts(list(_figures(plan)))]
    parts += list(findings_by_severity(plan.findings))
    if plan.nodes:
        parts += [Text(), _headline(plan), *([Text(plan.in_short)] if plan.in_short else [])]
    if next_step:
        parts += [Text(), advice(next_step, arrow="", style="bold")]
    return Group(*parts)


def _headline(plan: PlanDocument) -> Text:
    style = "bold red" if plan.outcome == "blocked" else "bold"
    return Text(plan.headline[:1].upper() + plan.headline[1:], style=style)


def _about(plan: PlanDocument) -> Text:
    looked = [f"looked at {clock(plan.made)}"] if plan.made else []
    return Text(" · ".join(filter(None, [plan.cluster, *looked])), style="dim")


def _nodes(plan: PlanDocument, *, every: bool) -> Iterator[RenderableType]:
    shown = plan.nodes if every else plan.nodes[:SHOWN]
    aged = any(n.age_seconds is not None for n in shown)
    rows = []
    for number, node in enumerate(shown, start=1):
        age = spoken(node.age_seconds) if node.age_seconds is not None else "?"
        rows.append(
            Row(
                (
                    str(number),
                    short(node.node),
                    node.versions,
                    age if aged else "",
                    node.zone,
                    node.group,
                    "" if every else node.what_moves,
                ),
                notes=(
                    *([Text(f"replaced because {node.reason}")] if node.reason else ()),
                    *([Text(node.spare)] if node.spare else ()),
                    *(Text(move_sentence(m)) for m in (node.moves if every else ())),
                ),
                heading=f"wave {node.wave}" if number == 1 or node.wave != shown[number - 2].wave else "",
            )
        )
    yield Listing(COLUMNS, rows)
    if len(plan.nodes) > len(shown):
        yield Text(f"and {len(plan.nodes) - len(shown):,} more; --all shows them, and every pod", style="dim italic")


def move_sentence(move: Move) -> str:
    """How one pod leaves: "shop/web-1: evicted, budget shop/web allows 1"."""
    how = {"evict": "evicted", "restart": "its Deployment is restarted", "migrate": "migrated"}[move.way]
    parts = [f"{move.pod}: {how}"]
    if move.redis:
        parts.append(f"redis {move.redis} ({move.role})" if move.role else f"redis {move.redis}")
    elif move.budget:
        parts.append(f"budget {move.budget} allows {move.allowed if move.allowed is not None else 'an unknown number'}")
    parts += [f"volume {v.name}" + (f" in {', '.join(v.zones)}" if v.zones else "") for v in move.volumes]
    return ", ".join(parts) + (f"; would stay Pending: {move.stays_pending}" if move.stays_pending else "")


def _figures(plan: PlanDocument) -> Iterator[tuple[str, Text]]:
    """What is needed and what there is, a line each."""
    for change in dict.fromkeys(c for n in plan.nodes for c in n.changes):
        yield "changes", Text(f"{change.what}: {change.before} → {change.after}")
    for zone in plan.zones:
        free = "" if zone.free_addresses is None else f"; {zone.free_addresses:,} addresses free"
        needs = f"{zone.zone} ({zone.group}): {zone.nodes}, at most {zone.at_once} at once"
        yield "replacements", Text(needs + free)
    if raised := [f"{g.group} {g.maximum} → {g.raised_to}" for g in plan.groups if g.raised_to is not None]:
        yield "maximum size", Text(f"{', '.join(raised)} for the time of the roll")
    for way_back in plan.former:
        yield "if it fails", Text(way_back.sentence)
    for quota in plan.quotas:
        yield "quota", Text(_quota(quota.model_dump()))
    for described in plan.redis:
        yield "redis", _redis(described)
    for pending in (m for n in plan.nodes for m in n.moves if m.stays_pending):
        yield "Pending", Text(f"{pending.pod}: {pending.stays_pending}", style="red")
    if plan.estimate.transitions:
        yield "costs", Text(f"{plan.estimate.transitions:,} state transitions")


def _quota(quota: dict[str, Any]) -> str:
    if quota["unknown"]:
        return f"{quota['name']}: {quota['unknown']}"
    numbers = {name: quota[name] for name in ("limit", "used", "needed") if quota[name] is not None}
    return f"{quota['name']}: " + ", ".join(f"{value:g} {name}" for name, value in numbers.items())


def _redis(group: dict[str, Any]) -> Text:
    line = Text(f"{group.get('group', '')}, {group.get('kind', '')}: ")
    if group.get("fault"):
        return line.append(str(group["fault"]), style="red")
    servers = group.get("servers") or ()
    roles = Counter(str(s.get("role", "")) for s in servers)
    roles["sentinel"] = len(group.get("sentinels") or ())
    line.append(", ".join(counted(n, role) for role, n in roles.items() if n))
    held = sum(int(s.get("used_bytes") or 0) for s in servers if s.get("role") == "master")
    if held:
        line.append(f", {size(held)} to synchronize at most")
    healthy = bool(group.get("healthy"))
    return line.append(", healthy" if healthy else ", not healthy", style="green" if healthy else "red")


def findings_by_severity(findings: Iterable[Finding]) -> Iterator[RenderableType]:
    """Every finding with its object, reason and remedy, the gravest first."""
    for severity, found in by_severity(findings).items():
        yield Text(f"\n{HEADINGS[severity]} ({len(found)})", style=STYLES[severity])
        for finding in found:
            line = Text()
            line.append(finding.object, style="bold")
            line.append(f": {finding.reason}")
            line.append(f"  {finding.code}", style="dim")
            yield indented(line, 2)
            yield advice(finding.remedy, INDENT)
