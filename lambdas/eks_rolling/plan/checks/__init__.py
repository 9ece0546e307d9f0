"""Everything that would block, hold or surprise a roll, found before anything is changed.

Each check is a pure function from the view of the cluster to findings; all of them run, and all findings are
answered at once. A finding that blocks can be accepted by its code (request field or setting `accept`) where ACCEPTABLE
has it. One module per subject.
"""

from collections.abc import Iterator, Sequence

from eks_rolling.documents.finding import Finding, Severity, note
from eks_rolling.observed.kubernetes import Pod, lost_with, serving_daemons
from eks_rolling.payloads import RollRequest
from eks_rolling.plan.checks.budgets import budget_findings
from eks_rolling.plan.checks.groups import capacity_findings, group_findings, hook_findings, image_findings
from eks_rolling.plan.checks.history import history_findings
from eks_rolling.plan.checks.marks import mark_findings
from eks_rolling.plan.checks.nodes import kubelet_findings, node_findings
from eks_rolling.plan.checks.other_controllers import (
    admission_findings,
    autoscaler_of,
    autoscalers,
    cron_job_findings,
    other_controller_findings,
    paused_autoscaler,
    unseen_findings,
)
from eks_rolling.plan.checks.redis_cluster import ACCEPTABLE as ACCEPTABLE_CLUSTER
from eks_rolling.plan.checks.redis_network import ACCEPTABLE as ACCEPTABLE_NETWORK
from eks_rolling.plan.checks.redis_network import network_findings
from eks_rolling.plan.checks.redis_sentinel import ACCEPTABLE as ACCEPTABLE_REDIS
from eks_rolling.plan.checks.redis_sentinel import redis_findings
from eks_rolling.plan.checks.redis_template import ACCEPTABLE as ACCEPTABLE_TEMPLATE
from eks_rolling.plan.checks.redis_template import template_findings
from eks_rolling.plan.checks.request import alarm_findings, request_findings
from eks_rolling.plan.checks.rollback import rollback_findings
from eks_rolling.plan.checks.scheduling import (
    daemon_findings,
    ending_findings,
    pending_findings,
    quota_findings,
    schedulability_findings,
)
from eks_rolling.plan.checks.storage import storage_findings
from eks_rolling.plan.checks.undeclared_redis import undeclared_redis
from eks_rolling.plan.checks.workloads import (
    DO_NOT_DISTURB,
    address_findings,
    owner_findings,
    placeholder_findings,
    preemption_findings,
    restart_findings,
    serving_daemon_findings,
    static_pod_findings,
    toleration_findings,
    uncounted_findings,
    waiting_findings,
)
from eks_rolling.plan.placement import Stuck
from eks_rolling.plan.snapshot import Candidate, ClusterSnapshot, candidates, moving_pods, resolve
from eks_rolling.redis.groups import Part
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.settings import DeadNodes, Settings

__all__ = ["ACCEPTABLE", "Candidate", "ClusterSnapshot", "candidates", "findings", "moving_pods", "resolve"]

ACCEPTABLE = (
    frozenset(
        {
            "bare-pod",
            "batch-pod",
            "budget-never-allows",
            "do-not-disturb",
            "image-gone",
            "kubelet-newer",
            "local-volume",
            "node-not-ready",
            "not-joined",
            "redis",
            "restart-not-permitted",
            "serving-static-pod",
            "spread-stuck",
            "would-stay-pending",
        }
    )
    | ACCEPTABLE_REDIS
    | ACCEPTABLE_CLUSTER
    | ACCEPTABLE_NETWORK
    | ACCEPTABLE_TEMPLATE
)
"""Codes of findings that a person may accept, of all objects or as CODE:OBJECT. The others cannot be rolled over."""

ONE_AT_A_TIME = frozenset({"kubelet-newer", "redis"})
"""Those that are accepted for a named object only, CODE:OBJECT or by an annotation on it, never for all at once."""

WEIGHT = {Severity.BLOCKS: 0, Severity.HOLDS: 1, Severity.NOTE: 2}


