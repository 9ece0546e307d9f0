"""What decisions see of AWS: Auto Scaling groups, instances, launch templates and load balancer targets."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class LaunchTemplate:
    """A launch template reference as it is written on a group: `version` may be $Latest or $Default."""

    id: str
    version: str


@dataclass(frozen=True, slots=True)
class GroupInstance:
    """An instance as its Auto Scaling group lists it. `template` is "lt-id:number", "lc:NAME" for a launch
    configuration, "" where that was deleted."""

    id: str
    zone: str
    lifecycle: str = "InService"
    template: str = ""
    type: str = ""
    protected: bool = False
    healthy: bool = True

    @property
    def alive(self) -> bool:
        return self.lifecycle in {"Pending", "Pending:Wait", "Pending:Proceed", "InService"}

    @property
    def leaving(self) -> bool:
        """Whether its group terminates it. A lifecycle hook may hold it so for long, and EC2 says "running" then
        (Terminating:Wait; EC2 Auto Scaling, instance lifecycle)."""
        return self.lifecycle.startswith("Terminat")


BY_ATTRIBUTES = "*"
"""Beginning of what stands for the instance type of an override that asks for attributes."""

CONFIGURATION = "lc:"
"""Beginning of what stands for a launch template version where a launch configuration is used; its name follows."""


@dataclass(frozen=True, slots=True)
class Group:
    """An Auto Scaling group."""

    name: str
    minimum: int = 0
    maximum: int = 0
    desired: int = 0
    zones: tuple[str, ...] = ()
    instances: tuple[GroupInstance, ...] = ()
    template: LaunchTemplate | None = None
    configuration: str = ""
    """The launch configuration's name, where it has that instead of a template."""
    overrides: tuple[tuple[str, LaunchTemplate], ...] = ()
    """Instance type, or "*" and a number for one that asks for attributes, and the template of its own."""
    types: tuple[str, ...] = ()
    """The instance types among which its policy has AWS choose, by a policy's overrides; "*" and a number as above."""
    unhandled: tuple[str, ...] = ()
    """Features by which it launches, counts or serves in ways that a roll does not know, each with its name."""
    subnets: tuple[str, ...] = ()
    longest_life: float = 0.0
    """Seconds after which AWS replaces its instances itself (MaxInstanceLifetime); 0 for never."""
    rebalances_spot: bool = False
    """AWS replaces its spot instances as soon as they are at risk (CapacityRebalance)."""
    mixed: bool = False
    """A policy of several types or purchase options says what it launches, its template included."""
    mixed_purchasing: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    kept_tags: frozenset[str] = frozenset()
    """Keys of those tags that its new instances do not get."""
    suspended: frozenset[str] = frozenset()
    warm_pool: bool = False
    refresh_running: bool = False

    def instance(self, instance_id: str) -> GroupInstance | None:
        return next((i for i in self.instances if i.id == instance_id), None)

    @property
    def launches_serially(self) -> bool:
        """Whether replacements come by raising its desired capacity, one at a time: LaunchInstances serves neither
        mixed purchase options nor launch configurations (API reference)."""
        return self.mixed_purchasing or bool(self.configuration)

    @property
    def strays(self) -> int:
        """How many replacements may come in other zones before one comes in the zone that is to get it: asked for one
        more, AWS launches in one of those that have the fewest (EC2 Auto Scaling user guide, instance distribution)."""
        if not self.launches_serially:
            return 0
        counts = Counter(dict.fromkeys(self.zones, 0))
        counts.update(i.zone for i in self.instances if i.alive and i.zone in counts)
        fullest = max(counts.values(), default=0)
        return sum(fullest + 1 - count for count in counts.values()) - 1 if fullest else 0

    @property
    def managed(self) -> bool:
        """A managed node group's: AWS replaces its nodes, we must not [N4]."""
        return "eks:nodegroup-name" in self.tags


def same_template(one: str, other: str) -> bool:
    """Whether two versions, each "lt-id:number", are of the same launch template."""
    return one.partition(":")[0] == other.partition(":")[0]


SPREADING_SECONDS = 120.0
"""How long after a launch a refusal may only mean that the new instance's tags, by which the permission goes, are not
known everywhere, and that an instance which nothing lists may be there. Longer than EC2 takes (EC2 API guide, eventual
consistency)."""

IMAGE_BY_PARAMETER = "resolve:ssm:"
"""Beginning of a launch template's image that is whatever a Systems Manager parameter names when an instance starts."""


@dataclass(frozen=True, slots=True)
class InstanceState:
    """An EC2 instance: pending, running, shutting-down, terminated, ... and its tags."""

    id: str
    state: str
    tags: dict[str, str] = field(default_factory=dict)
    launched: float = 0.0
    zone: str = ""
    image: str = ""

    @property
    def gone(self) -> bool:
        return self.state in {"terminated", ""}


COMES_OR_RUNS = frozenset({"pending", "running"})
"""States of an instance that is not on its way out."""


def is_new(state: InstanceState | None, now: float) -> bool:
    """Whether AWS may not know the instance, or its tags, everywhere yet; None is one that EC2 does not show at all."""
    return state is None or now - state.launched <= SPREADING_SECONDS


def as_their_groups_say(groups: Iterable["Group"], states: Mapping[str, InstanceState]) -> dict[str, InstanceState]:
    """EC2's view, with "shutting-down" for every instance that its group terminates already."""
    leaving = {i.id for g in groups for i in g.instances if i.leaving}
    return {
        id_: replace(state, state="shutting-down") if id_ in leaving and state.state == "running" else state
        for id_, state in states.items()
    }


@dataclass(frozen=True, slots=True)
class LifecycleHook:
    """What holds each instance of a group as it comes, or (`terminating`) as it goes: for up to `seconds`, unless
    somebody completes it sooner. `abandons`: an instance that comes is terminated if nobody does."""

    group: str
    name: str
    terminating: bool
    seconds: float
    abandons: bool = True


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What EC2 says of an instance type."""

    name: str
    vcpus: int
    memory_bytes: int
    architecture: str = ""
    """As nodes are labelled: amd64, arm64; "" where it is not known, or one of several."""


STANDARD_VCPUS = "L-1216C47A"
"""Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances, in vCPUs (Service Quotas, EC2)."""


@dataclass(frozen=True, slots=True)
class VcpuQuota:
    """The account's limit of vCPUs of running on-demand standard instances. `unknown` says why it is not known."""

    limit: float | None = None
    used: float | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class TargetRegistration:
    """An instance's registration in one target group (or classic load balancer: `classic`). `instance` is the address
    of a target that is registered by it."""

    group: str
    instance: str
    port: int | None
    state: str
    others_healthy: int = 0
    delay_seconds: float = 0.0
    classic: bool = False
    others: int = 0
    """Other targets that are registered there, whatever their health."""

    @property
    def name(self) -> str:
        """The target group's name out of its ARN (arn:...:targetgroup/NAME/ID)."""
        parts = self.group.split("/")
        return parts[1] if len(parts) > 2 else self.group

    @property
    def receives_traffic(self) -> bool:
        return self.state not in {"unused", "gone"}

    @property
    def registered(self) -> bool:
        """Whether it takes new connections, or is to."""
        return self.receives_traffic and self.state != "draining"

    def may_leave(self, floor: int) -> bool:
        """Whether as many other targets are healthy as must remain."""
        return self.others_healthy >= floor
