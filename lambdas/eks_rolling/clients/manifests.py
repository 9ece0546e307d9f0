"""What a pod's manifest asks of its node, read out of raw JSON. Called for every pod of a cluster, so kept quick."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from eks_rolling.observed.kubernetes import AntiAffinity, Expression, Needs, Selector, Spread

Json = dict[str, Any]

FACTORS: dict[str, float] = {
    "": 1000,
    "m": 1,
    "u": 1e-3,
    "n": 1e-6,
    **{suffix: 1000 * 1000 ** (i + 1) for i, suffix in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{suffix: 1000 * 1024 ** (i + 1) for i, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}


@lru_cache(maxsize=4096)
def quantity(name: str, text: str) -> int:
    """A Kubernetes quantity: thousandths of cores for cpu, whole units for everything else, rounded up."""
    number = text.rstrip("numkMGTPEi")
    thousandths = float(number) * FACTORS[text[len(number) :]]
    return round(thousandths) if name == "cpu" else -(-round(thousandths) // 1000)


def requests_of(spec: Json) -> dict[str, int]:
    """What the scheduler counts for a pod: its containers and sidecars together, or an init container if that is more;
    in their stead what the pod as a whole requests, where it does; and the runtime's overhead (kubernetes.io, Resource
    Management; Sidecar Containers; Pod-level resources)."""
    total = _sum(_requests(c) for c in spec.get("containers") or ())
    if initial := spec.get("initContainers"):
        sidecars: dict[str, int] = {}
        peak: dict[str, int] = {}
        for container in initial:
            asked = _requests(container)
            if container.get("restartPolicy") == "Always":
                sidecars = _sum((sidecars, asked))
            else:
                peak = _most(peak, _sum((sidecars, asked)))
        total = _most(_sum((total, sidecars)), peak)
    if spec.get("resources"):
        total |= _requests(spec)
    if overhead := spec.get("overhead"):
        total = _sum((total, {name: quantity(name, str(value)) for name, value in overhead.items()}))
    return total


def _requests(container: Json) -> dict[str, int]:
    asked = (container.get("resources") or {}).get("requests") or {}
    return {name: quantity(name, str(value)) for name, value in asked.items()}


def _sum(parts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    return total


def _most(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one.keys() | other.keys()}


def needs_of(spec: Json, namespace: str) -> Needs | None:
    """What is required of the node; None where the manifest requires nothing, as most do."""
    affinity = spec.get("affinity") or {}
    labels, spread = spec.get("nodeSelector"), spec.get("topologySpreadConstraints")
    if not (affinity or labels or spread):
        return None
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return Needs(
        labels=tuple(sorted((labels or {}).items())),
        affinity=tuple(tuple(_expressions(t)) for t in required.get("nodeSelectorTerms") or ()),
        apart=tuple(_apart(affinity.get("podAntiAffinity") or {}, namespace)),
        spread=tuple(_spread(spread or ())),
    )


def _expressions(term: Json) -> Iterator[Expression]:
    # matchFields knows metadata.name alone (core/v1 NodeSelectorTerm); it is looked up like a label.
    for item in (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())):
        yield Expression(item["key"], item["operator"], tuple(item.get("values") or ()))


def _apart(rules: Json, namespace: str) -> Iterator[AntiAffinity]:
    for term in rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
        # Terms that choose namespaces by their labels would need these labels; none is assumed to match.
        if selector := read_selector(term.get("labelSelector")):
            yield AntiAffinity(term["topologyKey"], selector, tuple(term.get("namespaces") or (namespace,)))


def _spread(constraints: Any) -> Iterator[Spread]:
    for item in constraints:
        selector = read_selector(item.get("labelSelector"))
        if item.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule" and selector:
            yield Spread(
                item["topologyKey"], item["maxSkew"], selector, item.get("nodeTaintsPolicy", "Ignore") == "Honor"
            )


def read_selector(item: Json | None) -> Selector | None:
    """A LabelSelector; None for none, which matches nothing."""
    if item is None:
        return None
    return Selector(
        tuple(sorted((item.get("matchLabels") or {}).items())),
        tuple(
            Expression(e["key"], e["operator"], tuple(e.get("values") or ()))
            for e in item.get("matchExpressions") or ()
        ),
    )
