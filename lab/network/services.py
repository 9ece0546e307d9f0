"""kube-proxy for every node of the lab: Service addresses and node ports, passed on in user space."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from typing import cast

from lab.kube import Json, Kube
from lab.network.listeners import Listeners
from lab.network.names import names
from lab.network.relay import Outgoing, Relay
from lab.network.routes import HealthCheck, Listen, Route, routes
from lab.network.sources import Connector
from lab.waiting import Changes

_CONNECT_SECONDS = 10.0
_LARGEST_REQUEST = 16 * 1024


class ServiceProxy:
    """Follows Services, EndpointSlices and nodes, and listens accordingly."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._services: dict[str, Json] = {}
        self._slices: dict[str, Json] = {}
        self._nodes: Mapping[str, str] = {}
        self._names: Mapping[str, tuple[str, ...]] = {}
        self._changes = Changes()
        self._due = False
        self._relay = Relay()
        self._connector = Connector()
        self._listeners: Listeners[Route | HealthCheck] = Listeners(self._protocol)

    def see_nodes(self, nodes: Mapping[str, str]) -> None:
        """Takes in the addresses of all running nodes, by name. Connections through other nodes break."""
        self._nodes = nodes
        addresses = set(nodes.values())
        self._relay.abort(lambda node_address: bool(node_address) and node_address not in addresses)
        self._tell()

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """The cluster's DNS names, as of now."""
        return self._names

    async def run(self) -> None:
        """Serves for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("/api/v1/services", self._services))
            tasks.create_task(self._follow("/apis/discovery.k8s.io/v1/endpointslices", self._slices))
            tasks.create_task(self._apply())

    async def _follow(self, path: str, known: dict[str, Json]) -> None:
        async for event in self._kube.watch(path):
            if event.type == "SYNCED":
                continue
            if event.type == "DELETED":
                known.pop(event.object["metadata"]["uid"], None)
            else:
                known[event.object["metadata"]["uid"]] = event.object
            self._tell()

    def _tell(self) -> None:
        self._due = True
        self._changes.tell()

    async def _apply(self) -> None:
        while True:
            await self._changes.until(lambda: self._due)
            self._due = False
            self._names = names(self._services.values(), self._slices.values())
            await self._listeners.follow(routes(self._services.values(), self._slices.values(), self._nodes))

    def _protocol(self, listen: Listen) -> asyncio.Protocol:
        if isinstance(self._listeners.table.get(listen), HealthCheck):
            return _HealthAnswer(lambda: self._listeners.table.get(listen))
        return self._relay.protocol(lambda client: self._lead(listen, client))

    async def _lead(self, listen: Listen, client: str) -> Outgoing | bytes:
        route = self._listeners.table.get(listen)
        if not isinstance(route, Route):
            raise ConnectionRefusedError(f"nothing is behind {listen.address}:{listen.port} any more")
        backend = random.choice(route.backends)  # noqa: S311 (spreads load)
        at_node = listen.address in self._nodes.values()
        source: str | None = client if route.source == "client" else listen.address
        if client == listen.address and not at_node:
            # What the lab's own processes seem to come from when they call a Service: no endpoint could answer that.
            source = None
        async with asyncio.timeout(_CONNECT_SECONDS):
            connected = await self._connector.connect(backend, source)
        return Outgoing(connected, depends_on=listen.address if at_node else "")


class _HealthAnswer(asyncio.Protocol):
    """What a load balancer hears at a healthCheckNodePort: 200 while the node has endpoints, else 503."""

    def __init__(self, entry: Callable[[], Route | HealthCheck | None]) -> None:
        self._entry = entry
        self._transport: asyncio.Transport | None = None
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._request += data
        if self._transport is None or (b"\r\n\r\n" not in self._request and len(self._request) < _LARGEST_REQUEST):
            return
        entry = self._entry()
        count = entry.local_endpoints if isinstance(entry, HealthCheck) else 0
        body = json.dumps({"localEndpoints": count}).encode()
        status = "200 OK" if count else "503 Service Unavailable"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self._transport.close()
