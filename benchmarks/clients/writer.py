"""One redis-py client that writes until its standard input ends: LIBRARY MODE HOST:PORT,... NAME PASSWORD NUMBER.

Prints "A VALUE MILLISECONDS" for each acknowledged write, "E ERROR" for each that failed. `LIBRARY` is `redis-py`,
`redis-py-asyncio`, `redis-py-short` (with the settings that docs/redis.md recommends) or `none`: a connection to each
server, and whatever the servers say is followed at once, which is as quick as a client can be.
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
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
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


SHORT: dict[str, Any] = {"socket_connect_timeout": 0.1, "socket_timeout": 1.0}


class Plain:
    """Nothing but connections: to whom the sentinels name, or where MOVED leads."""

    def __init__(self) -> None:
        self._connections: dict[tuple[str, int], redis.Redis] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._begins = itertools.cycle(NODES)

    def rpush(self, name: str, value: int) -> None:
        try:
            self._at(self._place_of(name)).rpush(name, value)
        except redis.exceptions.MovedError as moved:
            self._places[name] = (moved.host, moved.port)
            self.rpush(name, value)
        except redis.RedisError:
            self._places.pop(name, None)
            raise

    def _place_of(self, name: str) -> tuple[str, int]:
        if name not in self._places:
            place = next(self._begins)
            if MODE == "sentinel":
                host, port = self._at(place, None).execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                place = (host.decode(), int(port))
            self._places[name] = place
        return self._places[name]

    def _at(self, place: tuple[str, int], password: str | None = PASSWORD) -> redis.Redis:
        if place not in self._connections:
            host, port = place
            once = Retry(NoBackoff(), 0)
            self._connections[place] = redis.Redis(host=host, port=port, password=password, retry=once, **SHORT)
        return self._connections[place]


def main() -> None:
    threading.Thread(target=wait_for_end, daemon=True).start()
    if LIBRARY == "redis-py-asyncio":
        asyncio.run(write_async())
        return
    if LIBRARY == "none":
        write(Plain().rpush)
        return
    options = SHORT if LIBRARY == "redis-py-short" else {}
    if MODE == "sentinel":
        write(Sentinel(NODES, sentinel_kwargs=options).master_for(NAME, password=PASSWORD, **options).rpush)
    else:
        nodes = [ClusterNode(*n) for n in NODES]
        write(RedisCluster(startup_nodes=nodes, password=PASSWORD, **options).rpush)


if __name__ == "__main__":
    main()
