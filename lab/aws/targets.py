"""Which instance is registered in which target group, and how healthy ELB would call it.

moto calls every target healthy and forgets a deregistered one at once. Here a target is `initial` until the service
proxy has reported what its health checks saw, and a deregistered one is `draining` until its group's deregistration
delay is over; then it is `unused`.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from moto.ec2 import ec2_backends
from moto.elbv2.exceptions import TargetNotRunning
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeTargetGroup, elbv2_backends

_DELAY = "deregistration_delay.timeout_seconds"


class State(StrEnum):
    """A target's health as DescribeTargetHealth names it."""

    INITIAL = "initial"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    UNUSED = "unused"


@dataclass(frozen=True)
class Health:
    """What ELB says of a target: its state, and why it is not healthy."""

    state: State
    reason: str | None = None
    description: str | None = None


@dataclass(frozen=True)
class RegisteredTarget:
    """An instance's port in a target group. `draining_until` and `registered` are in epoch seconds."""

    id: str
    port: int
    state: State = State.INITIAL
    draining_until: float | None = None
    registered: float = 0.0


NOT_REGISTERED = Health(State.UNUSED, "Target.NotRegistered", "Target is not registered to the target group")
NOT_IN_USE = Health(
    State.UNUSED, "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer"
)
_SAID = {
    State.INITIAL: Health(State.INITIAL, "Elb.RegistrationInProgress", "Target registration is in progress"),
    State.HEALTHY: Health(State.HEALTHY),
    State.UNHEALTHY: Health(State.UNHEALTHY, "Target.FailedHealthChecks", "Health checks failed"),
    State.DRAINING: Health(State.DRAINING, "Target.DeregistrationInProgress", "Target deregistration is in progress"),
}


class Targets:
    """Every target of every target group. Safe to use from several threads.

    `lag` says for how many seconds a new target stays `initial` whatever its health checks see.
    """

    def __init__(self, clock: Callable[[], float], lag: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._lag = lag
        self._groups: dict[str, dict[tuple[str, int], RegisteredTarget]] = {}
        self._lock = threading.RLock()

    def register(self, group: str, target_id: str, port: int) -> None:
        """Adds a target, or takes a draining one back; one that is registered stays as it is."""
        with self._lock:
            known = self._living(group).get((target_id, port))
            if known is None or known.state is State.DRAINING:
                self._living(group)[target_id, port] = RegisteredTarget(target_id, port, registered=self._clock())

    def deregister(self, group: str, target_id: str, port: int | None, delay: float) -> None:
        """Lets the target drain for `delay` seconds; all of the instance's ports without `port`. Others are ignored."""
        with self._lock:
            for key, target in list(self._living(group).items()):
                if key[0] == target_id and port in (None, key[1]) and target.state is not State.DRAINING:
                    until = self._clock() + delay
                    self._groups[group][key] = replace(target, state=State.DRAINING, draining_until=until)

    def report(self, group: str, target_id: str, port: int, *, healthy: bool) -> None:
        """Takes what a health check saw. A draining target stays draining, an unknown one unknown."""
        with self._lock:
            target = self._living(group).get((target_id, port))
            new = target is not None and self._clock() - target.registered < self._lag()
            if target is not None and target.state is not State.DRAINING and not new:
                state = State.HEALTHY if healthy else State.UNHEALTHY
                self._groups[group][target_id, port] = replace(target, state=state)

    def forget(self, target_id: str) -> None:
        """Drops an instance that has ended from every group."""
        with self._lock:
            for targets in self._groups.values():
                for key in [key for key in targets if key[0] == target_id]:
                    del targets[key]

    def of(self, group: str) -> list[RegisteredTarget]:
        """The group's targets, draining ones included, in the order of their registration."""
        with self._lock:
            return list(self._living(group).values())

    def health(self, group: str, target_id: str, port: int) -> Health:
        with self._lock:
            target = self._living(group).get((target_id, port))
        return NOT_REGISTERED if target is None else _SAID[target.state]

    def drained_at(self, target_id: str) -> float:
        """When the instance's last draining target will have drained, in epoch seconds; now, if none is draining."""
        with self._lock:
            ends = [t.draining_until for group in self._groups for t in self.of(group) if t.id == target_id]
        return max((end for end in ends if end is not None), default=self._clock())

    def _living(self, group: str) -> dict[tuple[str, int], RegisteredTarget]:
        """The group's targets, those forgotten that have drained."""
        targets = self._groups.setdefault(group, {})
        now = self._clock()
        for key in [key for key, target in targets.items() if (target.draining_until or now) < now]:
            del targets[key]
        return targets


def health_port(group: Any) -> int:
    """The port that a target group's health check asks: its own, or the one that receives traffic."""
    given = str(group.health_check_port or "traffic-port")
    return int(group.port) if given == "traffic-port" else int(given)


def deregistration_delay(group: Any) -> float:
    """A target group's deregistration delay in seconds."""
    return float(group.attributes[_DELAY])


def install(targets: Targets) -> None:
    """Makes moto's target groups keep their targets in `targets`."""

    def register(self: Any, given: Iterable[dict[str, Any]]) -> None:
        for target in given:
            instance = ec2_backends[self.account_id][self.region_name].get_instance_by_id(target["Id"])
            if instance is not None and instance.state != "running":
                raise TargetNotRunning(instance_id=target["Id"])
            targets.register(self.arn, target["Id"], _port(self, target))

    def deregister(self: Any, given: Iterable[dict[str, Any]]) -> None:
        for target in given:
            port = int(target["Port"]) if "Port" in target else None
            targets.deregister(self.arn, target["Id"], port, deregistration_delay(self))

    def deregister_terminated_instances(_: Any, instance_ids: Iterable[str]) -> None:
        # The instance is still shutting down; the fleet forgets its targets once it has ended.
        del instance_ids

    def describe_target_health(self: Any, target_group_arn: str, asked: list[dict[str, Any]]) -> list[Any]:
        (group,) = self.describe_target_groups(None, [target_group_arn], None)
        described = asked or [{"Id": target.id, "Port": target.port} for target in targets.of(group.arn)]
        return [_health_status(targets, group, target["Id"], _port(group, target)) for target in described]

    FakeTargetGroup.register = register
    FakeTargetGroup.deregister = deregister
    FakeTargetGroup.deregister_terminated_instances = deregister_terminated_instances
    ELBv2Backend.describe_target_health = describe_target_health


def _port(group: Any, target: dict[str, Any]) -> int:
    return int(target.get("Port") or group.port)


def _health_status(targets: Targets, group: Any, target_id: str, port: int) -> Any:
    health = targets.health(group.arn, target_id, port)
    if health.state is not State.UNUSED and not listener_ports(group):
        health = NOT_IN_USE
    checked = port if str(group.health_check_port or "traffic-port") == "traffic-port" else health_port(group)
    return FakeHealthStatus(target_id, port, str(checked), health.state.value, health.reason, health.description)


def listener_ports(group: Any) -> list[int]:
    """The ports of the listeners that forward to a target group."""
    backend = elbv2_backends[group.account_id][group.region_name]
    return sorted(
        int(listener.port)
        for balancer in list(backend.load_balancers.values())
        for listener in list(balancer.listeners.values())
        if any(group.arn in _forwarded_to(action.data) for action in listener.default_actions)
    )


def _forwarded_to(action: dict[str, Any]) -> set[str]:
    weighted = action.get("ForwardConfig", {}).get("TargetGroups", [])
    return {action.get("TargetGroupArn", ""), *(target_group["TargetGroupArn"] for target_group in weighted)}
