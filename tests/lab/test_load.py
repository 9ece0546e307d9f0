"""The load that a Redis group is rolled under: what it finds missing, on a real server."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lab.traffic.load import DONE, TODO, Json, Load, totals
from tests.contract.redis_servers import Real

USES = ("values", "transactions", "scripts", "queue", "messages", "expiring")
ENOUGH = 40


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    side = Real(tmp_path)
    yield side
    side.end()


def loaded(real: Real, harm: Callable[[Callable[..., str]], object]) -> Json:
    """What is said of a load that ran until every use had some acknowledged, and of which something is gone then."""
    address = real.add_server()
    load = Load(partial(Redis, host=address.host, port=address.port), 5.0, (RedisError, OSError, TimeoutError))

    async def everything() -> Json:
        work = asyncio.create_task(load.run())
        async with asyncio.timeout(60):
            while min(use.acked for use in load.uses.values()) < ENOUGH and not work.done():  # noqa: ASYNC110 (servers tell nobody)
                await asyncio.sleep(0.05)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await asyncio.to_thread(harm, partial(real.cli, address))
        return await load.conclude()

    return asyncio.run(everything())


def test_nothing_is_lost_of_a_server_that_stays(real: Real) -> None:
    found = loaded(real, lambda cli: cli("ping"))
    assert set(found) == set(USES)
    acked, lost = totals(found)
    assert lost == 0
    assert acked > ENOUGH * len(USES)
    assert all(use["longest_gap"] > 0 for use in found.values())


HARMS: dict[str, tuple[str, Callable[[Callable[..., str]], object]]] = {
    "a large value": ("values", lambda cli: cli("del", "load:value:1000000:0")),
    "a value that is cut off": ("values", lambda cli: cli("setrange", "load:value:10000:1", "20000", "x")),
    "half of a transaction": ("transactions", lambda cli: cli("lpop", "{load:transactions:3}:b")),
    "both writes of a script": (
        "scripts",
        lambda cli: (cli("lpop", "{load:scripts:5}:a"), cli("lpop", "{load:scripts:5}:b")),
    ),
    "a job": ("queue", lambda cli: (cli("lpop", DONE), cli("lpop", TODO))),
    "a key before its time": ("expiring", lambda cli: cli("del", "load:later:7")),
    "a key that outlives its time": ("expiring", lambda cli: cli("set", "load:soon:7", "7")),
}


@pytest.mark.parametrize("name", HARMS)
def test_what_is_gone_is_found_and_nothing_else(real: Real, name: str) -> None:
    use, harm = HARMS[name]
    found = loaded(real, harm)
    assert {each for each in USES if found[each]["lost"]} == {use}
