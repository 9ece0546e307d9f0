"""A roll as people watch it: a picture on a terminal, lines elsewhere. Pure: `RollState` in, Rich or text out."""

from collections.abc import Iterator

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.text import Text

from eks_rolling.documents.remedies import typed, way_out
from eks_rolling.wording import counted, short, spoken
from eks_rolling_cli.cli_context import UNFOLDED
from eks_rolling_cli.execution_history import Position, without_numbers
from eks_rolling_cli.format import brief, clock, size
from eks_rolling_cli.listing import Column, Fitted, Listing, Row, advice, indented, joined
from eks_rolling_cli.roll_state import RollNodeState, RollState, Stage

STYLES = {
    Stage.WAITING: "dim",
    Stage.REPLACING: "yellow",
    Stage.REPLACED: "green",
    Stage.FAILED: "bold red",
    Stage.ABORTED: "bold magenta",
    Stage.STOPPED: "bold magenta",
    Stage.UNTOUCHED: "dim",
}

CUT_SHORT = frozenset({Stage.FAILED, Stage.ABORTED, Stage.STOPPED})
"""Stages of nodes that were begun and not replaced."""

SHOWN = 24
"""Nodes in the picture; those in work come first, the rest is counted."""

COUNTED_SECONDS = 60
"""After so long a reason is told again in which only numbers have changed."""

FRAMED = 72
"""Columns from which on there is room for a frame."""

COLUMNS = (
    Column("node", keep=9),
    Column("", keep=8),
    Column("step", keep=7),
    Column("for", keep=6, below="for ", right=True),
    Column("by", keep=4, below="by "),
    Column("zone", keep=3, below=None),
)


def picture(
    seen: RollState, cluster: str, *extra: RenderableType, note: str = "", most: int = SHOWN, start: str = ""
) -> RenderableType:
    """The live view of at most so many nodes; `extra` comes below them, `note` below all. `start` is the command that
    starts a roll of this cluster."""
    start = start or typed("start", cluster=cluster)
    parts: list[RenderableType] = [*_headlines(seen, start), _progress(seen)]
    if seen.nodes:
        parts += [Text(), *_nodes(seen, most)]
    parts += [_redis_line(n) for n in seen.staged(Stage.REPLACING) if n.at.redis]
    parts += extra
    if note:
        parts.append(Text(note, style="dim"))
    return panel(f"{cluster}  {brief(seen.roll)}", *parts, longest=len(start) if seen.left_behind else 0)


def panel(title: str, *parts: RenderableType, longest: int = 0) -> RenderableType:
    """The frame around everything that is drawn live. On a narrow terminal, and off any, the title stands above: so it
    does where a frame would cut it, or the `longest` command in it."""
    needed = max(FRAMED, cell_len(title) + len("╭─ eks-rolling   ─╮"), longest + len("│   → `` │"))

    def draw(width: int) -> RenderableType:
        if needed <= width < UNFOLDED:
            return Panel(
                Group(*parts), title=f"eks-rolling  {title}", title_align="left", box=box.ROUNDED, padding=(0, 1)
            )
        return Group(Text(f"eks-rolling  {title}", style="bold"), *parts)

    return Fitted(draw)


def _headlines(seen: RollState, start: str) -> Iterator[RenderableType]:
    """What is asked of the roll before all else, then where it is, and why on a line of its own."""
    if not seen.running:
        good = seen.status == "SUCCEEDED"
        yield Text("Done" if good else _ending(seen), style="bold green" if good else "bold red")
        if said := seen.failure or seen.result or seen.plan:
            yield indented(Text(said), 2)
        yield from (indented(Text(said), 2) for said in seen.way_back)
        yield from _left(seen, start)
        return
    if "abort" in seen.asked:
        yield Text.assemble(("ABORTING", "bold reverse red"), f"  {seen.asked['abort']}")
    if "pause" in seen.asked or seen.paused:
        word = "PAUSED" if seen.paused else "PAUSING"
        yield Text.assemble((word, "bold reverse magenta"), f"  {seen.asked.get('pause', '')}".rstrip())
    line = Text(seen.at.state or "starting", style="bold")
    if seen.at.reason:
        line.append(f"  for {spoken(seen.looked - seen.at.held_since)}", style="not bold dim")
    yield line
    if seen.at.reason:
        yield indented(Text(seen.at.reason, style="yellow"), 2)


