"""The life of the lab's EC2 instances, and of the Auto Scaling groups that launch and terminate them.

moto's instances run at once and are gone at once, and its groups launch into one subnet. Here an instance is `pending`
until it has booted and `shutting-down` until it is `terminated`, a group's instance is InService once it runs, and
Terminating while it drains out of the group's target groups and shuts down; a lifecycle hook holds it Pending:Wait or
Terminating:Wait until somebody completes the action or its time is up. Time passes when somebody looks: `advance` makes
every change that is due, in order, before a call is answered. What was just made or changed is not seen everywhere at
once, as long as that fault is in force (`faults.Settling`).
"""

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv4Network
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import InstanceState
from moto.ec2.models.instances import Instance

from lab.aws.account import Account
from lab.aws.faults import Faults
from lab.aws.images import image_now
from lab.aws.targets import Targets, deregistration_delay

_PENDING, _RUNNING, _SHUTTING_DOWN = (0, "pending"), (16, "running"), (32, "shutting-down")
_END = Instance.terminate  # moto's own, before `scaling.install` replaces it
_FIRST_HOST, _LAST_HOST = 10, 249
_GLIMPSES = 100
_ALIVE = ("Pending", "Pending:Wait", "InService")
_TYPES = ("m6i.large", "m7i.large", "c6i.large", "r6i.large")
"""What an override by attributes may stand for."""

_LAUNCHING, _TERMINATING = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"


class NoCapacityError(Exception):
    """EC2 has no room for another instance in the zone."""

    code = "InsufficientInstanceCapacity"


class ImageGoneError(NoCapacityError):
    """The image was deregistered: no zone has an instance of it."""

    code = "InvalidAMIID.NotFound"


@dataclass
class Member:
    """An instance and when it changes next; times in epoch seconds."""

    instance: Any
    address: str
    launched: float
    group: str | None = None
    boots_at: float | None = None
    shuts_down_at: float | None = None
    ends_at: float | None = None
    waits_until: float | None = None
    activities: list["Activity"] = field(default_factory=list)

    @property
    def due(self) -> float:
        times = (self.boots_at, self.waits_until, self.shuts_down_at, self.ends_at)
        return min((at for at in times if at is not None), default=math.inf)


@dataclass
class Activity:
    """A scaling activity, with the fields that DescribeScalingActivities shows."""

    activity_id: str
    auto_scaling_group_name: str
    description: str
    cause: str
    start_time: float
    end_time: float | None = None
    status_code: str = "InProgress"
    status_message: str | None = None
    details: str = "{}"

    @property
    def progress(self) -> int:
        return 50 if self.end_time is None else 100


@dataclass(frozen=True)
class Glimpse:
    """A group as it was at a moment, in epoch seconds."""

    at: float
    desired: int
    instances: frozenset[str]


@dataclass(frozen=True)
class Launch:
    """What a group launches now: a template's resolved version or a launch configuration (`source`, whose `template` is
    None), type, and whether as a spot instance."""

    template: Any
    source: Any
    instance_type: str
    spot: bool

    @property
    def instance_tags(self) -> dict[str, str]:
        return dict(self.source.instance_tags) if self.template else {}

    @property
    def named(self) -> dict[str, str] | None:
        """The launch template, as RunInstances is given it."""
        number = str(self.source.number) if self.template else ""
        return {"LaunchTemplateId": self.template.id, "Version": number} if self.template else None


