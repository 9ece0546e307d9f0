"""What belongs to no living roll: left behind by a dead roll, or by other interrupted work.

A roll's marks belong to the holder of the cluster's lock for as long as it renews it: it takes them along, whosever
they were, and puts everything back at its end. Without a living holder every one of them is an orphan.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from eks_rolling.documents.remedies import back_in_service, ended_by_hand, typed
from eks_rolling.documents.report import Orphan
from eks_rolling.names import cluster_tag
from eks_rolling.observed.aws import Group, InstanceState
from eks_rolling.observed.kubernetes import Budget, Lease, Node, Pod, Workload
from eks_rolling.observed.marks import (
    AUTOSCALER_PAUSED_AT,
    AUTOSCALER_REPLICAS,
    GROUP_MAXIMUM,
    GROUP_RESUME,
    INSTANCE_PROTECTED,
    INSTANCE_REPLACES,
    NODE_ANNOTATIONS,
    NODE_CORDONED,
    NODE_LAUNCH,
    NODE_ROLL,
    SURPLUS,
    LaunchMark,
    moment,
    unfit,
)
from eks_rolling.redis.stand_in import FOR_POD, LABEL
from eks_rolling.roll.lock import NAME as LOCK
from eks_rolling.roll.pending_change import NAME as NEXT
from eks_rolling.roll.proofs import as_proven

OTHERS_LABELS = ("eks.amazonaws.com/nodegroup", "karpenter.sh/nodepool", "eks.amazonaws.com/compute-type")
"""On nodes that belong to no Auto Scaling group of one's own, and never did."""

OF_A_GROUP = "aws:autoscaling:groupName"
"""EC2 Auto Scaling's own tag on every instance of a group; detaching an instance takes it away."""


CERTAINLY_DEAD = 900
"""Seconds beyond a lock's lease. A roll whose functions are throttled for minutes is late, not dead."""


@dataclass(frozen=True, slots=True)
class OrphanScan:
    """What was read. `leases` are ours: the lock, and those beside it; `ended` is a roll that says it is over."""

    cluster: str
    now: float
    groups: tuple[Group, ...] = ()
    states: Mapping[str, InstanceState] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    budgets: tuple[Budget, ...] = ()
    autoscaler: Workload | None = None
    leases: tuple[Lease, ...] = ()
    ended: str = ""

    @property
    def lock(self) -> Lease | None:
        return next((lease for lease in self.leases if lease.name.endswith(f"/{LOCK}")), None)

    def lives(self, lease: Lease) -> bool:
        """Whether its holder has not ended."""
        return not lease.expired(self.now) and lease.holder != self.ended

    @property
    def roll(self) -> str:
        """The living roll; "" if there is none."""
        return self.lock.holder if self.lock is not None and self.lives(self.lock) else ""

    @property
    def dead(self) -> str:
        """The roll that holds the lock and has long been silent, without a restore after it; "" if there is none."""
        lock = self.lock
        silent = lock is not None and self.now > lock.renewed + lock.duration + CERTAINLY_DEAD
        return lock.holder if lock is not None and silent else ""


def orphans(view: OrphanScan) -> list[Orphan]:
    """Everything that is left behind, each with the remedy: of what rolls left, the same for all [R2]."""
    found = list(_of_nobody(view))
    if not view.roll:
        for part in (_locks, _nodes, _unfit, _groups, _instances, _pods_and_budgets, _autoscaler):
            found += part(view)
    return sorted(found, key=lambda o: (o.kind, o.object))


def _remedy(view: OrphanScan) -> str:
    """A restore puts marks back. It leaves a replacement that pods run on or that has yet to come, and the size for it:
    a roll finishes that, and puts back the rest as well. A size that somebody else uses waits for that to end."""
    return _start(view) if _needs_a_roll(view) else f"`{typed('restore', cluster=view.cluster)}` puts it back"


def _needs_a_roll(view: OrphanScan) -> bool:
    replaces = any(INSTANCE_REPLACES in s.tags for s in view.states.values() if s.state == "running")
    asked = (LaunchMark.on(as_proven(view.lock, node, NODE_LAUNCH)) for node in view.nodes)
    owed = any(mark is not None and mark.raised for mark in asked)
    return replaces or owed


def _start(view: OrphanScan) -> str:
    return f"the next roll finishes it: `{typed('start', cluster=view.cluster)}`"


def autoscaler_paused_seconds(view: OrphanScan) -> float:
    """For how long a roll, living or dead, has kept cluster-autoscaler at 0; 0 if it runs."""
    autoscaler = view.autoscaler
    if autoscaler is None or autoscaler.desired > 0:
        return 0.0
    since = moment(autoscaler.annotations.get(AUTOSCALER_PAUSED_AT, ""))
    return 0.0 if since is None else max(0.0, view.now - since)


def _of_nobody(view: OrphanScan) -> Iterator[Orphan]:
    """Instances that run the cluster's pods outside of its groups' care. No roll makes them so, and none changes it."""
    members = {i.id: (g, i) for g in view.groups for i in g.instances}
    for node in view.nodes:
        state = view.states.get(node.instance)
        if node.instance in members or state is None or state.state != "running":
            continue
        ours = cluster_tag(view.cluster) in state.tags
        if ours and OF_A_GROUP not in state.tags and not any(label in node.labels for label in OTHERS_LABELS):
            yield Orphan(
                kind="detached instance",
                object=f"{node.name} ({node.instance})",
                remedy="nothing replaces it; attach it to its group again: `aws autoscaling attach-instances "
                f"--instance-ids {node.instance} --auto-scaling-group-name GROUP`, or drain it and terminate it: "
                f"`aws ec2 terminate-instances --instance-ids {node.instance}`",
            )
    for group, instance in members.values():
        if "Standby" in instance.lifecycle and not group.managed:
            yield Orphan(
                kind="standby instance",
                object=f"{instance.id} of {group.name}",
                remedy=f"no roll replaces it; put it back into service: {back_in_service(instance.id, group.name)}",
            )


