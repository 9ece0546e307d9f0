"""NetworkPolicies out of the API's objects."""

from collections.abc import Iterable, Mapping
from typing import Any

from eks_rolling.clients.manifests import read_selector
from eks_rolling.observed.kubernetes import Selector
from eks_rolling.observed.network import Block, NetworkPolicy, Peer, Rule

Json = Mapping[str, Any]


def read_network_policy(item: Json) -> NetworkPolicy:
    """`policyTypes` is always there on what an API server answers; without it, egress counts where rules are."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return NetworkPolicy(
        metadata["namespace"],
        metadata["name"],
        read_selector(spec.get("podSelector")) or Selector(),
        _rules(spec.get("ingress"), "from") if "Ingress" in types else None,
        _rules(spec.get("egress"), "to") if "Egress" in types else None,
    )


def _rules(rules: Iterable[Json] | None, whom: str) -> tuple[Rule, ...]:
    return tuple(Rule(tuple(map(_peer, rule.get(whom) or ())), _ports(rule.get("ports") or ())) for rule in rules or ())


def _peer(item: Json) -> Peer:
    block = item.get("ipBlock")
    return Peer(
        read_selector(item.get("podSelector")),
        read_selector(item.get("namespaceSelector")),
        Block(block["cidr"], tuple(block.get("except") or ())) if block else None,
    )


def _ports(ports: Iterable[Json]) -> tuple[tuple[int, int], ...] | None:
    """None where every TCP port is meant, or one by a name."""
    tcp = [port for port in ports if port.get("protocol", "TCP") == "TCP"]
    numbers = [port.get("port") for port in tcp]
    if not list(ports) or any(not isinstance(number, int) for number in numbers):
        return None
    return tuple((port["port"], port.get("endPort") or port["port"]) for port in tcp)
