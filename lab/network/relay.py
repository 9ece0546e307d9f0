"""Passing connections on, byte by byte, with their ends and breaks."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from lab.background import in_background


@dataclass(frozen=True)
class Outgoing:
    """Where a new connection is passed on to."""

    connected: socket.socket
    depends_on: str
    """What it breaks with: `Relay.abort` is told."""


Lead = Callable[[str], Awaitable[Outgoing | bytes]]
"""From a client's address to where its connection goes; or what it is told before it is closed, possibly nothing.
Raises OSError or TimeoutError where there is no way."""


class Relay:
    """Connections that come in at any number of places, and are passed on."""

    def __init__(self) -> None:
        self._open: dict[_Side, str] = {}

    def protocol(self, lead: Lead) -> "_Client":
        """For `loop.create_server`: one incoming connection."""
        return _Client(lambda client: in_background(self._join(client, lead), "a connection"))

    def abort(self, gone: Callable[[str], bool]) -> int:
        """Breaks every connection that depends on something gone; answers how many there were."""
        broken = [client for client, key in self._open.items() if gone(key)]
        for client in broken:
            if client.other is not None:
                client.other.abort()
            client.abort()
        return len(broken)

    async def _join(self, client: "_Client", lead: Lead) -> None:
        try:
            answer = await lead(client.peer)
        except (OSError, TimeoutError):
            client.abort()
            return
        if isinstance(answer, bytes):
            client.say(answer)
            return
        target = _Side()
        target.other = client
        await asyncio.get_running_loop().create_connection(lambda: target, sock=answer.connected)
        if client.transport is None:
            target.abort()
            return
        self._open[client] = answer.depends_on
        client.on_lost = lambda: self._open.pop(client, None)
        client.go_on(target)


class _Side(asyncio.Protocol):
    """One side of a connection: what it receives, the other sends."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.on_lost: Callable[[], object] = lambda: None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Passes the half-close on; closes what both sides have ended."""
        self.ended = True
        if self.other is None or self.other.transport is None:
            return False
        if self.other.ended:
            self.other.transport.close()
            return False
        self.other.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.on_lost()
        if self.other is not None and self.other.transport is not None:
            if error is None:
                self.other.transport.close()
            else:
                self.other.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def abort(self) -> None:
        """Resets the connection."""
        if self.transport is not None:
            reset = self.transport.get_extra_info("socket")
            # Closing with this option set sends a reset, and not an orderly end.
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class _Client(_Side):
    """A connection that has come in and does not yet lead anywhere: nothing is read before it does.

    Python before 3.11.4 reads all the same, so what came early is kept.
    """

    def __init__(self, arrived: Callable[["_Client"], object]) -> None:
        super().__init__()
        self._arrived = arrived
        self._early = b""
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).pause_reading()
        self.peer = transport.get_extra_info("peername")[0]
        self._arrived(self)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            super().data_received(data)

    def eof_received(self) -> bool:
        if self.other is not None:
            return super().eof_received()
        self.ended = True
        return True

    def go_on(self, target: _Side) -> None:
        """Leads on to `target`, with all that has come so far."""
        self.other = target
        if self._early:
            super().data_received(self._early)
        if self.ended:
            super().eof_received()
        if self.transport is not None:
            self.transport.resume_reading()

    def say(self, answer: bytes) -> None:
        """Answers, without having listened, and closes."""
        if self.transport is not None:
            self.transport.write(answer)
            self.transport.close()
