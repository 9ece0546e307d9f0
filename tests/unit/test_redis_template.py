"""Redis groups whose pods would come back with another template than they have."""

from dataclasses import replace

import pytest

from eks_rolling.documents.finding import Severity
from eks_rolling.observed.kubernetes import Owner, Workload
from eks_rolling.plan.checks import ACCEPTABLE
from eks_rolling.plan.checks.redis_sentinel import RedisView
from eks_rolling.plan.checks.redis_template import template_findings
from eks_rolling.plan.snapshot import ClusterSnapshot
from eks_rolling.redis.groups import GROUP, PART, Part, declared

SHARDS = Owner("StatefulSet", "shop", "shards")
WORKLOAD = Workload(SHARDS, desired=6, annotations={GROUP: "shards", PART: str(Part.CLUSTER)})


def view(workload: Workload) -> ClusterSnapshot:
    ((group,), problems) = declared([workload])
    assert problems == []
    return ClusterSnapshot(workloads=(workload,), redis=(RedisView(group),))


def test_a_rollout_that_waits_blocks_the_groups_own_nodes_alone() -> None:
    """C1: the stand-in is made of the present template, and others have to follow it."""
    (found,) = template_findings(view(replace(WORKLOAD, pending=True)), {SHARDS})
    assert (found.code, found.severity, found.object) == ("redis-pending-template", Severity.BLOCKS, str(SHARDS))
    assert found.code in ACCEPTABLE


@pytest.mark.parametrize(
    ("workload", "moving"),
    [(WORKLOAD, {SHARDS}), (replace(WORKLOAD, pending=True), {Owner("StatefulSet", "shop", "other")})],
    ids=["all pods have it", "none of its pods moves"],
)
def test_else_nothing_is_said(workload: Workload, moving: set[Owner | None]) -> None:
    assert list(template_findings(view(workload), moving)) == []
