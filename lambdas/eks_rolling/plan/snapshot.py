"""The cluster as the plan looks at it, and the instances that a roll would replace."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from eks_rolling.observed.aws import (
    COMES_OR_RUNS,
    CONFIGURATION,
    IMAGE_BY_PARAMETER,
    Group,
    GroupInstance,
    InstanceState,
    InstanceType,
    LaunchTemplate,
    LifecycleHook,
    VcpuQuota,
)
from eks_rolling.observed.kubernetes import (
    ACCEPT,
    Budget,
    CronJob,
    Node,
    Owner,
    Pod,
    Service,
    Strategy,
    Volume,
    Workload,
    by_instance,
    placeholders,
)
from eks_rolling.observed.marks import NODE_LAUNCH, LaunchMark, outdated, place_of, spares, unfit
from eks_rolling.observed.network import NetworkPolicy
from eks_rolling.observed.redis import Stranger
from eks_rolling.payloads import RollRequest, Targets
from eks_rolling.plan.checks.redis_sentinel import RedisView
from eks_rolling.plan.permissions import Verb, needed_to_restart
from eks_rolling.redis.groups import DeclarationProblem, PartSet, RedisGroup

DAY = 24 * 3600

FORCED = "the request forces it"


class Unseen(StrEnum):
    """What the plan can do without, in the words of its findings."""

    CRON_JOBS = "CronJobs"
    JUDGES = "webhook configurations and validatingadmissionpolicies"
    NETWORK_POLICIES = "NetworkPolicies"
    ALARMS = "the gate's alarms"


@dataclass(frozen=True)
class ClusterSnapshot:
    """Everything that was read, once. What is asked often is found by dictionaries, made when first asked."""

    groups: tuple[Group, ...] = ()
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    budgets: tuple[Budget, ...] = ()
    workloads: tuple[Workload, ...] = ()
    volumes: tuple[Volume, ...] = ()
    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    free_addresses: dict[str, dict[str, int]] = field(default_factory=dict)
    redis: tuple[RedisView, ...] = ()
    redis_problems: tuple[DeclarationProblem, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    """Groups of the cluster that the settings leave out, and why."""
    other_groups: tuple[Group, ...] = ()
    """The cluster's other groups, which the request or the settings leave out; none where nothing is ever put back."""
    template_data: dict[str, dict[str, str]] = field(default_factory=dict)
    """ "lt-id:number" or "lc:NAME" -> what that version or launch configuration says, field by field."""
    versions_gone: frozenset[str] = frozenset()
    """Of what groups would launch, "lt-id:number" or "lc:NAME": what does not exist any more."""
    template_tags: dict[str, dict[str, str]] = field(default_factory=dict)
    """Launch template -> its own tags; empty where no version is ever put back."""
    images: dict[str, str] = field(default_factory=dict)
    """Instance -> its image, of groups whose template names the image by a parameter."""
    images_now: dict[str, str] = field(default_factory=dict)
    """ "lt-id:number" -> the image that its parameter names now; absent where that is not known."""
    replacements: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Instance -> those that earlier rolls launched to replace it, while all of them live: see `begun`."""
    images_gone: frozenset[str] = frozenset()
    """Images of launch template versions from which nothing launches any more."""
    instance_types: dict[str, InstanceType] = field(default_factory=dict)
    volume_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Node -> CSI driver -> volumes."""
    quota: VcpuQuota = field(default_factory=VcpuQuota)
    services: tuple[Service, ...] = ()
    not_granted: frozenset[Verb] = frozenset()
    """What annotations ask for and the functions may not do there."""
    strangers: dict[str, Stranger] = field(default_factory=dict)
    """UID -> what a server says of itself that nobody declared; absent where none was asked or none answered."""
    not_asked: frozenset[str] = frozenset()
    """UIDs of such servers whose turn to be asked did not come."""
    network_policies: tuple[NetworkPolicy, ...] = ()
    """Of the whole cluster, where it has a Redis Cluster whose pods get stand-ins; else none was asked for."""
    unproven: tuple[tuple[str, str], ...] = ()
    """Node, and a mark that it bears without the proof on the lock that a roll wrote it."""
    hooks: tuple[LifecycleHook, ...] = ()
    """The lifecycle hooks of the groups."""
    cron_jobs: tuple[CronJob, ...] = ()
    judges_of_evictions: tuple[str, ...] = ()
    """Webhooks and admission policies that may deny one, as "KIND NAME"."""
    alarms_missing: tuple[str, ...] = ()
    """Alarms of the settings that do not exist."""
    unseen: frozenset[Unseen] = frozenset()
    """What the caller may not look at; its part of the snapshot is empty."""
    server_version: str = ""
    """The API server's, "" where it is not known."""
    now: float = 0.0

    def node_of(self, instance: str) -> Node | None:
        return self._nodes_by_instance.get(instance)

    def image_of(self, version: str) -> str:
        """The image that an instance of a launch template version gets now; "" where that is not known."""
        named = self.template_data.get(version, {}).get("ImageId", "")
        return self.images_now.get(version, "") if named.startswith(IMAGE_BY_PARAMETER) else named

    def workload(self, owner: Owner | None) -> Workload | None:
        return self._workloads_by_owner.get(owner) if owner else None

    def restarts(self, workload: Workload | None) -> bool:
        """Whether its pods leave by a restart: it asks for that, and the roll may do it."""
        if workload is None or workload.strategy is not Strategy.RESTART:
            return False
        return needed_to_restart(workload.owner) not in self.not_granted

    def volume(self, namespace: str, claim: str) -> Volume | None:
        """The volume that is bound to a claim."""
        return self._volumes_by_claim.get(f"{namespace}/{claim}")

    def pods_on(self, node: str) -> list[Pod]:
        return self._pods_by_node.get(node, [])

    def budgets_of(self, pod: Pod) -> list[Budget]:
        """The budgets that cover the pod, those of a roll apart."""
        keys = ((pod.namespace, label) for label in (None, *pod.labels.items()))
        return [b for key in keys for b in self._budgets_by_label.get(key, ()) if b.covers(pod)]

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """UIDs of the pods that only keep room for others."""
        return placeholders(self.pods, self.services)

    @cached_property
    def accepted_on(self) -> dict[str, set[str]]:
        """Object -> codes of findings that an annotation on it accepts."""
        return {
            str(w.owner): {code.strip() for code in w.annotations[ACCEPT].split(",")}
            for w in self.workloads
            if ACCEPT in w.annotations
        }

    def siblings(self, pod: Pod) -> list[Pod]:
        """All pods of its controller, or it alone where it has none."""
        return self._pods_by_owner.get(pod.owner, [pod]) if pod.owner else [pod]

    def redis_set(self, owner: Owner | None) -> tuple[RedisGroup, PartSet] | None:
        """The Redis group that the owner is a part of, and which part."""
        return self._redis_by_owner.get(owner) if owner else None

    @cached_property
    def _nodes_by_instance(self) -> dict[str, Node]:
        return by_instance(self.nodes)

    @cached_property
    def _workloads_by_owner(self) -> dict[Owner, Workload]:
        return {w.owner: w for w in self.workloads}

    @cached_property
    def _volumes_by_claim(self) -> dict[str, Volume]:
        return {v.claim: v for v in self.volumes}

    @cached_property
    def _pods_by_node(self) -> dict[str, list[Pod]]:
        found: defaultdict[str, list[Pod]] = defaultdict(list)
        for pod in self.pods:
            found[pod.node].append(pod)
        return dict(found)

    @cached_property
    def _pods_by_owner(self) -> dict[Owner, list[Pod]]:
        found: defaultdict[Owner, list[Pod]] = defaultdict(list)
        for pod in self.pods:
            if pod.owner:
                found[pod.owner].append(pod)
        return dict(found)

    @cached_property
    def _budgets_by_label(self) -> dict[tuple[str, tuple[str, str] | None], list[Budget]]:
        """By namespace and the first label that their selector asks for; None: it asks for none."""
        found: defaultdict[tuple[str, tuple[str, str] | None], list[Budget]] = defaultdict(list)
        for budget in self.budgets:
            if not budget.ours and budget.selector is not None:
                found[budget.namespace, next(iter(budget.selector.labels), None)].append(budget)
        return dict(found)

    @cached_property
    def _redis_by_owner(self) -> dict[Owner, tuple[RedisGroup, PartSet]]:
        return {s.owner: (r.group, s) for r in self.redis for s in r.group.sets}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance of the plan, with its group and its node (None: it never joined)."""

    instance: GroupInstance
    group: Group
    node: Node | None
    reason: str = ""
    """Why it is replaced although its version is its group's; "" where the version is another."""
    place: str = ""
    """The instance in whose place it was launched by a roll that ended early, if that place is another's: it goes, and
    nothing is launched for it."""

    @property
    def name(self) -> str:
        return self.node.name if self.node else self.instance.id

    @property
    def launches(self) -> bool:
        """Whether a replacement is launched for it."""
        return not self.place


