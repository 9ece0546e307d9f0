"""Whether every pod that leaves a node fits on the new ones. Pure: placed in thought, pod by pod.

Each pod is tried on the replacement of its own node first, which is like that node but for what the launch template's
new version changes and for manual changes to the node; then on every other node that takes it. A pod that finds
no place would stay Pending. What is not known (a node that states no allocatable resources) does not count against a
pod: a pod is named only where the scheduler would have to refuse it.

Required are: requests, node selector and required node affinity, taints, zones of volumes, volumes per node, host
ports; and beside others on another node than its own replacement, required anti-affinity and topology spread.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from eks_rolling.observed.kubernetes import (
    ROLL_TAINT_KEY,
    Effect,
    Node,
    Pod,
    Selector,
    Spread,
    Taint,
    Volume,
    declared_taints,
    left_out_by,
)
from eks_rolling.observed.marks import target_of
from eks_rolling.payloads import Targets
from eks_rolling.plan.snapshot import Candidate, ClusterSnapshot

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
TYPE = "node.kubernetes.io/instance-type"
ARCHITECTURE = "kubernetes.io/arch"

GIVEN_LABELS = ("kubernetes.io", "k8s.io", "amazonaws.com", "aws.com")
"""Domains of labels that Kubernetes, AWS and their drivers put on every node by themselves."""

GIVEN_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", ROLL_TAINT_KEY)
"""Taints that come and go with a node's condition, or are ours."""

TEMPLATE_LABEL = "k8s.io/cluster-autoscaler/node-template/label/"
"""A group's tag with this prefix says a label of its new nodes (cluster-autoscaler, AWS)."""

UNITS = {"cpu": (1000, "CPU"), "memory": (1 << 30, "GiB of memory")}


class Cause(StrEnum):
    """Why a pod finds no place; the value is the finding's code."""

    PENDING = "would-stay-pending"
    VOLUME_ZONE = "volume-zone"
    SPREAD = "spread-stuck"
    STAND_IN = "redis-no-room"


@dataclass(frozen=True, slots=True)
class Stuck:
    """A pod that would stay Pending, and why."""

    pod: Pod
    cause: Cause
    reason: str


@dataclass(slots=True)
class Place:
    """A node as it will be, with the room that is left on it. `free` is None where it is not known."""

    name: str
    zone: str
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    free: dict[str, int] | None
    volumes: dict[str, int] = field(default_factory=dict)
    ports: set[int] = field(default_factory=set)
    manual: frozenset[tuple[str, str]] = frozenset()
    """Labels that the old node has and a new one will not."""


def stuck_pods(view: ClusterSnapshot, chosen: Sequence[Candidate], targets: Targets) -> list[Stuck]:
    """Every pod of the plan's nodes that would find no place, in the order of nodes."""
    return [*_Simulation(view, chosen, targets).run(), *_stuck_by_spread(view, chosen)]


def daemons_left_out(
    view: ClusterSnapshot, chosen: Sequence[Candidate], targets: Targets
) -> Iterator[tuple[Candidate, Pod, str]]:
    """Pods of DaemonSets that have no successor on their node's replacement, and the label or taint for which."""
    shapes = _Shapes(view, targets)
    for candidate in chosen:
        if candidate.node is None:
            continue
        labels, taints = shapes.replacement(candidate).labels, declared_taints(candidate.group.tags)
        for pod in view.pods_on(candidate.name):
            if pod.owner and pod.owner.kind == "DaemonSet" and (why := left_out_by(pod, labels, taints)):
                yield candidate, pod, why


def cramped_stand_ins(view: ClusterSnapshot, chosen: Sequence[Candidate], targets: Targets) -> list[Stuck]:
    """Pods of Redis Clusters whose stand-ins would find no room in their zone: a node's replacement has its pods to
    hold, and for a while one more like them.
    """
    return list(_Simulation(view, chosen, targets).stand_ins())


