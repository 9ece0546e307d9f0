"""Findings about marks and annotations that bear our name, and that no roll wrote or reads."""

from collections.abc import Iterator

from eks_rolling.documents.finding import Finding, note
from eks_rolling.errors import BadRequest
from eks_rolling.observed.kubernetes import ACCEPT, STRATEGY_ANNOTATION, Owner
from eks_rolling.observed.marks import AUTOSCALER_PAUSED_AT, AUTOSCALER_REPLICAS, RaisedMaximum, replicas_on
from eks_rolling.plan.snapshot import ClusterSnapshot
from eks_rolling.redis.groups import ANNOTATIONS

OURS = "eks-rolling.io/"

DECLARED = ANNOTATIONS | {ACCEPT, STRATEGY_ANNOTATION}
"""What people may write on workloads."""

ON_AUTOSCALER = frozenset({AUTOSCALER_PAUSED_AT, AUTOSCALER_REPLICAS})
"""What a roll writes on cluster-autoscaler's Deployment, and on no other workload."""

NAMED = 3
"""Annotations that a finding names."""


def mark_findings(view: ClusterSnapshot, autoscaler: Owner) -> Iterator[Finding]:
    """About marks on nodes without the lock's proof, and annotations on workloads that mean nothing to a roll."""
    for node, mark in sorted(view.unproven):
        yield note(
            "forged-mark",
            f"node {node}",
            f"its annotation {mark} was written by no roll, so none does what it says",
            f"find out who wrote it, the kubelet perhaps; remove it with kubectl annotate node {node} {mark}-",
        )
    yield from _malformed(view, autoscaler)
    for workload in view.workloads:
        known = DECLARED | ON_AUTOSCALER if workload.owner == autoscaler else DECLARED
        odd = sorted(key for key in workload.annotations if key.startswith(OURS) and key not in known)
        if odd:
            more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
            yield note(
                "unknown-annotation",
                str(workload.owner),
                f"no roll reads {', '.join(odd[:NAMED])}{more} there, so it has no effect",
                "correct its name, or remove it",
            )


def _malformed(view: ClusterSnapshot, autoscaler: Owner) -> Iterator[Finding]:
    """About records on groups and on cluster-autoscaler's Deployment that no roll writes so: a restore leaves them."""
    for group in view.groups:
        try:
            RaisedMaximum.on(group)
        except BadRequest as error:
            yield _not_written_so(f"group {group.name}", error)
    workload = view.workload(autoscaler)
    if workload is not None and AUTOSCALER_REPLICAS in workload.annotations:
        try:
            replicas_on(workload)
        except BadRequest as error:
            yield _not_written_so(str(autoscaler), error)


def _not_written_so(subject: str, error: BadRequest) -> Finding:
    reason, _, remedy = str(error).rpartition(": ")
    return note("forged-mark", subject, reason, remedy.rstrip("."))