def _left(seen: RollState, start: str) -> Iterator[RenderableType]:
    if seen.left_behind:
        yield Text("LEFT BEHIND", style="bold reverse red")
        yield from (indented(Text(each, style="red"), 2) for each in seen.left_behind)
        yield advice(way_out(start), 2)


def _ending(seen: RollState) -> str:
    ends = {"Aborted": "Aborted", "Blocked": "Blocked", "NotApproved": "Not approved"}
    return {"ABORTED": "Stopped", "TIMED_OUT": "Timed out"}.get(seen.status) or ends.get(seen.error, "Failed")


def _progress(seen: RollState) -> RenderableType:
    facts = [f"{spoken((seen.ended or seen.looked) - seen.began)} so far" if seen.running
             else f"took {spoken((seen.ended or seen.looked) - seen.began)}"]  # fmt: skip
    if seen.nodes:
        facts.insert(0, f"{seen.replaced} of {counted(len(seen.nodes), 'node')} replaced")
    if seen.waves and seen.running:
        facts.append(f"wave {seen.waves[-1].number}")
    if (rate := seen.nodes_per_hour) is not None:
        facts.append(f"{rate:.1f} nodes/h")
    if (left := seen.seconds_left) is not None:
        facts.append(f"about {spoken(left)} left{' once it continues' if seen.paused else ''}")
    elif seen.running and seen.expected and not seen.replaced:
        facts.append(f"longer than the {spoken(seen.expected)} that were planned")
    bar = ProgressBar(total=max(1, len(seen.nodes)), completed=seen.replaced, width=24)
    return Group(joined(facts), bar) if seen.nodes else joined(facts)


def _nodes(seen: RollState, most: int) -> Iterator[RenderableType]:
    shown = chosen(seen, most)
    yield Listing(COLUMNS, [_row(seen, node) for node in shown])
    hidden = [n for n in seen.nodes if n not in shown]
    if hidden:
        counts = [f"{sum(n.stage is stage for n in hidden)} {stage}" for stage in Stage]
        yield Text("and " + ", ".join(c for c in counts if not c.startswith("0 ")), style="dim italic")


def _row(seen: RollState, node: RollNodeState) -> Row:
    return Row(
        (
            short(node.node),
            Text(node.stage, style=STYLES[node.stage]),
            node.at.state if node.stage in {Stage.REPLACING, *CUT_SHORT} else "",
            _how_long(seen, node),
            short(node.replacement),
            node.zone,
        ),
        # What ended the roll stands above them all.
        notes=(Text(node.at.reason, style="yellow" if node.stage is Stage.REPLACING else "red"),)
        if node.at.reason not in {"", seen.failure}
        else (),
        style="dim" if node.stage in {Stage.WAITING, Stage.UNTOUCHED} else "",
    )


def chosen(seen: RollState, most: int = SHOWN) -> list[RollNodeState]:
    """The nodes that the picture has room for, in the plan's order: what failed or is in work before all others."""
    weight = dict.fromkeys(CUT_SHORT, 0) | {
        Stage.REPLACING: 1, Stage.WAITING: 2, Stage.REPLACED: 3, Stage.UNTOUCHED: 4,
    }  # fmt: skip
    order = {n.instance: i for i, n in enumerate(seen.nodes)}
    # Of those that are done the latest say most.
    first = sorted(seen.nodes, key=lambda n: (weight[n.stage], -(n.ended or 0) if n.ended else order[n.instance]))[
        :most
    ]
    return sorted(first, key=lambda n: order[n.instance])


def _how_long(seen: RollState, node: RollNodeState) -> str:
    """For how long it has been at what it is at, or took in all."""
    if node.stage is Stage.REPLACING:
        return spoken(seen.looked - (node.at.held_since or node.at.entered or node.began or seen.looked))
    return spoken(node.ended - node.began) if node.ended and node.began else ""