def resolve(groups: Iterable[Group], versions: dict[str, tuple[int, int]]) -> Targets:
    """What each group would launch now: instance type -> "lt-id:number", "" for types without an override.

    $Latest and $Default are resolved here, once per roll, so that a version made meanwhile does not move the target.
    A group is absent whose template does not exist, unless it names the version: none of its nodes is outdated then.
    """
    targets: Targets = {}
    for group in groups:
        if group.configuration:
            targets[group.name] = {"": f"{CONFIGURATION}{group.configuration}"}
        elif group.template and not unresolved(group, versions):
            own = {"": _number(group.template, versions)}
            targets[group.name] = own | {kind: _number(t, versions) for kind, t in group.overrides}
    return targets


def unresolved(group: Group, versions: dict[str, tuple[int, int]]) -> list[str]:
    """The group's launch templates that do not exist, of which it launches whichever version they have."""
    named = (*([group.template] if group.template else ()), *(t for _, t in group.overrides))
    return sorted({t.id for t in named if t.version in {"$Latest", "$Default"} and t.id not in versions})


def _number(template: LaunchTemplate, versions: dict[str, tuple[int, int]]) -> str:
    latest, default = versions.get(template.id, (0, 0))
    number = {"$Latest": latest, "$Default": default}.get(template.version, template.version)
    return f"{template.id}:{number}"


