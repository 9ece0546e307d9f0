"""What decisions see: plain frozen values, read from Kubernetes by `eks_rolling.clients`.

No SDK object, no client and no clock is in here. Times are epoch seconds.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from eks_rolling.names import is_object_name
from eks_rolling.settings import DeadNodes


class Effect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Toleration:
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Whether this toleration matches the taint, by the rules of core/v1 Toleration."""
        if self.effect and self.effect != taint.effect:
            return False
        if not self.key:
            return self.operator == "Exists"
        if self.key != taint.key:
            return False
        return self.operator == "Exists" or self.value == taint.value


@dataclass(frozen=True, slots=True)
class Node:
    """A Kubernetes node. `instance` is the EC2 instance id out of spec.providerID, "" where there is none."""

    name: str
    uid: str = ""
    resource_version: str = ""
    instance: str = ""
    zone: str = ""
    ready: bool = True
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    allocatable: dict[str, int] = field(default_factory=dict)
    """Thousandths of cores, bytes, pods, ...; as `Pod.requests`."""
    kubelet: str = ""
    """Its kubelet's version as that says it: "v1.31.2-eks-1234"."""
    silent_since: float = 0.0
    """When the control plane lost its kubelet (epoch seconds); 0 while that reports, well or not."""

    def dead(self, settings: DeadNodes, now: float) -> bool:
        """Whether it is replaced although nothing on it can end: its kubelet has been silent for long enough."""
        silent = bool(self.silent_since) and not self.ready and now - self.silent_since >= settings.silent_seconds
        return settings.replace and silent

    @property
    def roll_taint(self) -> Taint | None:
        """Our own taint on this node, if any."""
        return next((t for t in self.taints if t.key == ROLL_TAINT_KEY), None)


VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?!\d)", re.ASCII)

KUBELET_MAY_BE_OLDER = 3
"""Minor versions (Kubernetes, version skew policy)."""


def minor_version(text: str) -> tuple[int, int] | None:
    """Major and minor of "v1.31.2-eks-1234" or "1.31+"; None where the text has no such beginning."""
    found = VERSION.match(text)
    return (int(found[1]), int(found[2])) if found else None


def kubelet_newer(kubelet: str, server: str) -> str:
    """Why a kubelet of this version must not work with an API server of that one; "" where it may, or where one of them
    is not known. A kubelet is never newer (Kubernetes, version skew policy)."""
    node, control = minor_version(kubelet), minor_version(server)
    if node is None or control is None or node <= control:
        return ""
    return f"its kubelet ({node[0]}.{node[1]}) is newer than the control plane ({control[0]}.{control[1]})"


def kubelet_too_old(kubelet: str, server: str) -> str:
    """The same at the other end: it may be three minor versions older."""
    node, control = minor_version(kubelet), minor_version(server)
    if node is None or control is None or node[0] > control[0]:
        return ""
    if node[0] == control[0] and node[1] >= control[1] - KUBELET_MAY_BE_OLDER:
        return ""
    return (
        f"its kubelet ({node[0]}.{node[1]}) is more than {KUBELET_MAY_BE_OLDER} minor versions older than the control "
        f"plane ({control[0]}.{control[1]})"
    )


ROLL_TAINT_KEY = "eks-rolling"

