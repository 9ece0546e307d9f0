"""Clients of a Redis Cluster: they write over all its slots, and follow them when they move."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from lab.kube import Json, Kube
from lab.spec import RedisTraffic
from lab.traffic import dataset
from lab.traffic.endpoint_slices import EndpointSlices
from lab.traffic.load import Load
from lab.traffic.redis_clients import (
    AGAIN_SECONDS,
    FIRST_SECONDS,
    KEY,
    LAST_SECONDS,
    LOOK_SECONDS,
    READS_PER_SECOND,
    TIMEOUT_SECONDS,
    Writer,
    addresses_by_name,
    concluded,
    password_of,
)

SLOTS = 16384
CONNECT_SECONDS = 0.1
"""Now and then a client asks any node that it knows for all slots, also one whose pod is gone by now, and a gone pod
answers nothing at all: its connect timeout is the stall (measured with 1 s: 1.09 s)."""

TIMEOUTS: dict[str, Any] = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}

KEYS = 64
"""Lists a writer writes to, one after the other: they are spread over the slots."""

REFUSED = (RedisError, RedisClusterException, OSError, TimeoutError)
"""How a request fails. A RedisClusterException, no node in reach, is no RedisError in redis-py."""


class ClusterClients:
    """All clients of one cluster."""

    def __init__(self, spec: RedisTraffic, kube: Kube, namespace: str) -> None:
        self.spec = spec
        self._kube = kube
        self._namespace = namespace
        self._password = ""
        self._slices = EndpointSlices()
        self.writers = [Writer(f"{spec.group}-{n}") for n in range(spec.writers)]
        self._owners: dict[str, tuple[int, str]] = {}
        """First slot of a range -> configuration epoch and id of the node that serves it."""
        self.failovers = 0
        self.samples = 0
        self.unserved: list[tuple[float, str]] = []
        self.reads = 0
        self.errors: Counter[str] = Counter()
        self.read_errors: Counter[str] = Counter()
        self._asked: dict[str, Redis] = {}
        self._served: set[str] = set()
        rate = spec.load_megabytes_per_second
        self.load = Load(self._client, rate, REFUSED, self._node) if rate else None

    async def follow(self) -> None:
        """Keeps up with the addresses of the cluster's pods; until cancelled."""
        await self._slices.follow(self._kube, self._namespace, self.spec.service)

    async def prepare(self) -> None:
        """Until all slots are served, and every shard has its replicas. Raises TimeoutError."""
        self._password = await password_of(self._kube, self._namespace, self.spec)
        async with asyncio.timeout(FIRST_SECONDS):
            while not await self._is_whole():  # noqa: ASYNC110 (nodes tell nobody when they are ready)
                await asyncio.sleep(LOOK_SECONDS)
        await dataset.fill(self._client(), self.spec.megabytes)

    async def _is_whole(self) -> bool:
        addresses = self._addresses()
        told = [await self._ask(address, "CLUSTER INFO") for address in addresses]
        return bool(told) and all(
            each and _served(each) and int(each["cluster_known_nodes"]) == len(addresses) for each in told
        )

    async def write(self, writer: Writer) -> None:
        client = self._client()
        pause = self.spec.writers / self.spec.writes_per_second
        for number in itertools.count(1):
            while True:
                try:
                    await client.rpush(_key(writer, number), number)
                    break
                except REFUSED as error:
                    writer.failed += 1
                    self.errors[type(error).__name__] += 1
                    await asyncio.sleep(AGAIN_SECONDS)
            writer.acked.append(number)
            writer.at.append(time.time())
            await asyncio.sleep(pause)

    async def read(self) -> None:
        client = self._client()
        for number in itertools.count():
            try:
                await client.llen(_key(self.writers[0], number))
                self.reads += 1
            except REFUSED as error:
                self.read_errors[type(error).__name__] += 1
            await asyncio.sleep(1 / READS_PER_SECOND)

    async def watch(self) -> None:
        """Asks every pod ten times a second whether it sees all slots served, and by whom; until cancelled.

        A pod that has just started learns of the majority in its first seconds: it counts from its first yes on.
        """
        while True:
            began = time.monotonic()
            addresses = self._addresses()
            self.samples += 1
            for address, told in zip(
                addresses, await asyncio.gather(*(self._ask(a, "CLUSTER INFO") for a in addresses)), strict=True
            ):
                if told and _served(told):
                    self._served.add(address)
                elif told and address in self._served:
                    self.unserved.append((time.time(), f"{address}: {told['cluster_slots_ok']}"))
            self._served &= set(addresses)
            for address in addresses[:1]:
                self._note_owners(await self._ask(address, "CLUSTER NODES"))
            await asyncio.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - began)))

    def _note_owners(self, told: Any) -> None:
        """Of two that say that slots are theirs the newer epoch is right: news takes a second to spread."""
        for node in told.values() if isinstance(told, dict) else ():
            for slots in node["slots"]:
                now = (int(node["epoch"]), node["node_id"])
                before = self._owners.setdefault(slots[0], now)
                if now > before:
                    self.failovers += now[1] != before[1]
                    self._owners[slots[0]] = now

    async def conclude(self) -> Json:
        client = self._client()
        held: dict[str, set[int]] = {}
        deadline = time.monotonic() + LAST_SECONDS
        while len(held) < len(self.writers) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(*REFUSED):
                for writer in self.writers:
                    lists = [await client.lrange(_key(writer, n), 0, -1) for n in range(KEYS)]
                    held[writer.name] = {int(number) for each in lists for number in each}
        return {
            "dataset": {
                "megabytes": self.spec.megabytes,
                "missing": await dataset.missing(client, self.spec.megabytes),
            },
            "load": await self.load.conclude() if self.load else {},
            "group": self.spec.group,
            "kind": "cluster",
            "writers": [concluded(w, held.get(w.name, set())) for w in self.writers],
            "failovers": self.failovers,
            "samples": self.samples,
            "unserved": self.unserved,
            "errors": dict(self.errors),
            "reads": self.reads,
            "read_errors": dict(self.read_errors),
        }

    def live(self) -> Json:
        return {"group": self.spec.group, "acked": sum(len(w.acked) for w in self.writers)}

    def _addresses(self) -> list[str]:
        return addresses_by_name(self._slices.now)

    async def _ask(self, address: str, command: str) -> Any:
        """None where nobody answers."""
        host, port = address.rsplit(":", 1)
        client = self._asked.get(address)
        if client is None:
            client = self._asked[address] = Redis(
                host=host,
                port=int(port),
                password=self._password or None,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                decode_responses=True,
            )
        with contextlib.suppress(*REFUSED):
            return await client.execute_command(command)
        return None

    def _node(self, host: str, port: int) -> Redis:
        return Redis(host=host, port=port, password=self._password or None, **TIMEOUTS)

    def _client(self) -> RedisCluster:
        known = (address.rsplit(":", 1) for address in self._addresses())
        return RedisCluster(
            startup_nodes=[ClusterNode(host, int(port)) for host, port in known],
            password=self._password or None,
            **TIMEOUTS,
        )


def _key(writer: Writer, number: int) -> str:
    return f"{KEY}:{writer.name}:{number % KEYS}"


def _served(told: Any) -> bool:
    return (told["cluster_state"], int(told["cluster_slots_ok"])) == ("ok", SLOTS)
