"""Findings about Redis groups whose pods would come back with another template than they have."""

from collections.abc import Iterator

from eks_rolling.documents.finding import Finding, blocks
from eks_rolling.observed.kubernetes import Owner
from eks_rolling.plan.snapshot import ClusterSnapshot

ACCEPTABLE = frozenset({"redis-pending-template"})


def template_findings(view: ClusterSnapshot, moving: set[Owner | None]) -> Iterator[Finding]:
    """For each StatefulSet of a declared group with pods that move. `moving`: whose."""
    for part_set in (s for seen in view.redis for s in seen.group.sets if s.owner in moving):
        workload = view.workload(part_set.owner)
        if workload is not None and workload.pending:
            yield blocks(
                "redis-pending-template",
                str(part_set.owner),
                "not all of its pods have its present template (a rollout goes on, or waits: OnDelete, a partition): a "
                "pod that moves, or its stand-in, could get another version of Redis, from which an older one cannot "
                "synchronize",
                "let the rollout end, or accept it where any of the two may follow the other: "
                "accept: redis-pending-template",
            )