class Fleet:
    """The lab's instances. Every method is safe to call from several threads.

    `boot` and `terminate` are the seconds that booting and shutting down take, `shutdown_grace` those that a group's
    nodes take at least.
    """

    def __init__(
        self,
        account: Account,
        targets: Targets,
        *,
        boot: float,
        terminate: float,
        shutdown_grace: Callable[[str], float] = lambda _: 0.0,
        clock: Callable[[], float],
        faults: Faults | None = None,
    ) -> None:
        self.account = account
        self.targets = targets
        self.faults = faults or Faults()
        self.lock = threading.RLock()
        self.activities: dict[str, list[Activity]] = {}
        self._boot = boot
        self._terminate = terminate
        self._shutdown_grace = shutdown_grace
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._hosts: dict[str, Iterator[int]] = {}
        self._ids = itertools.count(1)
        self._short: set[str] = set()
        self._glimpses: dict[str, list[Glimpse]] = {}

    # What others ask

    def members(self) -> list[Member]:
        """Every instance that the lab ever had, up to date, in the order of launch."""
        with self.lock:
            self.advance()
            return list(self._members.values())

    def advance(self) -> None:
        """Makes every change that is due by now, in the order of time."""
        with self.lock:
            for name in list(self._short):
                self._short.discard(name)
                if (group := self.account.autoscaling.autoscaling_groups.get(name)) is not None:
                    self.reconcile(group)
            while True:
                member = min(self._members.values(), key=lambda m: m.due, default=None)
                if member is None or member.due > self._clock():
                    return
                self._change(member)

    def is_known(self, instance_id: str) -> bool:
        """Whether EC2 knows the instance everywhere by now."""
        member = self._members.get(instance_id)
        return member is None or self._clock() - member.launched >= self.faults.settling_seconds()

    def is_tagged(self, instance_id: str) -> bool:
        """Whether IAM knows the instance's tags everywhere by now, which takes as long again."""
        member = self._members.get(instance_id)
        return member is None or self._clock() - member.launched >= 2 * self.faults.settling_seconds()

    def remember(self) -> None:
        """Keeps how the groups are now, for descriptions that lag behind."""
        with self.lock:
            for name, group in self.account.autoscaling.autoscaling_groups.items():
                ids = frozenset(state.instance.id for state in group.instance_states)
                glimpses = self._glimpses.setdefault(name, [])
                if not glimpses or (glimpses[-1].desired, glimpses[-1].instances) != (group.desired_capacity, ids):
                    glimpses.append(Glimpse(self._clock(), group.desired_capacity or 0, ids))
                    del glimpses[:-_GLIMPSES]

    def glimpse(self, group: str) -> Glimpse | None:
        """The group as descriptions show it now; None where they show it as it is."""
        seconds = self.faults.settling_seconds()
        kept = self._glimpses.get(group)
        if not seconds or not kept:
            return None
        settled = [g for g in kept if g.at <= self._clock() - seconds]
        return settled[-1] if settled else kept[0]

    @contextlib.contextmanager
    def booted_at_once(self) -> Iterator[None]:
        """Instances launched inside run at once: those that a lab starts with."""
        with self.lock:
            boot, self._boot = self._boot, 0.0
            try:
                yield
                self.advance()
            finally:
                self._boot = boot

    def subnets(self, group: Any) -> list[Any]:
        """The subnets that a group launches into; all of its zones' if it names none."""
        if group.vpc_zone_identifier:
            return [self.account.ec2.get_subnet(subnet_id) for subnet_id in group.vpc_zone_identifier.split(",")]
        every = self.account.ec2.describe_subnets()
        return [subnet for subnet in every if subnet.availability_zone in group.availability_zones]

    # What the Auto Scaling service does

    def reconcile(self, group: Any) -> None:
        """Launches or terminates until the group has its desired capacity, unless that process is suspended."""
        with self.lock:
            alive = [state for state in group.instance_states if state.lifecycle_state in _ALIVE]
            surplus = len(alive) - (group.desired_capacity or 0)
            if surplus < 0 and not suspended(group, "Launch"):
                for _ in range(-surplus):
                    try:
                        self.launch(group, self._emptiest_subnet(group))
                    except NoCapacityError:
                        # The group tries again, as long as it takes.
                        self._short.add(group.name)
                        break
            if surplus > 0 and not suspended(group, "Terminate"):
                for state in self._scale_in_order(alive)[:surplus]:
                    self.retire(group, state, "in response to a difference between desired and actual capacity")

    def launch(self, group: Any, subnet_id: str) -> Any:
        """Launches one instance of what the group launches now into the subnet; answers moto's instance.

        Raises NoCapacityError.
        """
        with self.lock:
            zone = self.account.ec2.get_subnet(subnet_id).availability_zone
            if self.faults.has_no_capacity(zone):
                raise NoCapacityError(
                    f"We currently do not have sufficient capacity in the Availability Zone you requested ({zone})."
                )
            launch = what_it_launches(group, self.account)
            image = image_now(self.account, launch.source.image_id)
            if image in self.account.deregistered:
                raise ImageGoneError(f"The image id '[{image}]' does not exist")
            tags = {**group.get_propagated_tags(), **launch.instance_tags}
            reservation = self.account.ec2.run_instances(
                image,
                1,
                launch.source.user_data,
                launch.source.security_groups,
                instance_type=launch.instance_type,
                is_instance_type_default=False,
                tags={"instance": tags | {"aws:autoscaling:groupName": group.name}},
                launch_template=launch.named,
                subnet_id=subnet_id,
                private_ip=self._free_address(subnet_id),
                instance_market_options={"MarketType": "spot"} if launch.spot else None,
            )
            (instance,) = reservation.instances
            instance.autoscaling_group = group
            instance.launch_configuration_name = None if launch.template else launch.source.name
            member = self.adopt(instance, group=group.name)
            group.instance_states.append(self._group_state(group, instance))
            self._begin(
                member, group.name, f"Launching a new EC2 instance: {instance.id}", "More capacity was asked for."
            )
            return instance

    def adopt(self, instance: Any, group: str | None = None) -> Member:
        """Takes an instance that moto has made into the fleet: it boots from now on."""
        with self.lock:
            member = self._members.get(instance.id)
            if member is None:
                now = self._clock()
                member = self._members[instance.id] = Member(
                    instance, str(instance.private_ip), launched=now, boots_at=now + self._boot
                )
                _set_state(instance, _PENDING)
            member.group = group or member.group
            return member

    def left(self, instance_id: str) -> None:
        """The instance is in no group any more, and lives on."""
        with self.lock:
            self._members[instance_id].group = None

    def retire(self, group: Any, state: Any, why: str) -> Activity:
        """Begins to terminate a group's instance: it leaves the load balancers, drains, and shuts down."""
        with self.lock:
            member = self._members[state.instance.id]
            state.lifecycle_state = "Terminating"
            self._leave_load_balancers(group, state.instance.id)
            member.boots_at = member.waits_until = None
            member.shuts_down_at = self.targets.drained_at(state.instance.id)
            text = f"Terminating EC2 instance: {state.instance.id}"
            activity = self._begin(member, group.name, text, f"An instance was taken out of service {why}.")
            self.advance()
            return activity

    # What EC2 does

    def shut_down(self, instance: Any) -> None:
        """The instance stops working at once and is terminated after a while. Its group, if any, replaces it."""
        with self.lock:
            member = self.adopt(instance)
            if member.ends_at is not None or instance.state == "terminated":
                return
            _set_state(instance, _SHUTTING_DOWN)
            member.boots_at = member.shuts_down_at = member.waits_until = None
            seconds = (
                self._terminate,
                self.faults.spec.termination_seconds,
                self._shutdown_grace(member.group or ""),
            )
            member.ends_at = self._clock() + max(seconds)
            group = self._group_of(member)
            state = _state_in(group, instance.id)
            if group is not None and state is not None and not state.lifecycle_state.startswith("Terminating"):
                state.lifecycle_state, state.health_status = "Terminating", "Unhealthy"
                self._leave_load_balancers(group, instance.id)
                self._begin(
                    member, group.name, f"Terminating EC2 instance: {instance.id}", "an EC2 health check failed"
                )
                if not suspended(group, "HealthCheck") and not suspended(group, "ReplaceUnhealthy"):
                    self.reconcile(group)

    # Inner workings

    def completed(self, group: Any, instance_id: str) -> None:
        """A lifecycle action was completed: what the hook held goes on. Raises ValidationError where none holds."""
        with self.lock:
            member, state = self._members.get(instance_id), _state_in(group, instance_id)
            if member is None or state is None or member.waits_until is None:
                raise ValidationError(f"No active Lifecycle Action found with instance ID {instance_id}")
            member.waits_until = self._clock()
            self.advance()

    def heartbeat(self, group: Any, instance_id: str) -> None:
        """Somebody works on a lifecycle action: its time begins anew. Raises ValidationError where none holds."""
        with self.lock:
            member, state = self._members.get(instance_id), _state_in(group, instance_id)
            if member is None or state is None or member.waits_until is None:
                raise ValidationError(f"No active Lifecycle Action found with instance ID {instance_id}")
            held = _TERMINATING if state.lifecycle_state == "Terminating:Wait" else _LAUNCHING
            member.waits_until = self._clock() + (self._hook(group, held) or 0)

    def _change(self, member: Member) -> None:
        instance, group = member.instance, self._group_of(member)
        state = _state_in(group, instance.id)
        match member.due:
            case member.boots_at:
                member.boots_at = None
                _set_state(instance, _RUNNING)
                if not self._held(member, group, state, _LAUNCHING, "Pending:Wait"):
                    self._enter_service(member, group, state)
            case member.waits_until:
                member.waits_until = None
                if state.lifecycle_state == "Pending:Wait":
                    self._enter_service(member, group, state)
                else:
                    state.lifecycle_state = "Terminating:Proceed"
                    self.shut_down(instance)
            case member.shuts_down_at:
                member.shuts_down_at = None
                # The hook comes after the load balancers' connection draining (Auto Scaling guide, lifecycle hooks).
                if not self._held(member, group, state, _TERMINATING, "Terminating:Wait"):
                    self.shut_down(instance)
            case member.ends_at:
                member.ends_at = None
                _END(instance)
                self.targets.forget(instance.id)
                if group is not None:
                    group.instance_states = [s for s in group.instance_states if s.instance.id != instance.id]
                self._finish(member)

    def _held(self, member: Member, group: Any, state: Any, transition: str, held: str) -> bool:
        """Whether a lifecycle hook of the group holds the instance from now on."""
        seconds = self._hook(group, transition) if group is not None and state is not None else None
        if seconds is None:
            return False
        state.lifecycle_state, member.waits_until = held, self._clock() + seconds
        return True

    def _hook(self, group: Any, transition: str) -> float | None:
        """How long the group's hook of that transition holds an instance; None without one."""
        hooks = self.account.autoscaling.describe_lifecycle_hooks(group.name)
        timeouts = [float(hook.heartbeat_timeout) for hook in hooks if hook.lifecycle_transition == transition]
        return max(timeouts, default=None)

    def _enter_service(self, member: Member, group: Any, state: Any) -> None:
        if group is not None and state is not None:
            state.lifecycle_state = "InService"
            self.join_load_balancers(group, member.instance.id)
        self._finish(member)

    def join_load_balancers(self, group: Any, instance_id: str) -> None:
        """Registers an instance in service with the group's target groups and classic load balancers."""
        if suspended(group, "AddToLoadBalancer"):
            return
        for arn in group.target_group_arns:
            target_group = self.account.elbv2.target_groups.get(arn)
            if target_group is not None:
                self.targets.register(arn, instance_id, int(target_group.port))
        for name in group.load_balancer_names:
            self.account.elb.register_instances(name, [instance_id], from_autoscaling=True)

    def _leave_load_balancers(self, group: Any, instance_id: str) -> None:
        for arn in group.target_group_arns:
            target_group = self.account.elbv2.target_groups.get(arn)
            if target_group is not None:
                self.targets.deregister(arn, instance_id, None, deregistration_delay(target_group))
        for name in group.load_balancer_names:
            self.account.elb.deregister_instances(name, [instance_id], from_autoscaling=True)

    def _emptiest_subnet(self, group: Any) -> str:
        zones = [s.instance.placement.zone for s in group.instance_states if s.lifecycle_state in _ALIVE]
        return str(min(self.subnets(group), key=lambda subnet: zones.count(subnet.availability_zone)).id)

    def _scale_in_order(self, alive: list[Any]) -> list[Any]:
        """The default termination policy: the fullest zone first, then the oldest launch template version or a former
        launch configuration, then age."""
        candidates = [state for state in alive if not state.protected_from_scale_in]
        order: list[Any] = []
        while candidates:
            zones = [state.instance.placement.zone for state in candidates]
            oldest = min(
                candidates,
                key=lambda s: (
                    -zones.count(s.instance.placement.zone),
                    _generation(s),
                    self._members[s.instance.id].launched,
                ),
            )
            candidates.remove(oldest)
            order.append(oldest)
        return order

    def _free_address(self, subnet_id: str) -> str:
        """The subnet's next address, round and round, so that one is used again as late as possible."""
        network = IPv4Network(self.account.ec2.get_subnet(subnet_id).cidr_block)
        hosts = self._hosts.setdefault(subnet_id, itertools.cycle(range(_FIRST_HOST, _LAST_HOST + 1)))
        taken = {member.address for member in self._members.values() if member.instance.state != "terminated"}
        for host in itertools.islice(hosts, _LAST_HOST - _FIRST_HOST + 1):
            address = str(network[host])
            if address not in taken:
                self.account.ec2.get_subnet(subnet_id).del_subnet_ip(address)
                return address
        raise RuntimeError(f"subnet {subnet_id} has no free address")

    def _group_state(self, group: Any, instance: Any) -> Any:
        protected = group.new_instances_protected_from_scale_in
        return InstanceState(instance, lifecycle_state="Pending", protected_from_scale_in=protected)

    def _group_of(self, member: Member) -> Any:
        return self.account.autoscaling.autoscaling_groups.get(member.group)

    def _begin(self, member: Member, group: str, description: str, why: str) -> Activity:
        activity = Activity(
            f"{next(self._ids):032x}", group, description, f"At the user's request, {why}.", self._clock()
        )
        self.activities.setdefault(group, []).append(activity)
        member.activities.append(activity)
        return activity

    def _finish(self, member: Member) -> None:
        for activity in member.activities:
            activity.end_time, activity.status_code = self._clock(), "Successful"
        member.activities.clear()