class _Simulation:
    """The cluster after the roll, filled pod by pod."""

    def __init__(self, view: ClusterSnapshot, chosen: Sequence[Candidate], targets: Targets) -> None:
        self._view = view
        self._chosen = [c for c in chosen if c.node is not None and c.node.ready]
        leaving = {c.name for c in self._chosen}
        shapes = _Shapes(view, targets)
        served = [c for c in self._chosen if c.instance.zone in c.group.zones and not c.place]
        self._replacement = {c.name: shapes.replacement(c) for c in served}
        self._others = [
            self._filled(n) for n in view.nodes if n.ready and not n.unschedulable and n.name not in leaving
        ]
        self._nowhere: set[object] = set()
        self._domains = _Domains(view)

    def _filled(self, node: Node) -> Place:
        """A node that stays, with the pods that it has."""
        place = _place(node, node.allocatable, self._view.volume_limits.get(node.name, {}))
        for pod in self._view.pods_on(node.name):
            # A placeholder gives way to whatever comes.
            if not pod.finished and pod.uid not in self._view.placeholders:
                _take(place, pod, self._volumes(pod))
        return place

    def _volumes(self, pod: Pod) -> list[Volume]:
        found = (self._view.volume(pod.namespace, claim) for claim in pod.claims)
        return [v for v in found if v]

    def run(self) -> Iterator[Stuck]:
        homeless: list[tuple[Candidate, Pod, str]] = []
        for candidate in self._chosen:
            # The largest first, as a full node's replacement has no room to lose.
            pods = [p for p in self._view.pods_on(candidate.name) if not p.stays_with_node]
            pods = [p for p in pods if p.uid not in self._view.placeholders]
            for pod in sorted(pods, key=lambda p: -p.requests.get("memory", 0)):
                reason = self._on_own_replacement(candidate, pod)
                if reason:
                    homeless.append((candidate, pod, reason))
        for candidate, pod, reason in homeless:
            if not self._anywhere(pod):
                cause = Cause.VOLUME_ZONE if self._zone_is_lost(candidate, pod) else Cause.PENDING
                yield Stuck(pod, cause, f"{reason}, and no other node takes it")

    def stand_ins(self) -> Iterator[Stuck]:
        """Redis pods are the first to move, so that other pods are where they were: on nodes that stay, and on old
        ones, which take what tolerates no more than a preference."""
        for candidate in self._chosen:
            own = self._replacement.get(candidate.name)
            shards = [p for p in self._view.pods_on(candidate.name) if self._is_of_a_cluster(p)]
            for pod in shards:
                if own is not None:
                    _take(own, pod, self._volumes(pod))
            for pod in shards:
                zone = candidate.instance.zone
                elsewhere = [n for n in self._view.nodes if n.ready and n.zone == zone and n.name != candidate.name]
                places = [*([own] if own else []), *(self._filled(n) for n in elsewhere if not n.unschedulable)]
                refusals = [_refusal(place, replace(pod, claims=(), host_ports=()), ()) for place in places]
                if all(refusals):
                    reason = refusals[0] if refusals else f"no node is in {zone}"
                    yield Stuck(pod, Cause.STAND_IN, f"{reason}, and no other node in {zone} takes it")

    def _is_of_a_cluster(self, pod: Pod) -> bool:
        found = self._view.redis_set(pod.owner)
        return found is not None and found[0].is_cluster

    def _on_own_replacement(self, candidate: Candidate, pod: Pod) -> str:
        """Places the pod there; or why it cannot be."""
        place = self._replacement.get(candidate.name)
        if candidate.place:
            return f"node {candidate.name} is in the place of {candidate.place}, and nothing is launched for it"
        if place is None:
            zones = _zones(self._volumes(pod))
            where = f"its volume is in {zones}" if zones else f"node {candidate.name} is in {candidate.instance.zone}"
            return f"{where}, where group {candidate.group.name} no longer launches"
        volumes = self._volumes(pod)
        reason = _refusal(place, pod, volumes)
        if not reason:
            _take(place, pod, volumes)
        return reason

    def _anywhere(self, pod: Pod) -> bool:
        """Places the pod on any node that takes it. What found no place once is not tried again: room only shrinks."""
        volumes = self._volumes(pod)
        key = (pod.owner, pod.needs, tuple(sorted(pod.requests.items())), _zones(volumes)) if pod.owner else None
        if key is not None and key in self._nowhere:
            return False
        for place in (*self._replacement.values(), *self._others):
            if not _refusal(place, pod, volumes) and self._domains.allow(pod, place):
                _take(place, pod, volumes)
                return True
        if key is not None:
            self._nowhere.add(key)
        return False

    def _zone_is_lost(self, candidate: Candidate, pod: Pod) -> bool:
        lost = candidate.name not in self._replacement and not candidate.place
        return lost and bool(_zones(self._volumes(pod)))


