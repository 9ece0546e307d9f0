"""Findings about servers of Redis' kind that no annotation names, and what an ordinary eviction would cost them."""

import re
from collections.abc import Iterable, Iterator

from eks_rolling.documents.finding import Finding, blocks, note
from eks_rolling.observed.kubernetes import Container, Pod, Workload
from eks_rolling.plan.snapshot import ClusterSnapshot, by_owner
from eks_rolling.redis.groups import CACHE, PART

KINDS = r"(redis|valkey|keydb|dragonfly|kvrocks|garnet)"

IMAGE = re.compile(rf"{KINDS}(-(server|sentinel|cluster|stack|ha|enterprise|alpine|debian))*")
"""A part of an image's path that names a server: `redis`, `bitnami/redis-cluster`, `ghcr.io/redis/docker`."""

COMPANION = re.compile(r"exporter|metrics|insight|operator|commander|benchmark|proxy|browser|worker|client")
"""The last part of an image's path that only works with one."""

PROGRAM = re.compile(
    r"(?:^|[\s/;&|(])((?:redis|valkey|keydb|garnet)-server|(?:redis|valkey)-sentinel|dragonfly|kvrocks|GarnetServer)(?![\w.-])"
)

PORTS = {6379, 26379}

APPENDS = re.compile(r"appendonly\s+yes|aof-enable|--aof\b")
"""In a command: Redis and its kin, Garnet."""


def undeclared_redis(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """`pods` are those that will move and that no group has."""
    alike = [p for p in pods if redis_evidence(p)]
    for subject, members in by_owner(alike).items():
        yield _finding(subject, members[0], view.workload(members[0].owner))


def redis_evidence(pod: Pod) -> str:
    """Why the pod is taken for a server of Redis' kind: its command, its image or its ports; "" if it is not."""
    return next(filter(None, map(_evidence, pod.containers)), "")


def _evidence(container: Container) -> str:
    if found := PROGRAM.search(" ".join(container.command)):
        return f"it runs {found[1]}"
    if _is_companion(container.image):
        return ""
    if any(IMAGE.fullmatch(part) for part in _parts(container.image)):
        return f"its image is {container.image}"
    if ports := sorted(PORTS.intersection(container.ports)):
        return f"it listens on port {ports[0]}"
    return ""


def _parts(image: str) -> list[str]:
    """The path without registry, tag and digest."""
    first, *rest = image.partition("@")[0].split("/")
    parts = rest if rest and re.search(r"[.:]|^localhost$", first) else [first, *rest]
    return [*parts[:-1], parts[-1].partition(":")[0]]


def _is_companion(image: str) -> bool:
    return bool(COMPANION.search(_parts(image)[-1]))


def _finding(subject: str, pod: Pod, workload: Workload | None) -> Finding:
    why = redis_evidence(pod)
    if workload is not None and workload.annotations.get(PART) == CACHE:
        return note("redis-cache", subject, f"{why}; it is declared a cache, whose data may go", "nothing")
    declare = "declare its group as docs/redis.md shows"
    if not pod.claims:
        copies = f"{workload.desired} pods, " if workload is not None and workload.desired > 1 else ""
        return blocks(
            "redis-in-memory",
            subject,
            f"{why}, and nothing says what it is ({copies}no volume): an eviction would lose every write that no other "
            "server has",
            f"{declare}, give it a volume, or say that its data may go: {PART}: {CACHE}",
        )
    appends = any(APPENDS.search(" ".join(c.command)) for c in pod.containers)
    kept = "what its append-only file holds" if appends else "only what it has saved"
    return blocks(
        "redis",
        subject,
        f"{why}, and nothing says what it is: an eviction would take its role with it, and after an outage {kept} "
        "comes back from its volume",
        f"{declare}, or accept that for this one: accept: redis:{subject}",
    )
