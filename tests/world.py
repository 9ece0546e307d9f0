"""A cluster and an account in memory, behind the same protocols as the real clients.

Time stands still unless `advance` moves it. Controllers, scheduler, kubelets, EC2 and load balancers do what is due
whenever something changed. After every effect the world checks the invariants that docs/concepts.md numbers; `effects`
counts what was done to it, and `kill_after` makes the caller die right after one of them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eks_rolling.clients.protocols import Clients, Eviction, EvictionStatus, HttpAnswer, Launched
from eks_rolling.errors import AccessDenied, BadRequest, Conflict, NotFound, Permanent, Transient
from eks_rolling.names import is_object_name
from eks_rolling.observed.aws import (
    CONFIGURATION,
    Group,
    GroupInstance,
    InstanceState,
    InstanceType,
    LaunchTemplate,
    LifecycleHook,
    TargetRegistration,
    VcpuQuota,
)
from eks_rolling.observed.kubernetes import (
    RESTARTED_FOR,
    ROLL_TAINT_KEY,
    Budget,
    CronJob,
    Effect,
    Lease,
    Node,
    Owner,
    Pod,
    Selector,
    Service,
    Taint,
    Toleration,
    Volume,
    Workload,
    serving_daemons,
)
from eks_rolling.observed.marks import (
    GROUP_MAXIMUM,
    GROUP_PUT_BACK,
    GROUP_RESUME,
    HARD_TAINT,
    MOST_TAGS,
    NODE_ROLL,
)
from eks_rolling.observed.network import NetworkPolicy
from eks_rolling.plan.permissions import LEASES, Verb, needed_to_restart
from eks_rolling.redis.groups import GROUP, PART, Part
from eks_rolling.redis.stand_in import LABEL, name_for
from eks_rolling.report.messages import Message
from eks_rolling.settings import Settings
from tests.redis_world import RedisWorld

ZONES = ("zone-a", "zone-b")
CLUSTER = "demo"
ANNOTATIONS_LIMIT = 262_144
"""Bytes of all keys and values of an object's annotations (Kubernetes, apimachinery, TotalAnnotationSizeLimitB)."""

UNSCHEDULABLE = Taint("node.kubernetes.io/unschedulable", Effect.NO_SCHEDULE)


TOLERATED_SECONDS, DEAD_SECONDS = 300.0, 600.0
"""After how long Kubernetes deletes the pods of a silent node, and a roll may take it for dead where it is to."""

KNOWN_KINDS = frozenset({"Deployment", "StatefulSet", "ReplicaSet", "DaemonSet"})
"""Kinds of controllers that the API serves to everybody; others are known by their pods alone."""


class Killed(BaseException):
    """The function's process died: not an Exception, so that no step can catch it."""


class InvariantBroken(AssertionError):
    """The message begins with the invariant's number."""


@dataclass(slots=True)
class MachineState:
    """An EC2 instance."""

    id: str
    group: str
    zone: str
    template: str
    state: str = "pending"
    launched: float = 0.0
    changes_at: float = 0.0
    protected: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    never_joins: bool = False
    image: str = ""

    held_by_hook: bool = False
    standby: bool = False

    @property
    def lifecycle(self) -> str:
        if self.held_by_hook:
            return "Terminating:Wait"
        if self.standby:
            return "Standby"
        known = {"pending": "Pending", "running": "InService", "stopped": "InService"}
        return known.get(self.state, "Terminating")

    @property
    def alive(self) -> bool:
        return self.state in {"pending", "running"} and not self.held_by_hook


@dataclass(slots=True)
class PodState:
    """A pod; `revision` is its template's restart mark."""

    pod: Pod
    ready_at: float = 0.0
    gone_at: float | None = None
    revision: str = ""


@dataclass(slots=True)
class WorkloadState:
    """A controller's object."""

    workload: Workload
    labels: dict[str, str]
    claims: bool = False
    zone: str = ""
    daemon: bool = False
    tolerant: bool = False
    restarts: str = ""


@dataclass(slots=True)
class TargetState:
    state: str
    changes_at: float
    port: int


@dataclass(slots=True)
class Delays:
    """Seconds."""

    boot: float = 20
    node_ready: float = 5
    pod_start: float = 3
    grace: float = 5
    shutdown: float = 10
    detach: float = 4
    target_healthy: float = 6
    deregistration: float = 30
    scale_out: float = 0
    """From a raised desired capacity to the launch."""
    collection: float = 60
    """Until the pods of a node that is gone are collected, of which their DaemonSet's count is told by nothing else."""
    status: float = 3
    """How old what controllers tell of their pods is."""


