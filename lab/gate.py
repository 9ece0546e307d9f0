"""A way into a lab's network from outside: a Unix socket, which no network namespace confines.

The supervisor serves `gate` in the lab's directory. Whoever connects writes one line, `HOST:PORT`, and is from then
on talking to that address as seen from inside. `Forwarder` puts ordinary local ports in front of it.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from lab.loop_thread import LoopThread

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Onward = Callable[[asyncio.StreamReader], Awaitable[Connection]]
"""Given a new connection's reader, opens the connection that it is to be joined with."""

_CHUNK = 1 << 16


class _Relay:
    """Connections that are led on to somewhere else."""

    def __init__(self, onward: Onward) -> None:
        self._onward = onward
        # An event loop alone does not keep a task alive that waits for a connection whose other end has gone quiet.
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._lead(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _join((reader, writer), await self._onward(reader))
        except (OSError, ValueError):
            pass  # refused, cut off or misnamed: whoever connected sees the connection end
        finally:
            writer.transport.abort()


async def serve_gate(path: Path) -> asyncio.Server:
    """Listens at `path`, in a directory that only its owner may enter."""
    with _reachable(path) as short:
        return await asyncio.start_unix_server(_Relay(_named_by_first_line).accept, short)


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
        async def through_gate(_: asyncio.StreamReader) -> Connection:
            with _reachable(self._gate) as short:
                inner_reader, inner_writer = await asyncio.open_unix_connection(short)
            inner_writer.write(f"{host}:{port}\n".encode())
            return inner_reader, inner_writer

        return await asyncio.start_server(_Relay(through_gate).accept, "127.0.0.1", 0)


async def _named_by_first_line(reader: asyncio.StreamReader) -> Connection:
    host, _, port = (await reader.readline()).decode().strip().rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _join(left: Connection, right: Connection) -> None:
    """Passes on what either side sends until both have ended. Raises OSError if one breaks off; closes both."""
    writers = (left[1], right[1])
    try:
        await asyncio.gather(_pump(left[0], right[1]), _pump(right[0], left[1]))
        for writer in writers:
            writer.close()
            await writer.wait_closed()
    finally:
        for writer in writers:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


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
