"""Which Redis groups a cluster has: what people wrote on their StatefulSets, and what is wrong with it.

A group is what migrates together: one Sentinel master name with its replicas and sentinels, or one Redis Cluster.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from eks_rolling.names import is_object_name
from eks_rolling.observed.kubernetes import Owner, Workload
from eks_rolling.observed.redis import Address, Endpoint, Login

GROUP = "eks-rolling.io/redis-group"
PART = "eks-rolling.io/redis-role"
MASTER_NAME = "eks-rolling.io/sentinel-master-name"
AUTH = "eks-rolling.io/redis-auth"
TLS = "eks-rolling.io/redis-tls"
PORT = "eks-rolling.io/redis-port"
REFRESH = "eks-rolling.io/sentinel-refresh"
STAND_IN_LABELS = "eks-rolling.io/stand-in-labels"

ANNOTATIONS = frozenset({GROUP, PART, MASTER_NAME, AUTH, TLS, PORT, REFRESH, STAND_IN_LABELS})


CACHE = "cache"
"""The role of what belongs to no group, and whose data may go: any workload may be declared so."""


class RefreshBy(StrEnum):
    """How a sentinel is made to forget addresses where nothing is any more: SENTINEL RESET, or a new pod."""

    RESET = "reset"
    RESTART = "restart"


class Part(StrEnum):
    """What a StatefulSet is in its group."""

    MASTER = "sentinel-master"
    REPLICA = "sentinel-replica"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


DEFAULT_PORTS = {Part.MASTER: 6379, Part.REPLICA: 6379, Part.SENTINEL: 26379, Part.CLUSTER: 6379}


@dataclass(frozen=True, slots=True)
class PartSet:
    """One StatefulSet of a group."""

    owner: Owner
    part: Part
    pods: tuple[str, ...]
    """The pods' names, by ordinal."""
    port: int
    login: Login
    service: str = ""
    """The Service that gives its pods their names (spec.serviceName)."""

    def names(self, pod: str, host: str) -> bool:
        """Whether a host name is that pod's: POD[.SERVICE[.NAMESPACE[.svc[...]]]], or its Service's in a set of one.

        Sentinels announce such names where replicas are configured with them, without replica-announce-ip.
        """
        labels = host.rstrip(".").lower().split(".")
        own = [self.owner.namespace, "svc"]
        forms = [[pod, self.service, *own]]
        if len(self.pods) == 1 and self.service:
            forms.append([self.service, *own])
        return any(labels[: len(form)] == form[: len(labels)] for form in forms)


@dataclass(frozen=True, slots=True)
class RedisGroup:
    """One Sentinel master name or one Redis Cluster, and the StatefulSets that serve it."""

    namespace: str
    name: str
    master_name: str
    sets: tuple[PartSet, ...]
    refresh_by: RefreshBy = RefreshBy.RESET

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def is_cluster(self) -> bool:
        return bool(self.of(Part.CLUSTER))

    @property
    def lease(self) -> str:
        """Its holder migrates the group's pods, one pod at a time over all nodes in flight."""
        return _lease(self.namespace, self.name)

    def part_set(self, owner: Owner | None) -> PartSet | None:
        return next((s for s in self.sets if s.owner == owner), None)

    def of(self, *parts: Part) -> tuple[PartSet, ...]:
        return tuple(s for s in self.sets if s.part in parts)


@dataclass(frozen=True, slots=True)
class DeclarationProblem:
    """A declaration that cannot be followed."""

    object: str
    reason: str
    remedy: str
    owners: frozenset[Owner] = frozenset()
    """Whose pods it concerns."""
    group: str = ""
    """NAMESPACE/NAME of the group that is meant; "" where the name is none that a group can have."""


