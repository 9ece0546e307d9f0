"""A roll as people watch it: live on a terminal, lines elsewhere."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lab.cluster_state import NodeView, look_at_nodes
from lab.kube import Kube
from lab.lifecycle import Lab
from lab.loop_thread import LoopThread
from lab.rolls import Progress, Rolls

LOOK_SECONDS = 1.5

OLD, LEAVING, NEW = "old", "leaving", "new"


@dataclass(frozen=True)
class Snapshot:
    """One look at everything that is shown."""

    roll: Progress | None = None
    nodes: tuple[NodeView, ...] = ()
    in_flight: tuple[Progress, ...] = ()
    traffic: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0


class Looker:
    """Takes snapshots of a lab."""

    def __init__(self, lab: Lab, rolls: Rolls, kube: Kube, loop: LoopThread) -> None:
        self._lab = lab
        self._rolls = rolls
        self._kube = kube
        self._loop = loop

    def look(self, execution: str | None) -> Snapshot:
        """Looks now; `execution` is the roll's, None while there is none."""
        return Snapshot(
            roll=self._rolls.progress(execution) if execution else None,
            nodes=self._loop.run(look_at_nodes(self._kube, self._rolls)),
            in_flight=tuple(self._rolls.nodes_in_flight()) if execution else (),
            traffic=self._traffic(),
            at=time.time(),
        )

    def _traffic(self) -> dict[str, Any]:
        try:
            live: dict[str, Any] = json.loads((self._lab.paths.traffic / "live.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return live


def age(node: NodeView, newest: str) -> str:
    """Whether a node is old, leaving or new; `newest` is the launch template version that the roll goes to."""
    if newest and node.version == newest:
        return NEW
    return LEAVING if node.taint == "NoSchedule" else OLD


class View(Protocol):
    """Shows snapshots as they come."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, words: str) -> None:
        """Something that is not in a snapshot."""
        ...

    def show(self, snapshot: Snapshot) -> None: ...


class LiveView:
    """The whole picture, redrawn in place."""

    def __init__(self, console: Console, title: str, newest: str) -> None:
        self._title = title
        self._newest = newest
        self._began = time.monotonic()
        self._words = ""
        self._snapshot = Snapshot()
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, words: str) -> None:
        self._words = words

    def show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def _render(self) -> RenderableType:
        seconds = time.monotonic() - self._began
        clock = f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
        return picture(self._snapshot, f"{self._title}  {clock}", self._words, self._newest)


def picture(snapshot: Snapshot, title: str, words: str, newest: str) -> RenderableType:
    """The live view's content."""
    parts: list[RenderableType] = [_roll_line(snapshot, words)]
    if snapshot.nodes:
        parts.append(_node_table(snapshot, newest))
    if snapshot.traffic:
        parts.append(_traffic_line(snapshot.traffic))
    return Panel(Group(*parts), title=title, title_align="left", box=box.ROUNDED, padding=(0, 1))


def _roll_line(snapshot: Snapshot, words: str) -> Text:
    if snapshot.roll is None:
        return Text(words, style="bold")
    style = {"SUCCEEDED": "bold green", "RUNNING": "bold"}.get(snapshot.roll.status, "bold red")
    line = Text(snapshot.roll.state or snapshot.roll.status, style=style)
    if snapshot.roll.reason:
        line.append(f"  {snapshot.roll.reason}", style="dim")
    if not snapshot.roll.running:
        line.append(f"  {words}", style="not bold")
    return line


def _node_table(snapshot: Snapshot, newest: str) -> Table:
    steps = {p.instance: p for p in snapshot.in_flight}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for column in ("zone", "node", "state", "version", "pods"):
        table.add_column(column, no_wrap=True, justify="right" if column in {"version", "pods"} else "left")
    table.add_column("step", no_wrap=True, ratio=2)
    table.add_column("waits for", no_wrap=True, overflow="ellipsis", ratio=4)
    styles = {OLD: "", LEAVING: "yellow", NEW: "green"}
    for node in snapshot.nodes:
        step = steps.get(node.instance)
        state = age(node, newest)
        seconds = f" ({snapshot.at - step.since:.0f} s)" if step and step.reason else ""
        table.add_row(
            node.zone,
            short(node.name),
            state,
            node.version,
            str(node.pods),
            step.state if step else ("" if node.ready else "not Ready"),
            f"{step.reason}{seconds}" if step else "",
            style=styles[state],
        )
    return table


def _traffic_line(traffic: dict[str, Any]) -> Text:
    jobs = traffic["jobs"]
    line = Text(f"{traffic['requests']} requests, {traffic['per_second']:.0f}/s, ")
    line.append(f"{traffic['failed']} failed", style="bold red" if traffic["failed"] else "green")
    line.append(f"   jobs {jobs['done']} of {jobs['made']} done")
    for group in traffic.get("redis", ()):
        line.append(f"   redis {group['group']} {group['acked']:,} writes")
    missing = [f"{app} {count}" for app, count in sorted(traffic["unavailable"].items()) if count]
    line.append(f"   unavailable now: {', '.join(missing) or 'none'}")
    return line


class LineView:
    """What changed, a line each."""

    def __init__(self, console: Console, newest: str) -> None:
        self._console = console
        self._newest = newest
        self._began = time.monotonic()
        self._last = Snapshot()
        self._said_traffic = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, words: str) -> None:
        seconds = time.monotonic() - self._began
        self._console.print(f"{seconds:6.1f} s  {words}", highlight=False, markup=False, soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        for line in changes(self._last, snapshot, self._newest):
            self.say(line)
        if snapshot.traffic and snapshot.at - self._said_traffic > 10:
            self._said_traffic = snapshot.at
            self.say(_traffic_line(snapshot.traffic).plain)
        self._last = snapshot


def changes(before: Snapshot, after: Snapshot, newest: str) -> Iterator[str]:
    """What an operator would want to be told between two snapshots."""
    if after.roll and (
        before.roll is None or (before.roll.state, before.roll.reason) != (after.roll.state, after.roll.reason)
    ):
        yield f"roll: {after.roll.state}" + (f": {after.roll.reason}" if after.roll.reason else "")
    known = {n.instance: n for n in before.nodes}
    for node in after.nodes:
        if before.nodes and node.instance not in known:
            yield f"{short(node.name)}: joined in {node.zone}, version {node.version}"
        elif before.nodes and node.ready and not known[node.instance].ready and age(node, newest) == NEW:
            yield f"{short(node.name)}: Ready"
    there = {n.instance for n in after.nodes}
    for node in before.nodes:
        if node.instance not in there:
            yield f"{short(node.name)}: gone"
    steps = {p.instance: (p.state, p.reason) for p in before.in_flight}
    for step in after.in_flight:
        if steps.get(step.instance) != (step.state, step.reason):
            yield f"{short(step.node)}: {step.state}" + (f": {step.reason}" if step.reason else "")


def short(node: str) -> str:
    """A node's name without its domain."""
    return node.partition(".")[0]
