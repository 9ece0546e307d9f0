"""What people see while they wait: live on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.status import Status

from lab.controlplane.build import Progress
from lab.status import StatusLine

_PLAIN_SECONDS = 10.0


class BuildReporter:
    """Shows a build's progress on standard error: a bar, or a line every ten seconds and at each new stage."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._began = time.monotonic()
        self._bars: Bars | None = None
        self._stage = ""
        self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        if self._console.is_terminal:
            self._draw(progress)
        else:
            self._write(progress)

    def _draw(self, progress: Progress) -> None:
        if self._bars is None:
            self._bars = Bars(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[what]}", table_column=None),
                console=self._console,
                transient=True,
            )
            self._bars.add_task("", what="", total=None)
            self._bars.start()
        (task,) = self._bars.task_ids
        self._bars.update(
            task,
            description=_sentence(progress),
            completed=progress.done,
            total=progress.total or None,
            what=progress.what[-50:],
        )

    def _write(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage == self._stage and now - self._last_line < _PLAIN_SECONDS:
            return
        self._stage, self._last_line = progress.stage, now
        count = f" {progress.done} of {progress.total}" if progress.total else ""
        elapsed = now - self._began
        self._console.print(
            f"{elapsed:5.0f} s  {_sentence(progress)}{count}: {progress.what}", highlight=False, soft_wrap=True
        )


class StatusReporter:
    """Shows what a lab says of itself on standard error: a spinner with the last word, or a line for each."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._began = time.monotonic()
        self._spinner: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._spinner = Status("", console=self._console)
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def __call__(self, line: StatusLine) -> None:
        if self._spinner is not None:
            self._spinner.update(escape(line.message))
        # On a terminal the spinner already says what has only begun.
        if self._spinner is None or not line.message.endswith("is starting"):
            elapsed = time.monotonic() - self._began
            self._console.print(f"{elapsed:6.1f} s  {line.message}", highlight=False, markup=False, soft_wrap=True)


def _sentence(progress: Progress) -> str:
    return {
        "waiting": "waiting for",
        "fetching": "fetching",
        "compiling": "compiling the control plane",
        "linking": "linking the control plane",
    }[progress.stage]
