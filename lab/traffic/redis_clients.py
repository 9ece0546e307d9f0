"""Clients of a Redis group, as applications are: they find out where to write, write, and when that fails ask again.

Under Sentinel they ask the sentinels for the master (here), in a cluster they follow its slots (`cluster_clients`).
Every acknowledged write is remembered, and looked for in the end.
"""

import asyncio
import base64
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from lab.kube import Json, Kube
from lab.spec import RedisTraffic
from lab.traffic import dataset
from lab.traffic.endpoint_slices import EndpointSlices
from lab.traffic.load import Load

TIMEOUT_SECONDS = 1.0
AGAIN_SECONDS = 0.01
"""How soon a client tries again after an error."""

KEY = "traffic"
READS_PER_SECOND = 5.0
LOOK_SECONDS = 0.1
FIRST_SECONDS = 60.0
LAST_SECONDS = 30.0

REFUSED = (RedisError, OSError, TimeoutError)
"""How a request fails."""


@dataclass(slots=True)
class Writer:
    """What one writer had acknowledged: numbers, and when (epoch seconds)."""

    name: str
    acked: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    failed: int = 0


class RedisClients(Protocol):
    """All clients of one group. What goes on until it is cancelled says so."""

    writers: list[Writer]
    load: Load | None
    """What they do beside, where the lab's description asks for it."""

    async def follow(self) -> None:
        """Keeps up with the addresses where clients begin; until cancelled."""

    async def prepare(self) -> None:
        """Until the group takes writes. Raises TimeoutError."""

    async def write(self, writer: Writer) -> None:
        """One number after the other, at the writer's rate; until cancelled."""

    async def read(self) -> None:
        """Until cancelled."""

    async def watch(self) -> None:
        """Notes every change of a master; until cancelled."""

    async def conclude(self) -> Json:
        """What was acknowledged and what is there in the end; where nobody tells, nothing is."""
        ...

    def live(self) -> Json:
        """For whoever watches."""
        ...


