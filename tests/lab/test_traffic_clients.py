"""The lab's HTTP clients judge what a user of an ordinary client would see: no more, no less."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from lab.traffic.__main__ import at_end_of
from lab.traffic.clients import Request, Route, ask

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"


class Server:
    """Answers after a moment, so that there are several connections at once.

    Once it is `closing`, every connection on which it has answered before closes at the next request instead.
    """

    def __init__(self, *, closes_new: bool = False) -> None:
        self.connections = 0
        self.closing = False
        self.closed = 0
        self._closes_new = closes_new

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answered = 0
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if self.closing and (answered or self._closes_new):
                    self.closed += 1
                    return
                await asyncio.sleep(0.05)
                writer.write(ANSWER)
                answered += 1


@contextlib.asynccontextmanager
async def asked(server: Server, *, keep_alive: bool) -> AsyncIterator[list[Request]]:
    """The requests of a client that asks all the time."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    requests: list[Request] = []
    asking = asyncio.create_task(ask(Route("web", lambda: url, 200, keep_alive), requests.append))
    try:
        yield requests
    finally:
        asking.cancel()
        await asyncio.wait([asking])
        listening.close()


async def so_many(requests: list[Request], count: int) -> None:
    async with asyncio.timeout(60):
        while len(requests) < count:  # noqa: ASYNC110 (the clients fill it)
            await asyncio.sleep(0.01)


def test_a_request_whose_kept_connections_close_all_at_once_is_sent_again_on_a_new_one() -> None:
    """So it is with every client when a target leaves a load balancer; aiohttp alone tries once more and gives up."""

    async def play() -> tuple[Server, list[Request]]:
        server = Server()
        async with asked(server, keep_alive=True) as requests:
            await so_many(requests, 100)
            assert server.connections > 3
            server.closing = True
            await so_many(requests, 400)
        return server, requests

    server, requests = asyncio.run(play())
    assert server.closed > 3
    assert [r.error for r in requests if r.error] == []
    assert max(r.sent_again for r in requests) >= 1


def test_a_new_connection_that_is_closed_without_an_answer_is_a_failed_request_however_the_next_one_ends() -> None:
    async def play(*, keep_alive: bool) -> list[Request]:
        server = Server(closes_new=True)
        server.closing = True
        async with asked(server, keep_alive=keep_alive) as requests:
            await so_many(requests, 20)
            server.closing = False
            before = len(requests)
            await so_many(requests, before + 100)
        return requests

    for keep_alive in (False, True):
        requests = asyncio.run(play(keep_alive=keep_alive))
        assert all(r.error for r in requests[:10])
        assert not any(r.error for r in requests[-10:])


def test_the_end_of_the_input_is_told_once() -> None:
    async def play() -> int:
        told: list[int] = []
        reader, writer = os.pipe()
        at_end_of(reader, lambda: told.append(1))
        os.close(writer)
        for _ in range(20):
            await asyncio.sleep(0.001)
        os.close(reader)
        return len(told)

    assert asyncio.run(play()) == 1