def suspended(group: Any, process: str) -> bool:
    """Whether a scaling process of the group is suspended."""
    return any(entry["ProcessName"] == process for entry in group.suspended_processes)


def what_it_launches(group: Any, account: Account) -> Launch:
    """The template version, type and market that the group would launch an instance with now.

    With a mixed instances policy the first override decides, as its `prioritized` strategy does, and spot makes up what
    the on-demand base and percentage leave.
    """
    if group.ec2_launch_template is None:
        return Launch(None, group.launch_config, group.launch_config.instance_type, spot=False)
    policy = group.mixed_instances_policy or {}
    override: dict[str, Any] = next(iter(policy.get("LaunchTemplate", {}).get("Overrides", [])), {})
    template, version = group.ec2_launch_template, group.launch_template_version
    if specification := override.get("LaunchTemplateSpecification"):
        version = specification.get("Version") or "$Default"
        template = (
            account.ec2.get_launch_template(specification["LaunchTemplateId"])
            if "LaunchTemplateId" in specification
            else account.ec2.get_launch_template_by_name(specification["LaunchTemplateName"])
        )
    resolved = template.get_version(version)
    instance_type = override.get("InstanceType") or _by_attributes(override) or resolved.instance_type
    return Launch(template, resolved, instance_type, spot=_next_is_spot(group, policy.get("InstancesDistribution", {})))


