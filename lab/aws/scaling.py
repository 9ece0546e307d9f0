"""moto's Auto Scaling and EC2 APIs, made to act on the fleet."""

import copy
from datetime import UTC, datetime
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup, InstanceState
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import InvalidInstanceIdError
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.tags import TagResponse

from lab.aws.compat.registry import around, replace
from lab.aws.fleet import Activity, Fleet

_PAGE = 100
_NAMED = 50
"""Groups that one request may name by default (API reference of DescribeAutoScalingGroups)."""

_PROTECTABLE = frozenset({"InService", "EnteringStandby", "Standby"})
"""Lifecycle states in which an instance's protection from scale-in may be changed."""


def install(fleet: Fleet) -> None:
    """Lets the fleet do what moto's groups and instances do by themselves."""
    _install_instances(fleet)
    _install_capacity(fleet)
    _install_protection()
    _install_membership(fleet)
    _install_activities(fleet)
    _install_settling(fleet)
    _install_hooks(fleet)


def _install_instances(fleet: Fleet) -> None:
    def run_instances(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        reservation = original(self, *args, **kwargs)
        for instance in reservation.instances:
            fleet.adopt(instance)
        return reservation

    def terminate(self: Any) -> Any:
        previous = type(self.instance_state)(self.instance_state.name, self.instance_state.code)
        fleet.shut_down(self)
        return previous

    around(InstanceBackend, "run_instances", run_instances)
    replace(Instance, "terminate", terminate)


def _install_capacity(fleet: Fleet) -> None:
    def set_desired_capacity(self: Any, new_capacity: int | None) -> None:
        self.desired_capacity = self.min_size if new_capacity is None else new_capacity
        fleet.reconcile(self)

    def terminate_instance(self: Any, instance_id: str, should_decrement: bool) -> Any:
        group, state = _managed(self, instance_id)
        if state.lifecycle_state.startswith("Terminating"):
            raise AutoscalingClientError(
                "ScalingActivityInProgress",
                f"Activity is in progress for instance {instance_id} of group {group.name}.",
            )
        if should_decrement:
            _refuse_below_minimum(group)
            group.desired_capacity -= 1
        activity = fleet.retire(group, state, "in response to a user request")
        if not should_decrement:
            fleet.reconcile(group)
        return _Described(activity)

    def resume_processes(original: Any, self: Any, group_name: str, *args: Any) -> None:
        original(self, group_name, *args)
        fleet.reconcile(self.autoscaling_groups[group_name])

    replace(FakeAutoScalingGroup, "set_desired_capacity", set_desired_capacity)
    replace(AutoScalingBackend, "terminate_instance", terminate_instance)
    around(AutoScalingBackend, "resume_processes", resume_processes)


def _install_protection() -> None:
    """AWS protects no instance that comes or goes, and takes no protection from one."""

    def set_instance_protection(original: Any, self: Any, group_name: str, ids: list[str], *args: Any) -> None:
        for state in self.autoscaling_groups[group_name].instance_states:
            if state.instance.id in ids and state.lifecycle_state not in _PROTECTABLE:
                raise ValidationError(
                    f"The instance {state.instance.id} is not in InService or EnteringStandby or Standby."
                )
        original(self, group_name, ids, *args)

    around(AutoScalingBackend, "set_instance_protection", set_instance_protection)


def _install_membership(fleet: Fleet) -> None:
    def detach_instances(original: Any, self: Any, group_name: str, instance_ids: list[str], *args: Any) -> Any:
        activities = original(self, group_name, instance_ids, *args)
        for instance_id in instance_ids:
            fleet.left(instance_id)
        return activities

    def attach_instances(original: Any, self: Any, group_name: str, instance_ids: list[str]) -> None:
        original(self, group_name, instance_ids)
        group = self.autoscaling_groups[group_name]
        for instance_id in instance_ids:
            fleet.adopt(self.ec2_backend.get_instance(instance_id), group=group_name)
            fleet.join_load_balancers(group, instance_id)

    def attach(original: Any, self: Any, group_name: str, *args: Any) -> None:
        original(self, group_name, *args)
        group = self.autoscaling_groups[group_name]
        for state in group.active_instances():
            fleet.join_load_balancers(group, state.instance.id)

    def delete_auto_scaling_group(self: Any) -> Any:
        group = self.autoscaling_backend.autoscaling_groups[self.params["AutoScalingGroupName"]]
        if group.instance_states and not self.params.get("ForceDelete"):
            raise AutoscalingClientError(
                "ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances still in the group."
            )
        del self.autoscaling_backend.autoscaling_groups[group.name]
        for state in group.instance_states:
            fleet.shut_down(state.instance)
        return EmptyResult()

    def launch_configuration_name(self: Any) -> str | None:
        return getattr(self.instance, "launch_configuration_name", None)

    # An instance keeps the configuration that it came from, whatever its group's is now.
    replace(InstanceState, "launch_configuration_name", property(launch_configuration_name))
    # moto registers a group's instances anew at every change of its capacity, those deregistered by hand as well.
    replace(AutoScalingBackend, "update_attached_target_groups", lambda _self, _group_name: None)
    replace(AutoScalingBackend, "update_attached_elbs", lambda _self, _group_name: None)
    # The instances' own termination has told the fleet.
    replace(AutoScalingBackend, "notify_terminate_instances", lambda _self, _instance_ids: None)
    replace(AutoScalingResponse, "delete_auto_scaling_group", delete_auto_scaling_group)
    around(AutoScalingBackend, "detach_instances", detach_instances)
    around(AutoScalingBackend, "attach_instances", attach_instances)
    around(AutoScalingBackend, "attach_load_balancer_target_groups", attach)
    around(AutoScalingBackend, "attach_load_balancers", attach)


def _install_activities(fleet: Fleet) -> None:
    def describe_scaling_activities(self: Any) -> Any:
        name, asked = self._get_param("AutoScalingGroupName"), self._get_param("ActivityIds", [])
        groups = [name] if name else list(fleet.activities)
        found = [activity for group in groups for activity in fleet.activities.get(group, [])]
        newest_first = sorted(found, key=lambda activity: activity.activity_id, reverse=True)
        chosen = [activity for activity in newest_first if not asked or activity.activity_id in asked]
        start = int(self._get_param("NextToken") or 0)
        end = start + (self._get_int_param("MaxRecords") or _PAGE)
        token = str(end) if end < len(chosen) else None
        return ActionResult({"Activities": [_Described(a) for a in chosen[start:end]], "NextToken": token})

    replace(AutoScalingResponse, "describe_scaling_activities", describe_scaling_activities)


def _install_settling(fleet: Fleet) -> None:
    """What was just launched or changed is not seen everywhere at once."""

    def refuse_unknown(ids: list[str]) -> None:
        if unknown := [instance_id for instance_id in ids if not fleet.is_known(instance_id)]:
            raise InvalidInstanceIdError(unknown)

    def describe_instances(original: Any, self: Any) -> Any:
        refuse_unknown(self._get_param("InstanceIds", []))
        answer = original(self)
        for reservation in answer.result["Reservations"]:
            reservation.instances = [i for i in reservation.instances if fleet.is_known(i.id)]
        answer.result["Reservations"] = [r for r in answer.result["Reservations"] if r.instances]
        return answer

    def of_resources(original: Any, self: Any) -> Any:
        refuse_unknown([i for i in self._get_param("Resources", []) if i.startswith("i-")])
        return original(self)

    def describe_auto_scaling_groups(original: Any, self: Any) -> Any:
        most = self._get_int_param("MaxRecords") or _NAMED
        if len(self._get_param("AutoScalingGroupNames", [])) > most:
            raise ValidationError(f"The number of AutoScalingGroupNames must be no more than {most}.")
        answer = original(self)
        answer.result["AutoScalingGroups"] = [_as_glimpsed(fleet, g) for g in answer.result["AutoScalingGroups"]]
        return answer

    around(InstanceResponse, "describe_instances", describe_instances)
    around(TagResponse, "create_tags", of_resources)
    around(TagResponse, "delete_tags", of_resources)
    around(AutoScalingResponse, "describe_auto_scaling_groups", describe_auto_scaling_groups)


def _as_glimpsed(fleet: Fleet, group: Any) -> Any:
    glimpse = fleet.glimpse(group.name)
    if glimpse is None:
        return group
    shown = copy.copy(group)
    shown.desired_capacity = glimpse.desired
    shown.instance_states = [state for state in group.instance_states if state.instance.id in glimpse.instances]
    return shown


def _install_hooks(fleet: Fleet) -> None:
    """The two calls about lifecycle actions, which moto lacks."""

    def group_of(self: Any) -> Any:
        return fleet.account.autoscaling.autoscaling_groups[self.params["AutoScalingGroupName"]]

    def complete_lifecycle_action(self: Any) -> Any:
        fleet.completed(group_of(self), self.params["InstanceId"])
        return EmptyResult()

    def record_lifecycle_action_heartbeat(self: Any) -> Any:
        fleet.heartbeat(group_of(self), self.params["InstanceId"])
        return EmptyResult()

    AutoScalingResponse.complete_lifecycle_action = complete_lifecycle_action
    AutoScalingResponse.record_lifecycle_action_heartbeat = record_lifecycle_action_heartbeat


class _Described:
    """An activity with its times as moto's serializer wants them."""

    def __init__(self, activity: Activity) -> None:
        self.__dict__.update(vars(activity), progress=activity.progress)
        self.start_time = datetime.fromtimestamp(activity.start_time, tz=UTC)
        self.end_time = None if activity.end_time is None else datetime.fromtimestamp(activity.end_time, tz=UTC)


def _managed(backend: Any, instance_id: str) -> tuple[Any, Any]:
    for group in backend.autoscaling_groups.values():
        for state in group.instance_states:
            if state.instance.id == instance_id:
                return group, state
    raise ValidationError(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")


def _refuse_below_minimum(group: Any) -> None:
    if group.desired_capacity <= group.min_size:
        raise ValidationError(
            f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without replacement will "
            "violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower "
            "group's min size."
        )