class _Shapes:
    """What new nodes look like."""

    def __init__(self, view: ClusterSnapshot, targets: Targets) -> None:
        self._view = view
        self._targets = targets
        self._group_of = {i.id: g.name for g in view.groups for i in g.instances}
        self._members: defaultdict[str, list[Node]] = defaultdict(list)
        self._of_type: dict[str, Node] = {}
        for node in view.nodes:
            if node.instance in self._group_of:
                self._members[self._group_of[node.instance]].append(node)
            if node.ready and node.allocatable:
                self._of_type.setdefault(node.labels.get(TYPE, ""), node)
        self._common = {group: self._shared(nodes) for group, nodes in self._members.items()}

    @staticmethod
    def _shared(nodes: list[Node]) -> tuple[set[tuple[str, str]], set[Taint]]:
        """Labels and taints that all nodes of a group have: what they are born with."""
        labels = set(nodes[0].labels.items()).intersection(*(n.labels.items() for n in nodes[1:]))
        taints = set(nodes[0].taints).intersection(*(n.taints for n in nodes[1:]))
        return labels, taints

    def replacement(self, candidate: Candidate) -> Place:
        """What will come for an old node: of the type that the new version says, born as its group's nodes are."""
        old = candidate.node
        assert old is not None  # noqa: S101  (chosen so)
        kind = self._type(candidate)
        allocatable, limits = self._room(old, candidate.instance.type, kind)
        labels, taints = self._common.get(candidate.group.name, (set(old.labels.items()), set(old.taints)))
        tagged = {
            key.removeprefix(TEMPLATE_LABEL): value
            for key, value in candidate.group.tags.items()
            if key.startswith(TEMPLATE_LABEL)
        }
        born = {k: v for k, v in old.labels.items() if _is_given(k) or (k, v) in labels} | tagged
        manual = frozenset(old.labels.items()) - frozenset(born.items())
        if kind:
            born |= self._labels_of_type(candidate.instance.type, kind)
        name = f"the replacement of {candidate.name}"
        place = _place(old, allocatable, limits, name=name, labels=born | {HOSTNAME: name})
        kept = [t for t in old.taints if t in taints and not t.key.startswith(GIVEN_TAINTS)]
        place.taints = tuple(dict.fromkeys([*kept, *declared_taints(candidate.group.tags)]))
        place.manual = manual
        for pod in self._view.pods_on(candidate.name):
            if pod.stays_with_node and not pod.finished:
                _take(place, pod, [])
        return place

    def _type(self, candidate: Candidate) -> str:
        """The type of what comes. A version that names another type changes it only where the group launched what the
        old version named: a mixed instances policy chooses types by itself."""
        own, data, was = self._targets[candidate.group.name], self._view.template_data, candidate.instance.type
        named = data.get(candidate.instance.template, {}).get("InstanceType", "")
        return data.get(target_of(candidate.instance, own), {}).get("InstanceType", was) if named in {was, ""} else was

    def _labels_of_type(self, was: str, kind: str) -> dict[str, str]:
        """What a kubelet and the cloud provider say of a node of the type (Kubernetes, well-known labels)."""
        labels = {TYPE: kind, f"beta.{TYPE.removeprefix('node.')}": kind}
        known = self._view.instance_types.get(kind)
        if kind == was or known is None or not known.architecture:
            return labels
        return labels | dict.fromkeys((ARCHITECTURE, f"beta.{ARCHITECTURE}"), known.architecture)

    def _room(self, old: Node, was: str, kind: str) -> tuple[dict[str, int], dict[str, int]]:
        """Allocatable resources and volume limits of a new node. Of a type that no node has yet, all of the machine."""
        limits = self._view.volume_limits
        if kind in {was, ""}:
            return old.allocatable, limits.get(old.name, {})
        if like := self._of_type.get(kind):
            return like.allocatable, limits.get(like.name, {})
        known = self._view.instance_types.get(kind)
        if known is None or not old.allocatable:
            return {}, {}
        room = {name: amount for name, amount in old.allocatable.items() if name not in {"cpu", "memory"}}
        # How many pods and volumes it takes is not known; more than the old one is assumed of neither or both.
        return room | {"cpu": known.vcpus * 1000, "memory": known.memory_bytes}, {}