@dataclass(frozen=True, slots=True)
class BrokenGroup:
    """A group that cannot be looked at, as its declaration cannot be followed. A roll may have left it half moved."""

    namespace: str
    name: str
    wrong: str
    """What is wrong with its declaration, and the remedy, as a sentence without its full stop."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def lease(self) -> str:
        return _lease(self.namespace, self.name)

    @property
    def half_moved(self) -> str:
        """What to say of it where its Lease is held."""
        return f"Redis group {self} may be half moved, and its declaration cannot be followed: {self.wrong}"


def stand_in_labels(annotations: Mapping[str, str]) -> dict[str, str]:
    """What STAND_IN_LABELS says. Raises ValueError where it is not KEY=VALUE,KEY=VALUE."""
    given = annotations.get(STAND_IN_LABELS, "")
    pairs = [part.strip().partition("=") for part in given.split(",") if part.strip()]
    if any(not key or not equals for key, equals, _ in pairs):
        raise ValueError(given)
    return {key: value for key, _, value in pairs}


def declared(workloads: Iterable[Workload]) -> tuple[list[RedisGroup], list[DeclarationProblem]]:
    """The groups that are declared rightly, and what is wrong with the others."""
    problems: list[DeclarationProblem] = []
    unusable: defaultdict[tuple[str, str], list[DeclarationProblem]] = defaultdict(list)
    sets: defaultdict[tuple[str, str], list[tuple[Workload, PartSet]]] = defaultdict(list)
    for workload in sorted(workloads, key=lambda w: str(w.owner)):
        annotated = ANNOTATIONS & workload.annotations.keys()
        if not annotated or (annotated == {PART} and workload.annotations[PART] == CACHE):
            continue
        found = [replace(p, owners=frozenset({workload.owner})) for p in _wrong_with_set(workload)]
        key = workload.owner.namespace, workload.annotations.get(GROUP, "")
        if found:
            unusable[key] += found
        else:
            sets[key].append((workload, _part_set(workload)))
    groups = []
    for key, found in sorted(unusable.items()):
        # Without that set the rest is another group than the one that is meant, so none of it moves.
        others = frozenset(part_set.owner for _, part_set in sets.pop(key, []))
        meant = f"{key[0]}/{key[1]}" if is_group_name(key[1]) else ""
        problems += [replace(p, owners=p.owners | others, group=meant) for p in found]
    for (namespace, name), members in sorted(sets.items()):
        names = sorted({w.annotations[MASTER_NAME] for w, _ in members if MASTER_NAME in w.annotations})
        refresh = next((w.annotations[REFRESH] for w, _ in members if REFRESH in w.annotations), RefreshBy.RESET)
        group = RedisGroup(namespace, name, names[0] if names else "", tuple(s for _, s in members), RefreshBy(refresh))
        owners = frozenset(s.owner for s in group.sets)
        found = [replace(p, owners=owners, group=str(group)) for p in _wrong_with_group(group, names)]
        problems += found
        if not found:
            groups.append(group)
    return groups, problems


def broken(problems: Iterable[DeclarationProblem]) -> list[BrokenGroup]:
    """The groups that are meant by declarations that cannot be followed, each once."""
    wrong: defaultdict[str, list[str]] = defaultdict(list)
    for problem in problems:
        if problem.group:
            subject = "" if problem.object == f"Redis group {problem.group}" else f"{problem.object}: "
            wrong[problem.group].append(f"{subject}{problem.reason}; {problem.remedy}")
    parts = {group: group.partition("/") for group in wrong}
    return [BrokenGroup(parts[group][0], parts[group][2], "; ".join(said)) for group, said in sorted(wrong.items())]


def is_group_name(text: str) -> bool:
    """Whether a group may be called so: its Lease and its stand-ins' label bear the name."""
    return len(text) <= 50 and is_object_name(text)


def endpoint_of(part_set: PartSet, pod: str, address: str) -> Endpoint:
    """How to speak to a pod of the set that has this IP address."""
    return Endpoint(Address(address, part_set.port), part_set.login, f"{part_set.owner.namespace}/{pod}")


def _lease(namespace: str, group: str) -> str:
    return f"{namespace}/eks-rolling-redis-{group}"


