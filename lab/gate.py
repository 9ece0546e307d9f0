"""A way into a lab's network from outside: a Unix socket, which no network namespace confines.

The supervisor serves `gate` in the lab's directory. Whoever connects writes one line, `HOST:PORT`, and is from then
on talking to that address as seen from inside. `Forwarder` puts ordinary local ports in front of it.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.loop_thread import LoopThread

_CHUNK = 1 << 16
# Streams hold their readers weakly: once one side has ended, nothing else would keep a connection from being
# collected as garbage while it waits for the other side.
_joining: set[asyncio.Task[Any] | None] = set()


async def serve_gate(path: Path) -> asyncio.Server:
    """Listens at `path`, in a directory that only its owner may enter."""
    with _reachable(path) as short:
        return await asyncio.start_unix_server(_lead_inside, short)


class Forwarder:
    """Local ports, on the loopback address outside, that lead to addresses inside a lab."""

    def __init__(self, gate: Path, loop: LoopThread) -> None:
        self._gate = gate
        self._loop = loop
        self._servers: dict[tuple[str, int], asyncio.Server] = {}

    def port_for(self, host: str, port: int) -> int:
        """The local port that leads to `host`:`port` inside; opened at the first call."""
        server = self._servers.get((host, port))
        if server is None:
            server = self._servers[host, port] = self._loop.run(self._listen(host, port))
        return int(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        for server in self._servers.values():
            self._loop.run(_close(server))
        self._servers.clear()

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                with _reachable(self._gate) as short:
                    inner_reader, inner_writer = await asyncio.open_unix_connection(short)
            except OSError:
                writer.transport.abort()
                return
            inner_writer.write(f"{host}:{port}\n".encode())
            await _join(reader, writer, inner_reader, inner_writer)

        return await asyncio.start_server(lead, "127.0.0.1", 0)


async def _lead_inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        host, _, port = (await reader.readline()).decode().strip().rpartition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError):
        writer.transport.abort()
        return
    await _join(reader, writer, inner_reader, inner_writer)


async def _join(
    left: asyncio.StreamReader,
    to_left: asyncio.StreamWriter,
    right: asyncio.StreamReader,
    to_right: asyncio.StreamWriter,
) -> None:
    """Both directions, until both have ended. Ends quietly when it is cancelled, since nobody waits for it."""
    task = asyncio.current_task()
    _joining.add(task)
    try:
        await asyncio.gather(_pump(left, to_right), _pump(right, to_left))
        for writer in (to_left, to_right):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    except asyncio.CancelledError:
        pass
    finally:
        for writer in (to_left, to_right):
            writer.transport.abort()
        _joining.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its end; a reset on one side becomes a reset on the other."""
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def _close(server: asyncio.Server) -> None:
    server.close()


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name for `path` that fits a socket address (108 bytes) however deep it lies."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
