"""Findings about servers of Redis' kind that no annotation names, and what an ordinary eviction would cost them."""

import re
from collections.abc import Iterable, Iterator, Sequence

from eks_rolling.documents.finding import Finding, blocks, note
from eks_rolling.observed.kubernetes import Pod
from eks_rolling.observed.redis import Role, Stranger
from eks_rolling.plan.snapshot import ClusterSnapshot, by_owner
from eks_rolling.redis.groups import CACHE, PART, Part
from eks_rolling.redis.recognition import only_watches, redis_evidence
from eks_rolling.wording import counted

APPENDS = re.compile(r"appendonly\s+yes|aof-enable|--aof\b")
"""In a command: Redis and its kin, Garnet."""

NEVER_SAVES = re.compile(r"--save\s+(''|\"\"|--|$)")
"""In a command: snapshots are turned off."""

HANDS_OVER = re.compile(r"failover|replicaof|slaveof|switchover", re.IGNORECASE)
SAVES_FIRST = re.compile(r"\b(bg)?save\b|bgrewriteaof|\bshutdown\b", re.IGNORECASE)
"""In a preStop hook."""

NAMED = 3
"""So many pods' answers are in a finding."""


def undeclared_redis(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """`pods` are those that will move and that no group has."""
    alike = [p for p in pods if redis_evidence(p)]
    for subject, members in by_owner(alike).items():
        # Roles may change hands before the eviction: all of the controller's pods count.
        yield _finding(subject, [p for p in view.siblings(members[0]) if redis_evidence(p)], view)


def _finding(subject: str, pods: list[Pod], view: ClusterSnapshot) -> Finding:
    pod, workload = pods[0], view.workload(pods[0].owner)
    why = redis_evidence(pod)
    # Objects of a controller that this tool does not read say it on their pods.
    told = workload.annotations.get(PART) if workload is not None else ""
    if told == CACHE or all(p.annotations.get(PART) == CACHE for p in pods):
        return note("redis-cache", subject, f"{why}; it is declared a cache, whose data may go", "nothing")
    answers = {p.uid: view.strangers[p.uid] for p in pods if p.uid in view.strangers}
    said, declare = _said(pods, answers) + _not_asked(pods, view), _declare(list(answers.values()))
    accept = f"{declare}, or accept that for this one: accept: redis:{subject}"
    if all(map(only_watches, pods)):
        costs = "would take its vote from a failover that needs it"
        return blocks("redis", subject, f"{why}, and nothing says what it watches: an eviction {costs}{said}", accept)
    if alone := [p for p in pods if not _kept(p, answers.get(p.uid)) and not _copied(answers.get(p.uid))]:
        copies = f"{workload.desired} pods, " if workload is not None and workload.desired > 1 else ""
        volumes = all(p.claims for p in alone)
        kept = "saves nothing to its volume" if volumes else "no volume"
        return blocks(
            "redis-in-memory",
            subject,
            f"{why}, and nothing says what it is ({copies}{kept}): an eviction would lose every write that no other "
            f"server has{said}",
            f"{declare}, {'let it append to a file' if volumes else 'give it a volume'}, or say that its data may go: "
            f"{PART}: {CACHE}",
        )
    costs = _costs(pods, answers)
    return blocks("redis", subject, f"{why}, and nothing says what it is: an eviction would take {costs}{said}", accept)


def _costs(pods: Sequence[Pod], answers: dict[str, Stranger]) -> str:
    """What an eviction takes of pods that lose no data for good."""
    if all(_copied(answers.get(p.uid)) for p in pods):
        return "a copy while it is away, and no write for as long as its master has all of them"
    appends = [a.appends for a in answers.values() if a.appends is not None] or [
        bool(APPENDS.search(_command(pods[0])))
    ]
    kept = "what its append-only file holds" if all(appends) else "only what it has saved"
    return f"its role with it, and after an outage {kept} comes back from its volume"


def _command(pod: Pod) -> str:
    return " ".join(word for c in pod.containers for word in c.command)


def _kept(pod: Pod, answer: Stranger | None) -> bool:
    """Whether what it holds is on a volume, in parts at least: by its own word, else by its command."""
    if not pod.claims:
        return False
    if answer is not None and answer.keeps is not None:
        return answer.keeps
    command = _command(pod)
    return bool(APPENDS.search(command)) or not NEVER_SAVES.search(command)


def _copied(answer: Stranger | None) -> bool:
    return answer is not None and answer.is_copy


def _declare(answers: Sequence[Stranger]) -> str:
    if any(a.clustered for a in answers):
        return f"declare it part of a Redis Cluster ({PART}: {Part.CLUSTER}) as docs/redis.md shows"
    return "declare its group as docs/redis.md shows"


def _said(pods: Sequence[Pod], answers: dict[str, Stranger]) -> str:
    """What they say themselves, and what their preStop hook is for; each a clause that follows."""
    clauses = [f"{p.name if len(pods) > 1 else 'it'} {_is(answers[p.uid])}" for p in pods if p.uid in answers]
    more = [f"{len(clauses) - NAMED} more answer"] if len(clauses) > NAMED else []
    hook = " ".join(word for c in pods[0].containers for word in c.stops_by)
    if HANDS_OVER.search(hook):
        more.append("its preStop hook means to hand its role over first")
    elif SAVES_FIRST.search(hook):
        more.append("its preStop hook means to save first")
    elif any(c.stops_later for c in pods[0].containers):
        more.append("what its preStop hook does is not known")
    return "".join(f"; {clause}" for clause in [*clauses[:NAMED], *more])


def _not_asked(pods: Sequence[Pod], view: ClusterSnapshot) -> str:
    """A clause about those whose word is missing for a reason that is not theirs."""
    count = sum(p.uid in view.not_asked for p in pods)
    return (
        f"; too many servers, or silent ones, came before {count} of its {counted(len(pods), 'pod')}: not asked"
        if count
        else ""
    )


def _is(told: Stranger) -> str:
    if told.sentinel:
        return "says that it is a sentinel"
    where = " of a Redis Cluster" if told.clustered else ""
    if told.role is Role.MASTER:
        role = f"a master{where}, with {counted(told.in_sync, 'replica')} in sync"
    elif told.role is Role.REPLICA:
        role = f"a replica{where}, {'in sync' if told.link_up else 'not in sync'}"
    else:
        role = "a server"
    return f"says that it is {role}, with {told.keys:,} keys in {told.used_bytes / 1e6:,.0f} MB{_disk(told)}"


def _disk(told: Stranger) -> str:
    if told.keeps is None:
        return ""
    if not told.keeps:
        return ", and keeps nothing on disk"
    if told.appends:
        return ", and appends to a file"
    return ", and saves snapshots" + (f" ({told.unsaved:,} changes since the last one)" if told.unsaved else "")