class _Domains:
    """Where pods are now, by topology domain, for rules between pods."""

    def __init__(self, view: ClusterSnapshot) -> None:
        self._view = view
        self._nodes = {n.name: n for n in view.nodes}
        self._counts: dict[tuple[str, Selector, tuple[str, ...]], Counter[str]] = {}

    def allow(self, pod: Pod, place: Place) -> bool:
        """Whether required anti-affinity and spread let the pod go there, everything else being where it is."""
        needs = pod.needs
        if needs is None:
            return True
        for rule in needs.apart:
            if self.counts(rule.key, rule.selector, rule.namespaces)[place.labels.get(rule.key, "")]:
                return False
        for spread in needs.spread:
            counts = self.counts(spread.key, spread.selector, (pod.namespace,))
            least = min((counts[d] for d in self.domains(spread.key)), default=0)
            if counts[place.labels.get(spread.key, "")] + 1 - least > spread.max_skew:
                return False
        return True

    def domains(self, key: str) -> set[str]:
        return {n.labels[key] for n in self._nodes.values() if key in n.labels}

    def counts(self, key: str, selector: Selector, namespaces: tuple[str, ...]) -> Counter[str]:
        known = self._counts.get((key, selector, namespaces))
        if known is None:
            alike = (p for p in self._view.pods if p.node and p.namespace in namespaces and not p.finished)
            nodes = (self._nodes.get(p.node) for p in alike if selector.matches(p.labels))
            known = Counter(n.labels.get(key, "") for n in nodes if n)
            self._counts[key, selector, namespaces] = known
        return known


def _stuck_by_spread(view: ClusterSnapshot, chosen: Sequence[Candidate]) -> Iterator[Stuck]:
    """Pods that a spread over nodes keeps from leaving: the old node, emptied, counts as a domain with none, so every
    other may have `max_skew` at most. A constraint that honors taints does not count the old node, which carries ours.
    """
    domains = _Domains(view)
    for candidate in chosen:
        told: set[tuple[str, Selector]] = set()
        for pod in view.pods_on(candidate.name):
            for spread in pod.needs.spread if pod.needs and not pod.stays_with_node else ():
                key = (pod.namespace, spread.selector)
                if key not in told and _is_stuck(domains, pod, spread, candidate):
                    told.add(key)
                    yield Stuck(
                        pod,
                        Cause.SPREAD,
                        f"its spread over nodes (maxSkew {spread.max_skew}) counts the emptied {candidate.name}, so "
                        "the last of its pods there would fit nowhere",
                    )


def _is_stuck(domains: _Domains, pod: Pod, spread: Spread, candidate: Candidate) -> bool:
    if spread.key != HOSTNAME or spread.honors_taints or candidate.node is None:
        return False
    counts = domains.counts(HOSTNAME, spread.selector, (pod.namespace,))
    here = candidate.node.labels.get(HOSTNAME, "")
    roomy = any(counts[d] < spread.max_skew for d in domains.domains(HOSTNAME) if d != here)
    return counts[here] > spread.max_skew and not roomy


