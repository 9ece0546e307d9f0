"""Findings about the workloads whose pods move, and about pods that have none."""

from collections.abc import Iterable, Iterator, Sequence

from eks_rolling.documents.finding import Finding, blocks, holds, note
from eks_rolling.observed.kubernetes import ROLL_TAINT_KEY, Effect, Pod, Strategy, Taint, Workload
from eks_rolling.plan.snapshot import ClusterSnapshot, by_owner

OURS = Taint(ROLL_TAINT_KEY, Effect.NO_SCHEDULE)


def owner_findings(view: ClusterSnapshot, pods: Sequence[Pod]) -> Iterator[Finding]:
    for pod in pods:
        if pod.owner is None:
            yield blocks(
                "bare-pod",
                f"pod {pod}",
                "no controller would recreate it elsewhere",
                "delete it, give it a controller, or accept its loss with accept: bare-pod",
            )
    told = {p.owner for p in pods if any(b.allowed == 0 for b in view.budgets_of(p))}
    for owner in sorted({p.owner for p in pods if p.owner}, key=str):
        workload = view.workload(owner)
        if workload:
            yield from _workload(workload)
            if not workload.all_ready and owner not in told:
                yield _not_ready(workload)


def _not_ready(workload: Workload) -> Finding:
    """Where a budget allows nothing, its own finding says so already."""
    return holds(
        "not-ready",
        str(workload.owner),
        f"{workload.ready} of {workload.desired} replicas are Ready",
        "bring it to full strength; it holds evictions while its budget is exhausted",
    )


def _workload(workload: Workload) -> Iterator[Finding]:
    subject = str(workload.owner)
    if workload.strategy is None:
        yield blocks(
            "unknown-strategy",
            subject,
            "its annotation eks-rolling.io/strategy is neither evict nor restart",
            "correct the annotation",
        )
    elif workload.strategy is Strategy.RESTART and not workload.surges:
        yield blocks(
            "restart-without-surge",
            subject,
            "it asks for a restart, but a restart would stop its pods first",
            "use a RollingUpdate strategy with maxSurge of at least 1 and maxUnavailable 0",
        )
    elif workload.strategy is Strategy.EVICT and workload.desired == 1:
        yield note(
            "single-replica",
            subject,
            "its one replica is away while it moves",
            "add a replica, or annotate a Deployment eks-rolling.io/strategy: restart",
        )


def toleration_findings(pods: Iterable[Pod]) -> Iterator[Finding]:
    tolerant = [p for p in pods if any(t.tolerates(OURS) for t in p.tolerations)]
    for subject in by_owner(tolerant):
        yield note(
            "tolerates-everything",
            subject,
            "it tolerates our taint, so its pods may land on an old node again",
            "narrow its tolerations, or see its pods moved more than once",
        )
