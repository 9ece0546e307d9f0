"""Everything that would block, hold or surprise a roll, found before anything is changed.

Each check is a pure function from the view of the cluster to findings; all of them run, and all findings are
answered at once. A finding that blocks can be accepted by its code (request field or setting `accept`) where the table
says so.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lambdas.findings import Finding, Severity, blocks, note
from lambdas.marks import outdated
from lambdas.model import RollRequest, Targets
from lambdas.observed import (
    ROLL_TAINT_KEY,
    Budget,
    Effect,
    Group,
    GroupInstance,
    LaunchTemplate,
    Node,
    Owner,
    Pod,
    Strategy,
    Taint,
    Volume,
    Workload,
)
from lambdas.redis_groups import Part, Problem
from lambdas.redis_preflight import ACCEPTABLE as ACCEPTABLE_REDIS
from lambdas.redis_preflight import RedisView, redis_findings
from lambdas.settings import AutoscalerMode, Settings
from lambdas.stand_in import LABEL


@dataclass(frozen=True, slots=True)
class View:
    """The cluster, as the plan looks at it."""

    groups: tuple[Group, ...] = ()
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    budgets: tuple[Budget, ...] = ()
    workloads: tuple[Workload, ...] = ()
    volumes: tuple[Volume, ...] = ()
    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    free_addresses: dict[str, dict[str, int]] = field(default_factory=dict)
    redis: tuple[RedisView, ...] = ()
    redis_problems: tuple[Problem, ...] = ()

    def node_of(self, instance: str) -> Node | None:
        return next((n for n in self.nodes if n.instance == instance), None)

    def workload(self, owner: Owner | None) -> Workload | None:
        return next((w for w in self.workloads if w.owner == owner), None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An outdated instance of the plan, with its group and its node (None: it never joined)."""

    instance: GroupInstance
    group: Group
    node: Node | None

    @property
    def name(self) -> str:
        return self.node.name if self.node else self.instance.id


ACCEPTABLE = frozenset({"bare-pod", "budget-never-allows", "local-volume", "redis"}) | ACCEPTABLE_REDIS
"""Codes of blockers that a person may accept. The others cannot be rolled over."""

OTHER_ACTORS = ("karpenter", "kured", "descheduler", "aws-node-termination-handler")

REDIS_IMAGE = re.compile(r"redis|valkey|keydb")

WEIGHT = {Severity.BLOCKS: 0, Severity.HOLDS: 1, Severity.NOTE: 2}


def resolve(groups: Iterable[Group], versions: dict[str, tuple[int, int]]) -> Targets:
    """What each group would launch now: instance type -> "lt-id:number", "" for types without an override.

    $Latest and $Default are resolved here, once per roll, so that a version made meanwhile does not move the target.
    """
    targets: Targets = {}
    for group in groups:
        if group.template:
            own = {"": _number(group.template, versions)}
            targets[group.name] = own | {kind: _number(t, versions) for kind, t in group.overrides}
    return targets


def _number(template: LaunchTemplate, versions: dict[str, tuple[int, int]]) -> str:
    latest, default = versions.get(template.id, (0, 0))
    number = {"$Latest": latest, "$Default": default}.get(template.version, template.version)
    return f"{template.id}:{number}"


def candidates(view: View, targets: Targets, request: RollRequest) -> list[Candidate]:
    """The instances to replace, zone by zone within a group: in service, outdated, and asked for."""
    found = []
    for group in view.groups:
        if group.managed or group.name not in targets:
            continue
        for instance in sorted(group.instances, key=lambda i: (i.zone, i.id)):
            node = view.node_of(instance.id)
            asked = not request.nodes or instance.id in request.nodes or (node and node.name in request.nodes)
            if asked and instance.lifecycle == "InService" and outdated(instance, targets[group.name]):
                found.append(Candidate(instance, group, node))
    return found


