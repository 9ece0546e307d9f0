"""Corrections to moto's Auto Scaling groups that do not depend on the lab's own fleet."""

import copy
from collections import OrderedDict
from typing import Any, NoReturn

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup, InstanceState

from lab.aws.compat.registry import around, correction, replace

_VERSION_TAG = "aws:ec2launchtemplate:version"
_ID_TAG = "aws:ec2launchtemplate:id"


@correction
def sizes_are_enforced() -> None:
    """AWS keeps the desired capacity between the minimum and the maximum size and refuses anything else with
    ValidationError; moto takes every number."""

    def set_desired_capacity(original: Any, self: Any, group_name: str, desired: int) -> None:
        group = self.autoscaling_groups[group_name]
        for beyond, word, bound in ((desired > group.max_size, "above max", group.max_size),
                                    (desired < group.min_size, "below min", group.min_size)):  # fmt: skip
            if beyond:
                raise ValidationError(
                    f"New SetDesiredCapacity value {desired} is {word} value {bound} for the AutoScalingGroup."
                )
        original(self, group_name, desired)

    def update(original: Any, self: Any, name: str, **changes: Any) -> Any:
        group = self.autoscaling_groups[name]
        sizes = {"min_size": group.min_size, "max_size": group.max_size, "desired_capacity": None}
        _check_sizes(**(sizes | {key: changes[key] for key in sizes if changes.get(key) is not None}))
        return original(self, name=name, **changes)

    def create(original: Any, self: Any, **given: Any) -> Any:
        _check_sizes(*(_number(given.get(size)) for size in ("min_size", "max_size", "desired_capacity")))
        return original(self, **given)

    around(AutoScalingBackend, "set_desired_capacity", set_desired_capacity)
    around(AutoScalingBackend, "update_auto_scaling_group", update)
    around(AutoScalingBackend, "create_auto_scaling_group", create)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _check_sizes(min_size: int | None, max_size: int | None, desired_capacity: int | None) -> None:
    low, high = min_size or 0, max_size or 0
    if low > high:
        raise ValidationError(f"Max bound, {high}, must be greater than or equal to min bound, {low}")
    if desired_capacity is not None and not low <= desired_capacity <= high:
        raise ValidationError(
            f"Desired capacity:{desired_capacity} must be between the specified min size:{low} and max size:{high}"
        )


@correction
def instances_keep_their_launch_template_version() -> None:
    """AWS shows the version that each instance was launched with; moto shows the template's default version for all."""

    def launch_template(self: Any) -> dict[str, Any] | None:
        tags = {tag["key"]: tag["value"] for tag in self.instance.get_tags()}
        template = self.instance.ec2_backend.launch_templates.get(tags.get(_ID_TAG))
        if template is None:
            return None
        return {
            "LaunchTemplateId": template.id,
            "LaunchTemplateName": template.name,
            "Version": tags[_VERSION_TAG],
        }

    replace(InstanceState, "launch_template", property(launch_template))


@correction
def updates_leave_the_rest_alone() -> None:
    """AWS changes only what UpdateAutoScalingGroup names; moto drops the mixed instances policy at every update. A
    group that is given a plain launch template has no such policy any more, and then shows no LaunchTemplate of its
    own before."""

    def update(original: Any, self: Any, **changes: Any) -> None:
        if not any(changes.get(key) for key in ("mixed_instances_policy", "launch_template", "launch_config_name")):
            changes["mixed_instances_policy"] = _by_id_only(self.mixed_instances_policy)
        original(self, **changes)

    def launch_template(self: Any) -> Any:
        return None if self.mixed_instances_policy else original_property.fget(self)

    original_property = FakeAutoScalingGroup.launch_template
    around(FakeAutoScalingGroup, "update", update)
    replace(FakeAutoScalingGroup, "launch_template", property(launch_template))


def _by_id_only(policy: dict[str, Any] | None) -> dict[str, Any] | None:
    """The policy as it may be given: naming its launch template once, not by id and name as moto keeps it."""
    policy = copy.deepcopy(policy)
    if policy:
        policy["LaunchTemplate"]["LaunchTemplateSpecification"].pop("LaunchTemplateName", None)
    return policy


@correction
def unknown_groups_and_instances_are_refused() -> None:
    """AWS answers ValidationError for a group that does not exist and for protecting an instance of another group; moto
    breaks on the first and ignores the second."""

    class Groups(OrderedDict[str, Any]):
        def __missing__(self, name: str) -> NoReturn:
            raise ValidationError(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")

    def initialize(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.autoscaling_groups = Groups()

    def set_instance_protection(original: Any, self: Any, group_name: str, ids: list[str], *args: Any) -> None:
        known = {state.instance.id for state in self.autoscaling_groups[group_name].instance_states}
        for instance_id in ids:
            if instance_id not in known:
                raise ValidationError(f"The instance {instance_id} is not part of Auto Scaling group {group_name}.")
        original(self, group_name, ids, *args)

    around(AutoScalingBackend, "__init__", initialize)
    around(AutoScalingBackend, "set_instance_protection", set_instance_protection)
