"""Relayed connections end and break as their two sides do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from lab.network.relay import Outgoing, Relay
from lab.network.sources import Connector

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def relayed(handler: Handler, delay: float = 0.0) -> AsyncIterator[tuple[Relay, int]]:
    """A relay in front of a server; `delay` is how long it takes to find its way there."""
    relay, connector = Relay(), Connector()
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()

    async def lead(client: str) -> Outgoing | bytes:
        assert client == "127.0.0.1"
        await asyncio.sleep(delay)
        return Outgoing(await connector.connect((target[0], target[1]), None), "the target")

    front = await asyncio.get_running_loop().create_server(lambda: relay.protocol(lead), "127.0.0.1", 0)
    try:
        yield relay, front.sockets[0].getsockname()[1]
    finally:
        front.close()
        server.close()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def echo_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers once the client has said that it will send no more."""
    writer.write(await reader.read())
    writer.close()


async def wait_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await reader.read()
    writer.close()


async def hang_up_rudely(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(1)
    writer.transport.abort()


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_what_a_client_sends_and_ends_before_the_target_is_reached_arrives(delay: float) -> None:
    async def run() -> bytes:
        async with relayed(echo_after_the_end, delay) as (_, port), connected(port) as (reader, writer):
            writer.write(b"x" * 1_000_000)
            writer.write_eof()
            return await reader.read()

    assert len(asyncio.run(asyncio.wait_for(run(), 10))) == 1_000_000


def test_a_target_that_breaks_off_breaks_the_clients_connection() -> None:
    async def run() -> bytes:
        async with relayed(hang_up_rudely) as (_, port), connected(port) as (reader, writer):
            writer.write(b"x")
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""

    assert asyncio.run(asyncio.wait_for(run(), 10)) == b""


def test_connections_break_with_what_they_depend_on() -> None:
    async def run() -> None:
        async with relayed(wait_for_ever) as (relay, port), connected(port) as (reader, _):
            assert await reader.readexactly(5) == b"hello"
            assert relay.abort(lambda key: key == "something else") == 0
            assert relay.abort(lambda key: key == "the target") == 1
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert relay.abort(lambda _: True) == 0

    asyncio.run(asyncio.wait_for(run(), 10))
