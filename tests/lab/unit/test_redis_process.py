"""The process of one Redis group's clients: what it does when it is told, and what its parent makes of its end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from lab.kube import Json
from lab.paths import LabPaths
from lab.traffic.first import first, tasks
from lab.traffic.redis_clients import RedisClients, Writer
from lab.traffic.redis_process import RedisProcess, run


class Clients:
    """Of no server at all: each write is acknowledged."""

    load = None

    def __init__(self, fails: str = "") -> None:
        self.writers = [Writer("w")]
        self.steps: list[str] = []
        self.written = asyncio.Event()
        self._fails = fails

    async def _on(self, name: str) -> None:
        self.steps.append(name)
        if name == self._fails:
            raise ValueError(name)
        await asyncio.sleep(3600)

    async def follow(self) -> None:
        await self._on("follow")

    async def prepare(self) -> None:
        self.steps.append("prepare")

    async def write(self, writer: Writer) -> None:
        self.steps.append("write")
        writer.acked.append(1)
        self.written.set()
        await self._on("written")

    async def read(self) -> None:
        await self._on("read")

    async def watch(self) -> None:
        await self._on("watch")

    async def conclude(self) -> Json:
        self.steps.append("conclude")
        return {"acked": len(self.writers[0].acked)}

    def live(self) -> Json:
        return {"group": "cache", "acked": len(self.writers[0].acked)}


async def ran(clients: Clients) -> Json:
    told = asyncio.StreamReader()
    running = asyncio.create_task(run(cast(RedisClients, clients), told))
    while "prepare" not in clients.steps and not running.done():  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0)
    assert "write" not in clients.steps, "before it is told to begin"
    told.feed_data(b"begin\n")
    wait = asyncio.create_task(clients.written.wait())
    await asyncio.wait([wait, running], return_when=asyncio.FIRST_COMPLETED)
    wait.cancel()
    told.feed_eof()
    return await running


def test_the_clients_begin_and_end_when_they_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    clients = Clients()
    record = asyncio.run(ran(clients))
    assert record == {"acked": 1, "lag": record["lag"]}
    assert clients.steps[-1] == "conclude"
    assert '{"ready": true}' in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize("part", ["follow", "read", "watch", "written"])
def test_what_fails_ends_it_all(part: str) -> None:
    """And is told: what clients did not see counts for nothing."""
    with pytest.raises(ValueError, match=part):
        asyncio.run(ran(Clients(part)))


def test_a_process_that_ends_by_itself_has_failed(tmp_path: Any) -> None:
    """Here for lack of a lab; whoever follows it hears."""

    async def followed() -> None:
        process = RedisProcess(LabPaths(tmp_path), "cache")
        async with process.started():
            await process.follow()

    with pytest.raises(RuntimeError, match="the clients of the Redis group cache ended with exit code 1"):
        asyncio.run(followed())


def test_the_first_failure_of_what_should_go_on_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("it went wrong")

    async def waits(*work: Coroutine[Any, Any, None]) -> None:
        await first(asyncio.sleep(3600), *tasks(*work))

    with pytest.raises(ValueError, match="it went wrong"):
        asyncio.run(waits(fails()))
