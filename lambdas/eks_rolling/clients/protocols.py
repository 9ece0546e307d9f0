"""What steps can do to the world. Steps see these protocols only; `tests/world.py` implements them in memory.

Every write carries a precondition: the resourceVersion or UID of what was observed, or a name that makes it idempotent.
A precondition that no longer holds raises `Conflict`: the step is run again and looks again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from eks_rolling.observed.aws import (
    Group,
    GroupInstance,
    InstanceState,
    InstanceType,
    LifecycleHook,
    TargetRegistration,
    VcpuQuota,
)
from eks_rolling.observed.kubernetes import Budget, CronJob, Lease, Node, Owner, Pod, Service, Taint, Volume, Workload
from eks_rolling.observed.network import NetworkPolicy
from eks_rolling.observed.redis import (
    Address,
    ClusterNode,
    Endpoint,
    KnownSentinel,
    Role,
    Sentinel,
    Server,
    Silent,
    Stranger,
)
from eks_rolling.plan.permissions import Verb
from eks_rolling.report.messages import Message
from eks_rolling.settings import Settings


class EvictionStatus(StrEnum):
    """How the Eviction API answered."""

    EVICTED = "evicted"
    GONE = "gone"
    REFUSED = "refused"
    FORBIDDEN_BY_TWO_BUDGETS = "two budgets"
    DENIED = "denied"
    """By admission: a webhook, a policy, or a plugin of the API server."""
    BUSY = "busy"
    """The API server protects itself from load, and decided nothing."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """The answer to one eviction. `reason` is the server's or a webhook's own text; `retry_after` is in seconds, 0
    where the server gave no hint."""

    status: EvictionStatus
    reason: str = ""
    retry_after: float = 0.0

    @property
    def granted(self) -> bool:
        """Whether the pod goes, or has gone."""
        return self.status in {EvictionStatus.EVICTED, EvictionStatus.GONE}


@dataclass(frozen=True, slots=True)
class Launched:
    """The answer to a synchronous launch: an instance id, or the error code and message EC2 gave."""

    instance: str = ""
    error: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to a request, or the `fault` for which there is none. `uncalled`: what was to answer was not even
    called, for a reason that passes."""

    status: int = 0
    body: str = ""
    fault: str = ""
    uncalled: bool = False


