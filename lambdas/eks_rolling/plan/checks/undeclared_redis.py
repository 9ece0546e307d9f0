"""Findings about servers of Redis' kind that no annotation names, and what an ordinary eviction would cost them."""

import re
from collections.abc import Iterable, Iterator

from eks_rolling.documents.finding import Finding, blocks, note
from eks_rolling.observed.kubernetes import Pod, Workload
from eks_rolling.plan.snapshot import ClusterSnapshot, by_owner
from eks_rolling.redis.groups import CACHE, PART
from eks_rolling.redis.recognition import only_watches, redis_evidence

APPENDS = re.compile(r"appendonly\s+yes|aof-enable|--aof\b")
"""In a command: Redis and its kin, Garnet."""

NEVER_SAVES = re.compile(r"--save\s+(''|\"\"|--|$)")
"""In a command: snapshots are turned off."""


def undeclared_redis(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """`pods` are those that will move and that no group has."""
    alike = [p for p in pods if redis_evidence(p)]
    for subject, members in by_owner(alike).items():
        yield _finding(subject, members, view.workload(members[0].owner))


def _finding(subject: str, pods: list[Pod], workload: Workload | None) -> Finding:
    pod = pods[0]
    why = redis_evidence(pod)
    # Objects of a controller that this tool does not read say it on their pods.
    told = workload.annotations.get(PART) if workload is not None else ""
    if told == CACHE or all(p.annotations.get(PART) == CACHE for p in pods):
        return note("redis-cache", subject, f"{why}; it is declared a cache, whose data may go", "nothing")
    declare = "declare its group as docs/redis.md shows"
    if all(map(only_watches, pods)):
        return blocks(
            "redis",
            subject,
            f"{why}, and nothing says what it watches: an eviction would take its vote from a failover that needs it",
            f"{declare}, or accept that for this one: accept: redis:{subject}",
        )
    command = " ".join(word for c in pod.containers for word in c.command)
    appends = bool(APPENDS.search(command))
    volumes = all(p.claims for p in pods)
    if not volumes or (NEVER_SAVES.search(command) and not appends):
        copies = f"{workload.desired} pods, " if workload is not None and workload.desired > 1 else ""
        kept = "saves nothing to its volume" if volumes else "no volume"
        return blocks(
            "redis-in-memory",
            subject,
            f"{why}, and nothing says what it is ({copies}{kept}): an eviction would lose every write that no other "
            "server has",
            f"{declare}, {'let it append to a file' if volumes else 'give it a volume'}, or say that its data may go: "
            f"{PART}: {CACHE}",
        )
    kept = "what its append-only file holds" if appends else "only what it has saved"
    return blocks(
        "redis",
        subject,
        f"{why}, and nothing says what it is: an eviction would take its role with it, and after an outage {kept} "
        "comes back from its volume",
        f"{declare}, or accept that for this one: accept: redis:{subject}",
    )
