"""Writers of a Redis group: what the judge makes of their records, and whom they ask."""

import asyncio
import contextlib
import time

from lab.judge import judge
from lab.kube import Json
from lab.traffic.cancelling import cancel_all
from lab.traffic.lag import WORTH_SECONDS, Lag
from lab.traffic.redis_clients import addresses_by_name


def writer(at: list[float], lost: list[int]) -> Json:
    return {"name": "w", "acked": len(at), "lost": lost, "unacknowledged": 0, "failed": 1, "at": at}


def record(*writers: Json, failovers: int) -> Json:
    group = {
        "group": "cache", "kind": "sentinel", "writers": list(writers), "failovers": failovers,
        "errors": {"ConnectionError": 2}, "reads": 7, "read_errors": {},
    }  # fmt: skip
    return {"requests": [], "jobs": [], "most_unavailable": {}, "redis": [group]}


def test_losses_are_added_up_and_the_stall_is_the_longest_of_any_single_client() -> None:
    first, second = writer([1.0, 1.1, 1.7], [2]), writer([1.0, 1.2, 1.3, 1.4], [])
    (cache,) = judge(record(first, second, failovers=2), []).redis
    assert (cache.acked, cache.lost, cache.failovers) == (7, 1, 2)
    assert round(cache.longest_stall_seconds, 3) == 0.6
    assert cache.to_json()["longest_stall_seconds"] == 0.6


def test_a_stall_says_for_how_much_of_it_the_clients_own_process_stood_still() -> None:
    seen = record(writer([1.0, 1.1, 1.7], []), failovers=1)
    seen["redis"][0]["lag"] = [[0.9, 0.15], [1.2, 0.3], [1.6, 0.5]]
    (cache,) = judge(seen, []).redis
    assert round(cache.longest_stall_seconds, 3) == 0.6
    assert cache.to_json()["stall_lag_seconds"] == 0.4


async def late_by(seconds: float) -> Lag:
    """What is seen by a loop that something else holds up for so long."""
    lag = Lag()
    watching = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(time.sleep, seconds)
    while not lag.seen:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0)
    await cancel_all([watching])
    return lag


def test_a_loop_that_is_held_up_is_seen_to_be_late() -> None:
    assert sum(late for _, late in asyncio.run(late_by(0.2)).seen) > WORTH_SECONDS


def test_a_record_without_redis_has_no_verdict_on_it() -> None:
    without = record(failovers=0)
    del without["redis"]
    assert judge(without, []).redis == ()


def test_sentinels_are_asked_in_the_order_of_their_names_and_not_while_they_end() -> None:
    def endpoint(name: str, address: str, **conditions: bool) -> Json:
        return {"addresses": [address], "targetRef": {"name": name}, "conditions": conditions}

    piece = {
        "ports": [{"port": 26379}],
        "endpoints": [
            endpoint("s-2", "10.0.0.1"),
            endpoint("s-0", "10.0.0.3", ready=False),
            endpoint("s-1", "10.0.0.2", terminating=True),
        ],
    }
    assert addresses_by_name([piece]) == ["10.0.0.3:26379", "10.0.0.1:26379"]


def test_clients_end_even_if_their_library_loses_a_cancellation() -> None:
    async def deaf_once() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def end_it() -> "asyncio.Task[None]":
        task = asyncio.create_task(deaf_once())
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await cancel_all([task])
        return task

    assert asyncio.run(end_it()).cancelled()
