"""What a lab looks like: zones, Auto Scaling groups, delays. Read from YAML, kept as JSON."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.aws.faults import FaultSpec


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OverrideSpec(_Model):
    """The override of a mixed instances policy that asks for types by attributes, with a launch template of its own."""

    allowed_types: tuple[str, ...] = Field(min_length=1, description="patterns, as in AllowedInstanceTypes")
    launch_template: str


class GroupSpec(_Model):
    """An Auto Scaling group of worker nodes."""

    name: str
    launch_template: str | None = Field(None, description="several groups may share one; defaults to the group's name")
    zones: tuple[str, ...]
    size: int = Field(ge=0)
    min: int = 0
    max: int | None = Field(None, description="defaults to size")
    instance_type: str = "m6i.large"
    launch_configuration: bool = Field(False, description="launches from a launch configuration, not from a template")
    instance_types: tuple[str, ...] = Field((), description="the types of a mixed instances policy, the first at once")
    on_demand_percent: int = Field(100, ge=0, le=100, description="of a group with instance_types; the rest is spot")
    override: OverrideSpec | None = Field(None, description="its only one, which says what it launches")
    image_parameter: str | None = Field(
        None, description="the Systems Manager parameter by which its launch template names its image"
    )
    terminating_hook_seconds: int | None = Field(
        None, gt=0, description="a lifecycle hook that nobody completes holds each instance that goes for so long"
    )
    shutdown_grace_seconds: float = Field(
        0.0,
        ge=0,
        description="its kubelets' shutdownGracePeriod: how long pods have to end once their instance shuts down; "
        "with 0 they are killed with it",
    )
    launch_template_version: str = "$Latest"
    managed_node_group: bool = Field(False, description="tagged as an EKS managed node group, which a roll refuses")
    labels: dict[str, str] = {}
    taints: dict[str, str] = Field({}, description="key -> effect, with which its nodes register")
    target_groups: tuple[str, ...] = Field((), description="attached to the group: every instance becomes a target")

    @property
    def max_size(self) -> int:
        return self.size if self.max is None else self.max

    @property
    def template(self) -> str:
        """The launch template's name."""
        return self.launch_template or self.name

    @property
    def templates(self) -> tuple[str, ...]:
        """The names of all launch templates that it launches from."""
        if self.launch_configuration:
            return ()
        return (self.template, *([self.override.launch_template] if self.override else []))


class TargetGroupSpec(_Model):
    """A target group behind a listener of the lab's load balancer: of instances, or of the addresses of a Service's
    pods."""

    name: str
    node_port: int = Field(description="the targets' port: of addresses, their pods'")
    pods_of: str | None = Field(
        None, description="the Service, as namespace/name, whose ready pods' addresses are the targets; else instances"
    )
    listener_port: int
    health_path: str | None = Field(None, description="HTTP path of the health check; a TCP connect without one")
    health_port: int | None = None
    deregistration_delay_seconds: int = 5


class Delays(_Model):
    """Seconds that the lab takes for what the cloud would take longer for."""

    boot: float = Field(5.0, description="from launch to a registered node")
    terminate: float = Field(1.0, description="from the terminate call to the end of the instance")
    volume_attach: float = 0.3
    volume_detach: float = 0.5
    health_check_interval: float = 0.5
    node_ready: float = Field(0.5, description="from a registered node to a Ready one")
    node_removal: float = Field(
        2.0, description="from the end of an instance to the removal of its Node: the cloud controller takes about 45"
    )


class RestartBackoff(_Model):
    """Seconds that a container which ended waits before it starts again: none at first, then doubling."""

    first: float = Field(1.0, gt=0, description="a kubelet's is 10")
    longest: float = Field(10.0, gt=0, description="a kubelet's is 300")


class RedisTraffic(_Model):
    """Writers and readers of one Redis group, in the traffic's namespace."""

    kind: Literal["sentinel", "cluster"] = "sentinel"
    group: str = Field(description="its name in what the judge says")
    sentinels: str = Field("", description="the Service whose pods are its sentinels")
    master_name: str = ""
    replicas: int = Field(2, ge=1, description="that the sentinels know of before clients begin")
    service: str = Field("", description="a Service with nodes of the Redis Cluster, where clients begin")
    secret: str | None = Field(None, description="the Secret whose key `password` the clients use")
    megabytes: int = Field(0, ge=0, description="a data set that is there before clients begin")
    load_megabytes_per_second: float = Field(
        0.0, ge=0, description="large values, beside transactions, scripts, queues, messages and keys that expire"
    )
    writers: int = Field(4, ge=1)
    writes_per_second: float = Field(160.0, gt=0, description="of all writers together")


class TrafficSpec(_Model):
    """What the lab's clients do while it is rolled."""

    namespace: str = Field("shop", description="whose workloads are watched")
    service: str = Field("web", description="whose endpoints are asked")
    requests_per_second: float = Field(30.0, gt=0, description="on each way to the application")
    jobs_per_second: float = Field(4.0, gt=0)
    work_ms: int = Field(300, ge=0, description="how long a job takes")
    redis: tuple[RedisTraffic, ...] = ()


