"""Container logs: written in the form that container runtimes use, and read as the kubelet API offers them.

A line is `2026-01-31T12:00:00.123456Z stdout F text`; a piece of a longer line has P instead of F.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lab.node import times

_CHUNK = 1 << 16
_LONGEST_LINE = 16 * 1024
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class LogQuery:
    """What of a log is asked for."""

    follow: bool = False
    tail_lines: int | None = None
    since: dt.datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


def log_file(pod_logs: Path, container: str, attempt: int) -> Path:
    """Where the n-th run of a container (from 0) writes to."""
    return pod_logs / container / f"{attempt}.log"


async def write_log(stream: asyncio.StreamReader, name: str, file: BinaryIO) -> None:
    """Copies one of a process's output streams to its log, until it ends."""
    rest = b""
    while chunk := await stream.read(_CHUNK):
        stamp = times.micros(times.now())
        *lines, rest = (rest + chunk).split(b"\n")
        written = [piece for line in lines for piece in _entries(line, stamp, name, ended=True)]
        if len(rest) >= _LONGEST_LINE:
            written += _entries(rest, stamp, name, ended=False)
            rest = b""
        file.write(b"".join(written))
        file.flush()
    if rest:
        file.write(b"".join(_entries(rest, times.micros(times.now()), name, ended=True)))
        file.flush()


def _entries(line: bytes, stamp: str, name: str, *, ended: bool) -> Iterable[bytes]:
    pieces = [line[start : start + _LONGEST_LINE] for start in range(0, len(line), _LONGEST_LINE)] or [b""]
    for number, piece in enumerate(pieces, 1):
        tag = b"F" if ended and number == len(pieces) else b"P"
        yield b"%s %s %s %s\n" % (stamp.encode(), name.encode(), tag, piece)


async def read_log(file: Path, query: LogQuery, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log's text as asked for. With `follow`, goes on until `ended()` and everything has been read."""
    budget = query.limit_bytes
    offset, first = 0, True
    while True:
        last_look = not query.follow or ended()
        content = _whole_lines(file, offset)
        offset += len(content)
        lines = [line for line in content.splitlines(keepends=True) if _is_since(line, query.since)]
        if first and query.tail_lines is not None:
            lines = _last_lines(lines, query.tail_lines)
        first = False
        text = b"".join(_text(line, timestamps=query.timestamps) for line in lines)
        if budget is not None:
            text = text[:budget]
            budget -= len(text)
        if text:
            yield text
        if last_look or budget == 0:
            return
        if not content:
            await asyncio.sleep(_POLL_SECONDS)


def _whole_lines(file: Path, offset: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            content = opened.read()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def _is_since(line: bytes, since: dt.datetime | None) -> bool:
    return since is None or times.parse(line.split(b" ", 1)[0].decode()) >= since


def _last_lines(entries: list[bytes], count: int) -> list[bytes]:
    """The last `count` lines, each with all its pieces."""
    position = len(entries)
    while position and count >= 0:
        count -= entries[position - 1].split(b" ", 3)[2] == b"F"
        if count < 0:
            break
        position -= 1
    return entries[position:]


def _text(entry: bytes, *, timestamps: bool) -> bytes:
    stamp, _, tag, text = entry.split(b" ", 3)
    if tag == b"P":
        text = text[:-1]
    return stamp + b" " + text if timestamps else text