def findings(view: View, request: RollRequest, settings: Settings, chosen: list[Candidate]) -> list[Finding]:
    """Every finding, the gravest first. What is accepted becomes a note."""
    accepted = (set(request.accept) | set(settings.accept)) & ACCEPTABLE
    pods = _moving_pods(view, chosen)
    # A stand-in that a dead roll left is dealt with before anything else is.
    others = [p for p in pods if LABEL not in p.labels and not any(r.group.part_set(p.owner) for r in view.redis)]
    found = [
        *_request_findings(view, request, settings),
        *_node_findings(chosen),
        *_capacity_findings(view, chosen),
        *_budget_findings(view, [p for p in pods if not _is_master_pod(view, p)]),
        *_owner_findings(view, others),
        *_storage_findings(view, others),
        *_toleration_findings(pods),
        *_undeclared_redis(others),
        *redis_findings(view.redis, view.redis_problems, {p.owner for p in pods}),
        *_actor_findings(view, settings),
    ]
    softened = [
        Finding(f.code, Severity.NOTE, f.object, f"{f.reason} (accepted)", f.remedy) if f.code in accepted else f
        for f in found
    ]
    return sorted(softened, key=lambda f: (WEIGHT[f.severity], f.code, f.object))


# The request and the groups


def _request_findings(view: View, request: RollRequest, settings: Settings) -> Iterator[Finding]:
    known = {g.name for g in view.groups}
    for name in request.groups:
        if name not in known:
            yield blocks(
                "unknown-group",
                f"group {name}",
                "there is no such Auto Scaling group",
                "correct the name, or leave groups out to take all of the cluster",
            )
    nodes = {n.name for n in view.nodes} | {i.id for g in view.groups for i in g.instances}
    for name in request.nodes:
        if name not in nodes:
            yield blocks(
                "unknown-node",
                f"node {name}",
                f"neither a node of {settings.cluster} nor an instance of its groups",
                "correct the name",
            )
    for code in sorted((set(request.accept) | set(settings.accept)) - ACCEPTABLE):
        yield blocks(
            "unknown-code",
            f"accept {code}",
            "this is not the code of a blocker that can be accepted",
            f"use any of {', '.join(sorted(ACCEPTABLE))}",
        )
    for group in view.groups:
        yield from _group_findings(group, request, settings)


def _group_findings(group: Group, request: RollRequest, settings: Settings) -> Iterator[Finding]:
    subject = f"group {group.name}"
    named = group.name in request.groups
    if group.managed:
        yield Finding(
            "managed-node-group",
            Severity.BLOCKS if named else Severity.NOTE,
            subject,
            "it belongs to an EKS managed node group, whose nodes only EKS replaces",
            f"update the node group {group.tags['eks:nodegroup-name']} in EKS, and leave it out here",
        )
        return
    if f"kubernetes.io/cluster/{settings.cluster}" not in group.tags:
        yield blocks(
            "foreign-group",
            subject,
            f"it is not tagged kubernetes.io/cluster/{settings.cluster}",
            "tag it `owned` if its instances are nodes of this cluster, or leave it out",
        )
    if group.template is None:
        yield blocks(
            "no-launch-template",
            subject,
            "it uses a launch configuration",
            "give it a launch template",
        )
    for process in sorted(group.suspended & {"Launch", "Terminate"}):
        yield blocks(
            f"{process.lower()}-suspended",
            subject,
            f"its process {process} is suspended",
            "find out why it was suspended, and resume it",
        )
    if group.refresh_running:
        yield blocks(
            "instance-refresh",
            subject,
            "an instance refresh is replacing its instances",
            "let it end, or cancel it",
        )
    if group.warm_pool:
        yield blocks(
            "warm-pool",
            subject,
            "it has a warm pool, from which replacements would come with the old version",
            "delete the warm pool for the roll",
        )
    for instance in group.instances:
        if instance.lifecycle in {"Standby", "EnteringStandby", "Detaching", "Detached"}:
            yield blocks(
                "standby",
                f"instance {instance.id}",
                f"it is {instance.lifecycle} in {group.name}",
                "put it back into service, or terminate it",
            )