class MeanwhileSpec(_Model):
    """What else happens in the cluster while it is rolled."""

    begins: tuple[str, ...] = Field((), description="files or folders applied just before the change: Jobs at work")
    scales: dict[str, int] = Field(
        {}, description="a Deployment, as namespace/name -> how many replicas it gets once a node is replaced"
    )
    permits: str | None = Field(
        None,
        description="a ConfigMap, as namespace/name, whose key `evictions` becomes `allowed` once a roll has been "
        "refused for its sake",
    )
    grows: str | None = Field(
        None, description="the group that cluster-autoscaler has to raise for what is scaled, and to lower afterwards"
    )


class LabSpec(_Model):
    """One lab. `cluster` is also its EKS cluster name."""

    cluster: str = "demo"
    region: str = "eu-central-1"
    zones: tuple[str, ...] = ("eu-central-1a", "eu-central-1b")
    groups: tuple[GroupSpec, ...] = ()
    target_groups: tuple[TargetGroupSpec, ...] = ()
    delays: Delays = Delays()
    faults: FaultSpec = Field(FaultSpec(), description="AWS's ordinary weather, which no fault put later takes away")
    traffic: TrafficSpec = TrafficSpec()
    meanwhile: MeanwhileSpec = MeanwhileSpec()
    settings: dict[str, Any] = Field({}, description="the application's, over those of every lab")
    manifests: tuple[str, ...] = Field((), description="files or folders applied once the nodes are Ready")
    parts: tuple[str, ...] | None = Field(None, description="only these of the lab's processes; by default all")
    vcpu_quota: int = Field(1920, ge=0, description="vCPUs of on-demand instances that the account may run")
    kubelets: dict[str, str] = Field(
        {}, description="image -> its kubelet's version; all others are as new as the control plane"
    )
    node_cpu: str = "2"
    node_memory: str = "8Gi"
    node_pods: int = 29
    restart_backoff: RestartBackoff = RestartBackoff()
    heartbeat_seconds: float = Field(10.0, gt=0, description="how often a node renews its lease")
    node_monitor_grace_seconds: int = Field(40, gt=0, description="without a heartbeat for so long a node is NotReady")

    @model_validator(mode="after")
    def _groups_can_be_made(self) -> "LabSpec":
        if len(self.zones) > 4:
            raise ValueError("a lab has room for four zones")
        for group in self.groups:
            unknown = set(group.zones) - set(self.zones)
            if unknown:
                raise ValueError(f"group {group.name}: unknown zones {sorted(unknown)}; the lab has {list(self.zones)}")
        names = {t.name for t in self.target_groups}
        of_pods = {t.name for t in self.target_groups if t.pods_of}
        for group in self.groups:
            if wrong := set(group.target_groups) & of_pods:
                raise ValueError(f"group {group.name}: target groups {sorted(wrong)} are of addresses")
            if missing := set(group.target_groups) - names:
                raise ValueError(f"group {group.name}: unknown target groups {sorted(missing)}")
            if group.launch_configuration and (group.launch_template or group.instance_types or group.override):
                raise ValueError(f"group {group.name}: a launch configuration goes with no launch template")
        return self

    def zone_index(self, zone: str) -> int:
        """The zone's place in the address plan: pods in 10.244.(64*index).0/18, instances in 10.0.index.0/24."""
        return self.zones.index(zone)

    def shutdown_grace(self, group: str) -> float:
        """How long a group's instances take to shut down for their pods' sake (seconds)."""
        return next((g.shutdown_grace_seconds for g in self.groups if g.name == group), 0.0)

    def with_redis(self, **differences: float) -> "LabSpec":
        """The same lab with such traffic in each of its Redis groups: a larger data set, or load."""
        groups = tuple(group.model_copy(update=differences) for group in self.traffic.redis)
        return self.model_copy(update={"traffic": self.traffic.model_copy(update={"redis": groups})})

    @classmethod
    def from_yaml(cls, path: Path) -> "LabSpec":
        """Reads a spec; raises pydantic.ValidationError listing every problem."""
        return cls.model_validate(yaml.safe_load(path.read_text()) or {})

    @classmethod
    def load(cls, path: Path) -> "LabSpec":
        """Reads back what `save` wrote."""
        return cls.model_validate_json(path.read_text())

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2))


def configuration_name(group: str, number: int) -> str:
    """A group's launch configuration: it cannot be changed, so each change is a new one."""
    return f"{group}-{number}"


def image_id(template: str, version: int) -> str:
    """The AMI that a version of a launch template names; the lab has no images, so any id will do."""
    return f"ami-{hashlib.sha256(template.encode()).hexdigest()[:13]}{version:04x}"