class Kubernetes(Protocol):
    """The cluster."""

    def server_version(self) -> str:
        """The API server's version, such as "v1.31.2-eks-1234"; "" where the cluster does not tell us."""
        ...

    def nodes(self) -> list[Node]: ...

    def node(self, name: str) -> Node | None: ...

    def update_node(
        self,
        node: Node,
        *,
        taints: Sequence[Taint] | None = None,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        unschedulable: bool | None = None,
    ) -> Node:
        """One patch under the node's resourceVersion. None as a value removes the key. Raises Conflict, NotFound."""
        ...

    def pods(self) -> list[Pod]: ...

    def pods_on(self, node: str) -> list[Pod]: ...

    def pods_of(self, workload: Workload) -> list[Pod]:
        """The pods that the workload's selector matches, wherever they are."""
        ...

    def evict(self, pod: Pod) -> Eviction:
        """Asks the Eviction API (policy/v1), under the pod's UID."""
        ...

    def budgets(self) -> list[Budget]: ...

    def create_budget(
        self, workload: Workload, name: str, annotations: Mapping[str, str], *, min_available: int | None = None
    ) -> str:
        """A budget of ours over the workload's selector: maxUnavailable 1, or that minAvailable for a controller of a
        kind that the disruption controller cannot count. One of that name is left as it is. Answers with which words
        admission, or a quota, denies it; "" where it does not."""
        ...

    def delete_budget(self, budget: Budget) -> None:
        """Deletes under the UID; gone already is fine."""
        ...

    def workload(self, owner: Owner) -> Workload | None:
        """A Deployment, StatefulSet, ReplicaSet or DaemonSet; None if it is gone or of another kind."""
        ...

    def workloads(self) -> list[Workload]:
        """Every Deployment, StatefulSet and DaemonSet."""
        ...

    def update_workload(
        self,
        workload: Workload,
        *,
        replicas: int | None = None,
        annotations: Mapping[str, str | None] | None = None,
        template_annotations: Mapping[str, str | None] | None = None,
    ) -> None:
        """One patch under the workload's resourceVersion. Raises Conflict, NotFound."""
        ...

    def cron_jobs(self) -> list[CronJob]:
        """Those that are not suspended; none where the server does not have their API. Raises AccessDenied."""
        ...

    def judges_of_evictions(self) -> list[str]:
        """The webhooks and admission policies that may deny an eviction, as "KIND NAME"; none of a kind that the server
        does not have. Raises AccessDenied."""
        ...

    def volumes(self) -> list[Volume]: ...

    def services(self) -> list[Service]:
        """Every Service."""
        ...

    def network_policies(self) -> list[NetworkPolicy]:
        """Every NetworkPolicy; none where the server does not have their API. Raises AccessDenied."""
        ...

    def stateful_sets(self, namespace: str) -> list[Workload]: ...

    def delete_pod(self, pod: Pod) -> None:
        """Deletes under the UID; gone already, or another one, is fine."""
        ...

    def stand_ins(self, namespace: str, group: str) -> list[Pod]:
        """The group's stand-ins, by their label."""
        ...

    def create_stand_in(self, workload: Workload, pod: Pod, zone: str, marks: Mapping[str, str]) -> str:
        """Creates the pod that stands in for `pod`, with these annotations (`eks_rolling.redis.stand_in`).

        It may be there already. Answers the words with which admission or a quota denies it, "" if it is there. Raises
        NotFound when the workload is gone, Conflict when it changed since it was observed, Permanent where another pod
        has the name.
        """
        ...

    def annotate_pod(self, pod: Pod, annotations: Mapping[str, str | None]) -> Pod:
        """One patch under the pod's resourceVersion. None as a value removes the key. Answers the pod as it is then.

        Raises Conflict, NotFound.
        """
        ...

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """A Secret's keys, decoded. Raises NotFound, AccessDenied."""
        ...

    def csi_drivers(self, node: str) -> frozenset[str] | None:
        """Drivers registered in the node's CSINode; None while there is none."""
        ...

    def volume_limits(self) -> dict[str, dict[str, int]]:
        """Node -> CSI driver -> how many of its volumes the node takes; only limits that a CSINode states."""
        ...

    def attachments(self, node: str) -> list[str]:
        """Persistent volumes that a VolumeAttachment holds on the node."""
        ...

    def lease(self, name: str) -> Lease | None: ...

    def put_lease(self, lease: Lease) -> Lease:
        """Creates (no resourceVersion) or replaces under the resourceVersion. Raises Conflict."""
        ...

    def may(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        """Whether the API server would let the caller do that, which anyone may ask.

        `group` is the API group, "" for the core one; `namespace` and `name` are "" for all. Raises AccessDenied where
        the cluster's administrators took even the question away.
        """
        ...

    def group_may(self, verb: Verb) -> bool:
        """Whether the verb's Kubernetes group has it, as the API server's authorizers say."""
        ...


class Aws(Protocol):
    """The account."""

    def groups(self, names: Sequence[str] = ()) -> list[Group]:
        """The named groups (unknown names are absent), or every group of the cluster."""
        ...

    def lifecycle_hooks(self, groups: Iterable[str]) -> list[LifecycleHook]: ...

    def template_versions(self, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Per launch template id: (latest, default) version numbers. One that does not exist is absent."""
        ...

    def template_tags(self, ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """Per launch template id the template's own tags. One that does not exist is absent."""
        ...

    def set_default_version(self, template: str, number: str) -> None:
        """Makes that version of a launch template its default one. Raises AccessDenied, NotFound, Permanent."""
        ...

    def set_template_version(self, group: str, template: str, number: str) -> None:
        """Points a group without a mixed instances policy at that version. AWS asks for ec2:RunInstances and
        iam:PassRole as well. Raises AccessDenied, NotFound, Permanent."""
        ...

    def set_configuration(self, group: str, name: str) -> None:
        """Points a group at a launch configuration. Raises AccessDenied, NotFound, Permanent."""
        ...

    def template_data(self, versions: Iterable[str]) -> dict[str, dict[str, str]]:
        """Per "lt-id:number" or "lc:NAME" what that version or launch configuration says, field by field; those that
        are gone are absent."""
        ...

    def images_now(self, versions: Iterable[str]) -> dict[str, str]:
        """Per "lt-id:number" the image that its Systems Manager parameter names now; absent where that cannot be
        found out."""
        ...

    def images_gone(self, images: Iterable[str]) -> frozenset[str]:
        """Those of these images from which the account can launch nothing: deregistered, disabled, or no longer shared
        with it."""
        ...

    def instance_types(self, names: Iterable[str]) -> dict[str, InstanceType]:
        """EC2's instance types of these names. One that the region does not have is absent."""
        ...

    def vcpu_quota(self) -> VcpuQuota:
        """The limit on running on-demand standard instances, and how much of it is used. Raises nothing."""
        ...

    def free_addresses(self, group: Group) -> dict[str, int]:
        """Free private addresses per zone in the group's subnets, as far as they exist."""
        ...

    def launch(self, group: str, zone: str, token: str) -> Launched:
        """LaunchInstances of one instance in the zone. The same token launches once."""
        ...

    def set_desired(self, group: str, desired: int) -> None: ...

    def set_maximum(self, group: str, maximum: int) -> None: ...

    def suspend(self, group: str, processes: Iterable[str]) -> None: ...

    def resume(self, group: str, processes: Iterable[str]) -> None: ...

    def tag_group(self, group: str, tags: Mapping[str, str]) -> None: ...

    def untag_group(self, group: str, keys: Iterable[str]) -> None: ...

    def instances(self, ids: Sequence[str]) -> dict[str, InstanceState]:
        """EC2's view; ids it no longer knows are absent."""
        ...

    def tag_instance(self, instance: str, tags: Mapping[str, str]) -> None: ...

    def untag_instance(self, instance: str, keys: Iterable[str]) -> None: ...

    def protect(self, group: str, instance: str, *, protected: bool) -> None:
        """Sets or lifts scale-in protection."""
        ...

    def terminate(self, instance: str) -> None:
        """Terminates through the group, lowering the desired capacity by one. Gone already is fine."""
        ...

    def replace_by_group(self, instance: str) -> None:
        """Terminates through the group, whose desired capacity stays: it launches another one. Gone already is fine."""
        ...

    def targets_of(self, instances: Sequence[str], among: Collection[str] | None = None) -> list[TargetRegistration]:
        """Where the instances are registered, attached to their group or not; classic load balancers too. An address
        instead of an instance id asks for what is registered by address.

        ELB says of each target group alone who is in it. `among` (ARNs, and names of classic ones) leaves the others
        out: enough to go on waiting, never to go on.
        """
        ...

    def rehearse_restore(self, group: Group, instance: GroupInstance, registered: Sequence[TargetRegistration]) -> None:
        """Makes the calls of a restore without effect: sets values that are set already, removes what is not there.

        Raises AccessDenied for the first that the role may not call.
        """
        ...

    def deregister(self, target: TargetRegistration) -> None: ...

    def register(self, target: TargetRegistration) -> None: ...

    def alarms_firing(self, names: Sequence[str]) -> list[str]:
        """Raises NotFound where one does not exist."""
        ...

    def alarms_missing(self, names: Sequence[str]) -> list[str]:
        """Those that do not exist."""
        ...

    def save(self, key: str, text: str, content_type: str) -> str:
        """Stores a document; answers its s3:// address."""
        ...

    def load(self, prefix: str) -> list[str]:
        """The texts of every document below the prefix."""
        ...

    def notify(self, message: Message) -> None:
        """Publishes to the topic: text for people, JSON for subscribers by HTTPS, attributes for filter policies."""
        ...

    def invoke(self, function: str, document: Mapping[str, Any], timeout_seconds: float) -> HttpAnswer:
        """Calls a user's Lambda function once; what it returns is the body of a 200, what it raises the fault."""
        ...

    def history(self, execution: str) -> list[dict[str, Any]]:
        """An execution's events as GetExecutionHistory has them, oldest first."""
        ...


class Redis(Protocol):
    """Redis servers and sentinels, one command a call. Times out after seconds, so that a step always ends.

    `server` and `sentinel` answer `Silent` for what does not answer; the other calls raise Transient. All raise
    AccessDenied where the credentials are refused or certificates do not match, NotFound and BadRequest where a Secret
    lacks what it must hold, and Permanent where something else than Redis answers. Writes raise Transient where the
    server does not answer or its answer is an error that may pass, AccessDenied where it refuses the command, and
    Conflict if the server is not the one that was observed: `expected` is compared by run id and role on the same
    connection, just before. No write is sent twice.
    """

    def server(self, endpoint: Endpoint) -> Server | Silent: ...

    def sentinel(self, endpoint: Endpoint, name: str) -> Sentinel | Silent: ...

    def cluster_node(self, endpoint: Endpoint) -> ClusterNode | Silent: ...

    def stranger(self, endpoint: Endpoint) -> Stranger | Silent:
        """A server that nobody declared: whatever it says of itself, of any kind and version."""
        ...

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        """Role and replication offset alone, by INFO replication: the quick look inside a switch."""
        ...

    def current_master(self, endpoint: Endpoint, name: str) -> Address | None:
        """A sentinel's GET-MASTER-ADDR-BY-NAME alone."""
        ...

    def follow(self, endpoint: Endpoint, expected: Server, master: Address) -> None:
        """REPLICAOF."""
        ...

    def promote(self, endpoint: Endpoint, expected: Server) -> None:
        """REPLICAOF NO ONE on a replica."""
        ...

    def pause_writes(self, endpoint: Endpoint, expected: Server, milliseconds: int) -> None:
        """CLIENT PAUSE ... WRITE; the server ends it by itself after that time."""
        ...

    def unpause(self, endpoint: Endpoint) -> None:
        """CLIENT UNPAUSE; not paused is fine."""
        ...

    def disconnect_clients(self, endpoint: Endpoint) -> None:
        """CLIENT KILL TYPE normal SKIPME yes, so that clients ask for the master again."""
        ...

    def meet(self, endpoint: Endpoint, expected: Server, newcomer: Address, bus_port: int | None = None) -> None:
        """CLUSTER MEET: the node introduces the newcomer, which everybody hears of by gossip, within seconds.

        `bus_port` is where the newcomer hears the others; 10,000 above its port by default.
        """
        ...

    def replicate(self, endpoint: Endpoint, expected: Server, master_id: str) -> None:
        """CLUSTER REPLICATE."""
        ...

    def set_electable(self, endpoint: Endpoint, expected: Server, *, electable: bool) -> None:
        """CONFIG SET cluster-replica-no-failover, until the process ends. It may be told to take over all the same."""
        ...

    def take_over(self, endpoint: Endpoint, expected: Server) -> None:
        """CLUSTER FAILOVER on a replica, never FORCE or TAKEOVER; it ends later, or silently does not."""
        ...

    def forget(self, endpoint: Endpoint, node_id: str) -> None:
        """CLUSTER FORGET, with which the node bans the id for 60 s; not known is fine."""
        ...

    def leave_cluster(self, endpoint: Endpoint, expected: Server) -> None:
        """CLUSTER RESET HARD: the node forgets all others and has a new id. A replica drops what it holds; a master
        that holds keys refuses (redis.io, CLUSTER RESET)."""
        ...

    def announce(self, endpoint: Endpoint, name: str, master: Address, epoch: int, by: KnownSentinel) -> None:
        """PUBLISH of a hello on a sentinel, in the name of another one: `master` is that name's master since `epoch`.

        The sentinel takes it over at once if `epoch` is higher than that of its configuration, ends an election that
        goes on, and tells the others with its next hello (sentinel.c, sentinelProcessHelloMessage). It takes `by` for
        one of its peers from then on, if it did not know it.
        """
        ...

    def reset(self, endpoint: Endpoint, name: str) -> None:
        """SENTINEL RESET: the sentinel forgets replicas and other sentinels, and finds those that live again.

        Raises NotFound where the sentinel monitors no master of that name.
        """
        ...

    def ask_every(self, endpoint: Endpoint, seconds: float) -> None:
        """SENTINEL DEBUG INFO-PERIOD (since Redis 7.0): how often the sentinel asks masters for INFO, all of them.

        It is 10 s wherever a sentinel starts, is saved nowhere, and what is due by then is asked at once.
        """
        ...


class Http(Protocol):
    """Addresses that users name in the settings. It raises nothing: what does not answer is an answer too."""

    def get(self, url: str, timeout_seconds: float) -> HttpAnswer: ...

    def post(self, url: str, document: Mapping[str, Any], key: str, timeout_seconds: float) -> HttpAnswer:
        """Posts JSON, with `key` as Idempotency-Key."""
        ...


class Clock(Protocol):
    """Epoch seconds."""

    def __call__(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Clients:
    """What a step is handed."""

    kubernetes: Kubernetes
    aws: Aws
    redis: Redis
    settings: Settings
    now: Clock
    sleep: Callable[[float], None]
    """Seconds. Redis steps and the last look before a termination sleep for fractions of a second between two looks,
    and a version that was put back, or made a moment ago, is given some seconds to spread; nothing else sleeps."""
    http: Http
