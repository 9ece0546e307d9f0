"""LaunchInstances, which moto lacks: instances of an Auto Scaling group in the zone asked for, their ids at once.

What AWS documents of it: it works on groups with a launch template, all on demand or all spot; the zone (or subnet) may
be left out only for a group in a single zone; it raises the desired capacity by what it launched, within the maximum
size; a repeated call with the same ClientToken answers what the first did, and with other parameters is refused.
"""

from dataclasses import dataclass
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult

from lab.aws.fleet import Fleet, NoCapacityError, suspended, what_it_launches

_MAXIMUM = 100


@dataclass(frozen=True)
class Request:
    """A call's parameters; two calls with one token must be equal in them."""

    group: str
    count: int
    zones: tuple[str, ...]
    zone_ids: tuple[str, ...]
    subnet_ids: tuple[str, ...]

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> "Request":
        """Reads what moto has parsed by botocore's model."""
        return cls(
            parameters["AutoScalingGroupName"],
            int(parameters["RequestedCapacity"]),
            tuple(parameters.get("AvailabilityZones") or ()),
            tuple(parameters.get("AvailabilityZoneIds") or ()),
            tuple(parameters.get("SubnetIds") or ()),
        )


def install(fleet: Fleet) -> None:
    """Adds the operation to moto's Auto Scaling API."""
    answered: dict[str, tuple[Request, dict[str, Any]]] = {}

    def launch_instances(self: Any) -> Any:
        token, request = self.params["ClientToken"], Request.of(self.params)
        with fleet.lock:
            if token not in answered:
                answered[token] = (request, _launch(fleet, request, token))
            first, answer = answered[token]
        if first != request:
            raise AutoscalingClientError(
                "IdempotentParameterMismatchError", f"ClientToken {token} was used with other parameters."
            )
        return ActionResult(answer)

    AutoScalingResponse.launch_instances = launch_instances


def _launch(fleet: Fleet, request: Request, token: str) -> dict[str, Any]:
    group = fleet.account.autoscaling.autoscaling_groups[request.group]
    _refuse(group, request.count)
    subnet = _subnet(fleet, request, group)
    launch = what_it_launches(group, fleet.account)
    # The capacity first, so that what is launched is never surplus.
    group.desired_capacity += request.count
    instances: list[Any] = []
    errors = []
    try:
        instances.extend(fleet.launch(group, subnet.id) for _ in range(request.count))
    except NoCapacityError as error:
        # Without a retry strategy the capacity is what was launched.
        group.desired_capacity -= request.count - len(instances)
        errors = [
            {
                "InstanceType": launch.instance_type,
                "MarketType": "Spot" if launch.spot else "OnDemand",
                "SubnetId": subnet.id,
                "AvailabilityZone": subnet.availability_zone,
                "ErrorCode": error.code,
                "ErrorMessage": str(error),
            }
        ]
    answer = {"AutoScalingGroupName": group.name, "ClientToken": token, "Instances": [], "Errors": errors}
    if not instances:
        return answer
    collection = {
        "InstanceType": launch.instance_type,
        "MarketType": "Spot" if launch.spot else "OnDemand",
        "SubnetId": subnet.id,
        "AvailabilityZone": subnet.availability_zone,
        "AvailabilityZoneId": subnet.availability_zone_id,
        "InstanceIds": [instance.id for instance in instances],
    }
    return answer | {"Instances": [collection]}


def _refuse(group: Any, count: int) -> None:
    """Raises ValidationError where AWS refuses. That a suspended Launch process refuses it is our own reading."""
    if group.ec2_launch_template is None:
        raise ValidationError("LaunchInstances requires an Auto Scaling group with a launch template.")
    if not 1 <= count <= _MAXIMUM:
        raise ValidationError(f"RequestedCapacity must be from 1 to {_MAXIMUM}.")
    if group.desired_capacity + count > group.max_size:
        raise ValidationError(
            f"Launching {count} instances would raise the desired capacity to {group.desired_capacity + count}, above "
            f"max value {group.max_size} for the AutoScalingGroup."
        )
    if _mixes_markets(group):
        raise ValidationError(
            "LaunchInstances does not support mixed instances policies with both On-Demand and Spot Instances."
        )
    if suspended(group, "Launch"):
        raise ValidationError(f"The Launch process of AutoScalingGroup {group.name} is suspended.")


def _mixes_markets(group: Any) -> bool:
    distribution = (group.mixed_instances_policy or {}).get("InstancesDistribution", {})
    base = int(distribution.get("OnDemandBaseCapacity") or 0)
    share = int(distribution.get("OnDemandPercentageAboveBaseCapacity", 100))
    return share < 100 and not share == base == 0


def _subnet(fleet: Fleet, request: Request, group: Any) -> Any:
    if request.zones and request.zone_ids:
        raise ValidationError("You cannot specify both AvailabilityZones and AvailabilityZoneIds.")
    subnets = fleet.subnets(group)
    asked = request.zones or request.zone_ids or request.subnet_ids
    if not asked and len({subnet.availability_zone for subnet in subnets}) > 1:
        raise ValidationError(
            "You must specify AvailabilityZones, AvailabilityZoneIds or SubnetIds for an Auto Scaling group with "
            "multiple Availability Zones."
        )
    for subnet in subnets:
        if (
            (not request.zones or subnet.availability_zone in request.zones)
            and (not request.zone_ids or subnet.availability_zone_id in request.zone_ids)
            and (not request.subnet_ids or subnet.id in request.subnet_ids)
        ):
            return subnet
    raise ValidationError(f"{', '.join(asked)} is not in the configuration of AutoScalingGroup {group.name}.")