def _wrong_with_set(workload: Workload) -> Iterator[DeclarationProblem]:
    subject, annotations = str(workload.owner), workload.annotations
    if workload.owner.kind != "StatefulSet":
        yield DeclarationProblem(
            subject, "its annotations declare Redis, but only a StatefulSet can be part of a group", "remove them"
        )
    if not annotations.get(GROUP):
        yield DeclarationProblem(subject, f"the annotation {GROUP} is missing", f"name its group: {GROUP}: NAME")
    yield from _wrong_names(subject, annotations)
    part = annotations.get(PART, "")
    if part not in set(Part):
        known = ", ".join((*Part, f"{CACHE} without any other annotation"))
        yield DeclarationProblem(subject, f"the annotation {PART} says {part!r}", f"it must be one of {known}")
    refresh = annotations.get(REFRESH, RefreshBy.RESET)
    if refresh not in set(RefreshBy):
        yield DeclarationProblem(
            subject, f"the annotation {REFRESH} says {refresh!r}", f"it must be one of {', '.join(RefreshBy)}"
        )
    try:
        labels = stand_in_labels(annotations)
    except ValueError:
        labels = {}
        said = f"the annotation {STAND_IN_LABELS} says {annotations[STAND_IN_LABELS]!r}"
        yield DeclarationProblem(subject, said, "it must be KEY=VALUE,KEY=VALUE")
    if labels and workload.selector is not None and workload.selector.matches(labels):
        # It would count for the set, and for its budgets and spread rules [C3].
        yield DeclarationProblem(
            subject,
            f"with the labels of {STAND_IN_LABELS} its stand-in would be a pod of the StatefulSet's own",
            "name only labels that network policies ask for",
        )
    port = annotations.get(PORT, "1")
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        yield DeclarationProblem(subject, f"the annotation {PORT} says {port!r}", "it must be a TCP port")
    if part == Part.MASTER and workload.desired != 1:
        yield DeclarationProblem(
            subject,
            f"it is the group's master and has {workload.desired} replicas",
            f"keep the master in a StatefulSet of one, and its replicas in another ({PART}: {Part.REPLICA})",
        )


def _wrong_names(subject: str, annotations: Mapping[str, str]) -> Iterator[DeclarationProblem]:
    """Names that nothing can be called, and that would lead to something else in a request."""
    if annotations.get(GROUP) and not is_group_name(annotations[GROUP]):
        yield DeclarationProblem(
            subject,
            f"the annotation {GROUP} says {annotations[GROUP]!r}",
            "it must be a name as Kubernetes objects have, of at most 50 characters: a Lease and a label are called so",
        )
    for key in (AUTH, TLS):
        if annotations.get(key) and not is_object_name(annotations[key]):
            yield DeclarationProblem(
                subject,
                f"the annotation {key} says {annotations[key]!r}, which no Secret can be called",
                "name a Secret of the same namespace",
            )
    if MASTER_NAME in annotations and not re.fullmatch("[A-Za-z0-9._-]{1,200}", annotations[MASTER_NAME]):
        yield DeclarationProblem(
            subject,
            f"the annotation {MASTER_NAME} says {annotations[MASTER_NAME]!r}",
            "write the name as the sentinels have it: letters, digits and . - _ (redis.io, Sentinel)",
        )


def _part_set(workload: Workload) -> PartSet:
    annotations, owner = workload.annotations, workload.owner
    part = Part(annotations[PART])
    return PartSet(
        owner,
        part,
        tuple(f"{owner.name}-{workload.first + ordinal}" for ordinal in range(workload.desired)),
        int(annotations.get(PORT, DEFAULT_PORTS[part])),
        Login(owner.namespace, annotations.get(AUTH, ""), annotations.get(TLS, "")),
        workload.service,
    )


def _wrong_with_group(group: RedisGroup, names: list[str]) -> Iterator[DeclarationProblem]:
    subject = f"Redis group {group}"
    if group.is_cluster:
        if len(group.of(Part.CLUSTER)) != len(group.sets):
            yield DeclarationProblem(
                subject,
                "some of its StatefulSets are of a Redis Cluster and some of a Sentinel group",
                f"give them two names in {GROUP}",
            )
        return
    masters = group.of(Part.MASTER)
    if len(masters) != 1:
        yield DeclarationProblem(subject, f"{len(masters)} StatefulSets are {Part.MASTER}", "declare exactly one")
    if not any(s.pods for s in group.of(Part.REPLICA)):
        yield DeclarationProblem(
            subject,
            "it has no replica, so its master cannot move without an outage",
            f"declare a StatefulSet of replicas ({PART}: {Part.REPLICA})",
        )
    if not any(s.pods for s in group.of(Part.SENTINEL)):
        yield DeclarationProblem(subject, "it has no sentinels", f"declare their StatefulSet ({PART}: {Part.SENTINEL})")
    if len(names) != 1:
        said = f"its StatefulSets name {' and '.join(names)}" if names else "no StatefulSet names its master"
        yield DeclarationProblem(
            subject, said, f"write the name that the sentinels monitor into {MASTER_NAME}, the same on all"
        )
