"""The cluster's names, as CoreDNS has them (github.com/kubernetes/dns, specification 1.1.0). Pure.

A records only. Not there: SRV and PTR records, ExternalName, names of pods by their address.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from lab.kube import Json

DOMAIN = "cluster.local"


def names(services: Iterable[Json], slices: Iterable[Json]) -> Mapping[str, tuple[str, ...]]:
    """Addresses by name, lower case and without a final dot. A name that exists and has no address has none."""
    by_service: defaultdict[tuple[str, str], list[Json]] = defaultdict(list)
    for piece in slices:
        metadata = piece["metadata"]
        service = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        by_service[metadata["namespace"], service].append(piece)
    table: dict[str, tuple[str, ...]] = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        suffix = f"{metadata['namespace']}.svc.{DOMAIN}"
        name = f"{metadata['name']}.{suffix}"
        table[f"svc.{DOMAIN}"] = table[suffix] = ()
        address = spec.get("clusterIP")
        if address and address != "None":
            table[name] = (address,)
            continue
        pieces = by_service[metadata["namespace"], metadata["name"]]
        table[name] = _addresses(pieces)
        hosts = {e["hostname"] for piece in pieces for e in piece.get("endpoints") or () if e.get("hostname")}
        for host in hosts:
            table[f"{host}.{name}"] = _addresses(pieces, host)
    return {name.lower(): addresses for name, addresses in table.items()}


def _addresses(slices: Iterable[Json], hostname: str | None = None) -> tuple[str, ...]:
    """Ready endpoints; a Service that publishes those that are not ready has them marked as ready."""
    found = {
        address
        for piece in slices
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        and (hostname is None or endpoint.get("hostname") == hostname)
        for address in endpoint["addresses"]
    }
    return tuple(sorted(found))