# The nodes to replace


def _node_findings(chosen: list[Candidate]) -> Iterator[Finding]:
    for candidate in chosen:
        if candidate.node is None:
            yield blocks(
                "not-joined",
                f"instance {candidate.instance.id}",
                "it is in service but has no node in the cluster",
                "find out why it did not join, or terminate it",
            )
        elif not candidate.node.ready:
            yield blocks(
                "node-not-ready",
                f"node {candidate.name}",
                "its kubelet does not answer, so evicted pods cannot end",
                "mend or terminate it, then roll again",
            )
        elif candidate.node.labels.get("karpenter.sh/nodepool"):
            yield blocks(
                "karpenter-node",
                f"node {candidate.name}",
                "Karpenter made it and replaces it by itself",
                "leave its group out",
            )
        if candidate.instance.zone not in candidate.group.zones:
            yield blocks(
                "zone-not-served",
                f"node {candidate.name}",
                f"group {candidate.group.name} launches nothing in {candidate.instance.zone} any more",
                "give the group a subnet there again",
            )


def _capacity_findings(view: View, chosen: list[Candidate]) -> Iterator[Finding]:
    wanted = Counter((c.group.name, c.instance.zone) for c in chosen)
    for (group, zone), _ in sorted(wanted.items()):
        free = view.free_addresses.get(group, {}).get(zone)
        if free == 0:
            yield blocks(
                "no-addresses",
                f"group {group}",
                f"its subnets in {zone} have no free address for a replacement",
                "free addresses, or add a subnet",
            )
    for group_view in {c.group.name: c.group for c in chosen}.values():
        if group_view.mixed_purchasing:
            yield note(
                "mixed-purchasing",
                f"group {group_view.name}",
                "it mixes on-demand and spot, so replacements come by raising its desired capacity, one at a time",
                "nothing; it is slower",
            )
        if group_view.desired >= group_view.maximum:
            yield note(
                "maximum-raised",
                f"group {group_view.name}",
                f"its maximum size {group_view.maximum} leaves no room for replacements and is raised for the roll",
                "nothing; it is put back at the end",
            )


# The pods that move


def _moving_pods(view: View, chosen: list[Candidate]) -> list[Pod]:
    names = {c.node.name for c in chosen if c.node}
    return [p for p in view.pods if p.node in names and not p.stays_with_node]


def _budget_findings(view: View, pods: list[Pod]) -> Iterator[Finding]:
    seen: set[Budget | tuple[str, ...]] = set()
    for pod in pods:
        budgets = [b for b in view.budgets if b.covers(pod) and not b.ours]
        key = tuple(str(b) for b in budgets)
        if len(budgets) > 1 and key not in seen:
            seen.add(key)
            yield blocks(
                "two-budgets",
                f"pod {pod}",
                f"budgets {' and '.join(key)} both cover it, so every eviction fails",
                "narrow the selector of one of them",
            )
        if len(budgets) == 1 and budgets[0] not in seen:
            seen.add(budgets[0])
            yield from _one_budget(budgets[0], view.workload(pod.owner))


def _one_budget(budget: Budget, workload: Workload | None) -> Iterator[Finding]:
    if workload and workload.strategy is Strategy.RESTART:
        return
    if budget.can_never_allow:
        rule = (
            f"maxUnavailable {budget.max_unavailable}"
            if budget.max_unavailable
            else (f"minAvailable {budget.min_available}")
        )
        yield blocks(
            "budget-never-allows",
            f"budget {budget}",
            f"{rule} with {budget.expected} pods allows no disruption even when all are healthy",
            "relax it, add a replica, or annotate the Deployment eks-rolling.io/strategy: restart",
        )
    elif budget.allowed == 0:
        yield Finding(
            "budget-exhausted",
            Severity.HOLDS,
            f"budget {budget}",
            f"it allows no disruption now: needs {budget.desired_healthy} healthy pods and has {budget.healthy}",
            "bring the missing pods back; the roll waits for them",
        )


