"""One redis-py client that writes until its standard input ends: LIBRARY MODE HOST:PORT,... NAME PASSWORD NUMBER.

Prints "A VALUE MILLISECONDS" for each acknowledged write, "E ERROR" for each that failed. `LIBRARY` is `redis-py` or
`redis-py-asyncio`.
"""

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel

LIBRARY, MODE, HOSTS, NAME, PASSWORD, NUMBER = sys.argv[1:]
NODES = [(host, int(port)) for host, port in (each.split(":") for each in HOSTS.split(","))]
ENDED = threading.Event()


def wait_for_end() -> None:
    sys.stdin.read()
    ENDED.set()


def said(value: int) -> None:
    print("A", value, time.monotonic() * 1000, flush=True)


def failed(error: BaseException) -> None:
    print("E", type(error).__name__, flush=True)


def key(value: int) -> str:
    return f"writer-{NUMBER}:{value % 128}"


def write(rpush: Callable[[str, int], Any]) -> None:
    for value in itertools.count(1):
        while not ENDED.is_set():
            try:
                rpush(key(value), value)
            except (redis.RedisError, OSError) as error:
                failed(error)
                time.sleep(0.01)
                continue
            said(value)
            break
        if ENDED.wait(0.005):
            return


async def write_async() -> None:
    client: Any
    if MODE == "sentinel":
        client = AsyncSentinel(NODES).master_for(NAME, password=PASSWORD)
    else:
        client = AsyncCluster(host=NODES[0][0], port=NODES[0][1], password=PASSWORD)
    for value in itertools.count(1):
        while not ENDED.is_set():
            try:
                await client.rpush(key(value), value)
            except (redis.RedisError, OSError) as error:
                failed(error)
                await asyncio.sleep(0.01)
                continue
            said(value)
            break
        if ENDED.is_set():
            return
        await asyncio.sleep(0.005)


def main() -> None:
    threading.Thread(target=wait_for_end, daemon=True).start()
    if LIBRARY == "redis-py-asyncio":
        asyncio.run(write_async())
    elif MODE == "sentinel":
        write(Sentinel(NODES).master_for(NAME, password=PASSWORD).rpush)
    else:
        write(RedisCluster(startup_nodes=[ClusterNode(*n) for n in NODES], password=PASSWORD).rpush)


if __name__ == "__main__":
    main()