def findings(
    view: ClusterSnapshot,
    request: RollRequest,
    settings: Settings,
    chosen: Sequence[Candidate],
    stuck: Sequence[Stuck] = (),
    skipped: Sequence[Candidate] = (),
    more: Sequence[Finding] = (),
) -> list[Finding]:
    """Every finding, the gravest first. What is accepted becomes a note. `stuck`: pods and stand-ins that would stay
    Pending; `skipped`: outdated nodes that a person left out because they cannot be emptied; `more`: what was found
    where the roll was decided."""
    # What cluster-autoscaler's pods say to cluster-autoscaler, as setup guides have them do, is not meant for a roll.
    of_autoscalers = (f"{DO_NOT_DISTURB}:{owner}" for owner in autoscalers(view.pods, settings))
    accepted = {*request.accept, *settings.accept, *of_autoscalers}
    softened = [
        note(f.code, f.object, f"{f.reason} (accepted)", f.remedy) if _is_accepted(f, accepted, view) else f
        for f in (
            *_all(view, request, settings, chosen, stuck),
            # Nothing is done about those, whatever the settings say of dead nodes.
            *node_findings(view, skipped, DeadNodes()),
            *more,
        )
    ]
    return sorted(softened, key=lambda f: (WEIGHT[f.severity], f.code, f.object))


def _is_accepted(finding: Finding, accepted: set[str], view: ClusterSnapshot) -> bool:
    if finding.code not in ACCEPTABLE:
        return False
    if finding.code in view.accepted_on.get(finding.object, ()) or f"{finding.code}:{finding.object}" in accepted:
        return True
    return finding.code in accepted - ONE_AT_A_TIME


def _is_stand_in(view: ClusterSnapshot, pod: Pod) -> bool:
    """Of a group that is declared, even wrongly. Others that bear the label nobody migrates; they may have its data."""
    group = f"{pod.namespace}/{pod.labels.get(LABEL, '')}"
    return group in {str(r.group) for r in view.redis} | {p.group for p in view.redis_problems}


def _all(
    view: ClusterSnapshot, request: RollRequest, settings: Settings, chosen: Sequence[Candidate], stuck: Sequence[Stuck]
) -> Iterator[Finding]:
    pods = moving_pods(view, chosen)
    paused = paused_autoscaler(settings)
    # A stand-in that a dead roll left is dealt with before anything else is.
    others = [p for p in pods if not _is_stand_in(view, p) and p.owner != paused and view.redis_set(p.owner) is None]
    yield from request_findings(view, request, settings, ACCEPTABLE, ONE_AT_A_TIME)
    yield from rollback_findings(view, request, resolve(view.groups, view.versions))
    yield from group_findings(view, request, settings, {c.group.name for c in chosen} | set(request.groups))
    yield from node_findings(view, chosen, settings.dead_nodes)
    yield from image_findings(view, resolve(view.groups, view.versions))
    yield from kubelet_findings(view, chosen, resolve(view.groups, view.versions))
    yield from capacity_findings(view, chosen, request.surge_in(settings))
    yield from hook_findings(view, chosen, settings.deadlines)
    yield from quota_findings(view, chosen, request.surge_in(settings))
    yield from history_findings(len(chosen), settings)
    yield from schedulability_findings(stuck)
    yield from daemon_findings(view, chosen, resolve(view.groups, view.versions))
    yield from pending_findings(view.pods, view.placeholders)
    lost = {uid for c in chosen if c.node for uid in lost_with(c.node, pods, settings.dead_nodes, view.now)}
    yield from ending_findings([p for p in pods if p.uid not in lost], view.now, settings.deadlines.evict)
    serving = serving_daemons([p for c in chosen for p in view.pods_on(c.name)], view.services)
    yield from budget_findings(view, [*(p for p in pods if not _is_master_pod(view, p)), *serving])
    yield from placeholder_findings(view, others)
    others = [p for p in others if p.uid not in view.placeholders]
    yield from owner_findings(view, others)
    yield from preemption_findings(others)
    yield from address_findings(view, [*others, *serving])
    yield from restart_findings(view, others)
    yield from storage_findings(view, others)
    yield from toleration_findings(pods)
    yield from waiting_findings(others, settings.batch_seconds)
    yield from uncounted_findings(view, others)
    yield from serving_daemon_findings(view, [c.name for c in chosen])
    yield from static_pod_findings(view, [c.name for c in chosen])
    yield from undeclared_redis(view, others)
    yield from redis_findings(view.redis, view.redis_problems, {p.owner for p in pods})
    yield from network_findings(view, {p.owner for p in pods})
    yield from template_findings(view, {p.owner for p in pods})
    yield from other_controller_findings(view, settings)
    yield from admission_findings(view, pods)
    yield from cron_job_findings(view, settings.batch_seconds) if chosen else ()
    yield from alarm_findings(view, request) if chosen else ()
    yield from unseen_findings(view) if chosen else ()
    yield from mark_findings(view, autoscaler_of(settings))


def _is_master_pod(view: ClusterSnapshot, pod: Pod) -> bool:
    """The pod that is deleted rather than evicted, once its role is elsewhere: no budget is asked."""
    found = view.redis_set(pod.owner)
    return found is not None and found[1].part is Part.MASTER