def _owner_findings(view: View, pods: list[Pod]) -> Iterator[Finding]:
    for pod in pods:
        if pod.owner is None:
            yield blocks(
                "bare-pod",
                f"pod {pod}",
                "no controller would recreate it elsewhere",
                "delete it, give it a controller, or accept its loss with accept: bare-pod",
            )
    for owner in sorted({p.owner for p in pods if p.owner}, key=str):
        workload = view.workload(owner)
        if workload:
            yield from _workload_findings(workload)


def _workload_findings(workload: Workload) -> Iterator[Finding]:
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
    if not workload.all_ready:
        yield Finding(
            "not-ready",
            Severity.HOLDS,
            subject,
            f"{workload.ready} of {workload.desired} replicas are Ready",
            "bring it to full strength; it holds evictions while its budget is exhausted",
        )


def _storage_findings(view: View, pods: list[Pod]) -> Iterator[Finding]:
    volumes = {v.claim: v for v in view.volumes}
    for pod in pods:
        for claim in pod.claims:
            volume = volumes.get(f"{pod.namespace}/{claim}")
            if volume and volume.local:
                yield blocks(
                    "local-volume",
                    f"pod {pod}",
                    f"its volume {volume.name} exists on its node only",
                    "move the data, or accept its loss with accept: local-volume",
                )
        if pod.local_volumes or pod.host_paths:
            names = ", ".join((*pod.local_volumes, *pod.host_paths))
            yield note(
                "local-storage",
                f"pod {pod}",
                f"what it keeps in {names} stays behind on the old node",
                "nothing, if the pod can lose it",
            )


def _toleration_findings(pods: list[Pod]) -> Iterator[Finding]:
    ours = Taint(ROLL_TAINT_KEY, Effect.NO_SCHEDULE)
    for pod in pods:
        if any(t.tolerates(ours) for t in pod.tolerations):
            yield note(
                "tolerates-everything",
                f"pod {pod}",
                "it tolerates our taint and may land on an old node again",
                "narrow its tolerations, or see it moved more than once",
            )


def _undeclared_redis(pods: list[Pod]) -> Iterator[Finding]:
    for pod in pods:
        image = next((i for i in pod.images if _is_redis(i)), None)
        if image:
            yield blocks(
                "redis",
                f"pod {pod}",
                f"it runs {image}, and an eviction would take its role and its data with it",
                "annotate its StatefulSet as README says, or accept an ordinary eviction with accept: redis",
            )


def _is_master_pod(view: View, pod: Pod) -> bool:
    """The pod that is deleted rather than evicted, once its role is elsewhere: no budget is asked."""
    return any((s := r.group.part_set(pod.owner)) and s.part is Part.MASTER for r in view.redis)


def _is_redis(image: str) -> bool:
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return bool(REDIS_IMAGE.search(name)) and "exporter" not in name


# Others at work in the cluster


def _actor_findings(view: View, settings: Settings) -> Iterator[Finding]:
    for workload in view.workloads:
        name = workload.owner.name
        if any(actor in name for actor in OTHER_ACTORS) and workload.desired > 0:
            yield note(
                "other-node-actor",
                str(workload.owner),
                "it acts on nodes or pods by itself",
                "pause it for the roll",
            )
    autoscaler = Owner("Deployment", settings.autoscaler.namespace, settings.autoscaler.deployment)
    if settings.autoscaler.mode is not AutoscalerMode.IGNORE and view.workload(autoscaler) is None:
        yield note(
            "no-autoscaler",
            str(autoscaler),
            "it was not found, so nothing is paused",
            "nothing, if the cluster has none; else correct the setting autoscaler",
        )
