"""`watch`, and following a roll wherever one is started."""

import itertools
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eks_rolling import state_names
from eks_rolling.documents.remedies import way_out
from eks_rolling_cli.cli_context import aimed, output, print_line, say, show, tell
from eks_rolling_cli.executions import patiently
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.format import beginning, brief
from eks_rolling_cli.listing import INDENT
from eks_rolling_cli.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from eks_rolling_cli.executions import Execution
    from eks_rolling_cli.roll_state import RollReader, RollState
    from eks_rolling_cli.watch_view import Told

Json = dict[str, Any]

LOOK_SECONDS = 2.0
"""Between two looks; more while many nodes are in work, so that few calls are made a second."""

CALLS_PER_SECOND = 5.0

MOST_LEFT_TO_OTHERS = 50
"""How far back the last roll is looked for."""

Roll = Annotated[
    str | None,
    typer.Argument(
        metavar="ROLL",
        help="A roll's name, as `rolls` lists it; by default the running or the last one.",
        show_default=False,
    ),
]


@aimed
def watch(
    target: Target,
    roll: Roll = None,
    no_tty: Annotated[bool, typer.Option("--no-tty", help="Print lines instead of drawing.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON document a line, whenever something changes.")
    ] = False,
) -> None:
    """Watch a roll: waves, nodes, what each waits for and since when, Redis migrations, pace and time left.

    Ctrl-C detaches, and the roll continues. Ends with the roll: 0 if it succeeded, 1 if it failed, was aborted or
    stopped, 3 if it was blocked or not approved.
    """
    execution = named(target, roll)
    if once:
        seen = looker_of(target).look(execution.arn)
        if as_json:
            print_line(seen.to_json())
        else:
            from eks_rolling_cli.watch_view import picture

            show(picture(seen, target.cluster, start=target.typed("start")))
        return
    for other in running(target):
        if other.arn != execution.arn and execution.running:
            cancel = target.typed("abort", beginning(other.name))
            say(f"The roll {brief(other.name)} waits as well: `{cancel}` cancels it.")
    leave(follow(target, execution.arn, as_json=as_json, lines=no_tty))


def running(target: Target) -> "list[Execution]":
    """The rolls that run, the newest first; last the one that holds the lock, or else the oldest.

    Others wait: for its end, or, started by a change, for a window.
    """
    found = list(target.executions.of(target.machine("roll"), "RUNNING"))
    lease = target.kubernetes.lease(target.lock_name) if len(found) > 1 else None
    return sorted(found, key=lambda e: lease is not None and e.name == lease.holder)


def holds_lock(target: Target, execution: "Execution") -> bool:
    lease = target.kubernetes.lease(target.lock_name)
    return lease is not None and lease.holder == execution.name


def ended_holder(target: Target) -> str:
    """Who holds the lock without an execution that runs, and so will never give it up; "" if nobody does."""
    lease = target.kubernetes.lease(target.lock_name)
    if lease is None or not lease.holder:
        return ""
    alive = {e.name for what in ("roll", "restore") for e in target.executions.of(target.machine(what), "RUNNING")}
    return "" if lease.holder in alive else lease.holder


def named(target: Target, roll: str | None) -> "Execution":
    """The roll of that name, or whose name begins so; without one, the last one. Raises CommandError."""
    if roll is None:
        if alive := running(target):
            return alive[-1]
        if found := next(_rolls_of_their_own(target), None):
            return found
        raise CommandError(f"{target.cluster} has had no roll yet.", Exit.NOT_FOUND)
    alike = [e for e in target.executions.of(target.machine("roll")) if e.name.startswith(roll) or e.arn == roll]
    exact = [e for e in alike if roll in {e.name, e.arn}] or alike
    if len(exact) == 1:
        return exact[0]
    said = f"{len(exact)} rolls have names that begin so" if exact else "no roll has that name"
    raise CommandError(f"{roll}: {said}; `{target.typed('rolls')}` lists them.", Exit.NOT_FOUND)


def _rolls_of_their_own(target: Target) -> "Iterator[Execution]":
    """Executions, the newest first, without those that a change started and that left it to another."""
    from eks_rolling_cli.execution_history import answers

    for execution in itertools.islice(target.executions.of(target.machine("roll")), MOST_LEFT_TO_OTHERS):
        received = answers(target.executions.history(execution.arn), state_names.RECEIVE_CHANGE)
        if not received or (received[-1][1].get("output") or {}).get("next") != "end":
            yield execution


def looker_of(target: Target) -> "RollReader":
    from eks_rolling_cli.roll_state import RollReader

    return RollReader(
        target.executions, target.machine("node"), asked=lambda roll: asked_of(target, roll), document=target.document
    )


def asked_of(target: Target, roll: str) -> dict[str, str]:
    """What people ask of that roll: the lock's annotations, while it holds the lock. Raises RollError."""
    from eks_rolling.roll import lock

    lease = target.kubernetes.lease(target.lock_name)
    if lease is None or lease.holder != roll:
        return {}
    keys = {"pause": lock.PAUSE, "abort": lock.ABORT}
    return {what: lease.annotations[key] for what, key in keys.items() if key in lease.annotations}