def _by_attributes(override: dict[str, Any]) -> str | None:
    """The first type that the lab knows of those that an override allows; None without requirements."""
    requirements = override.get("InstanceRequirements")
    if not requirements:
        return None
    patterns = requirements.get("AllowedInstanceTypes") or ["*"]
    return next((kind for kind in _TYPES if any(fnmatchcase(kind, pattern) for pattern in patterns)), None)


def _generation(state: Any) -> int:
    """How new what an instance was launched from is, within its group."""
    if state.launch_template:
        return int(state.launch_template["Version"])
    return int(state.launch_configuration_name == state.auto_scaling_group.launch_configuration_name)


def _next_is_spot(group: Any, distribution: dict[str, Any]) -> bool:
    base = int(distribution.get("OnDemandBaseCapacity") or 0)
    share = int(distribution.get("OnDemandPercentageAboveBaseCapacity", 100)) / 100
    alive = [state for state in group.instance_states if state.lifecycle_state in _ALIVE]
    on_demand = sum(state.instance.lifecycle != "spot" for state in alive)
    wanted = base + math.ceil(share * max(len(alive) + 1 - base, 0))
    return bool(on_demand >= wanted)


def _state_in(group: Any, instance_id: str) -> Any:
    states = group.instance_states if group is not None else []
    return next((state for state in states if state.instance.id == instance_id), None)


def _set_state(instance: Any, state: tuple[int, str]) -> None:
    instance.instance_state.code, instance.instance_state.name = state
