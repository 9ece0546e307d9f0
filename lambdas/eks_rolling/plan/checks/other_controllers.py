"""Findings about others that act on nodes and pods."""

from collections.abc import Iterable, Iterator

from eks_rolling.documents.finding import Finding, holds, note
from eks_rolling.observed.kubernetes import Owner, Pod
from eks_rolling.observed.marks import AUTOSCALER_REPLICAS
from eks_rolling.plan.snapshot import ClusterSnapshot, Unseen
from eks_rolling.settings import AutoscalerMode, Settings

OTHER_ACTORS = ("karpenter", "kured", "descheduler", "aws-node-termination-handler")

ASKS = "asks for the permissions in docs/command.md"
"""What a person does about a look that is refused."""


def autoscaler_of(settings: Settings) -> Owner:
    """cluster-autoscaler's Deployment."""
    return Owner("Deployment", settings.autoscaler.namespace, settings.autoscaler.deployment)


def paused_autoscaler(settings: Settings) -> Owner | None:
    """The Deployment that a roll scales to 0 before it evicts anything; None where it does not."""
    return autoscaler_of(settings) if settings.autoscaler.mode is AutoscalerMode.PAUSE else None


def autoscalers(pods: Iterable[Pod], settings: Settings) -> set[Owner]:
    """The settings' Deployment, and those that are a cluster-autoscaler by their pods: Helm's chart calls it after its
    release."""
    found = {p.owner for p in pods if p.owner and p.owner.kind == "Deployment" and _scales(p)}
    return found | {autoscaler_of(settings)}


def _scales(pod: Pod) -> bool:
    name = pod.labels.get("app.kubernetes.io/name", "")
    images = (c.image.partition("@")[0].rpartition("/")[2].partition(":")[0] for c in pod.containers)
    return name.endswith("cluster-autoscaler") or any(image.startswith("cluster-autoscaler") for image in images)


def other_controller_findings(view: ClusterSnapshot, settings: Settings) -> Iterator[Finding]:
    for workload in view.workloads:
        if any(actor in workload.owner.name for actor in OTHER_ACTORS) and workload.desired > 0:
            yield note(
                "other-node-actor",
                str(workload.owner),
                "it acts on nodes or pods on its own",
                "pause it for the roll",
            )
    if settings.autoscaler.mode is AutoscalerMode.PAUSE:
        yield from _autoscaler(view, settings)


def admission_findings(view: ClusterSnapshot, pods: Iterable[Pod]) -> Iterator[Finding]:
    """About what may deny the evictions of `pods`. Whether it will is known only to those who wrote it."""
    if any(True for _ in pods):
        for judge in view.judges_of_evictions:
            yield note(
                "eviction-admission",
                judge,
                "it judges evictions: one that it denies is asked for again, with its words as the reason",
                "nothing, if it agrees in time; otherwise see to what it waits for",
            )


def cron_job_findings(view: ClusterSnapshot, batch_seconds: float) -> Iterator[Finding]:
    """About what starts batch work while the roll goes on; `batch_seconds` as in the settings."""
    for cron_job in view.cron_jobs:
        yield note(
            "cron-job",
            str(cron_job),
            f"it starts Jobs ({cron_job.schedule}) during the roll, too: on a node to replace each has "
            f"{batch_seconds:.0f} s to end",
            "nothing; or suspend it for the roll",
        )


def unseen_findings(view: ClusterSnapshot) -> Iterator[Finding]:
    """About what the plan may not look at, and says nothing of for that reason."""
    if view.unseen:
        mend = ["apply deploy/rbac.yaml again"] if view.unseen - {Unseen.ALARMS} else []
        # Those are AWS's: what the function's own role grants.
        mend += ["deploy again"] if Unseen.ALARMS in view.unseen else []
        yield note(
            "not-looked-at",
            "the cluster",
            f"the plan may not look at {', '.join(sorted(view.unseen))}: what it would say of them is missing",
            f"{', and '.join(mend)}; a person who plans locally {ASKS}",
        )


def _autoscaler(view: ClusterSnapshot, settings: Settings) -> Iterator[Finding]:
    owner = Owner("Deployment", settings.autoscaler.namespace, settings.autoscaler.deployment)
    autoscaler = view.workload(owner)
    if autoscaler is None and (others := autoscalers(view.pods, settings) - {owner}):
        for other in sorted(others, key=str):
            yield holds(
                "autoscaler-elsewhere",
                str(other),
                f"by its image or labels it is a cluster-autoscaler, and the settings name {owner}: it runs on, and "
                "may remove nodes that are being filled",
                f"set autoscaler.namespace to {other.namespace} and autoscaler.deployment to {other.name}, and allow "
                "that in deploy/rbac.yaml",
            )
    elif autoscaler is None:
        yield note(
            "no-autoscaler",
            str(owner),
            "it was not found, so nothing is paused",
            "nothing, if the cluster has none; else correct the setting autoscaler",
        )
    elif autoscaler.desired == 0 and AUTOSCALER_REPLICAS not in autoscaler.annotations:
        yield note(
            "autoscaler-at-zero",
            str(owner),
            "it is at 0 replicas already, and no original count is recorded",
            "find out who stopped it; it is left at 0",
        )