class SentinelClients:
    """The clients of a group under Sentinel."""

    def __init__(self, spec: RedisTraffic, kube: Kube, namespace: str) -> None:
        self.spec = spec
        self._kube = kube
        self._namespace = namespace
        self._options: dict[str, Any] = {}
        self._slices = EndpointSlices()
        self._sentinel: Sentinel | None = None
        self.writers = [Writer(f"{spec.group}-{n}") for n in range(spec.writers)]
        self.masters: list[tuple[float, str]] = []
        self.reads = 0
        self.errors: Counter[str] = Counter()
        self.read_errors: Counter[str] = Counter()
        rate = spec.load_megabytes_per_second
        self.load = Load(self._master_client, rate, REFUSED) if rate else None

    async def prepare(self) -> None:
        """Until the group has a master. Raises TimeoutError."""
        if password := await password_of(self._kube, self._namespace, self.spec):
            self._options = {"password": password}
        async with asyncio.timeout(FIRST_SECONDS):
            while not await self._is_whole():  # noqa: ASYNC110 (sentinels tell nobody when they are ready)
                await asyncio.sleep(LOOK_SECONDS)
        await dataset.fill(self._master_client(), self.spec.megabytes)

    async def follow(self) -> None:
        """Keeps up with the sentinels' addresses, as a client that knows them by name does; until cancelled."""
        slices = self._slices

        def point() -> None:
            self._point_at(addresses_by_name(slices.now))

        await slices.follow(self._kube, self._namespace, self.spec.sentinels, point)

    async def write(self, writer: Writer) -> None:
        """One number after the other, at the writer's rate; until cancelled."""
        master = self._master_client()
        pause = self.spec.writers / self.spec.writes_per_second
        for number in itertools.count(1):
            try:
                await master.rpush(f"{KEY}:{writer.name}", number)
            except REFUSED as error:
                writer.failed += 1
                self.errors[type(error).__name__] += 1
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            writer.acked.append(number)
            writer.at.append(time.time())
            await asyncio.sleep(pause)

    async def read(self) -> None:
        """From replicas; until cancelled."""
        replicas = self._known().slave_for(self.spec.master_name, **self._client_options())
        while True:
            try:
                await replicas.llen(f"{KEY}:{self.writers[0].name}")
                self.reads += 1
            except REFUSED as error:
                self.read_errors[type(error).__name__] += 1
            await asyncio.sleep(1 / READS_PER_SECOND)

    async def watch(self) -> None:
        """Notes every change of the master that the sentinels tell of; until cancelled."""
        while True:
            master = await self._master()
            if master and (not self.masters or self.masters[-1][1] != master):
                self.masters.append((time.time(), master))
            await asyncio.sleep(LOOK_SECONDS)

    async def conclude(self) -> Json:
        """What was acknowledged and what is there, read from the master of the end; without one nothing is there."""
        master = self._master_client()
        held: dict[str, set[int]] = {}
        deadline = time.monotonic() + LAST_SECONDS
        while len(held) < len(self.writers) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(*REFUSED):
                for writer in self.writers:
                    numbers = await master.lrange(f"{KEY}:{writer.name}", 0, -1)
                    held[writer.name] = {int(n) for n in numbers}
        return {
            "dataset": {
                "megabytes": self.spec.megabytes,
                "missing": await dataset.missing(master, self.spec.megabytes),
            },
            "load": await self.load.conclude() if self.load else {},
            "group": self.spec.group,
            "kind": "sentinel",
            "writers": [concluded(w, held.get(w.name, set())) for w in self.writers],
            "failovers": max(0, len(self.masters) - 1),
            "errors": dict(self.errors),
            "reads": self.reads,
            "read_errors": dict(self.read_errors),
        }

    def live(self) -> Json:
        """For whoever watches."""
        return {"group": self.spec.group, "acked": sum(len(w.acked) for w in self.writers)}

    async def _is_whole(self) -> bool:
        """Whether every sentinel knows the others and all replicas, for which it takes up to ten seconds."""
        sentinels = self._sentinel.sentinels if self._sentinel else ()
        expected = (self.spec.replicas, len(sentinels) - 1)
        for sentinel in sentinels:
            told: Any = None
            with contextlib.suppress(*REFUSED):
                told = await sentinel.sentinel_master(self.spec.master_name)
            if not told or (told["num-slaves"], told["num-other-sentinels"]) != expected:
                return False
        return bool(sentinels)

    async def _master(self) -> str:
        """The address that the first sentinel that answers names; "" while none does."""
        for sentinel in self._sentinel.sentinels if self._sentinel else ():
            with contextlib.suppress(*REFUSED):
                command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.spec.master_name)
                answer = await sentinel.execute_command(*command)
                if answer:
                    return ":".join(part.decode() if isinstance(part, bytes) else part for part in answer)
        return ""

    def _master_client(self) -> Any:
        return self._known().master_for(self.spec.master_name, **self._client_options())

    def _known(self) -> Sentinel:
        assert self._sentinel is not None  # noqa: S101 (prepared)
        return self._sentinel

    def _point_at(self, addresses: Sequence[str]) -> None:
        if not addresses:
            return
        if self._sentinel is None:
            self._sentinel = Sentinel([])
        # Connections to the master live on; only the next question goes elsewhere.
        self._sentinel.sentinels = [
            Redis(host=host, port=int(port), socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
            for host, port in (address.rsplit(":", 1) for address in addresses)
        ]

    def _client_options(self) -> dict[str, Any]:
        return self._options | {
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }


def concluded(writer: Writer, held: set[int]) -> Json:
    """A writer's part of the record; `held` is what the servers have of it in the end."""
    return {
        "name": writer.name,
        "acked": len(writer.acked),
        "lost": sorted(set(writer.acked) - held),
        "unacknowledged": len(held - set(writer.acked)),
        "failed": writer.failed,
        "at": writer.at,
    }


async def password_of(kube: Kube, namespace: str, spec: RedisTraffic) -> str:
    """The password that the clients use; "" where they use none."""
    if not spec.secret:
        return ""
    secret = await kube.get(f"/api/v1/namespaces/{namespace}/secrets/{spec.secret}")
    return base64.b64decode(secret["data"]["password"]).decode()


def addresses_by_name(slices: Sequence[Json]) -> list[str]:
    """host:port of every pod of a Service that is not ending, in the order of the pods' names."""
    found = {
        endpoint["targetRef"]["name"]: f"{endpoint['addresses'][0]}:{piece['ports'][0]['port']}"
        for piece in slices
        for endpoint in piece.get("endpoints") or ()
        if not (endpoint.get("conditions") or {}).get("terminating")
    }
    return [found[name] for name in sorted(found)]