def follow(
    target: Target,
    arn: str,
    *,
    as_json: bool,
    lines: bool = False,
    until: "Callable[[RollState], bool]" = lambda _: False,
) -> "RollState":
    """Shows a roll until it has ended, or `until` says so; how it stands then. Ctrl-C ends the command alone."""
    from eks_rolling.errors import RollError

    seen: RollState | None = None
    shower = _shower(target, as_json=as_json, lines=lines)
    looker = looker_of(target)
    try:
        with shower:
            while True:
                seen = patiently(lambda: looker.look(arn), shower.say)
                shower.show(seen)
                if not seen.running or until(seen):
                    break
                time.sleep(max(LOOK_SECONDS, _in_work(seen) / CALLS_PER_SECOND))
    except KeyboardInterrupt:
        say(_detached(target, beginning(arn.rpartition(":")[2]), seen))
        raise typer.Exit(Exit.INTERRUPTED) from None
    except (RollError, BrokenPipeError):
        if seen is not None and seen.running:
            # Credentials have expired, say, or `head` has enough: that is this command's end, not the roll's.
            say(_detached(target, beginning(arn.rpartition(":")[2]), seen))
        raise
    return seen


def _detached(target: Target, name: str, seen: "RollState | None") -> str:
    """What becomes of a roll that is not watched any more, and how to get back to it."""
    if seen is not None and "abort" in seen.asked:
        return f"Detached: the roll {name} ends all the same. `{target.typed('watch', name)}` returns to it."
    held = seen is not None and "pause" in seen.asked
    commands = (
        f"`{target.typed('watch', name)}` returns to it",
        f"`{target.typed('resume' if held else 'pause', name)}` {'lets it go on' if held else 'holds it'}",
        f"`{target.typed('abort', name)}` ends it",
    )
    return f"Detached: the roll {name} {'stays paused' if held else 'continues'}. {', '.join(commands)}."


def leave(seen: "RollState") -> None:
    """Ends the command with the exit code for the roll's end."""
    if (code := exit_of(seen)) is not Exit.FINE:
        raise typer.Exit(code)


def _in_work(seen: "RollState") -> int:
    return 3 + sum(n.stage == "replacing" for n in seen.nodes)


def exit_of(seen: "RollState") -> Exit:
    """The exit code for a roll's end."""
    if seen.running or seen.status == "SUCCEEDED":
        return Exit.FINE
    return Exit.BLOCKED if seen.error in {"Blocked", "NotApproved"} else Exit.FAILED


class _Lines:
    """What changed, a line each, with the time."""

    def __init__(self, cluster: str, start: str) -> None:
        self._cluster = cluster
        self._start = start
        self._last: RollState | None = None
        self._told: Told = {}

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, words: str) -> None:
        from eks_rolling_cli.format import clock

        tell(f"{clock(time.time())}  {words}")

    def show(self, seen: "RollState") -> None:
        from eks_rolling_cli.watch_view import changes

        for line in changes(self._last, seen, self._start, self._told):
            self.say(line)
        self._last = seen


class _Json(_Lines):
    """Documents, one a line, whenever something else than the clock has moved."""

    def say(self, words: str) -> None:
        say(words)

    def show(self, seen: "RollState") -> None:
        document = seen.to_json()
        if self._last is None or _timeless(document) != _timeless(self._last.to_json()):
            print_line(document)
        self._last = seen


def _timeless(document: Json) -> Json:
    return {name: value for name, value in document.items() if name not in {"looked", "seconds_left", "nodes_per_hour"}}


class _Drawn(_Lines):
    """The picture, redrawn in place."""

    def __init__(self, cluster: str, start: str) -> None:
        from rich.live import Live
        from rich.text import Text

        super().__init__(cluster, start)
        self._note = ""
        self._live = Live(Text("looking"), console=output, refresh_per_second=4)

    def __enter__(self) -> "_Drawn":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._last is not None and self._last.left_behind and len(self._start) + INDENT > output.width:
            # The picture cut it.
            tell(f"→ {way_out(self._start)}")

    def say(self, words: str) -> None:
        self._note = words
        self._draw()

    def show(self, seen: "RollState") -> None:
        self._last, self._note = seen, ""
        self._draw()

    def _draw(self) -> None:
        from rich.text import Text

        if self._last is None:
            self._live.update(Text(self._note), refresh=True)
        else:
            self._live.update(self._fitted(self._last), refresh=True)

    def _fitted(self, seen: "RollState") -> "RenderableType":
        """With as many nodes as fit: what is higher than the terminal would be cut at its end."""
        from eks_rolling_cli.watch_view import SHOWN, picture

        def drawn(most: int) -> "RenderableType":
            return picture(seen, self._cluster, note=self._note, most=most, start=self._start)

        def too_high(most: int) -> bool:
            return len(output.render_lines(drawn(most), pad=False)) > output.height

        return drawn(max(1, bisect_left(range(1, SHOWN + 1), True, key=too_high)))


def _shower(target: Target, *, as_json: bool, lines: bool) -> _Lines:
    # What cannot move its cursor (TERM=dumb) would show nothing before the end.
    draws = output.is_terminal and not output.is_dumb_terminal and not lines
    kind = _Json if as_json else _Drawn if draws else _Lines
    return kind(target.cluster, target.typed("start"))
