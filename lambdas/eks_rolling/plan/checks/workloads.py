"""Findings about the workloads whose pods move, and about pods that have none."""

from collections.abc import Iterable, Iterator, Sequence

from eks_rolling.documents.finding import Finding, blocks, holds, note
from eks_rolling.observed.kubernetes import (
    ROLL_TAINT_KEY,
    Effect,
    Pod,
    Strategy,
    Taint,
    Workload,
    serving_daemons,
    targets_by_address,
)
from eks_rolling.plan.snapshot import ClusterSnapshot, by_owner

HIGHEST_OF_USERS = 1_000_000_000
"""What is above is the system's (Kubernetes, pod priority and preemption)."""

COUNTED = frozenset({"DaemonSet", "Deployment", "Job", "Node", "ReplicaSet", "StatefulSet"})

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


def placeholder_findings(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """About pods that keep room for others. A roll evicts them, and waits for none of them to be Ready again."""
    for subject in sorted({p.subject for p in pods if p.uid in view.placeholders}):
        yield note(
            "placeholder",
            subject,
            "its pods have a priority below 0 and serve nobody: they keep room, and nobody waits for them",
            "nothing, if they only keep room; otherwise give them a priority of 0 or more",
        )


def preemption_findings(pods: Iterable[Pod]) -> Iterator[Finding]:
    """About pods that others give way to. Those of the system are so in every cluster, and not told."""
    strong = (p for p in pods if 0 < p.priority <= HIGHEST_OF_USERS and p.preempts)
    for subject, alike in by_owner(strong).items():
        yield note(
            "may-preempt",
            subject,
            f"its pods have priority {max(p.priority for p in alike)}: one that finds no room while it moves ends pods "
            "of a lower one, whatever their budgets say",
            "nothing, if there is room for them; otherwise give them preemptionPolicy: Never",
        )


def address_findings(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """About pods whose addresses are targets: a load balancer hears later than they do that they are to end."""
    for subject, alike in by_owner(targets_by_address(pods, view.services)).items():
        if not all(any(c.stops_later for c in p.containers) for p in alike):
            yield note(
                "ip-targets",
                subject,
                "its pods' addresses are targets of a load balancer, which sends them requests for some seconds after "
                "they were told to end",
                "nothing, if they serve on for those seconds; otherwise give them a preStop hook that sleeps",
            )


def restart_findings(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """About workloads that ask for a restart: where no Role permits it, and they are evicted as usual; where it would
    stop their pods first, or start none; and where their pods cannot exist twice, so that the new one would wait for
    the old."""
    asking = [p for p in pods if (w := view.workload(p.owner)) and w.strategy is Strategy.RESTART]
    for owner in sorted({p.owner for p in asking if p.owner}, key=str):
        if workload := view.workload(owner):
            yield from _restart(workload) if view.restarts(workload) else (_restart_not_permitted(workload),)
    for subject, alike in by_owner(p for p in asking if view.restarts(view.workload(p.owner))).items():
        volumes = [v for p in alike for claim in p.claims if (v := view.volume(p.namespace, claim)) and not v.shared]
        ports = sorted({port for p in alike for port in p.host_ports})
        why = f"its volume {volumes[0].name} is for one node at a time" if volumes else ""
        why = why or (f"it takes host port {ports[0]} of its node" if ports else "")
        if why:
            yield blocks(
                "restart-not-twice",
                subject,
                f"it asks for a restart, but {why}, so a new pod may wait for ever for the old one to end",
                "take the annotation eks-rolling.io/strategy away: it is evicted then, and away while it moves",
            )


def _restart(workload: Workload) -> Iterator[Finding]:
    subject = str(workload.owner)
    if not workload.surges:
        yield blocks(
            "restart-without-surge",
            subject,
            "it asks for a restart, but a restart would stop its pods first",
            "use a RollingUpdate strategy with maxSurge of at least 1 and maxUnavailable 0",
        )
    elif workload.paused:
        yield blocks(
            "restart-paused",
            subject,
            "it asks for a restart, but it is paused, and a restart would start no pod before it is resumed",
            "resume it (kubectl rollout resume), or take the annotation eks-rolling.io/strategy away",
        )


RESTART_NOT_PERMITTED = "restart-not-permitted"
"""The finding about a workload that asks for a restart where no Role lets a roll do it, by which its eviction is
accepted."""


def _restart_not_permitted(workload: Workload) -> Finding:
    """Of several replicas, evictions cost one at a time; of a single one, just what it asks to be spared."""
    subject = str(workload.owner)
    reason = "it asks for a restart, which no Role in its namespace lets a roll do"
    remedy = "apply deploy/restart-rbac.yaml in its namespace, or take the annotation eks-rolling.io/strategy away"
    if workload.desired > 1:
        return note("restart-not-permitted", subject, f"{reason}: its pods are evicted", remedy)
    reason += ", and an eviction would take its only replica away while it moves"
    return blocks(
        "restart-not-permitted", subject, reason, f"{remedy}, or accept that: {RESTART_NOT_PERMITTED}:{subject}"
    )


def _not_ready(workload: Workload) -> Finding:
    """Where a budget allows nothing, its own finding says so already."""
    return holds(
        "not-ready",
        str(workload.owner),
        f"{workload.ready} of {workload.desired} replicas are Ready"
        + (f", and no pod can be made: {workload.fault}" if workload.fault else ""),
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
    elif workload.strategy is Strategy.EVICT and workload.desired == 1:
        yield note(
            "single-replica",
            subject,
            "its one replica is away while it moves",
            "add a replica, or annotate a Deployment eks-rolling.io/strategy: restart",
        )


DO_NOT_DISTURB = "do-not-disturb"
"""The finding about pods that ask not to be evicted, by which that is accepted."""


def toleration_findings(pods: Iterable[Pod]) -> Iterator[Finding]:
    tolerant = [p for p in pods if any(t.tolerates(OURS) for t in p.tolerations)]
    for subject in by_owner(tolerant):
        yield holds(
            "tolerates-everything",
            subject,
            "it tolerates our taint, so its pods may land on an old node again",
            "narrow its tolerations, or see its pods moved more than once",
        )


def waiting_findings(pods: Iterable[Pod], batch_seconds: float) -> Iterator[Finding]:
    """About pods that are waited for before they are evicted; `batch_seconds` as in the settings."""
    for subject, alike in by_owner(p for p in pods if p.ends or p.not_to_be_disturbed).items():
        asks = next((p.not_to_be_disturbed for p in alike if p.not_to_be_disturbed), "")
        ends = all(p.ends for p in alike)
        remedy = f"take the annotation away, or accept its eviction with accept: do-not-disturb:{subject}"
        if asks and ends:
            yield holds("do-not-disturb", subject, f"it asks not to be disturbed ({asks}), and is waited for", remedy)
        elif asks:
            reason = f"it asks not to be disturbed ({asks}), and never ends by itself"
            yield blocks("do-not-disturb", subject, reason, remedy)
        else:
            yield holds(
                "batch-pod",
                subject,
                f"it is at work on a node to replace; it has {batch_seconds:.0f} s to end, and is evicted then",
                f"raise the setting batch_seconds, or accept its eviction with accept: batch-pod:{subject}",
            )


def serving_daemon_findings(view: ClusterSnapshot, names: Iterable[str]) -> Iterator[Finding]:
    """About DaemonSets that serve on these nodes [N5]."""
    pods = [p for name in names for p in view.pods_on(name)]
    for subject, alike in by_owner(serving_daemons(pods, view.services)).items():
        returns = any(t.tolerates(OURS) for p in alike for t in p.tolerations)
        how = "right before the node is terminated, for it tolerates our taint" if returns else "once the node is empty"
        yield note(
            "serving-daemonset",
            subject,
            f"a Service leads to its pods, which are evicted {how}",
            "nothing, if its pods end requests within their grace period",
        )


def static_pod_findings(view: ClusterSnapshot, names: Iterable[str]) -> Iterator[Finding]:
    """About pods on these nodes that their kubelet runs by itself, and that serve: no eviction ends one [N5]."""
    for pod in (p for name in names for p in view.pods_on(name) if p.mirror and not p.finished):
        if any(s.leads_to(pod) for s in view.services):
            yield blocks(
                "serving-static-pod",
                f"pod {pod}",
                "a Service leads to it, and it runs until its instance is terminated under its clients",
                "run it as a DaemonSet, take it out of its Service before the roll, or accept that: serving-static-pod",
            )


def uncounted_findings(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """About controllers of kinds that neither the disruption controller nor a roll knows."""
    for owner in sorted({p.owner for p in pods if p.owner and not p.ends and not view.budgets_of(p)}, key=str):
        if owner.kind not in COUNTED:
            yield note(
                "uncounted-controller",
                str(owner),
                "it has no budget and is of a kind that nobody can count, so its Ready pods are",
                "nothing: one at a time is moved; a budget with minAvailable as a number would be exact",
            )
