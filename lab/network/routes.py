"""Which address leads to which endpoints, as kube-proxy has it. Pure.

TCP only. Not there: session affinity, internalTrafficPolicy, topology hints, external addresses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lab.kube import Json

SourcePolicy = Literal["client", "node"]


@dataclass(frozen=True)
class Endpoint:
    """One address and port behind a Service."""

    address: str
    port: int
    node: str | None
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True)
class Listen:
    address: str
    port: int


@dataclass(frozen=True)
class Route:
    """Where connections to one address go."""

    service: str
    backends: tuple[tuple[str, int], ...]
    source: SourcePolicy
    """Whose address the endpoint sees: the client's, or the node's that the connection came in at."""


@dataclass(frozen=True)
class HealthCheck:
    """What a healthCheckNodePort answers: how many endpoints of the Service its node has."""

    service: str
    local_endpoints: int


def endpoints_of(slices: Iterable[Json], port_name: str) -> list[Endpoint]:
    """The endpoints for one of a Service's ports, each once, in a stable order."""
    found: dict[tuple[str, int], Endpoint] = {}
    for piece in slices:
        numbers = [p["port"] for p in piece.get("ports") or () if (p.get("name") or "") == port_name and p.get("port")]
        for number in numbers:
            for entry in piece.get("endpoints") or ():
                conditions = entry.get("conditions", {})
                ready = conditions.get("ready") is not False
                for address in entry["addresses"]:
                    found[address, number] = Endpoint(
                        address,
                        number,
                        entry.get("nodeName"),
                        ready=ready,
                        serving=conditions.get("serving", ready) is not False,
                        terminating=conditions.get("terminating") is True,
                    )
    return [found[key] for key in sorted(found)]


def usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that are ready; where none is, those that still serve while they end."""
    everything = list(endpoints)
    ready = [e for e in everything if e.ready]
    return ready or [e for e in everything if e.serving and e.terminating]


def routes(
    services: Iterable[Json], slices: Iterable[Json], nodes: Mapping[str, str]
) -> dict[Listen, Route | HealthCheck]:
    """Everything to listen on: Service addresses, node ports, health check ports. `nodes`: address by node name.

    What has no endpoint is not in it: connections are refused, as kube-proxy has them refused.
    """
    by_service: dict[str, list[Json]] = {}
    for piece in slices:
        metadata = piece["metadata"]
        service = metadata.get("labels", {}).get("kubernetes.io/service-name", "")
        by_service.setdefault(f"{metadata['namespace']}/{service}", []).append(piece)
    table: dict[Listen, Route | HealthCheck] = {}
    for service in services:
        name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        table |= _routes_of(name, service["spec"], by_service.get(name, []), nodes)
    return table


def _routes_of(
    name: str, spec: Json, slices: list[Json], nodes: Mapping[str, str]
) -> dict[Listen, Route | HealthCheck]:
    table: dict[Listen, Route | HealthCheck] = {}
    local_only = spec.get("externalTrafficPolicy") == "Local"
    addresses = [a for a in spec.get("clusterIPs") or [spec.get("clusterIP")] if a and a != "None"]
    for port in spec.get("ports") or ():
        if port.get("protocol", "TCP") != "TCP":
            continue
        endpoints = endpoints_of(slices, port.get("name") or "")
        everywhere = _pairs(usable(endpoints))
        if everywhere:
            for address in addresses:
                table[Listen(address, port["port"])] = Route(name, everywhere, "client")
        if "nodePort" not in port:
            continue
        for node, address in nodes.items():
            here = _pairs(usable(e for e in endpoints if e.node == node)) if local_only else everywhere
            if here:
                source: SourcePolicy = "client" if local_only else "node"
                table[Listen(address, port["nodePort"])] = Route(name, here, source)
    if local_only and spec.get("healthCheckNodePort"):
        endpoints = endpoints_of(slices, spec["ports"][0].get("name") or "")
        for node, address in nodes.items():
            count = sum(e.ready for e in endpoints if e.node == node)
            table[Listen(address, spec["healthCheckNodePort"])] = HealthCheck(name, count)
    return table


def _pairs(endpoints: Iterable[Endpoint]) -> tuple[tuple[str, int], ...]:
    return tuple((e.address, e.port) for e in endpoints)
