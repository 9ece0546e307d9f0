"""A plan as people read it. Pure: the plan's document in, Rich out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eks_rolling.documents.plan import Move, PlanDocument, PlannedFinding, PlannedNode
from eks_rolling_cli.format import clock, counted, short, size, spoken

SEVERITIES = {
    "blocks": ("Blocks the roll", "bold red"),
    "holds": ("Will hold it", "bold yellow"),
    "note": ("Worth knowing", "bold cyan"),
}

SHOWN = 40
"""Nodes in the table; with --all every one, and every pod that moves."""


def rendered(document: dict[str, Any], next_step: str, *, every: bool = False) -> RenderableType:
    """The whole plan; `next_step` is its last sentence, if there is one."""
    plan = PlanDocument.model_validate(document)
    parts: list[RenderableType] = [_headline(plan)]
    if plan.nodes:
        parts.append(_nodes(plan, every=every))
        parts.append(_figures(plan))
    parts += list(findings_by_severity(plan.findings))
    if next_step:
        parts.append(Text(f"\n{next_step}", style="bold"))
    return Group(*parts)


def _headline(plan: PlanDocument) -> Text:
    blockers = sum(f.severity == "blocks" for f in plan.findings)
    if plan.outcome == "blocked":
        # The reason repeats every finding, which are listed below.
        line = Text(
            f"{counted(len(plan.nodes), 'outdated node')}; blocked by {counted(blockers, 'finding')}", style="bold red"
        )
    else:
        line = Text(plan.reason[:1].upper() + plan.reason[1:], style="bold")
    about = [plan.cluster, *([f"looked at {clock(plan.made)}"] if plan.made else [])]
    line.append("  " + " · ".join(filter(None, about)), style="not bold dim default")
    return line


def _nodes(plan: PlanDocument, *, every: bool) -> Table:
    shown = plan.nodes if every else plan.nodes[:SHOWN]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right", style="dim")
    table.add_column("zone", no_wrap=True)
    table.add_column("node", no_wrap=True)
    table.add_column("group", overflow="fold")
    aged = any(n.age_seconds is not None for n in shown)
    if aged:
        table.add_column("age", no_wrap=True, justify="right")
    table.add_column("version", no_wrap=True)
    table.add_column("what moves", overflow="fold")
    for number, node in enumerate(shown, start=1):
        new_wave = number > 1 and node.wave != shown[number - 2].wave
        if new_wave:
            table.add_section()
        table.add_row(
            str(number),
            node.zone,
            Text(short(node.node)),
            Text(node.group),
            *([spoken(node.age_seconds) if node.age_seconds is not None else "?"] if aged else []),
            _versions(node),
            _every_move(node) if every else Text(moves(node.moves)),
        )
    if len(plan.nodes) > len(shown):
        table.caption = f"and {len(plan.nodes) - len(shown):,} more; --all shows them, and every pod"
        table.caption_justify = "left"
    return table


def _versions(node: PlannedNode) -> Text:
    """ "3 → 4"; the launch templates' ids as well where they differ."""
    before, after = node.before.partition(":"), node.to.partition(":")
    same = before[0] == after[0]
    return Text(f"{before[2] if same else node.before} → {after[2] if same else node.to}")


def moves(given: Iterable[Move]) -> str:
    """What leaves a node, in a line: "5 pods, 1 volume, redis shop/cache (master)"."""
    pods = list(given)
    parts = [counted(len(pods), "pod")] if pods else []
    volumes = sum(len(m.volumes) for m in pods)
    restarted = sum(m.way == "restart" for m in pods)
    parts += [counted(volumes, "volume")] if volumes else []
    parts += [f"{restarted} by restart"] if restarted else []
    redis = Counter((m.redis, m.role) for m in pods if m.redis)
    parts += [
        f"redis {group} ({role}{f', {n} of them' if n > 1 else ''})" for (group, role), n in sorted(redis.items())
    ]
    return ", ".join(parts) or "nothing"


def _every_move(node: PlannedNode) -> Text:
    return Text("\n").join(Text(move_sentence(m)) for m in node.moves) if node.moves else Text("nothing")


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


def _figures(plan: PlanDocument) -> Table:
    """What is needed and what there is, a line each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for change in dict.fromkeys(c for n in plan.nodes for c in n.changes):
        grid.add_row("changes", Text(f"{change.what}: {change.before} → {change.after}"))
    for zone in plan.zones:
        free = "" if zone.free_addresses is None else f"; {zone.free_addresses:,} addresses free"
        needs = f"{zone.zone} ({zone.group}): {zone.nodes}, at most {zone.at_once} at once"
        grid.add_row("replacements", Text(needs + free))
    if raised := [f"{g.group} {g.maximum} → {g.raised_to}" for g in plan.groups if g.raised_to is not None]:
        grid.add_row("maximum size", Text(f"{', '.join(raised)} for the time of the roll"))
    for quota in plan.quotas:
        grid.add_row("quota", Text(_quota(quota.model_dump())))
    for described in plan.redis:
        grid.add_row("redis", _redis(described))
    for pending in (m for n in plan.nodes for m in n.moves if m.stays_pending):
        grid.add_row("Pending", Text(f"{pending.pod}: {pending.stays_pending}", style="red"))
    if plan.estimate.seconds:
        waves = counted(plan.estimate.waves, "wave")
        steps = f"; {plan.estimate.transitions:,} state transitions" if plan.estimate.transitions else ""
        grid.add_row("estimate", Text(f"about {spoken(plan.estimate.seconds)} in {waves}, {plan.surge} at once{steps}"))
    return grid


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


def findings_by_severity(findings: Iterable[PlannedFinding]) -> Iterator[RenderableType]:
    """Every finding with its object, reason and remedy, the gravest first."""
    listed = list(findings)
    for severity, (title, style) in SEVERITIES.items():
        found = [f for f in listed if f.severity == severity]
        if found:
            yield Text(f"\n{title} ({len(found)})", style=style)
        for finding in found:
            line = Text()
            line.append(finding.object, style="bold")
            line.append(f": {finding.reason}")
            line.append(f"  {finding.code}", style="dim")
            yield Padding(line, (0, 0, 0, 2))
            yield Padding(Text(f"→ {finding.remedy}", style="green"), (0, 0, 0, 4))
