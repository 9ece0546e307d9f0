"""The load that a Redis group is rolled under: what it finds missing, on a real server."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lab.judge import RedisVerdict, judge
from lab.kube import Kube
from lab.spec import RedisTraffic
from lab.traffic.cancelling import cancel_all
from lab.traffic.cluster_clients import ClusterClients
from lab.traffic.load import DONE, TODO, Json, Load, totals
from lab.traffic.redis_clients import SentinelClients
from tests.contract.cluster_pods import cluster
from tests.contract.redis_servers import Real
from tests.contract.redis_sides import NAME, PASSWORD, processes, wait_until_whole

# The clients of a lab end with their process; one that is cancelled in the middle leaves a connection open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

USES = ("values", "transactions", "scripts", "queue", "messages", "expiring")
ENOUGH = 40

Harm = Callable[[Callable[..., str], str], object]
"""Told how to ask the server, and the key of a large value that was acknowledged."""


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """What is left open is closed here, and troubles no other test."""
    yield
    gc.collect()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    side = Real(tmp_path)
    yield side
    side.end()


def loaded(real: Real, harm: Harm) -> Json:
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
        await asyncio.to_thread(harm, partial(real.cli, address), min(load._newest))
        return await load.conclude()

    return asyncio.run(everything())


def test_nothing_is_lost_of_a_server_that_stays(real: Real) -> None:
    found = loaded(real, lambda cli, _: cli("ping"))
    assert set(found) == set(USES)
    acked, lost = totals(found)
    assert lost == 0
    assert acked > ENOUGH * len(USES)
    assert all(use["longest_gap"] > 0 for use in found.values())


HARMS: dict[str, tuple[str, Harm]] = {
    "a large value": ("values", lambda cli, value: cli("del", value)),
    "a value that is not what was written": ("values", lambda cli, value: cli("append", value, "x")),
    "half of a transaction": ("transactions", lambda cli, _: cli("lpop", "{load:transactions:3}:b")),
    "both writes of a script": (
        "scripts",
        lambda cli, _: (cli("lpop", "{load:scripts:5}:a"), cli("lpop", "{load:scripts:5}:b")),
    ),
    "a job": ("queue", lambda cli, _: (cli("lpop", DONE), cli("lpop", TODO))),
    "a key before its time": ("expiring", lambda cli, _: cli("del", "load:later:7")),
    "a key that outlives its time": ("expiring", lambda cli, _: cli("set", "load:soon:7", "7")),
}


@pytest.mark.parametrize("name", HARMS)
def test_what_is_gone_is_found_and_nothing_else(real: Real, name: str) -> None:
    use, harm = HARMS[name]
    found = loaded(real, harm)
    assert {each for each in USES if found[each]["lost"]} == {use}


async def under_load(clients: SentinelClients | ClusterClients) -> RedisVerdict:
    """What the judge says of a group that these clients wrote to until every use had something acknowledged."""
    load = clients.load
    assert load is not None
    work = [asyncio.create_task(each) for each in (load.run(), clients.write(clients.writers[0]))]
    async with asyncio.timeout(60):
        while min(use.acked for use in load.uses.values()) < ENOUGH:  # noqa: ASYNC110 (servers tell nobody)
            await asyncio.sleep(0.05)
    await cancel_all(work)
    record = {"requests": [], "jobs": [], "most_unavailable": {}, "redis": [await clients.conclude()]}
    (verdict,) = judge(record, []).redis
    return verdict


def assert_nothing_is_lost(verdict: RedisVerdict) -> None:
    assert (verdict.lost, verdict.load_lost) == (0, 0)
    assert verdict.acked > 0
    assert verdict.load_acked > ENOUGH * len(USES)


def test_a_labs_clients_load_a_group_under_sentinel() -> None:
    spec = RedisTraffic(group="cache", master_name=NAME, writers=1, load_megabytes_per_second=2)
    with processes() as side:
        side.start()
        wait_until_whole(side)

        async def everything() -> RedisVerdict:
            clients = SentinelClients(spec, cast(Kube, None), "shop")
            clients._options = {"password": PASSWORD}
            clients._point_at([f"{s.address.host}:{s.address.port}" for s in side.sentinels])
            return await under_load(clients)

        assert_nothing_is_lost(asyncio.run(everything()))


def test_a_labs_clients_load_a_redis_cluster() -> None:
    spec = RedisTraffic(kind="cluster", group="shards", writers=1, load_megabytes_per_second=2)
    with cluster() as side:
        pods = [{"addresses": [process.host], "targetRef": {"name": name}} for name, process in side.processes.items()]

        async def everything() -> RedisVerdict:
            clients = ClusterClients(spec, cast(Kube, None), "shop")
            clients._password = PASSWORD
            clients._slices._slices["all"] = {"ports": [{"port": 6379}], "endpoints": pods}
            return await under_load(clients)

        assert_nothing_is_lost(asyncio.run(everything()))
