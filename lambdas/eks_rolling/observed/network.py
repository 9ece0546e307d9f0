"""NetworkPolicies as decisions see them, and what they let through: plain frozen values.

The rules are those of networking.k8s.io/v1: who is selected by a policy for a direction lets through what any of its
policies for that direction names, and nothing else; a connection needs the source's leave and the target's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from eks_rolling.observed.kubernetes import Selector

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace has of itself; its others are not known here."""


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses that a rule names, as networks."""

    network: str
    apart_from: tuple[str, ...] = ()

    def has(self, address: str) -> bool:
        """Raises nothing: what is no network or address holds nothing."""
        try:
            there = ip_address(address) in ip_network(self.network, strict=False)
            return there and not any(ip_address(address) in ip_network(n, strict=False) for n in self.apart_from)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a rule names: pods by their labels, in namespaces by theirs (None: the policy's own), or addresses."""

    pods: Selector | None = None
    namespaces: Selector | None = None
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What a policy lets through. Without peers: everybody. `ports` are ranges, both ends included; None: every port,
    and where a port has a name, which may mean any."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[tuple[int, int], ...] | None = None

    def is_about(self, port: int) -> bool:
        return self.ports is None or any(first <= port <= last for first, last in self.ports)


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Whom it selects, and what these let in and out; None: it says nothing of that direction."""

    namespace: str
    name: str
    selector: Selector
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def selects(self, end: "End") -> bool:
        return self.namespace == end.namespace and self.selector.matches(dict(end.labels))


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a pod by its labels, or whoever is outside of the cluster. `addresses`: of pods like it;
    what is in a rule's block has all of them."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    outside: bool = False


def cut_off_by(policies: Iterable[NetworkPolicy], source: End, target: End, port: int) -> tuple[NetworkPolicy, ...]:
    """The policies that keep `source` from connecting to that port of `target`; () if it may."""
    known = tuple(policies)
    ways = ((target, source, "ingress"), (source, target, "egress"))
    for asked, other, way in ways:
        of_it = [(p, getattr(p, way)) for p in known if not asked.outside and p.selects(asked)]
        said = [(p, rules) for p, rules in of_it if rules is not None]
        if said and not any(_lets(p, rule, other, port) for p, rules in said for rule in rules):
            return tuple(p for p, _ in said)
    return ()


def _lets(policy: NetworkPolicy, rule: Rule, other: End, port: int) -> bool:
    return rule.is_about(port) and (not rule.peers or any(_is(peer, policy, other) for peer in rule.peers))


def _is(peer: Peer, policy: NetworkPolicy, other: End) -> bool:
    if peer.block is not None:
        # Which addresses are used from outside is not known.
        return other.outside or (bool(other.addresses) and all(map(peer.block.has, other.addresses)))
    if other.outside:
        return False
    if peer.namespaces is None:
        if policy.namespace != other.namespace:
            return False
    elif not _may_match(peer.namespaces, other.namespace):
        return False
    return peer.pods is None or peer.pods.matches(dict(other.labels))


def _may_match(namespaces: Selector, name: str) -> bool:
    """Whether the namespace may be meant, of whose labels its name alone is known."""
    known = {NAMESPACE_NAME: name}
    return all(known.get(key, value) == value for key, value in namespaces.labels) and all(
        e.matches(known) for e in namespaces.expressions if e.key in known
    )
