"""What a lab and its starter say to each other: the supervisor's status lines, and the one word it listens to."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

STAY = b"stay\n"
"""What a starter writes to the supervisor to let the lab outlive it."""

State = Literal["starting", "running", "stopping", "stopped", "failed"]


@dataclass(frozen=True)
class StatusLine:
    """One line of `status.jsonl`; the last one is current."""

    at: float
    """Seconds since the epoch."""
    state: State
    message: str
    part: str | None = None
    details: str | None = None
    """The last lines of a failed part's log."""
    pid: int | None = None
    """A part's process, as seen from inside, on the line that tells of its start."""


class StatusFile:
    """Appends lines; each is written whole, so that readers may follow along."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(
        self, state: State, message: str, *, part: str | None = None, details: str | None = None, pid: int | None = None
    ) -> None:
        line = StatusLine(time.time(), state, message, part, details, pid)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(line)) + "\n")


def read_status(path: Path) -> list[StatusLine]:
    """All lines so far; none if the file does not exist."""
    return list(StatusReader(path).new_lines())


class StatusReader:
    """Reads on from where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def skip(self) -> None:
        """Passes over what has been written so far."""
        for _ in self.new_lines():
            pass

    def new_lines(self) -> Iterator[StatusLine]:
        """The lines written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return
        complete = content[: content.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            yield StatusLine(**json.loads(line))