def _locks(view: OrphanScan) -> Iterator[Orphan]:
    for lease in view.leases:
        if not lease.holder or view.lives(lease):
            continue
        if lease.name.endswith(f"/{NEXT}"):
            remedy = f"the next change takes it over; if none comes, {_start(view)}"
        elif lease.name.endswith(f"/{LOCK}"):
            remedy = _remedy(view)
        else:
            remedy = _start(view)
        yield Orphan(
            kind="lock", object=f"{lease.name}, held by {lease.holder}", since=_time(lease.renewed), remedy=remedy
        )


def _nodes(view: OrphanScan) -> Iterator[Orphan]:
    """Those whose instance shuts down go with all that is on them."""
    going = {i for i, s in view.states.items() if s.state in {"shutting-down", "terminated"}}
    for node in (n for n in view.nodes if n.instance not in going):
        marks = [key for key in NODE_ANNOTATIONS if key in node.annotations]
        cordon = node.unschedulable and NODE_CORDONED in node.annotations
        what = [*(["taint"] if node.roll_taint else []), *(["cordon"] if cordon else []), *(["mark"] if marks else [])]
        if not what:
            continue
        asked = LaunchMark.on(node) if NODE_LAUNCH in node.annotations else None
        roll = node.annotations.get(NODE_ROLL, "")
        yield Orphan(
            kind=f"{what[0]} on node",
            object=f"{node.name}: {', '.join(what)}{f' of {roll}' if roll else ''}",
            since=_time(asked.asked_at) if asked else "",
            remedy=_remedy(view),
        )


def _unfit(view: OrphanScan) -> Iterator[Orphan]:
    """Replacements on which nothing must run, and which no restore could give back, because pods had come to them."""
    going = {i for i, s in view.states.items() if s.state in {"shutting-down", "terminated"}}
    for node in (n for n in view.nodes if n.instance not in going):
        if unfit(node):
            yield Orphan(
                kind="unfit node",
                object=f"{node.name} ({node.instance}): its kubelet does not fit the control plane",
                remedy="no roll opens it; drain it and terminate its instance: "
                f"{ended_by_hand(node.name, node.instance)}",
            )


def _groups(view: OrphanScan) -> Iterator[Orphan]:
    for group in view.groups:
        said = []
        if GROUP_RESUME in group.tags:
            said.append(f"processes {group.tags[GROUP_RESUME]} are to be resumed")
        if GROUP_MAXIMUM in group.tags:
            original, _, raised = group.tags[GROUP_MAXIMUM].partition(" to ")
            was = f"was raised from {original} to {raised}" if raised else f"was {original}"
            now = "" if raised == str(group.maximum) else f" and is {group.maximum}"
            # No restore puts it below that.
            full = f" while the desired capacity is {group.desired}" if _is_above(group.desired, original) else ""
            said.append(f"the maximum size {was}{now}{full}")
        if said:
            yield Orphan(kind="tag on group", object=f"{group.name}: {'; '.join(said)}", remedy=_remedy(view))


def _is_above(desired: int, original: str) -> bool:
    return original.isascii() and original.isdigit() and len(original) <= 6 and desired > int(original)


def _instances(view: OrphanScan) -> Iterator[Orphan]:
    for state in view.states.values():
        if state.state != "running":
            continue
        if replaces := state.tags.get(INSTANCE_REPLACES):
            old = view.states.get(replaces)
            lives = ", which is still there" if old is not None and old.state == "running" else ""
            for_whom = "in a zone where none was needed" if replaces == SURPLUS else f"to replace {replaces}{lives}"
            yield Orphan(
                kind="tag on instance",
                object=f"{state.id}: launched {for_whom}",
                since=_time(state.launched),
                remedy=_remedy(view),
            )
        if INSTANCE_PROTECTED in state.tags:
            yield Orphan(
                kind="tag on instance",
                object=f"{state.id}: protected from scale-in by a roll",
                remedy=_remedy(view),
            )


def _pods_and_budgets(view: OrphanScan) -> Iterator[Orphan]:
    for pod in view.pods:
        if LABEL in pod.labels:
            stands_for = pod.annotations.get(FOR_POD, "a pod")
            yield Orphan(kind="stand-in", object=f"{pod}, for {stands_for}", remedy=_remedy(view))
    for budget in view.budgets:
        if budget.ours:
            yield Orphan(kind="temporary budget", object=str(budget), remedy=_remedy(view))


def _autoscaler(view: OrphanScan) -> Iterator[Orphan]:
    autoscaler = view.autoscaler
    if autoscaler is not None and AUTOSCALER_REPLICAS in autoscaler.annotations:
        since = moment(autoscaler.annotations.get(AUTOSCALER_PAUSED_AT, ""))
        yield Orphan(
            kind="autoscaler",
            object=f"{autoscaler.owner}: at {autoscaler.desired}, was {autoscaler.annotations[AUTOSCALER_REPLICAS]}",
            since="" if since is None else _time(since),
            remedy=_remedy(view),
        )


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