def begun(groups: Iterable[Group], states: Mapping[str, InstanceState]) -> dict[str, tuple[str, ...]]:
    """Instances whose replacement was launched and that are still there, each with its living replacements.

    `states` as EC2 has them. A replacement is of the same group and bears the tag that only a roll's steps may write
    [N4]. A roll takes that away once it has ended the old instance, or gives the replacement back: both are there only
    while a roll is at work, or after one that ended early and had to leave what pods were using.
    """
    found: dict[str, tuple[str, ...]] = {}
    for group in groups:
        living = {i.id for i in group.instances if i.alive and i.id in states and states[i.id].state in COMES_OR_RUNS}
        for new, old in sorted(spares(group, states).items()):
            if {new, old} <= living:
                found[old] = (*found.get(old, ()), new)
    return found


def candidates(view: ClusterSnapshot, targets: Targets, request: RollRequest, max_age_days: int = 0) -> list[Candidate]:
    """The instances to replace, zone by zone within a group: in service, asked for, and with a reason: they are
    outdated, of an image that has been replaced, too old (`max_age_days`, 0 for no limit), an earlier roll has begun to
    replace them, or the request forces it."""
    found: list[Candidate] = []
    spare = {new: old for old, several in view.replacements.items() for new in several}
    for group in view.groups:
        if group.managed or group.name not in targets:
            continue
        chosen: list[Candidate] = []
        taken: set[str] = set()
        for instance in sorted(group.instances, key=lambda i: (i.zone, i.id)):
            node = view.node_of(instance.id)
            asked = not request.nodes or instance.id in request.nodes or (node and node.name in request.nodes)
            if not asked or instance.lifecycle != "InService":
                continue
            reason = _no_longer_right(instance, view, targets[group.name], max_age_days)
            new = _replacement_of(instance, group, view, targets[group.name], max_age_days)
            if reason is None and new:
                reason = f"an earlier roll has launched its replacement {new}"
            elif reason is None and _asked_for(node, view):
                reason = "an earlier roll has asked for its replacement"
            elif reason is None and request.force:
                reason = FORCED
            if reason is not None:
                place = place_of(instance.id, spare) if instance.id in spare else ""
                chosen.append(Candidate(instance, group, node, reason, place))
                taken.add(new)
        # A node of the plan goes onto the replacement that it has. To replace that as well would leave one too many.
        found += [c for c in chosen if c.reason != FORCED or c.instance.id not in taken]
    return found


