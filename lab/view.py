"""A roll as people watch it: live on a terminal, lines elsewhere."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from eks_rolling.wording import short, spoken
from eks_rolling_cli.cli_context import unfolded
from eks_rolling_cli.plan_view import rendered
from eks_rolling_cli.roll_state import RollState
from eks_rolling_cli.watch_view import changes as roll_changes
from eks_rolling_cli.watch_view import panel
from eks_rolling_cli.watch_view import picture as roll_picture
from lab.cluster_state import NodeView, look_at_nodes
from lab.kube import Kube
from lab.lifecycle import Lab
from lab.loop_thread import LoopThread
from lab.rolls import Rolls

LOOK_SECONDS = 1.5


@dataclass(frozen=True)
class Snapshot:
    """One look at everything that is shown."""

    roll: RollState | None = None
    nodes: tuple[NodeView, ...] = ()
    traffic: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0


class LabLooker:
    """Takes snapshots of a lab."""

    def __init__(self, lab: Lab, rolls: Rolls, kube: Kube, loop: LoopThread) -> None:
        self._lab = lab
        self._rolls = rolls
        self._kube = kube
        self._loop = loop
        self._roll_looker = rolls.looker()

    def look(self, execution: str | None) -> Snapshot:
        """Looks now; `execution` is the roll's, None while there is none."""
        return Snapshot(
            roll=self._roll_looker.look(execution) if execution else None,
            nodes=self._loop.run(look_at_nodes(self._kube, self._rolls)),
            traffic=self._traffic(),
            at=time.time(),
        )

    def _traffic(self) -> dict[str, Any]:
        try:
            live: dict[str, Any] = json.loads((self._lab.paths.traffic / "live.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return live


class Screen(Protocol):
    """Shows snapshots as they come."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, words: str) -> None:
        """Something that is not in a snapshot."""
        ...

    def plan(self, document: dict[str, Any]) -> None:
        """The roll's plan, as `eks-rolling plan` shows it."""
        ...

    def show(self, snapshot: Snapshot) -> None: ...


class LiveView:
    """The whole picture, redrawn in place."""

    def __init__(self, console: Console, cluster: str) -> None:
        self._cluster = cluster
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

    def plan(self, document: dict[str, Any]) -> None:
        # Above what is redrawn, where it stays.
        self._live.console.print(rendered(document, ""), Text())

    def show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def _render(self) -> RenderableType:
        return picture(self._snapshot, self._cluster, time.monotonic() - self._began, self._words)


def picture(snapshot: Snapshot, cluster: str, seconds: float, words: str) -> RenderableType:
    """The live view's content: the roll as `eks-rolling watch` draws it, and what clients see."""
    traffic = [_traffic_line(snapshot.traffic)] if snapshot.traffic else []
    if snapshot.roll is not None:
        return roll_picture(snapshot.roll, cluster, *traffic, note=words)
    return panel(f"{cluster}  {spoken(seconds)}", Text(words, style="bold"), *traffic)


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

    def __init__(self, console: Console) -> None:
        self._console = console
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

    def plan(self, document: dict[str, Any]) -> None:
        self._console.print(f"\n{unfolded(rendered(document, ''))}", highlight=False, markup=False, soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        for line in changes(self._last, snapshot):
            self.say(line)
        if snapshot.traffic and snapshot.at - self._said_traffic > 10:
            self._said_traffic = snapshot.at
            self.say(_traffic_line(snapshot.traffic).plain)
        self._last = snapshot


def changes(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """What an operator would want to be told between two snapshots: of the roll, and of the nodes that come and go."""
    if after.roll:
        yield from roll_changes(before.roll, after.roll)
    known = {n.instance: n for n in before.nodes}
    for node in after.nodes:
        if before.nodes and node.instance not in known:
            yield f"{short(node.name)}: joined in {node.zone}, version {node.version}"
        elif before.nodes and node.ready and not known[node.instance].ready:
            yield f"{short(node.name)}: Ready"
    there = {n.instance for n in after.nodes}
    for node in before.nodes:
        if node.instance not in there:
            yield f"{short(node.name)}: gone"
