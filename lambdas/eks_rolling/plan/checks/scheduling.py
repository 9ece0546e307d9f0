"""Findings about pods that would find no place on the new nodes, and about room for the nodes themselves."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from eks_rolling.documents.finding import Finding, blocks, holds, note
from eks_rolling.observed.aws import STANDARD_VCPUS
from eks_rolling.observed.kubernetes import Pod
from eks_rolling.payloads import Targets
from eks_rolling.plan.placement import Cause, Stuck, daemons_left_out
from eks_rolling.plan.snapshot import Candidate, ClusterSnapshot

REMEDIES = {
    Cause.PENDING: "change its requirements or the new nodes, or accept it with accept: would-stay-pending",
    Cause.VOLUME_ZONE: "give the group a subnet in that zone again, or move the volume",
    Cause.STAND_IN: "add a node to the zone for the roll, or let its pods request less; the roll waits for room",
    Cause.SPREAD: "set nodeTaintsPolicy: Honor on the constraint, or accept it with accept: spread-stuck",
}


def schedulability_findings(stuck: Iterable[Stuck]) -> Iterator[Finding]:
    """One for each workload and cause; it names the pods."""
    alike: defaultdict[tuple[Cause, str], list[Stuck]] = defaultdict(list)
    for each in stuck:
        alike[each.cause, str(each.pod.owner) if each.pod.owner else f"pod {each.pod}"].append(each)
    for (cause, subject), members in alike.items():
        names = ", ".join(m.pod.name for m in members[:3])
        more = f" and {len(members) - 3} more" if len(members) > 3 else ""
        if cause is Cause.STAND_IN:
            said = f"a stand-in for {names}{more} would find no room: {members[0].reason}"
            yield holds(cause, subject, said, REMEDIES[cause])
        else:
            yield blocks(cause, subject, f"{names}{more} would stay Pending: {members[0].reason}", REMEDIES[cause])


def daemon_findings(view: ClusterSnapshot, chosen: Sequence[Candidate], targets: Targets) -> Iterator[Finding]:
    """About DaemonSets that are meant for another kind of node than the new nodes are."""
    told = {str(pod.owner): (c.group.name, label) for c, pod, label in daemons_left_out(view, chosen, targets)}
    for subject, (group, label) in sorted(told.items()):
        yield note(
            "daemonset-left-out",
            subject,
            f"it leaves out the new nodes of group {group}, which are {label}; the roll does not wait for it there",
            "nothing, if the new nodes can do without it; otherwise widen its selector or its tolerations first",
        )


def pending_findings(pods: Iterable[Pod], placeholders: Collection[str] = ()) -> Iterator[Finding]:
    """About pods that find no place already now. Placeholders, by UID, wait for room by design."""
    for pod in pods:
        if not pod.node and pod.unschedulable_because and not pod.deleting and pod.uid not in placeholders:
            yield note(
                "already-pending",
                f"pod {pod}",
                f"it cannot be scheduled now: {pod.unschedulable_because}",
                "nothing for the roll; but it may take the room of a pod that moves",
            )


def ending_findings(pods: Iterable[Pod], now: float, deadline: float) -> Iterator[Finding]:
    """About pods that take too long to end. `deadline`: how long a roll waits for a node to be empty."""
    for pod in pods:
        if pod.deleting_until is not None and now > pod.deleting_until + 60:
            yield holds(
                "stuck-ending",
                f"pod {pod}",
                "it is past its grace period; a finalizer or its kubelet blocks its deletion",
                "find out which, and fix it; its node is not terminated before",
            )
        elif pod.grace_seconds >= deadline:
            yield blocks(
                "long-grace",
                f"pod {pod}",
                f"it may take {pod.grace_seconds:.0f} s to end, and a roll waits {deadline:.0f} s for an empty node",
                "shorten its terminationGracePeriodSeconds, or raise the setting deadlines.evict",
            )


def quota_findings(view: ClusterSnapshot, chosen: Sequence[Candidate], surge: int) -> Iterator[Finding]:
    """About the account's limit of vCPUs."""
    needed = vcpus_needed(view, chosen, surge)
    limit, used = view.quota.limit, view.quota.used
    if limit is not None and used is not None and needed and used + needed > limit:
        yield holds(
            "quota",
            f"quota {STANDARD_VCPUS}",
            f"the account may run {limit:g} vCPUs of on-demand standard instances and runs {used:g}; replacements need "
            f"up to {needed} more",
            "request a higher quota, or roll with a smaller surge",
        )


def vcpus_needed(view: ClusterSnapshot, chosen: Sequence[Candidate], surge: int) -> int:
    """vCPUs of the largest replacements that exist at a time beside what they replace, and of what may come in another
    zone than the one that is to get it, which stays until the end of the roll."""
    types = view.instance_types
    launching = [(types[c.instance.type].vcpus, c.group) for c in chosen if c.launches and c.instance.type in types]
    sizes = sorted(vcpus for vcpus, _ in launching)
    largest = {group.name: (vcpus, group) for vcpus, group in sorted(launching, key=lambda each: each[0])}
    return sum(sizes[-surge:]) + sum(vcpus * group.strays for vcpus, group in largest.values())