class World:
    """The in-memory cluster. Build it with `node`, `deployment`, `stateful_set`, ... and `settle` it once."""

    def __init__(self, delays: Delays | None = None) -> None:
        self.delays = delays or Delays()
        self.time = 1_000_000.0
        self.groups_by_name: dict[str, Group] = {}
        self.machines: dict[str, MachineState] = {}
        self.nodes_by_name: dict[str, Node] = {}
        self.pods_by_name: dict[tuple[str, str], PodState] = {}
        self.workloads_by_owner: dict[Owner, WorkloadState] = {}
        self.budgets_by_name: dict[tuple[str, str], Budget] = {}
        self.leases: dict[str, Lease] = {}
        self.job_seconds: dict[Owner, float] = {}
        """How long the pod of each Job works."""
        self.jobs_begun: set[Owner] = set()
        self.cron_job_list: list[CronJob] = []
        self.denials: dict[str, str] = {}
        """Namespace/name of a pod -> the words with which admission denies its eviction."""
        self.budget_denials: dict[str, str] = {}
        """Namespace -> the words with which it takes no budget of ours."""
        self.targets: dict[tuple[str, str], TargetState] = {}
        self.node_services: list[Service] = []
        self.network_policy_list: list[NetworkPolicy] = []
        self.priorities: dict[Owner, int] = {}
        """Of the pods of a controller, where it is not 0."""
        self.room_for: dict[Owner, int] = {}
        """How many pods of a controller find a place; of others all do."""
        self.stuck: set[str] = set()
        """Claims whose volume does not detach."""
        self.attached: dict[str, tuple[str, float | None]] = {}
        self.volume_list: list[Volume] = []
        self.templates: dict[str, tuple[int, int]] = {}
        self.templates_lag = 0.0
        """For so many seconds a launch template is described with the default version that it had before."""
        self.former_defaults: dict[str, tuple[float, int]] = {}
        """Launch template -> when its default version was put back, and the one before that."""
        self.tags_of_templates = {f"kubernetes.io/cluster/{CLUSTER}": "owned"}
        self.replacing: list[tuple[str, float]] = []
        """Groups that are about to launch in the stead of an instance that they replace, and when."""
        self.silent: dict[str, float] = {}
        """Node -> when its kubelet fell silent."""
        self.containers_until: dict[str, float] = {}
        """Instance -> when the last container ends that runs there although its Node was deleted."""
        self.hooks: list[LifecycleHook] = []
        self.tokens: dict[str, str] = {}
        self.documents: dict[str, str] = {}
        self.messages: list[tuple[str, str]] = []
        self.told: list[Message] = []
        self.redis = RedisWorld(self._effect)
        self.secrets: dict[tuple[str, str], dict[str, str]] = {}
        self.alarms: set[str] = set()
        """Those that are firing."""
        self.deleted_alarms: set[str] = set()
        self.pages: dict[str, HttpAnswer] = {}
        """Address -> how it answers."""
        self.asked: list[dict[str, Any]] = []
        """What hooks were sent."""
        self.hook_answers: dict[str, list[HttpAnswer]] = {}
        """Function or address -> its next answers; then it says nothing against anything."""
        self.quota = VcpuQuota(limit=1000, used=100)
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.launch_failures = 0
        self.tick_seconds = 1.0
        self.settling_seconds = 0.0
        """For so long after its launch AWS does not know an instance everywhere, and for as long again not its tags."""
        self.sizes_lag = False
        """Groups are described with the desired capacity of then, too."""
        self.scales_out_at: dict[str, float] = {}
        self.tags_are_denied = False
        self.new_nodes_never_join = False
        self.image_parameter = ""
        """Where launch templates name their image by a parameter; `image_now` is what that names."""
        self.image_now = "ami-1"
        self.deregistered: set[str] = set()
        """Images from which nothing launches."""
        self.control_plane = "v1.31.4-eks-0000000"
        self.kubelet_of_new_nodes = "v1.31.2-eks-0000000"
        self.broken: set[Owner] = set()
        self.cannot_restore = ""
        """What a rehearsal of the restore finds missing."""
        self.forbidden: set[Verb] = set()
        """What Kubernetes groups may not do."""
        self.asked_to_evict: list[str] = []
        self.effects: list[str] = []
        self.kill_after: int | None = None
        self.watchers: list[Callable[[World], None]] = []
        self.baseline: dict[str, int] | None = None
        self.planned: set[str] = set()
        self._serial = 0
        self._revision = 0
        self._statuses: list[tuple[float, dict[Owner, tuple[int, int, int]]]] = []

    # Building

    def group(
        self,
        name: str,
        zones: Sequence[str] = ZONES,
        *,
        maximum: int,
        version: int = 1,
        names: str = "$Latest",
        **more: Any,
    ) -> None:
        """`names` is which version of its launch template the group names."""
        template = f"lt-{name}"
        self.templates[template] = (version, 1)
        self.groups_by_name[name] = Group(
            name,
            maximum=maximum,
            zones=tuple(zones),
            template=None if "configuration" in more else LaunchTemplate(template, names),
            tags={f"kubernetes.io/cluster/{CLUSTER}": "owned"} | more.pop("tags", {}),
            **more,
        )

    def add_node(self, group: str, zone: str) -> str:
        """A node that is up already, with the launch template version of now; answers its name."""
        machine = self._launch(group, zone)
        machine.state, machine.launched = "running", self.time - 3600
        self._join(machine)
        node = self._node_of(machine.id)
        assert node
        self._set_node(replace(node, ready=True, taints=()))
        self.groups_by_name[group] = replace(self.groups_by_name[group], desired=self.groups_by_name[group].desired + 1)
        return node.name

    def new_template_version(self, group: str) -> None:
        """A new version of its launch template, which the group launches from now on."""
        template = f"lt-{group}"
        latest = self.templates[template][0] + 1
        current = self.groups_by_name[group]
        if current.template and current.template.version.isdigit():
            self.groups_by_name[group] = replace(current, template=LaunchTemplate(template, str(latest)))
        by_default = current.template is not None and current.template.version == "$Default"
        self.templates[template] = (latest, latest if by_default else self.templates[template][1])

    def deployment(
        self, name: str, replicas: int, *, namespace: str = "default", annotations: Mapping[str, str] | None = None
    ) -> Owner:
        return self._add("Deployment", namespace, name, replicas, annotations or {})

    def stateful_set(
        self, name: str, replicas: int, *, zone: str, annotations: Mapping[str, str] | None = None, volumes: bool = True
    ) -> Owner:
        owner = self._add("StatefulSet", "default", name, replicas, annotations or {}, zone=zone, claims=volumes)
        if not volumes:
            return owner
        for ordinal in range(replicas):
            self.volume_list.append(Volume(f"default/data-{name}-{ordinal}", f"pv-{name}-{ordinal}", (zone,)))
        return owner

    def custom(self, kind: str, name: str, replicas: int) -> Owner:
        """A controller of a kind that only its operator knows; it makes a pod anew when one is gone."""
        return self._add(kind, "default", name, replicas, {})

    def job(self, name: str, seconds: float) -> Owner:
        """A Job of one pod that takes so long; it is not started again when it is killed."""
        owner = self._add("Job", "default", name, 1, {})
        self.job_seconds[owner] = seconds
        return owner

    def daemon_set(self, name: str, *, serves: bool = False, tolerant: bool = False) -> Owner:
        """A DaemonSet; a Service leads to the pods of one that serves, and a tolerant one tolerates every taint."""
        if serves:
            self.node_services.append(Service("kube-system", name, selector=Selector((("app", name),))))
        return self._add("DaemonSet", "kube-system", name, 0, {}, daemon=True, tolerant=tolerant)

    def budget(self, name: str, app: str, max_unavailable: int) -> None:
        selector = Selector((("app", app),))
        self.budgets_by_name["default", name] = Budget(
            "default", name, f"uid-{name}", selector, max_unavailable=str(max_unavailable)
        )

    def target_group(self, name: str, node_port: int, *, local: bool, instances: Iterable[str]) -> None:
        self.node_services.append(Service("default", name, (node_port,), local))
        for instance in instances:
            self.targets[self._arn(name), instance] = TargetState("healthy", 0.0, node_port)

    def ready(self) -> None:
        """Lets everything come up, and takes the capacity of now as the one that may not fall [N3]."""
        self.advance(60)
        self.effects.clear()
        self.baseline = self.capacity()

    def launch_one(self, group: str, zone: str) -> str:
        """An instance that the group launches by itself; answers its id."""
        return self._launch(group, zone).id

    def stop_kubelet(self, node: str) -> None:
        """Its kubelet falls silent: what is on it is not Ready, is deleted after a while, and never ends. The capacity
        of from now on is what may not fall [N3]."""
        self.silent[node] = self.time
        self._set_node(replace(self.nodes_by_name[node], ready=False, silent_since=self.time))
        for state in self.pods_by_name.values():
            if state.pod.node == node:
                state.pod = replace(state.pod, ready=False)
        if self.baseline is not None:
            self.baseline = self.capacity()

    def start_kubelet(self, node: str) -> None:
        """It reports again: what was deleted ends."""
        del self.silent[node]
        self._set_node(replace(self.nodes_by_name[node], ready=True, silent_since=0.0))

    def remove_node(self, node: str) -> None:
        """Somebody deletes the Node; its instance runs on. Its pods are collected, and only then do containers end."""
        self.containers_until[self.nodes_by_name.pop(node).instance] = (
            self.time + self.delays.collection + self.delays.grace
        )
        for state in self.pods_by_name.values():
            if state.pod.node == node:
                self._strand(state)
        if self.baseline is not None:
            self.baseline = self.capacity()

    def clients(self, settings: Settings) -> Clients:
        return Clients(self, self, self.redis, settings, lambda: self.time, self.advance, self)

    # Time and controllers

    def advance(self, seconds: float) -> None:
        """Moves time in steps, so that what follows from something happens at its own time."""
        end = self.time + seconds
        while self.time < end:
            self.time = min(end, self.time + self.tick_seconds)
            self._settle()
            if self.redis.runs or any(PART in s.workload.annotations for s in self.workloads_by_owner.values()):
                self._run_redis()
            self.redis.tick(self.time)

    def _settle(self) -> None:
        self._run_instances()
        self._taint_cordoned()
        self._run_pods()
        self._run_workloads()
        self._schedule()
        self._run_volumes_and_targets()
        self._run_statuses()
        self.check()

    def _run_instances(self) -> None:
        unready = {n.instance: n for n in self.nodes_by_name.values() if not n.ready}
        for machine in list(self.machines.values()):
            if machine.state == "pending" and self.time >= machine.changes_at:
                machine.state, machine.changes_at = "running", self.time + self.delays.node_ready
                if not (machine.never_joins or self.new_nodes_never_join):
                    self._join(machine)
                self._register_targets(machine)
            elif machine.held_by_hook:
                if self.time >= machine.changes_at:
                    self._shut_down(machine)
            elif machine.state == "running" and self.time >= machine.changes_at:
                node = unready.get(machine.id)
                if node and node.name not in self.silent:
                    self._set_node(replace(node, ready=True, taints=()))
            elif machine.state == "shutting-down" and self.time >= machine.changes_at:
                machine.state = "terminated"
                self._forget(machine)
        self._run_replacing()
        for group in list(self.groups_by_name.values()):
            serially = group.launches_serially and "Launch" not in group.suspended
            if not serially or len(self._alive(group.name)) >= group.desired:
                self.scales_out_at.pop(group.name, None)
            elif self.time >= self.scales_out_at.setdefault(group.name, self.time + self.delays.scale_out):
                zones = {z: sum(1 for m in self._alive(group.name) if m.zone == z) for z in group.zones}
                self._launch(group.name, min(zones, key=lambda z: (zones[z], z)))

    def _run_replacing(self) -> None:
        for due in [e for e in self.replacing if self.time >= e[1]]:
            self.replacing.remove(due)
            zones = {z: sum(1 for m in self._alive(due[0]) if m.zone == z) for z in self.groups_by_name[due[0]].zones}
            self._launch(due[0], min(zones, key=lambda z: (zones[z], z)))

    def _taint_cordoned(self) -> None:
        """The node lifecycle controller keeps a taint in step with a cordon."""
        for node in list(self.nodes_by_name.values()):
            if not node.taints and not node.unschedulable:
                continue
            others = tuple(t for t in node.taints if t != UNSCHEDULABLE)
            wanted = (*others, UNSCHEDULABLE) if node.unschedulable else others
            if node.taints != wanted:
                self._set_node(replace(node, taints=wanted))

    def _alive(self, group: str) -> list[MachineState]:
        return [m for m in self.machines.values() if m.group == group and m.alive]

    def _register_targets(self, machine: MachineState) -> None:
        groups = {g for g, i in self.targets if self.machines[i].group == machine.group}
        for arn in groups:
            port = next(t.port for (g, _), t in self.targets.items() if g == arn)
            self.targets[arn, machine.id] = TargetState("initial", self.time + self.delays.target_healthy, port)

    def _join(self, machine: MachineState) -> None:
        name = f"node-{machine.id}"
        self._set_node(
            Node(
                name,
                uid=f"uid-{machine.id}",
                instance=machine.id,
                zone=machine.zone,
                ready=False,
                taints=(Taint("node.kubernetes.io/not-ready", Effect.NO_SCHEDULE),),
                kubelet=self.kubelet_of_new_nodes,
                created=self.time,
            )
        )

    def _forget(self, machine: MachineState) -> None:
        node = self._node_of(machine.id)
        if node:
            for key, state in [(k, p) for k, p in self.pods_by_name.items() if p.pod.node == node.name]:
                if self._is_daemons(state.pod):
                    self._strand(state)
                else:
                    del self.pods_by_name[key]
            del self.nodes_by_name[node.name]
            self.silent.pop(node.name, None)
        for key in [k for k in self.targets if k[1] == machine.id]:
            del self.targets[key]

    def _is_daemons(self, pod: Pod) -> bool:
        return pod.owner is not None and pod.owner.kind == "DaemonSet"

    def _strand(self, state: PodState) -> None:
        """A pod outlives its node's object, as nobody tells its controller, until it is collected."""
        state.gone_at = self.time + self.delays.collection
        state.pod = replace(state.pod, ready=False)

    def _run_pods(self) -> None:
        for key, state in list(self.pods_by_name.items()):
            if state.pod.node in self.silent:
                late = self.time - self.silent[state.pod.node] >= TOLERATED_SECONDS
                if late and state.gone_at is None and not state.pod.stays_with_node:
                    self._delete(state)
            elif state.gone_at is not None:
                if self.time >= state.gone_at:
                    del self.pods_by_name[key]
            elif state.pod.ready:
                if state.pod.ends and self._has_ended(state):
                    state.pod = replace(state.pod, ready=False, phase="Succeeded")
            elif self._may_be_ready(state):
                state.pod = replace(state.pod, ready=True, phase="Running")

    def _has_ended(self, state: PodState) -> bool:
        seconds = self.job_seconds.get(state.pod.owner) if state.pod.owner else None
        return seconds is not None and self.time >= state.ready_at + seconds

    def _may_be_ready(self, state: PodState) -> bool:
        pod = state.pod
        due = self.time >= state.ready_at and not pod.finished
        return bool(pod.node) and due and pod.owner not in self.broken

    def _run_redis(self) -> None:
        """Servers and sentinels run in the pods of annotated StatefulSets, from start to SIGTERM."""
        home = self._redis_pod(Part.MASTER)
        living = set()
        for owner, state in self.workloads_by_owner.items():
            if GROUP not in state.workload.annotations:
                continue
            part = Part(state.workload.annotations[PART])
            if part is Part.CLUSTER:
                continue
            for pod in (p.pod for p in self.pods_by_name.values() if p.pod.owner == owner and self._serves(p)):
                living.add(pod.address)
                if part is Part.SENTINEL:
                    if pod.address not in self.redis.sentinels and home in self.redis.servers:
                        self.redis.start_sentinel(pod.address, home, lambda: self._redis_pod(Part.MASTER) or None)
                elif pod.address not in self.redis.servers:
                    name = None if part is Part.MASTER else lambda: self._redis_pod(Part.MASTER) or None
                    self.redis.start_server(pod.address, name)
        for address in [*self.redis.servers]:
            if address not in living:
                self.redis.stop_server(address)
        for address in [*self.redis.sentinels]:
            if address not in living:
                self.redis.stop_sentinel(address)
        self._run_clusters()

    def _run_clusters(self) -> None:
        """A pod's node has its volume, a stand-in's is as new as the pod."""
        volumes = {
            p.pod.address: p.pod.uid if LABEL in p.pod.labels else p.pod.name
            for p in self.pods_by_name.values()
            if self._serves(p) and (LABEL in p.pod.labels or self._is_of_cluster(p.pod.owner))
        }
        nodes = self.redis.cluster.nodes
        for address in [a for a in nodes if a not in volumes]:
            self.redis.cluster.stop(address)
        for address, volume in volumes.items():
            if address not in nodes:
                self.redis.cluster.start(address, volume)

    def _is_of_cluster(self, owner: Owner | None) -> bool:
        state = self.workloads_by_owner.get(owner) if owner else None
        return state is not None and state.workload.annotations.get(PART) == Part.CLUSTER

    def _serves(self, state: PodState) -> bool:
        return bool(state.pod.node) and state.gone_at is None and self.time >= state.ready_at

    def _redis_pod(self, part: Part) -> str:
        """The address of the first pod that is this part and runs."""
        for state in self.pods_by_name.values():
            owner = self.workloads_by_owner.get(state.pod.owner) if state.pod.owner else None
            if owner and owner.workload.annotations.get(PART) == part and self._serves(state):
                return state.pod.address
        return ""

    def _by_owner(self) -> dict[Owner | None, list[PodState]]:
        """The pods of every controller: one pass for all of them."""
        found: dict[Owner | None, list[PodState]] = {}
        for state in self.pods_by_name.values():
            found.setdefault(state.pod.owner, []).append(state)
        return found

    def _run_workloads(self) -> None:
        pods = self._by_owner()
        for owner, state in self.workloads_by_owner.items():
            if state.daemon:
                self._run_daemons(owner, state)
            elif owner.kind == "Job":
                self._run_job(owner, state)
            else:
                self._run_replicas(owner, state, pods.get(owner, []))

    def _run_daemons(self, owner: Owner, state: WorkloadState) -> None:
        for node in self.nodes_by_name.values():
            key = (owner.namespace, f"{owner.name}-{node.name}")
            # The controller tolerates a node's conditions, and no taint of ours.
            may = state.tolerant or HARD_TAINT not in node.taints
            if key not in self.pods_by_name and may:
                self._create_pod(owner, key[1], state, node=node.name)

    def _run_job(self, owner: Owner, state: WorkloadState) -> None:
        if owner not in self.jobs_begun:
            self.jobs_begun.add(owner)
            self._create_pod(owner, f"{owner.name}-pod", state)

    def _run_replicas(self, owner: Owner, state: WorkloadState, pods: Sequence[PodState]) -> None:
        active = [p for p in pods if p.gone_at is None]
        wanted = state.workload.desired
        if len(active) == wanted and all(p.revision == state.restarts for p in active):
            return
        current = [p for p in active if p.revision == state.restarts]
        outdated = [p for p in active if p.revision != state.restarts]
        if outdated and len(active) <= wanted and all(p.pod.ready for p in current):
            self._create_pod(owner, self._name(owner), state)
        elif outdated and len(active) > wanted and all(p.pod.ready for p in current):
            self._delete(outdated[0])
        for surplus in active[wanted:] if not outdated else []:
            self._delete(surplus)
        if len(active) < wanted:
            if owner.kind == "StatefulSet":
                for ordinal in range(wanted):
                    if (owner.namespace, f"{owner.name}-{ordinal}") not in self.pods_by_name:
                        self._create_pod(owner, f"{owner.name}-{ordinal}", state)
            else:
                for _ in range(wanted - len(active)):
                    self._create_pod(owner, self._name(owner), state)

    def _create_pod(self, owner: Owner, name: str, state: WorkloadState, node: str = "") -> None:
        pod = Pod(
            owner.namespace,
            name,
            uid=f"uid-{self._next()}",
            node=node,
            owner=owner,
            phase="Pending",
            ready=False,
            labels=dict(state.labels),
            claims=(f"data-{name}",) if state.claims else (),
            address=self._address(),
            resource_version=self._next(),
            ends=owner.kind == "Job",
            priority=self.priorities.get(owner, 0),
            annotations={RESTARTED_FOR: state.restarts} if state.restarts else {},
            tolerations=(Toleration(operator="Exists"),) if state.tolerant else (),
        )
        self.pods_by_name[owner.namespace, name] = PodState(
            pod, self.time + self.delays.pod_start, revision=state.restarts
        )

    def _delete(self, state: PodState) -> None:
        """Its containers run on, and pass their probes, until they have ended."""
        state.gone_at = self.time + self.delays.grace
        state.pod = replace(state.pod, deleting_until=state.gone_at)

    def _schedule(self) -> None:
        for state in self.pods_by_name.values():
            if state.pod.node or state.gone_at is not None:
                continue
            node = self._place(state.pod)
            state.pod = replace(state.pod, node=node, unschedulable_because="" if node else "no node is available")
            if node:
                state.ready_at = self.time + self.delays.pod_start

    def _place(self, pod: Pod) -> str:
        owner = self.workloads_by_owner[pod.owner] if pod.owner else None
        if pod.owner in self.room_for:
            placed = sum(1 for p in self.pods_by_name.values() if p.pod.owner == pod.owner and p.pod.node)
            if placed >= self.room_for[pod.owner]:
                return ""
        fits = [
            n
            for n in self.nodes_by_name.values()
            if n.ready
            and not n.unschedulable
            and (all(t.effect == Effect.PREFER_NO_SCHEDULE for t in n.taints) or (owner is not None and owner.tolerant))
            and (owner is None or not owner.zone or n.zone == owner.zone)
            and pod.labels.get("zone", n.zone) == n.zone
            and not (pod.claims and self._attached_elsewhere(pod, n.name))
        ]
        if not fits:
            return ""
        load = {n.name: sum(1 for p in self.pods_by_name.values() if p.pod.node == n.name) for n in fits}
        return min(fits, key=lambda n: (n.roll_taint is not None, load[n.name], n.name)).name

    def _attached_elsewhere(self, pod: Pod, node: str) -> bool:
        return any(self.attached.get(claim, (node, None))[0] != node for claim in pod.claims)

    def _run_volumes_and_targets(self) -> None:
        using = {claim: s.pod.node for s in self.pods_by_name.values() if s.pod.node for claim in s.pod.claims}
        for claim, node in using.items():
            self.attached.setdefault(claim, (node, None))
        for claim, (node, until) in list(self.attached.items()):
            if using.get(claim) == node or claim in self.stuck:
                self.attached[claim] = (node, None)
            elif until is None:
                self.attached[claim] = (node, self.time + self.delays.detach)
            elif self.time >= until:
                del self.attached[claim]
        for key, target in list(self.targets.items()):
            if target.state == "initial":
                if self.time >= target.changes_at and self._node_of(key[1]):
                    target.state = "healthy"
            elif target.state == "draining" and self.time >= target.changes_at:
                del self.targets[key]

    # Invariants

    def capacity(self) -> dict[str, int]:
        """Ready, schedulable nodes per zone."""
        counts = dict.fromkeys(ZONES, 0)
        for node in self.nodes_by_name.values():
            hard = any(t.effect != Effect.PREFER_NO_SCHEDULE for t in node.taints)
            if node.ready and not node.unschedulable and not hard:
                counts[node.zone] += 1
        return counts

    def check(self) -> None:
        """Raises InvariantBroken."""
        if self.baseline is not None:
            for zone, count in self.capacity().items():
                if count < self.baseline[zone]:
                    raise InvariantBroken(
                        f"N3: {count} schedulable nodes in {zone}, {self.baseline[zone]} at the start"
                    )
        for watcher in self.watchers:
            watcher(self)

    def unavailable(self, owner: Owner) -> int:
        """How many of the wanted pods are not Ready now."""
        pods = (p.pod for p in self.pods_by_name.values() if p.pod.owner == owner)
        ready = sum(1 for p in pods if p.ready and not p.deleting)
        return max(0, self.workloads_by_owner[owner].workload.desired - ready)

    def _effect(self, what: str) -> None:
        self.effects.append(what)
        self._settle()
        if self.kill_after is not None and len(self.effects) == self.kill_after:
            raise Killed(what)

    # Kubernetes

    def server_version(self) -> str:
        return self.control_plane

    def nodes(self) -> list[Node]:
        return list(self.nodes_by_name.values())

    def node(self, name: str) -> Node | None:
        return self.nodes_by_name.get(name)

    def update_node(
        self,
        node: Node,
        *,
        taints: Sequence[Taint] | None = None,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        unschedulable: bool | None = None,
    ) -> Node:
        current = self.nodes_by_name.get(node.name)
        if current is None:
            raise NotFound(f"node {node.name} not found")
        if current.resource_version != node.resource_version:
            raise Conflict(f"node {node.name} was changed")
        if taints is not None:
            hardened = any(t.key == ROLL_TAINT_KEY for t in taints)
            if hardened and self.planned and current.instance not in self.planned:
                raise InvariantBroken(f"N4: {node.name} is not of the plan and was tainted")
            untouched = [t for t in current.taints if t.key != ROLL_TAINT_KEY]
            if [t for t in taints if t.key != ROLL_TAINT_KEY] != untouched:
                raise InvariantBroken(f"N4: taints of others on {node.name} were changed")
        if unschedulable is False and self.machines[current.instance].lifecycle.startswith("Terminating"):
            raise InvariantBroken(f"N2: the cordon of {node.name} was lifted while its instance goes")
        changed = replace(
            current,
            taints=current.taints if taints is None else tuple(taints),
            annotations=_merged(current.annotations, annotations),
            labels=_merged(current.labels, labels),
            unschedulable=current.unschedulable if unschedulable is None else unschedulable,
        )
        result = self._set_node(changed)
        self._effect(f"update node {node.name}: {taints=} {annotations=} {labels=} {unschedulable=}")
        return result

    def pods(self) -> list[Pod]:
        return [p.pod for p in self.pods_by_name.values()]

    def pods_on(self, node: str) -> list[Pod]:
        return [p.pod for p in self.pods_by_name.values() if p.pod.node == node]

    def pods_of(self, workload: Workload) -> list[Pod]:
        selector = workload.selector or Selector()
        in_namespace = (p.pod for p in self.pods_by_name.values() if p.pod.namespace == workload.owner.namespace)
        return [p for p in in_namespace if selector.matches(p.labels)]

    def evict(self, pod: Pod) -> Eviction:
        state = self.pods_by_name.get((pod.namespace, pod.name))
        if state is None or state.pod.uid != pod.uid:
            return Eviction(EvictionStatus.GONE)
        self.asked_to_evict.append(str(pod))
        if words := self.denials.get(str(pod)):
            return Eviction(EvictionStatus.DENIED, words)
        if state.gone_at is not None:
            return Eviction(EvictionStatus.EVICTED)
        budgets = [b for b in self.budgets() if b.covers(state.pod)]
        if len(budgets) > 1:
            return Eviction(EvictionStatus.FORBIDDEN_BY_TWO_BUDGETS, "more than one PodDisruptionBudget")
        if budgets and state.pod.ready and budgets[0].allowed < 1:
            budget = budgets[0]
            return Eviction(
                EvictionStatus.REFUSED,
                f"The disruption budget {budget.name} needs {budget.desired_healthy} healthy pods "
                f"and has {budget.healthy} currently",
            )
        self._check_others_serve(state.pod)
        self._delete(state)
        self._effect(f"evict {pod}")
        return Eviction(EvictionStatus.EVICTED)

    def _check_others_serve(self, pod: Pod) -> None:
        """Nobody watches over a DaemonSet's pods where there is no budget: the last that serves is not evicted."""
        if not pod.ready or not serving_daemons([pod], self.node_services):
            return
        alike = (s.pod for s in self.pods_by_name.values() if s.pod.owner == pod.owner and s.gone_at is None)
        if not any(p.ready and p.uid != pod.uid for p in alike):
            raise InvariantBroken(f"N5: {pod} was evicted, and nobody else serves")

    def delete_pod(self, pod: Pod) -> None:
        state = self.pods_by_name.get((pod.namespace, pod.name))
        if state is None or state.pod.uid != pod.uid or state.gone_at is not None:
            return
        self._delete(state)
        self._effect(f"delete {pod}")

    def stand_ins(self, namespace: str, group: str) -> list[Pod]:
        pods = (p.pod for p in self.pods_by_name.values())
        return [p for p in pods if p.namespace == namespace and p.labels.get(LABEL) == group and not p.mirror]

    def create_stand_in(self, workload: Workload, pod: Pod, zone: str, marks: Mapping[str, str]) -> str:
        state = self.workloads_by_owner.get(workload.owner)
        if state is None:
            raise NotFound(f"{workload.owner} is gone.")
        if state.workload.uid != workload.uid:
            raise Conflict(f"{workload.owner} has been replaced by another of the same name.")
        name = name_for(pod.name)
        if (pod.namespace, name) not in self.pods_by_name:
            # The zone is part of the pod's affinity in truth.
            labels = {LABEL: workload.annotations[GROUP], "zone": zone}
            made = Pod(
                pod.namespace,
                name,
                uid=f"uid-{self._next()}",
                phase="Pending",
                ready=False,
                labels=labels,
                annotations=dict(marks),
                address=self._address(),
                resource_version=self._next(),
            )
            self.pods_by_name[pod.namespace, name] = PodState(made, self.time + self.delays.pod_start)
        elif name not in {p.name for p in self.stand_ins(pod.namespace, workload.annotations[GROUP])}:
            raise Permanent(f"Pod {pod.namespace}/{name} has the name of a stand-in and is none: delete it.")
        self._effect(f"create redis pod {name}")
        return ""

    def annotate_pod(self, pod: Pod, annotations: Mapping[str, str | None]) -> Pod:
        state = self.pods_by_name.get((pod.namespace, pod.name))
        if state is None or state.pod.uid != pod.uid:
            raise NotFound(f"pod {pod} not found")
        if state.pod.resource_version != pod.resource_version:
            raise Conflict(f"pod {pod} was changed")
        merged = _merged(state.pod.annotations, annotations)
        state.pod = replace(state.pod, annotations=merged, resource_version=self._next())
        self._effect(f"annotate {pod}: {annotations}")
        return state.pod

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        try:
            return dict(self.secrets[namespace, name])
        except KeyError as error:
            raise NotFound(f"secret {namespace}/{name} not found") from error

    def budgets(self) -> list[Budget]:
        return [self._judged(b) for b in self.budgets_by_name.values()]

    def _judged(self, budget: Budget) -> Budget:
        pods = [p for p in self.pods_by_name.values() if budget.covers(p.pod)]
        expected = sum(self.workloads_by_owner[o].workload.desired for o in {p.pod.owner for p in pods if p.pod.owner})
        healthy = sum(1 for p in pods if p.pod.ready and not p.pod.deleting)
        if budget.min_available:
            # Whatever owns them, the pods that are there are the ones expected.
            expected, desired_healthy = len(pods), int(budget.min_available)
        else:
            desired_healthy = max(0, expected - int(budget.max_unavailable))
        return replace(
            budget,
            expected=expected,
            healthy=healthy,
            desired_healthy=desired_healthy,
            allowed=max(0, healthy - desired_healthy) if expected else 0,
        )

    def create_budget(
        self, workload: Workload, name: str, annotations: Mapping[str, str], *, min_available: int | None = None
    ) -> str:
        key = (workload.owner.namespace, name)
        if words := self.budget_denials.get(workload.owner.namespace):
            return words
        if key in self.budgets_by_name:
            return ""
        self.budgets_by_name[key] = Budget(
            *key,
            uid=f"uid-{self._next()}",
            selector=workload.selector,
            max_unavailable="1" if min_available is None else "",
            min_available="" if min_available is None else str(min_available),
            ours=True,
        )
        self._effect(f"create budget {name}")
        return ""

    def delete_budget(self, budget: Budget) -> None:
        key = (budget.namespace, budget.name)
        current = self.budgets_by_name.get(key)
        if current and current.uid == budget.uid:
            del self.budgets_by_name[key]
            self._effect(f"delete budget {budget}")

    def workload(self, owner: Owner) -> Workload | None:
        if owner.kind in KNOWN_KINDS and not (is_object_name(owner.namespace) and is_object_name(owner.name)):
            raise BadRequest(f"{str(owner)!r} is no name that Kubernetes objects have.")
        state = self.workloads_by_owner.get(owner)
        return self._counted(state) if state and owner.kind in KNOWN_KINDS else None

    def workloads(self) -> list[Workload]:
        return [self._counted(s) for o, s in self.workloads_by_owner.items() if o.kind in KNOWN_KINDS]

    def stateful_sets(self, namespace: str) -> list[Workload]:
        found = [w for w in self.workloads() if w.owner.kind == "StatefulSet"]
        return [w for w in found if w.owner.namespace == namespace]

    def _counted(self, state: WorkloadState) -> Workload:
        due = self.time - self.delays.status
        told = next((counts for at, counts in reversed(self._statuses) if at <= due), {})
        desired, ready, current = told.get(state.workload.owner, (0, 0, 0))
        return replace(
            state.workload,
            desired=desired if state.daemon else state.workload.desired,
            ready=ready,
            current=current,
            restarted_for=state.restarts,
        )

    def _run_statuses(self) -> None:
        """Controllers count after the fact: desired (of DaemonSets), Ready, all. Until its containers have ended, a
        StatefulSet counts a pod that is to end; the others leave it out at once."""
        counts, by_owner = {}, self._by_owner()
        for owner, state in self.workloads_by_owner.items():
            pods = by_owner.get(owner, [])
            active = pods if owner.kind == "StatefulSet" else [p for p in pods if p.gone_at is None]
            desired, current = 0, len(active)
            if state.daemon:
                homes = {p.pod.node for p in pods}
                desired, current = len(homes | self.nodes_by_name.keys()), len(homes)
            counts[owner] = (desired, sum(p.pod.ready for p in active), current)
        if self._statuses and self._statuses[-1][1] == counts:
            return
        self._statuses.append((self.time, counts))
        due = self.time - self.delays.status
        while len(self._statuses) > 1 and self._statuses[1][0] <= due:
            self._statuses.pop(0)

    def update_workload(
        self,
        workload: Workload,
        *,
        replicas: int | None = None,
        annotations: Mapping[str, str | None] | None = None,
        template_annotations: Mapping[str, str | None] | None = None,
    ) -> None:
        state = self.workloads_by_owner.get(workload.owner)
        if state is None:
            raise NotFound(f"{workload.owner} not found")
        if state.workload.resource_version != workload.resource_version:
            raise Conflict(f"{workload.owner} was changed")
        if template_annotations and needed_to_restart(workload.owner) in self.forbidden:
            raise AccessDenied(f"Cannot change {workload.owner}: the role may not patch it.")
        state.workload = replace(
            state.workload,
            desired=state.workload.desired if replicas is None else replicas,
            annotations=_merged(state.workload.annotations, annotations),
            resource_version=self._next(),
        )
        state.restarts = (template_annotations or {}).get(RESTARTED_FOR) or state.restarts
        self._effect(f"update {workload.owner}: {replicas=} {annotations=} {template_annotations=}")

    def cron_jobs(self) -> list[CronJob]:
        self._may_list("cronjobs", "batch")
        return self.cron_job_list

    def judges_of_evictions(self) -> list[str]:
        for resource in (
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "validatingadmissionpolicies",
        ):
            self._may_list(resource, "admissionregistration.k8s.io")
        return ["ValidatingWebhookConfiguration guard"] if self.denials else []

    def volumes(self) -> list[Volume]:
        return self.volume_list

    def services(self) -> list[Service]:
        return self.node_services

    def network_policies(self) -> list[NetworkPolicy]:
        self._may_list("networkpolicies", "networking.k8s.io")
        return self.network_policy_list

    def _may_list(self, resource: str, group: str) -> None:
        if not self.may("list", resource, group=group):
            raise AccessDenied(f"Cannot list {resource}: the role may not.")

    def csi_drivers(self, node: str) -> frozenset[str] | None:
        return frozenset({"ebs.csi.aws.com"}) if node in self.nodes_by_name else None

    def volume_limits(self) -> dict[str, dict[str, int]]:
        return {name: {"ebs.csi.aws.com": 25} for name in self.nodes_by_name}

    def attachments(self, node: str) -> list[str]:
        return sorted(claim for claim, (where, _) in self.attached.items() if where == node)

    def lease(self, name: str) -> Lease | None:
        namespace, _, alone = name.partition("/")
        if not self.may("get", "leases", group=LEASES, namespace=namespace, name=alone):
            raise AccessDenied(f"Cannot get the Lease {name}: the role may not.")
        return self.leases.get(name)

    def put_lease(self, lease: Lease) -> Lease:
        current = self.leases.get(lease.name)
        if (current.resource_version if current else "") != lease.resource_version:
            raise Conflict(f"Lease {lease.name} was changed")
        if sum(len(key) + len(value) for key, value in lease.annotations.items()) > ANNOTATIONS_LIMIT:
            most = f"metadata.annotations: Too long: must have at most {ANNOTATIONS_LIMIT} bytes"
            raise Permanent(f"Cannot write Lease {lease.name}: {most} (HTTP 422).")
        self.leases[lease.name] = replace(lease, resource_version=self._next())
        self._effect(f"lease {lease.name}: {lease.holder} {lease.annotations}")
        return self.leases[lease.name]

    def may(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        about = (verb, group, resource, namespace, name)
        return all((v.verb, v.api_group, v.resource, v.namespace, v.name) != about for v in self.forbidden)

    def group_may(self, verb: Verb) -> bool:
        return verb not in self.forbidden

    # AWS

    def groups(self, names: Sequence[str] = ()) -> list[Group]:
        return [self._filled(g) for n, g in sorted(self.groups_by_name.items()) if not names or n in names]

    def _filled(self, group: Group) -> Group:
        members = [
            m for m in self.machines.values() if m.group == group.name and m.state != "terminated" and self._knows(m)
        ]
        unknown = sum(1 for m in self._alive(group.name) if not self._knows(m))
        return replace(
            group,
            desired=group.desired - (unknown if self.sizes_lag else 0),
            instances=tuple(
                GroupInstance(m.id, m.zone, m.lifecycle, m.template, "m6i.large", m.protected) for m in members
            ),
        )

    def template_versions(self, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        found = {i: self.templates[i] for i in ids if i in self.templates}
        for template, (changed, before) in self.former_defaults.items():
            if template in found and self.time - changed < self.templates_lag:
                found[template] = (found[template][0], before)
        return found

    def template_tags(self, ids: Iterable[str]) -> dict[str, dict[str, str]]:
        return {i: dict(self.tags_of_templates) for i in ids if i in self.templates}

    def set_default_version(self, template: str, number: str) -> None:
        if not any(str(g.template and g.template.id) == template and self._recorded(g) for g in self._groups()):
            raise InvariantBroken(f"R1: the default version of {template} was changed with no record of it")
        self.former_defaults[template] = (self.time, self.templates[template][1])
        self.templates[template] = (self.templates[template][0], int(number))
        self._effect(f"default version of {template}: {number}")

    def set_template_version(self, group: str, template: str, number: str) -> None:
        self._point(group, template=LaunchTemplate(template, number))

    def set_configuration(self, group: str, name: str) -> None:
        self._point(group, configuration=name)

    def _point(self, group: str, **change: Any) -> None:
        current = self.groups_by_name[group]
        if not self._recorded(current):
            raise InvariantBroken(f"R1: the version of {group} was changed with no record of it")
        self.groups_by_name[group] = replace(current, **change)
        self._effect(f"{group} launches {change}")

    def _recorded(self, group: Group) -> bool:
        return GROUP_PUT_BACK in group.tags

    def _groups(self) -> list[Group]:
        return list(self.groups_by_name.values())

    def template_data(self, versions: Iterable[str]) -> dict[str, dict[str, str]]:
        image = f"resolve:ssm:{self.image_parameter}" if self.image_parameter else ""
        return {v: {"ImageId": image or f"ami-{v.rpartition(':')[2]}", "InstanceType": "m6i.large"} for v in versions}

    def images_now(self, versions: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(versions, self.image_now)

    def images_gone(self, images: Iterable[str]) -> frozenset[str]:
        return frozenset(images) & self.deregistered

    def instance_types(self, names: Iterable[str]) -> dict[str, InstanceType]:
        return {name: InstanceType(name, 2, 8 << 30) for name in names}

    def vcpu_quota(self) -> VcpuQuota:
        return self.quota

    def free_addresses(self, group: Group) -> dict[str, int]:
        return dict.fromkeys(group.zones, 100)

    def launch(self, group: str, zone: str, token: str) -> Launched:
        if token in self.tokens:
            return Launched(self.tokens[token])
        if self.launch_failures > 0:
            self.launch_failures -= 1
            return Launched(error="InsufficientInstanceCapacity", message="there is none now")
        current = self.groups_by_name[group]
        if current.template and f"ami-{self._number(current.template)}" in self.deregistered:
            return Launched(error="InvalidAMIID.NotFound", message="The image id does not exist")
        if current.desired >= current.maximum:
            return Launched(error="ValidationError", message=f"{group} would exceed its maximum {current.maximum}")
        machine = self._launch(group, zone)
        self.tokens[token] = machine.id
        self.groups_by_name[group] = replace(current, desired=current.desired + 1)
        self._effect(f"launch {machine.id} in {zone}")
        return Launched(machine.id)

    def set_desired(self, group: str, desired: int) -> None:
        current = self.groups_by_name[group]
        if not current.minimum <= desired <= current.maximum:
            raise Permanent(f"desired {desired} is outside {current.minimum}..{current.maximum}")
        if desired < current.desired:
            raise InvariantBroken("N3: the desired capacity was lowered to an absolute value")
        self.groups_by_name[group] = replace(current, desired=desired)
        self._effect(f"desired of {group}: {desired}")

    def set_maximum(self, group: str, maximum: int) -> None:
        current = self.groups_by_name[group]
        if GROUP_MAXIMUM not in current.tags:
            raise InvariantBroken(f"R1: the maximum of {group} was changed with no record of {current.maximum}")
        if maximum < current.desired:
            raise InvariantBroken(f"N2: maximum {maximum} below desired {current.desired} makes AWS terminate nodes")
        self.groups_by_name[group] = replace(current, maximum=maximum)
        self._effect(f"maximum of {group}: {maximum}")

    def suspend(self, group: str, processes: Iterable[str]) -> None:
        current, wanted = self.groups_by_name[group], frozenset(processes)
        if not wanted - current.suspended <= set(current.tags.get(GROUP_RESUME, "").split()):
            raise InvariantBroken(f"R1: processes of {group} were suspended with no record of it")
        self.groups_by_name[group] = replace(current, suspended=current.suspended | wanted)
        self._effect(f"suspend {sorted(wanted)} of {group}")

    def resume(self, group: str, processes: Iterable[str]) -> None:
        current = self.groups_by_name[group]
        self.groups_by_name[group] = replace(current, suspended=current.suspended - set(processes))
        self._effect(f"resume {group}")

    def tag_group(self, group: str, tags: Mapping[str, str]) -> None:
        current = self.groups_by_name[group]
        known, said = current.tags.get(GROUP_MAXIMUM, ""), tags.get(GROUP_MAXIMUM, "")
        original, _, raised = known.partition(" to ")
        theirs = current.maximum not in {int(size) for size in (original, raised) if size}
        if known and said and said.partition(" to ")[0] != original and not theirs:
            raise InvariantBroken(f"R1: the recorded maximum of {group} was overwritten")
        if len(current.tags | dict(tags)) > MOST_TAGS:
            raise Permanent(f"Cannot tag {group}: LimitExceeded: it may have {MOST_TAGS} tags.")
        self.groups_by_name[group] = replace(
            current, tags=current.tags | dict(tags), kept_tags=current.kept_tags | tags.keys()
        )
        self._effect(f"tag {group}: {dict(tags)}")

    def untag_group(self, group: str, keys: Iterable[str]) -> None:
        current, gone = self.groups_by_name[group], set(keys)
        self.groups_by_name[group] = replace(
            current,
            tags={k: v for k, v in current.tags.items() if k not in gone},
            kept_tags=current.kept_tags - gone,
        )
        self._effect(f"untag {group}: {sorted(gone)}")

    def instances(self, ids: Sequence[str]) -> dict[str, InstanceState]:
        return {
            m.id: InstanceState(m.id, m.state, dict(m.tags), m.launched, m.zone, m.image)
            for m in self.machines.values()
            if m.id in ids and self._knows(m)
        }

    def _knows(self, machine: MachineState) -> bool:
        return self.time - machine.launched >= self.settling_seconds

    def tag_instance(self, instance: str, tags: Mapping[str, str]) -> None:
        if not self._knows(self.machines[instance]):
            raise NotFound(f"Cannot tag {instance}: InvalidInstanceID.NotFound.")
        if self.tags_are_denied or self.time - self.machines[instance].launched < 2 * self.settling_seconds:
            raise AccessDenied(f"Cannot tag {instance}: its tags are not known yet.")
        self.machines[instance].tags |= dict(tags)
        self._effect(f"tag {instance}: {dict(tags)}")

    def untag_instance(self, instance: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.machines[instance].tags.pop(key, None)
        self._effect(f"untag {instance}")

    def protect(self, group: str, instance: str, *, protected: bool) -> None:
        self._may_protect(instance)
        self.machines[instance].protected = protected
        self._effect(f"protect {instance}: {protected}")

    def _may_protect(self, instance: str) -> None:
        """As Auto Scaling has it, whatever the group was last described with."""
        if (lifecycle := self.machines[instance].lifecycle) not in {"InService", "Standby"}:
            raise Transient(f"Cannot change scale-in protection of {instance} now: it is {lifecycle}.")

    def terminate(self, instance: str) -> None:
        machine = self.machines.get(instance)
        if machine is None or not machine.alive:
            return
        self._may_terminate(machine)
        group = self.groups_by_name[machine.group]
        self.groups_by_name[machine.group] = replace(group, desired=group.desired - 1)
        seconds = max((h.seconds for h in self.hooks if h.group == machine.group and h.terminating), default=0)
        if seconds:
            machine.held_by_hook, machine.changes_at = True, self.time + seconds
        else:
            self._shut_down(machine)
        self._effect(f"terminate {instance}")

    def _shut_down(self, machine: MachineState) -> None:
        machine.held_by_hook = False
        machine.state, machine.changes_at = "shutting-down", self.time + self.delays.shutdown
        if node := self._node_of(machine.id):
            self._set_node(replace(node, ready=False))

    def lifecycle_hooks(self, groups: Iterable[str]) -> list[LifecycleHook]:
        return [h for h in self.hooks if h.group in set(groups)]

    def _may_terminate(self, machine: MachineState) -> None:
        node = self._node_of(machine.id)
        if self.planned and machine.id not in self.planned and "eks-rolling/replaces" not in machine.tags:
            raise InvariantBroken(f"N4: {machine.id} is not of the plan and was terminated")
        if node:
            dead = self.time - self.silent.get(node.name, self.time) >= DEAD_SECONDS
            over = [
                p.uid for p in self.pods_on(node.name) if dead and p.deleting and self.time >= (p.deleting_until or 0)
            ]
            staying = [str(p) for p in self.pods_on(node.name) if not p.stays_with_node and p.uid not in over]
            if staying:
                raise InvariantBroken(f"N2: {machine.id} was terminated with {staying} on it")
            self._may_end_daemons(node.name)
            if self.attachments(node.name) and not dead:
                raise InvariantBroken(f"N2: {machine.id} was terminated with volumes attached")
            if machine.id in self.planned and NODE_ROLL not in node.annotations:
                raise InvariantBroken(f"N4: {machine.id} was terminated without a mark of the roll")
        if self.time < self.containers_until.get(machine.id, 0.0):
            raise InvariantBroken(f"N2: {machine.id} was terminated while containers run on it")
        if any(i == machine.id for _, i in self.targets):
            raise InvariantBroken(f"N2: {machine.id} was terminated while a target group uses it")

    def _may_end_daemons(self, node: str) -> None:
        daemons = [p for p in self.pods_on(node) if p.owner and p.owner.kind == "DaemonSet"]
        serving = [p for p in daemons if any(s.leads_to(p) for s in self.node_services)]
        if named := [str(p) for p in serving if p.ready or (p.deleting and p.phase == "Running")]:
            raise InvariantBroken(f"N5: {node} was terminated while clients are led to {named}, or are being answered")

    def replace_by_group(self, instance: str) -> None:
        """Terminates; the group launches another one as it is one short."""
        machine = self.machines.get(instance)
        if machine is None or machine.state in {"shutting-down", "terminated"}:
            return
        if self._node_of(instance) is not None:
            raise InvariantBroken(f"N2: {instance} was replaced with a node of its own")
        self._may_terminate(machine)
        self._shut_down(machine)
        self.replacing.append((machine.group, self.time + self.delays.scale_out))
        self._effect(f"replace {instance}")

    def targets_of(self, instances: Sequence[str], among: Collection[str] | None = None) -> list[TargetRegistration]:
        return [
            TargetRegistration(
                arn,
                instance,
                target.port,
                target.state,
                sum(1 for (g, i), t in self.targets.items() if g == arn and i != instance and t.state == "healthy"),
                self.delays.deregistration,
                others=sum(
                    1 for (g, i), t in self.targets.items() if g == arn and i != instance and t.state != "draining"
                ),
            )
            for (arn, instance), target in self.targets.items()
            if instance in instances and (among is None or arn in among)
        ]

    def deregister(self, target: TargetRegistration) -> None:
        state = self.targets.get((target.group, target.instance))
        if state and state.state != "draining":
            others = [t.state for (g, i), t in self.targets.items() if g == target.group and i != target.instance]
            if state.state == "healthy" and "healthy" not in others:
                raise InvariantBroken(f"N3: the last healthy target left {target.name}: {target.instance}")
            state.state, state.changes_at = "draining", self.time + self.delays.deregistration
            self._effect(f"deregister {target.instance} from {target.name}")

    def rehearse_restore(self, group: Group, instance: GroupInstance, registered: Sequence[TargetRegistration]) -> None:
        self._may_protect(instance.id)
        if self.cannot_restore:
            raise AccessDenied(self.cannot_restore)

    def register(self, target: TargetRegistration) -> None:
        lifecycle = self.machines[target.instance].lifecycle
        if lifecycle not in {"Pending", "InService"}:
            raise InvariantBroken(f"N2: {target.instance} is {lifecycle} and was registered with {target.name}")
        if self.machines[target.instance].state == "stopped":
            raise Permanent(f"Cannot register {target.instance} with {target.name}: InvalidTarget: it is not running.")
        there = self.targets.get((target.group, target.instance))
        if there is None or there.state == "draining":
            # One that is registered stays as healthy as it is.
            self.targets[target.group, target.instance] = TargetState(
                "initial", self.time + self.delays.target_healthy, target.port or 0
            )
        self._effect(f"register {target.instance} with {target.name}")

    def post(self, url: str, document: Mapping[str, Any], key: str, timeout_seconds: float) -> HttpAnswer:
        return self._asked(url, document)

    def invoke(self, function: str, document: Mapping[str, Any], timeout_seconds: float) -> HttpAnswer:
        return self._asked(function, document)

    def _asked(self, hook: str, document: Mapping[str, Any]) -> HttpAnswer:
        self.asked.append(dict(document))
        answers = self.hook_answers.get(hook, [])
        answer = answers.pop(0) if answers else HttpAnswer(200)
        self._effect(f"hook {document['key']}")
        return answer

    def get(self, url: str, timeout_seconds: float) -> HttpAnswer:
        return self.pages.get(url, HttpAnswer(fault="connection refused"))

    def alarms_firing(self, names: Sequence[str]) -> list[str]:
        if missing := self.alarms_missing(names):
            raise NotFound(f"The gate's alarms {', '.join(missing)} do not exist; correct the setting alarms.")
        return sorted(self.alarms & set(names))

    def alarms_missing(self, names: Sequence[str]) -> list[str]:
        return sorted(self.deleted_alarms & set(names))

    def save(self, key: str, text: str, content_type: str) -> str:
        self.documents[key] = text
        return f"s3://world/{key}"

    def load(self, prefix: str) -> list[str]:
        return [text for key, text in sorted(self.documents.items()) if key.startswith(prefix)]

    def notify(self, message: Message) -> None:
        self.messages.append((message.subject, message.text))
        self.told.append(message)

    def history(self, execution: str) -> list[dict[str, Any]]:
        # The interpreter's ARNs are shorter than those that CDK writes into a definition.
        *_, machine, name = execution.split(":")
        return self.histories.get(f"execution:{machine.rpartition('-')[2]}:{name}", [])

    # Helpers

    def _launch(self, group: str, zone: str) -> MachineState:
        made_of = self.groups_by_name[group]
        version = f"{CONFIGURATION}{made_of.configuration}"
        if made_of.template:
            version = f"{made_of.template.id}:{self._number(made_of.template)}"
        machine = MachineState(
            f"i-{self._next()}",
            group,
            zone,
            version,
            launched=self.time,
            changes_at=self.time + self.delays.boot,
            image=self.image_now,
        )
        self.machines[machine.id] = machine
        return machine

    def _number(self, template: LaunchTemplate) -> int:
        latest, default = self.templates[template.id]
        return {"$Latest": latest, "$Default": default}.get(template.version) or int(template.version)

    def _add(
        self, kind: str, namespace: str, name: str, replicas: int, annotations: Mapping[str, str], **more: Any
    ) -> Owner:
        owner = Owner(kind, namespace, name)
        workload = Workload(
            owner,
            uid=f"uid-{name}",
            resource_version=self._next(),
            desired=replicas,
            selector=Selector((("app", name),)),
            annotations=dict(annotations),
            surges=kind == "Deployment",
        )
        self.workloads_by_owner[owner] = WorkloadState(workload, {"app": name}, **more)
        return owner

    def _address(self) -> str:
        number = int(self._next())
        return f"10.1.{number // 250}.{number % 250 + 1}"

    def _node_of(self, instance: str) -> Node | None:
        return next((n for n in self.nodes_by_name.values() if n.instance == instance), None)

    def _set_node(self, node: Node) -> Node:
        self._revision += 1
        self.nodes_by_name[node.name] = replace(node, resource_version=str(self._revision))
        return self.nodes_by_name[node.name]

    def _name(self, owner: Owner) -> str:
        return f"{owner.name}-{self._next()}"

    def _next(self) -> str:
        self._serial += 1
        return f"{self._serial:05d}"

    @staticmethod
    def _arn(name: str) -> str:
        return f"arn:aws:elasticloadbalancing:region:1:targetgroup/{name}/1"

    def snapshot(self) -> dict[str, Any]:
        """What must be as before at the end of any roll [R2], of instances that are not on their way out."""
        nodes = [n for n in self.nodes_by_name.values() if self.machines[n.instance].alive]
        return {
            "groups": {
                g.name: (g.minimum, g.maximum, g.desired, g.suspended, tuple(sorted(g.tags.items())))
                for g in self.groups_by_name.values()
            },
            "protected": sorted(m.id for m in self.machines.values() if m.alive and m.protected),
            "workloads": {
                str(o): (s.workload.desired, tuple(sorted(s.workload.annotations.items())))
                for o, s in self.workloads_by_owner.items()
            },
            "budgets": sorted(self.budgets_by_name),
            "lock": {name: lease.holder for name, lease in self.leases.items() if lease.holder},
            "marks": sorted(f"{n.name} {key}" for n in nodes for key in n.annotations if "eks-rolling" in key),
            "tags": sorted(
                f"{m.id} {key}" for m in self.machines.values() if m.alive for key in m.tags if "eks-rolling" in key
            ),
            "taints": sorted(n.name for n in nodes if n.taints),
            "cordons": sorted(n.name for n in nodes if n.unschedulable),
            "labels": sorted(f"{n.name} {k}" for n in nodes for k in n.labels),
        }


def _merged(current: Mapping[str, str], changes: Mapping[str, str | None] | None) -> dict[str, str]:
    merged = dict(current)
    for key, value in (changes or {}).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