def _no_longer_right(
    instance: GroupInstance, view: ClusterSnapshot, targets: dict[str, str], max_age_days: int
) -> str | None:
    """What is the matter with the instance itself: "" for another version than its group's, None for nothing."""
    if outdated(instance, targets):
        return ""
    return _image_moved(instance, view) or _too_old(view.node_of(instance.id), view.now, max_age_days) or None


def _replacement_of(
    instance: GroupInstance, group: Group, view: ClusterSnapshot, targets: dict[str, str], max_age_days: int
) -> str:
    """The replacement that an earlier roll launched for the instance, and that its pods may go to; "" for none.

    Where the replacement is itself to be replaced, because its version was taken back, say, the instance is to stay:
    the roll gives it back the replacement's pods.
    """
    for new in (group.instance(i) for i in view.replacements.get(instance.id, ())):
        if new is None or _no_longer_right(new, view, targets, max_age_days) is not None:
            continue
        node = view.node_of(new.id)
        # One on which nothing must run is drained by a person: a restore says so.
        if node is None or not unfit(node):
            return new.id
    return ""


def _asked_for(node: Node | None, view: ClusterSnapshot) -> bool:
    """Whether a group's desired capacity was raised for the node, and nothing came of it: a restore keeps such a
    request on record for the next roll."""
    if node is None or (node.name, NODE_LAUNCH) in view.unproven:
        return False
    mark = LaunchMark.on(node)
    return mark is not None and mark.raised


def _image_moved(instance: GroupInstance, view: ClusterSnapshot) -> str:
    """A version may name its image by a parameter, which moves while the version stays."""
    has, now = view.images.get(instance.id, ""), view.images_now.get(instance.template, "")
    if not has or not now or has == now:
        return ""
    return f"its image is {has}, and its launch template's parameter names {now} now"


def by_parameter(data: Mapping[str, Mapping[str, str]]) -> set[str]:
    """The launch template versions of `ClusterSnapshot.template_data` that name their image by a parameter."""
    return {version for version, said in data.items() if said.get("ImageId", "").startswith(IMAGE_BY_PARAMETER)}


def _too_old(node: Node | None, now: float, max_age_days: int) -> str:
    # A node without a time of its creation has no age that could be judged.
    age = (now - node.created) / DAY if node and node.created else 0.0
    return f"it is {int(age)} days old (max_age_days {max_age_days})" if max_age_days and age > max_age_days else ""


def moving_pods(view: ClusterSnapshot, chosen: Iterable[Candidate]) -> list[Pod]:
    """The pods that leave nodes of the plan."""
    names = {c.node.name for c in chosen if c.node}
    return [p for p in view.pods if p.node in names and not p.stays_with_node]


def by_owner(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    """Pods by what a finding about them is about: their controller, or the pod itself where it has none."""
    found: defaultdict[str, list[Pod]] = defaultdict(list)
    for pod in pods:
        found[pod.subject].append(pod)
    return dict(found)