def _redis_line(node: RollNodeState) -> Text:
    at = node.at
    line = Text("redis ", style="bold cyan")
    line.append(at.redis, style="cyan")
    line.append(f"  {at.state} ({short(node.node)})", style="default")
    if at.bytes_left is not None:
        line.append(f"  {size(at.bytes_left)} left", style="bold")
    if at.bytes_per_second:
        line.append(f", {size(at.bytes_per_second)}/s")
    if at.seconds_left is not None:
        line.append(f", about {spoken(at.seconds_left)}")
    return line


Told = dict[str, tuple[Position, float]]
"""What was told last, of the roll ("") and of each node, by its instance: where it was, and when that was seen."""


def changes(
    before: RollState | None, after: RollState, start: str = typed("start", cluster=""), told: Told | None = None
) -> Iterator[str]:
    """What an operator would want to be told between two looks, a line each; `start` as for `picture`. Keeps in `told`
    what it tells: who looks again and again gives the same at each look."""
    told = {} if told is None else told
    if before is None:
        began = f"roll {after.roll}, started at {clock(after.began)} by {after.trigger}"
        yield f"{began}: {after.plan}" if after.plan else began
    elif after.plan and not before.plan:
        yield f"plan: {after.plan}"
    if _is_news(told, "", before.at if before else None, after.at, before, after):
        reason = _with_since(after.at.reason, after.looked - after.at.held_since)
        yield f"{after.at.state or 'starting'}" + (f": {reason}" if reason else "")
    for what, why in after.asked.items():
        if before is None or before.asked.get(what) != why:
            yield f"{what} requested: {why}"
    withdrawn = before is not None and "pause" in before.asked and "abort" not in before.asked
    # A roll that ends gives its lock back, and with it what was asked; nobody takes an abort back.
    if withdrawn and "pause" not in after.asked and after.running:
        yield "the request to pause was withdrawn"
    known = {n.instance: n for n in before.nodes} if before else {}
    for node in after.nodes:
        yield from _node_changes(known.get(node.instance), node, before, after, told)
    if not after.running and (before is None or before.running):
        took = spoken((after.ended or after.looked) - after.began)
        count = f"; {after.replaced} of {counted(len(after.nodes), 'node')} replaced" if after.nodes else ""
        yield f"{'done' if after.status == 'SUCCEEDED' else _ending(after).lower()} after {took}{count}" + (
            f": {after.failure}" if after.failure else ""
        )
        yield from after.way_back
        yield from (f"LEFT BEHIND: {each}" for each in after.left_behind)
        if after.left_behind:
            yield way_out(start)


def _is_news(
    told: Told, subject: str, was: Position | None, now: Position, before: RollState | None, after: RollState
) -> bool:
    """Whether it is elsewhere, or waits for something else, than was told last. What only counts, up or down, is told
    once a minute."""
    if was is not None and before is not None:
        last, when = told.setdefault(subject, (was, before.looked))
        same = (last.state, without_numbers(last.reason)) == (now.state, without_numbers(now.reason))
        if same and (last.reason == now.reason or after.looked - when < COUNTED_SECONDS):
            return False
    told[subject] = now, after.looked
    return True


def _node_changes(
    was: RollNodeState | None, node: RollNodeState, before: RollState | None, seen: RollState, told: Told
) -> Iterator[str]:
    name = short(node.node)
    if node.stage is Stage.REPLACING:
        if _is_news(told, node.instance, was.at if was else None, node.at, before, seen):
            reason = _with_since(node.at.reason, seen.looked - node.at.held_since)
            yield f"{name}: {node.at.state or 'begun'}" + (f": {reason}" if reason else "")
    elif was is not None and was.stage is node.stage:
        return
    elif node.stage is Stage.REPLACED:
        took = f" in {spoken(node.ended - node.began)}" if node.ended and node.began else ""
        by = f" by {short(node.replacement)}" if node.replacement else ""
        yield f"{name}: replaced{by}{took}"
    elif node.stage in CUT_SHORT:
        where = f" at: {node.at.state}" if node.at.state else ""
        yield f"{name}: {node.stage}{where}" + (f": {node.at.reason}" if node.at.reason else "")


def _with_since(reason: str, seconds: float) -> str:
    return f"{reason} (for {spoken(seconds)})" if reason and seconds >= 5 else reason