def _place(
    node: Node,
    allocatable: Mapping[str, int],
    limits: Mapping[str, int],
    *,
    name: str = "",
    labels: dict[str, str] | None = None,
) -> Place:
    return Place(
        name=name or node.name,
        zone=node.zone,
        labels=node.labels if labels is None else labels,
        taints=node.taints,
        free=dict(allocatable) or None,
        volumes=dict(limits),
    )


def _take(place: Place, pod: Pod, volumes: Iterable[Volume]) -> None:
    """The room that the pod takes."""
    if place.free is not None:
        for name, amount in pod.requests.items():
            place.free[name] = place.free.get(name, 0) - amount
        place.free["pods"] = place.free.get("pods", 0) - 1
    for volume in volumes:
        if volume.driver in place.volumes:
            place.volumes[volume.driver] -= 1
    place.ports.update(pod.host_ports)


def _refusal(place: Place, pod: Pod, volumes: Sequence[Volume]) -> str:
    """Why the place does not take the pod; "" if it does."""
    return (
        _by_labels(place, pod)
        or _by_taints(place, pod)
        or _by_volumes(place, volumes)
        or _by_room(place, pod)
        or _by_ports(place, pod)
    )


def _by_labels(place: Place, pod: Pod) -> str:
    if pod.needs is None:
        return ""
    for key, value in pod.needs.labels:
        if place.labels.get(key) != value:
            return f"it needs a node with the label {key}={value}{_by_hand(place, key)}"
    seen = place.labels | {"metadata.name": place.name}
    terms = pod.needs.affinity
    if terms and not any(term and all(e.matches(seen) for e in term) for term in terms):
        keys = dict.fromkeys(e.key for term in terms for e in term)
        hand = next((said for key in keys if (said := _by_hand(place, key))), "")
        return f"its required node affinity asks for {', '.join(keys)}{hand}"
    return ""


def _by_hand(place: Place, key: str) -> str:
    manual = any(name == key for name, _ in place.manual)
    return ", which its node has and the other nodes of the group do not: set manually?" if manual else ""


def _by_taints(place: Place, pod: Pod) -> str:
    for taint in place.taints:
        hard = taint.effect in {Effect.NO_SCHEDULE, Effect.NO_EXECUTE}
        if hard and not any(t.tolerates(taint) for t in pod.tolerations):
            return f"it does not tolerate the taint {taint.key} of {place.name}"
    return ""


def _by_volumes(place: Place, volumes: Sequence[Volume]) -> str:
    for volume in volumes:
        if volume.zones and place.zone not in volume.zones:
            return f"its volume {volume.name} is in {_zones([volume])}, and {place.name} in {place.zone}"
    for driver, count in Counter(v.driver for v in volumes).items():
        if place.volumes.get(driver, count) < count:
            return f"{place.name} takes no more volumes of {driver}"
    return ""


def _by_room(place: Place, pod: Pod) -> str:
    if place.free is None:
        return ""
    if place.free.get("pods", 1) < 1:
        return f"{place.name} takes no more pods"
    for name, amount in pod.requests.items():
        left = place.free.get(name, 0)
        if amount > left:
            return f"it requests {_amount(name, amount)}, and {place.name} has {_amount(name, max(0, left))} left"
    return ""


def _by_ports(place: Place, pod: Pod) -> str:
    taken = place.ports.intersection(pod.host_ports)
    return f"host port {min(taken)} is taken on {place.name}" if taken else ""


def _zones(volumes: Iterable[Volume]) -> str:
    return ", ".join(sorted({zone for v in volumes for zone in v.zones}))


def _amount(name: str, amount: int) -> str:
    factor, unit = UNITS.get(name, (1, name))
    return f"{amount / factor:.3g} {unit}"


def _is_given(label: str) -> bool:
    domain = label.partition("/")[0] if "/" in label else ""
    return any(domain == given or domain.endswith(f".{given}") for given in GIVEN_LABELS)
