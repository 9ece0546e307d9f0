"""HTTP clients that ask at a steady rate, on the ways that traffic takes in a cluster."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import SimpleNamespace

import aiohttp

from lab.kube import Items, Kube
from lab.traffic.endpoint_slices import EndpointSlices

_log = logging.getLogger(__name__)
TIMEOUT = aiohttp.ClientTimeout(total=5.0)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, sent `at` (epoch seconds) and answered after `seconds`; error "" is success.

    `sent_again` counts kept connections that were closed under it, so that it went out on another one.
    """

    route: str
    at: float
    seconds: float
    error: str = ""
    sent_again: int = 0


class Endpoints:
    """The addresses behind a Service, as a proxy follows them: ready ones, else those that still serve."""

    def __init__(self) -> None:
        self._slices = EndpointSlices()
        self._turn = itertools.count()

    async def follow(self, kube: Kube, namespace: str, service: str) -> None:
        """Keeps up with the Service's EndpointSlices, until cancelled."""
        await self._slices.follow(kube, namespace, service)

    @property
    def addresses(self) -> Sequence[str]:
        """host:port of every endpoint that may be asked now."""
        return choose(self._slices.now)

    def next(self) -> str | None:
        """The next one in turn; None while there is none."""
        addresses = self.addresses
        return f"http://{addresses[next(self._turn) % len(addresses)]}/" if addresses else None


def choose(slices: Items) -> list[str]:
    """Ready endpoints; where none is ready, those still serving while they terminate, as kube-proxy does."""
    ready: list[str] = []
    serving: list[str] = []
    for piece in slices:
        for endpoint in piece.get("endpoints") or ():
            port = piece["ports"][0]["port"]
            conditions = endpoint.get("conditions") or {}
            addresses = [f"{address}:{port}" for address in endpoint["addresses"]]
            if conditions.get("ready", True):
                ready += addresses
            elif conditions.get("serving") and conditions.get("terminating"):
                serving += addresses
    return sorted(ready or serving)


@dataclass(frozen=True)
class Route:
    """One way to the application. `url` answers where to ask next; connections are kept where `keep_alive` says so."""

    name: str
    url: Callable[[], str | None]
    per_second: float
    keep_alive: bool


async def ask(route: Route, record: Callable[[Request], None]) -> None:
    """Asks at the route's rate, until cancelled. Requests overlap: a slow answer delays no other."""
    connector = aiohttp.TCPConnector(limit=0, force_close=not route.keep_alive)
    session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, trace_configs=[_tracing()])
    async with session, asyncio.TaskGroup() as group:
        start = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, start + number / route.per_second - time.monotonic()))
            group.create_task(_ask_once(session, route, record))


class _Connection(Enum):
    """What an attempt went out on."""

    NEW = auto()
    KEPT = auto()


def _tracing() -> aiohttp.TraceConfig:
    """Notes for each attempt of a request, in the list that it was given, what it went out on."""
    tracing = aiohttp.TraceConfig()

    async def made(_session: object, context: SimpleNamespace, _told: object) -> None:
        context.trace_request_ctx.append(_Connection.NEW)

    async def kept(_session: object, context: SimpleNamespace, _told: object) -> None:
        context.trace_request_ctx.append(_Connection.KEPT)

    tracing.on_connection_create_end.append(made)
    tracing.on_connection_reuseconn.append(kept)
    return tracing


async def _ask_once(session: aiohttp.ClientSession, route: Route, record: Callable[[Request], None]) -> None:
    at, began = time.time(), time.monotonic()
    url = route.url()
    attempts: list[_Connection] = []
    error = "no endpoint" if url is None else await _answered(session, url, attempts)
    seconds = time.monotonic() - began
    if error:
        _log.warning("%s: a request to %s failed after %.3f s: %s", route.name, url, seconds, error)
    record(Request(route.name, at, seconds, error, max(0, len(attempts) - 1)))


async def _answered(session: aiohttp.ClientSession, url: str, attempts: list[_Connection]) -> str:
    """What went wrong with a request; "" if nothing did.

    A server may close a kept connection while a request is on its way to it, so clients send it again (RFC 9112,
    section 9.3.1): as long as it went out on a kept connection. aiohttp does so once, which is not enough where several
    connections end at once, as when a target leaves a load balancer; and it does so for new connections, too, of which
    every one that gives no answer is a failure here.
    """
    while True:
        try:
            async with session.get(url, trace_request_ctx=attempts) as response:
                await response.read()
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as problem:
            if attempts and _Connection.NEW not in attempts:
                continue
            return f"{type(problem).__name__}: {problem}"
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            return f"{type(problem).__name__}: {problem}"
        if _Connection.NEW in attempts[:-1]:
            return "a new connection was closed without an answer"
        return "" if response.status == 200 else f"HTTP {response.status}"
