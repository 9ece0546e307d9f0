"""A plan as people read it. Pure: the plan's document in, Rich out. What a document lacks is left out."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.words import counted, short, spoken

Json = dict[str, Any]

SEVERITIES = {
    "blocks": ("Blocks the roll", "bold red"),
    "holds": ("Will hold it", "yellow"),
    "note": ("Worth knowing", "cyan"),
}

SHOWN = 40
"""Nodes in the table; `--all` shows every one."""


def rendered(plan: Json, next_step: str, *, every: bool = False) -> RenderableType:
    """The whole plan; `next_step` is its last sentence."""
    parts: list[RenderableType] = [_headline(plan)]
    if plan.get("nodes"):
        parts.append(_nodes(plan, every=every))
        parts += list(_figures(plan))
    parts += list(_redis(plan))
    parts += list(findings_by_severity(plan.get("findings") or ()))
    parts.append(Text(f"\n{next_step}", style="bold"))
    return Group(*parts)


def _headline(plan: Json) -> Text:
    blocked = plan["outcome"] == "blocked"
    blockers = sum(f["severity"] == "blocks" for f in plan.get("findings") or ())
    nodes = counted(len(plan.get("nodes") or ()), "outdated node")
    # The reason of a blocked plan repeats every finding, which are listed below.
    said = f"{nodes}; blocked by {counted(blockers, 'finding')}" if blocked else plan["reason"]
    return Text(said[:1].upper() + said[1:], style="bold red" if blocked else "bold")


def _nodes(plan: Json, *, every: bool) -> Table:
    nodes = plan["nodes"]
    shown = nodes if every else nodes[:SHOWN]
    columns: dict[str, Callable[[Json], str]] = {
        "zone": lambda n: n.get("zone", ""),
        "node": lambda n: short(n["node"]),
        "group": lambda n: n.get("group", ""),
        "age": lambda n: spoken(n["age_seconds"]) if n.get("age_seconds") is not None else "",
        "from": lambda n: _version(n.get("from", "")),
        "to": lambda n: _version(n.get("to", "")),
        "moves": lambda n: moves(n.get("moves")),
    }
    used = {name: cell for name, cell in columns.items() if any(cell(n) for n in shown)}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right", style="dim")
    for name in used:
        table.add_column(name, overflow="fold", no_wrap=name in {"zone", "from", "to", "age"})
    for number, node in enumerate(shown, start=1):
        table.add_row(str(number), *(Text(cell(node)) for cell in used.values()))
    if len(nodes) > len(shown):
        table.caption = f"and {len(nodes) - len(shown):,} more; --all shows them"
        table.caption_justify = "left"
    return table


def _version(template: str) -> str:
    """ "lt-0123:7" as "7": the template's id says nothing to people, unless it changes."""
    return template.rpartition(":")[2]


def moves(given: Any) -> str:
    """What moves off a node, as the document has it."""
    return str(given or "")


def _figures(plan: Json) -> Iterator[RenderableType]:
    """Replacements per zone, what would stay Pending, how long it takes."""
    zones = Counter(n.get("zone", "") for n in plan["nodes"])
    yield Text(
        "replacements  " + ", ".join(f"{zone or 'unknown zone'} {count}" for zone, count in sorted(zones.items()))
    )


def _redis(plan: Json) -> Iterator[RenderableType]:
    for group in plan.get("redis") or ():
        yield Text.assemble(("redis  ", "bold cyan"), _redis_sentence(group))


def _redis_sentence(group: Json) -> str:
    return ", ".join(f"{key} {value}" for key, value in group.items() if isinstance(value, str | int))


def findings_by_severity(findings: Any) -> Iterator[RenderableType]:
    """Every finding with its object, reason and remedy, the gravest first."""
    for severity, (title, style) in SEVERITIES.items():
        found = [f for f in findings if f["severity"] == severity]
        if not found:
            continue
        yield Text(f"\n{title} ({len(found)})", style=style)
        for finding in found:
            line = Text()
            line.append(finding["object"], style="bold")
            line.append(f"  {finding['reason']}")
            line.append(f"  [{finding['code']}]", style="dim")
            yield Padding(line, (0, 0, 0, 2))
            yield Padding(Text(f"→ {finding['remedy']}", style="green"), (0, 0, 0, 4))