CLOSING_TAINTS = (ROLL_TAINT_KEY, "node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Beginnings of the keys of taints that say of any node that it takes no pods now; others say for whom it is."""


TEMPLATE_TAINT = "k8s.io/cluster-autoscaler/node-template/taint/"
"""A group's tag with this prefix, of the value VALUE:EFFECT, says a taint of its new nodes (cluster-autoscaler)."""


def declared_taints(tags: Mapping[str, str]) -> tuple[Taint, ...]:
    """The taints that a group's tags say its new nodes have for good. A tag that says none is no taint."""
    found = []
    for key, said in sorted(tags.items()):
        value, _, effect = said.rpartition(":")
        if key.startswith(TEMPLATE_TAINT) and effect in set(Effect):
            found.append(Taint(key.removeprefix(TEMPLATE_TAINT), Effect(effect), value))
    return tuple(found)


def claims(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Instance -> the nodes that say they are on it. A kubelet says that itself when it registers, and nothing holds it
    to the truth (Kubernetes docs, Node authorization): where there are two, one of them lies."""
    found: defaultdict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.instance:
            found[node.instance].append(node)
    return dict(found)


def by_instance(nodes: Iterable[Node]) -> dict[str, Node]:
    """Instance -> its node; an instance that two nodes claim has none that could be believed."""
    return {instance: found[0] for instance, found in claims(nodes).items() if len(found) == 1}


def contradiction(nodes: Iterable[Node], instance: str) -> str:
    """Who claims to be on that instance, where it is more than one node; else ""."""
    names = sorted(n.name for n in nodes if n.instance == instance)
    if len(names) < 2:
        return ""
    several = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"nodes {several} all say that they are on {instance}; find out which one is, and delete the rest"


def ready_nodes(nodes: Iterable[Node]) -> dict[str, int]:
    """How many nodes take pods, by zone: Ready, not cordoned, and not closed by such a taint [N3]."""
    counts: Counter[str] = Counter()
    for node in nodes:
        hard = [t.key for t in node.taints if t.effect != Effect.PREFER_NO_SCHEDULE]
        open_ = node.ready and not node.unschedulable and not any(key.startswith(CLOSING_TAINTS) for key in hard)
        # A zone whose last node has closed is at 0, not forgotten.
        counts[node.zone] += open_
    return dict(sorted(counts.items()))


def replacement_not_ready(replacement: Node | None) -> str:
    """Why the replacement cannot take its old node's place now; "" where it can: there, Ready and schedulable [N3]."""
    if replacement is None:
        return "the replacement has left the cluster"
    if not replacement.ready:
        return f"the replacement {replacement.name} is no longer Ready"
    if replacement.unschedulable:
        return f"the replacement {replacement.name} was cordoned"
    return ""


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of a pod. For a ReplicaSet of a Deployment it is the Deployment."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def digest(self) -> str:
        """Stands for it in lists that cross states, where thousands of names have no room. So long that no tenant finds
        a name with another workload's [T1]."""
        return hashlib.sha256(str(self).encode(errors="surrogatepass")).hexdigest()[:16]

    @classmethod
    def named(cls, kind: str, namespace: str, name: str) -> "Owner | None":
        """The object of that kind and name; None where none can be called so.

        Whoever makes a pod writes its controller's kind and name, and the API server holds neither against anything.
        """
        return cls(kind, namespace, name) if KIND.fullmatch(kind) and is_object_name(name) else None

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Reads back what `str()` writes; None for anything else."""
        kind, _, path = text.partition(" ")
        namespace, _, name = path.partition("/")
        return cls.named(kind, namespace, name) if is_object_name(namespace) else None


KIND = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}(\.[a-z0-9][a-z0-9.-]{0,252})?")
"""What kinds can be called (CustomResourceDefinition, spec.names.kind), behind which an API group may stand."""


UNDISTURBED = (
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
    ("karpenter.sh/do-not-evict", "true"),
)
"""Annotations with which pods ask others that remove nodes to leave them alone (cluster-autoscaler's FAQ; Karpenter's
documentation of disruption, and its name for it before v1beta1)."""


@dataclass(frozen=True, slots=True)
class Container:
    """One of a pod's containers; `command` is command and args together, `ports` and `port_names` what it declares."""

    image: str = ""
    command: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    port_names: tuple[str, ...] = ()
    stops_later: bool = False
    """It has a preStop hook: before that has ended, nobody tells it to end."""
    stops_by: tuple[str, ...] = ()
    """The hook's command, if it is one."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as far as moving it is concerned."""

    namespace: str
    name: str
    uid: str = ""
    node: str = ""
    owner: Owner | None = None
    phase: str = "Running"
    ready: bool = True
    deleting_until: float | None = None
    mirror: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    claims: tuple[str, ...] = ()
    local_volumes: tuple[str, ...] = ()
    host_paths: tuple[str, ...] = ()
    host_ports: tuple[int, ...] = ()
    containers: tuple[Container, ...] = ()
    unschedulable_because: str = ""
    address: str = ""
    resource_version: str = ""
    requests: dict[str, int] = field(default_factory=dict)
    """Thousandths of cores, bytes, ...: what the scheduler counts, init containers and overhead included."""
    needs: "Needs | None" = None
    grace_seconds: float = 30.0
    node_critical: bool = False
    """Of the priority class system-node-critical: a part of the node itself, such as its network agent."""
    priority: int = 0
    preempts: bool = True
    """Whether it ends pods of a lower priority where it finds no room (preemptionPolicy)."""
    gated_by_balancer: bool = False
    """A readiness gate of AWS Load Balancer Controller: its address is a target."""
    ends: bool = False
    """Its containers are not started again when they end (restartPolicy Never, OnFailure): batch work."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def deleting(self) -> bool:
        return self.deleting_until is not None

    @property
    def not_ready_because(self) -> str:
        """What is known of why the pod is not Ready; "" for one that is."""
        if self.ready and not self.deleting:
            return ""
        if self.unschedulable_because:
            return f"cannot be scheduled: {self.unschedulable_because}"
        return "is ending" if self.deleting else f"is {self.phase} on {self.node or 'no node'}"

    @property
    def subject(self) -> str:
        """What a finding about the pod is about: its controller, or the pod itself where it has none."""
        return str(self.owner) if self.owner else f"pod {self}"

    @property
    def not_to_be_disturbed(self) -> str:
        """The annotation by which the pod asks for that; "" if it does not."""
        return next((f"{key}: {value}" for key, value in UNDISTURBED if self.annotations.get(key) == value), "")

    @property
    def finished(self) -> bool:
        return self.phase in {"Succeeded", "Failed"}

    @property
    def stays_with_node(self) -> bool:
        """Pods that a drain leaves alone: DaemonSet pods, static (mirror) pods and finished ones [N2]."""
        return self.mirror or self.finished or (self.owner is not None and self.owner.kind == "DaemonSet")


@dataclass(frozen=True, slots=True)
class Expression:
    """One matchExpressions entry of a label selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case "Gt":
                return self._compared(labels) > 0
            case "Lt":
                return self._compared(labels) < 0
            case _:
                return False

    def _compared(self, labels: dict[str, str]) -> int:
        """Above 0 where the label's number is the greater one; 0 where either is no number (node affinity only)."""
        try:
            return int(labels[self.key]) - int(self.values[0])
        except (KeyError, IndexError, ValueError):
            return 0


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector. An empty one matches everything, as policy/v1 has it for budgets."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[Expression, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        return all(labels.get(k) == v for k, v in self.labels) and all(e.matches(labels) for e in self.expressions)


@dataclass(frozen=True, slots=True)
class AntiAffinity:
    """A required anti-affinity term: no pod that `selector` matches in the same domain of the topology `key`."""

    key: str
    selector: Selector
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """A topology spread constraint that forbids scheduling. `honors_taints`: nodes it cannot go to do not count."""

    key: str
    max_skew: int
    selector: Selector
    honors_taints: bool = False


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pod's manifest asks of its node, beside room: all required, none preferred.

    `affinity` are node selector terms, any of which will do, each a set of expressions that must all match.
    """

    labels: tuple[tuple[str, str], ...] = ()
    affinity: tuple[tuple[Expression, ...], ...] = ()
    apart: tuple[AntiAffinity, ...] = ()
    spread: tuple[Spread, ...] = ()


BORN_WITH = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
    }
)
"""Labels that say what a node's machine is (Kubernetes, well-known labels). Others may be put on it later."""


def never_fits(needs: Needs | None, labels: Mapping[str, str]) -> str:
    """The label for which the pod will never be on a node that has these: another machine's; "" where it may."""
    if needs is None:
        return ""
    fixed = {key: value for key, value in labels.items() if key in BORN_WITH}
    for key, value in needs.labels:
        if fixed.get(key, value) != value:
            return key
    refused = [next((e.key for e in term if e.key in fixed and not e.matches(fixed)), "") for term in needs.affinity]
    return refused[0] if refused and all(refused) else ""


def left_out_by(pod: Pod, labels: Mapping[str, str], taints: Iterable[Taint]) -> str:
    """What of a node with these labels, and these taints for good, keeps the pod off it; "" if nothing does."""
    if key := never_fits(pod.needs, labels):
        return f"{key}={labels[key]}"
    hard = (t for t in taints if t.effect != Effect.PREFER_NO_SCHEDULE)
    refused = next((t for t in hard if not any(o.tolerates(t) for o in pod.tolerations)), None)
    return f"tainted {refused.key}:{refused.effect}" if refused else ""


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget. `ours` marks the temporary ones a roll makes for workloads that have none."""

    namespace: str
    name: str
    uid: str = ""
    selector: Selector | None = None
    allowed: int = 0
    healthy: int = 0
    desired_healthy: int = 0
    expected: int = 0
    observed: bool = True
    max_unavailable: str = ""
    min_available: str = ""
    ours: bool = False
    fault: str = ""
    """Why its controller cannot count its pods, in that one's words; it allows nothing meanwhile."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def covers(self, pod: Pod) -> bool:
        return self.namespace == pod.namespace and self.selector is not None and self.selector.matches(pod.labels)

    @property
    def why_none(self) -> str:
        """Why it allows no eviction now: completes "budget shop/web ..."."""
        if self.fault:
            return f"cannot be counted by its controller: {self.fault}"
        return f"needs {self.desired_healthy} healthy pods and has {self.healthy}"

    @property
    def can_never_allow(self) -> bool:
        """True where no eviction can succeed even with every pod healthy (max 0, or min >= all)."""
        return self.expected > 0 and self.desired_healthy >= self.expected


class Strategy(StrEnum):
    """How a workload's pods leave a node; the annotation `eks-rolling.io/strategy` chooses."""

    EVICT = "evict"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet, ReplicaSet or DaemonSet."""

    owner: Owner
    uid: str = ""
    resource_version: str = ""
    desired: int = 1
    ready: int = 1
    current: int = 1
    """Its pods; of a DaemonSet, the nodes that have one. As its controller last counted, like the two above."""
    selector: Selector | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    restarted_for: str = ""
    surges: bool = True
    settled: bool = True
    service: str = ""
    """A StatefulSet's serviceName."""
    first: int = 0
    """The ordinal of its first pod (spec.ordinals.start)."""
    pending: bool = False
    """Some pods of a StatefulSet have not the template that it has now."""
    paused: bool = False
    """A Deployment that rolls nothing out until it is resumed."""
    fault: str = ""
    """Why its controller cannot make the pods that it lacks, in that one's words; a Deployment's or ReplicaSet's."""

    @property
    def all_ready(self) -> bool:
        return self.settled and self.ready >= self.desired

    @property
    def strategy(self) -> Strategy | None:
        """The strategy asked for by annotation; None where the annotation says something unknown."""
        asked = self.annotations.get(STRATEGY_ANNOTATION, Strategy.EVICT)
        return Strategy(asked) if asked in set(Strategy) else None


def on_nodes_that_are(daemons: Workload, pods: Iterable["Pod"], nodes: Collection[str]) -> Workload:
    """The DaemonSet as it is on `nodes`, the names of all that there are; `pods` are its own, read before those.

    Its controller counts when a pod changes. A node's removal changes none, and the pods of a node that is gone are
    collected up to a minute later (kube-controller-manager, podgc): until then it misses them. As many as its count has
    of such nodes are taken out, and no more, so that a node that still waits for its pod is missed all the same.
    """
    own = [p for p in pods if p.owner == daemons.owner and p.node]
    lost, there = {p.node for p in own} - set(nodes), {p.node for p in own}.intersection(nodes)
    counted_there = min(len(lost), max(0, daemons.current - len(there)))
    ready = {p.node for p in own if p.ready and not p.deleting}.intersection(nodes)
    return replace(daemons, desired=daemons.desired - counted_there, ready=len(ready))


def as_their_pods_are(
    workloads: Iterable[Workload], pods: Iterable["Pod"], known: Collection[Owner] | None = None
) -> list[Workload]:
    """The workloads, with as many Ready pods as there are among `pods`: all of theirs, whoever else's there are too.

    A controller counts after the fact. For seconds after an eviction its status still has the pod, and a StatefulSet's
    has it until its containers have ended (kube-controller-manager, statefulset: its count leaves out no pod that is to
    end). DaemonSets are left as they are: `on_nodes_that_are` counts those.

    `known` are all workloads that there are, if the caller has read them: pods of a Deployment that is not among them
    are those of whichever has adopted its ReplicaSet (kubectl delete --cascade=orphan), whose name stays.
    """
    ready = [p for p in pods if p.owner and p.ready and not p.deleting and not p.finished]
    counts = Counter(p.owner for p in ready)
    # A Deployment may have adopted a ReplicaSet that is not called after it.
    adopted = [p for p in ready if p.owner and (p.owner.kind == "ReplicaSet" or _is_left_behind(p.owner, known))]

    def count(workload: Workload) -> int:
        owner, selector = workload.owner, workload.selector
        if owner.kind != "Deployment" or selector is None:
            return counts[owner]
        own = (p for p in adopted if p.namespace == owner.namespace and selector.matches(p.labels))
        return counts[owner] + sum(1 for _ in own)

    return [w if w.owner.kind == "DaemonSet" else replace(w, ready=count(w)) for w in workloads]


def _is_left_behind(owner: Owner, known: Collection[Owner] | None) -> bool:
    return known is not None and owner.kind == "Deployment" and owner not in known


ACCEPT = "eks-rolling.io/accept"
"""On a workload: codes of findings about it that need not block, separated by commas."""

STRATEGY_ANNOTATION = "eks-rolling.io/strategy"

RESTARTED_FOR = "eks-rolling.io/restarted-for"
"""Pod template annotation whose change is a rollout restart: the node it was done for."""


@dataclass(frozen=True, slots=True)
class CronJob:
    """A CronJob that is not suspended."""

    namespace: str
    name: str
    schedule: str = ""

    def __str__(self) -> str:
        return f"CronJob {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Volume:
    """A PersistentVolume bound to a claim: `zones` it can be attached in (empty: anywhere)."""

    claim: str
    name: str
    zones: tuple[str, ...] = ()
    local: bool = False
    driver: str = ""
    shared: bool = False
    """Pods on several nodes may use it at once (ReadWriteMany, ReadOnlyMany)."""


@dataclass(frozen=True, slots=True)
class Service:
    """A Service. `headless` has no address of its own; `for_its_node` leads only from pods of a node to pods of the
    same (internalTrafficPolicy Local)."""

    namespace: str
    name: str
    node_ports: tuple[int, ...] = ()
    local_traffic: bool = False
    selector: Selector | None = None
    headless: bool = False
    for_its_node: bool = False
    by_address: bool = False
    """A load balancer sends requests to its pods' addresses, and not to nodes (AWS Load Balancer Controller)."""

    def leads_to(self, pod: Pod) -> bool:
        """Whether clients elsewhere reach the pod by it. Without an address of its own it tells Prometheus and the like
        of a node's own agents, which are not what it is for."""
        if self.selector is None or self.namespace != pod.namespace or self.for_its_node:
            return False
        return self.selector.matches(pod.labels) and not (self.headless and pod.node_critical)


def targets_by_address(pods: Iterable[Pod], services: Iterable[Service]) -> list[Pod]:
    """The pods whose addresses a load balancer knows, as far as they or their Services say so."""
    known = [s for s in services if s.by_address]
    return [p for p in pods if p.gated_by_balancer or any(s.leads_to(p) for s in known)]


def placeholders(pods: Iterable[Pod], services: Iterable[Service]) -> frozenset[str]:
    """UIDs of the pods that only keep room for others (overprovisioning): a Deployment's, of a priority below that of
    pods without one, so that the scheduler ends them for any other; with no data, no end, and no Service that leads to
    them."""
    known = list(services)
    return frozenset(
        p.uid
        for p in pods
        if p.priority < 0 and p.owner is not None and p.owner.kind in {"Deployment", "ReplicaSet"}
        if not p.claims and not p.ends and not any(s.leads_to(p) for s in known)
    )


WITHOUT_INSTANCE = ("eks.amazonaws.com/compute-type",)
"""Labels of nodes that run on no instance of the account: Fargate's, and hybrid ones (EKS user guide)."""


def nameless(nodes: Iterable[Node]) -> list[str]:
    """The nodes that do not say on which instance they run, although they are on one."""
    return sorted(n.name for n in nodes if not n.instance and not any(label in n.labels for label in WITHOUT_INSTANCE))


def without_node(pods: Iterable[Pod], nodes: Iterable[Node]) -> list[str]:
    """Names of nodes that unfinished pods are bound to, and that are not there. The API server forgets such pods within
    a minute (pod garbage collector); their containers run for as long as their kubelet lets them."""
    there = {n.name for n in nodes}
    return sorted({p.node for p in pods if p.node and not p.finished and p.node not in there})


def lost_with(node: Node, pods: Iterable[Pod], settings: DeadNodes, now: float) -> frozenset[str]:
    """UIDs of pods that are to end and never will: their time is over, and their node is dead. What stays of them goes
    with the instance; until then it is not known whether their containers still run."""
    if not node.dead(settings, now):
        return frozenset()
    ended = (p for p in pods if p.node == node.name and p.deleting_until is not None and p.deleting_until <= now)
    return frozenset(p.uid for p in ended)


def serving_daemons(pods: Iterable[Pod], services: Iterable[Service]) -> list[Pod]:
    """The pods of DaemonSets that a Service leads clients to. A node is not empty before they have left it [N5]."""
    known = list(services)
    daemons = (p for p in pods if p.owner is not None and p.owner.kind == "DaemonSet" and not p.finished)
    return [p for p in daemons if any(s.leads_to(p) for s in known)]


@dataclass(frozen=True, slots=True)
class Lease:
    """A coordination/v1 Lease. `holder` is "" if it has none."""

    name: str
    holder: str = ""
    renewed: float = 0.0
    duration: float = 0.0
    resource_version: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    def expired(self, now: float) -> bool:
        return not self.holder or now > self.renewed + self.duration


LATEST = 32_503_680_000.0
"""The year 3000, in epoch seconds."""


def epoch(text: str | None) -> float:
    """RFC 3339 text as epoch seconds; 0 for nothing, and for what nobody's clock says.

    Kubelets write the times of their nodes' conditions, and tenants those of their Leases: API servers take any, and
    pass on the years 0 and 10000, which no date has here.
    """
    try:
        moment = datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
    return moment if 0.0 <= moment < LATEST else 0.0
