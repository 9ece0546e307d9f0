"""Instances and Auto Scaling groups, over real boto3."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.aws_lab import ZONES, Server
from tests.waiting import until

pytestmark = pytest.mark.lab


def group(aws: Server, name: str) -> dict[str, Any]:
    described = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])
    return dict(described["AutoScalingGroups"][0])


def members(aws: Server, name: str, state: str = "InService") -> list[str]:
    return [i["InstanceId"] for i in group(aws, name)["Instances"] if i["LifecycleState"] == state]


def launch(aws: Server, name: str, **more: Any) -> dict[str, Any]:
    parameters = {"AutoScalingGroupName": name, "RequestedCapacity": 1} | more
    return dict(aws.client("autoscaling").launch_instances(**parameters))


def refused(aws: Server, match: str) -> Any:
    return pytest.raises(aws.client("autoscaling").exceptions.ClientError, match=match)


def settled(aws: Server, name: str, size: int) -> list[str]:
    """Waits until the group has so many instances, all in service."""

    def look() -> list[str] | None:
        instances = group(aws, name)["Instances"]
        ready = [i["InstanceId"] for i in instances if i["LifecycleState"] == "InService"]
        return ready if len(ready) == len(instances) == size else None

    return list(until(look, f"{name} has {size} instances in service")) if size else []


@pytest.fixture
def weather(aws: Server) -> Iterator[Any]:
    """Puts faults into force until the test ends."""
    yield lambda faults: aws.lab("PUT", "faults", faults)
    aws.lab("PUT", "faults", {})


def test_launch_instances_launches_in_the_zone_asked_and_answers_ids_at_once(aws: Server) -> None:
    before = group(aws, "launching")["DesiredCapacity"]
    answer = launch(aws, "launching", RequestedCapacity=2, AvailabilityZones=[ZONES[1]], ClientToken="two")
    (collection,) = answer["Instances"]
    assert answer["Errors"] == []
    assert (answer["AutoScalingGroupName"], answer["ClientToken"]) == ("launching", "two")
    assert collection["AvailabilityZone"] == ZONES[1]
    assert (collection["InstanceType"], collection["MarketType"]) == ("m6i.large", "OnDemand")
    assert len(collection["InstanceIds"]) == 2
    assert {aws.instance(i)["zone"] for i in collection["InstanceIds"]} == {ZONES[1]}
    assert group(aws, "launching")["DesiredCapacity"] == before + 2


def test_a_client_token_gives_the_same_instances_again(aws: Server) -> None:
    first = launch(aws, "launching", AvailabilityZones=[ZONES[0]], ClientToken="again")
    desired = group(aws, "launching")["DesiredCapacity"]
    second = launch(aws, "launching", AvailabilityZones=[ZONES[0]], ClientToken="again")
    assert second["Instances"] == first["Instances"]
    assert group(aws, "launching")["DesiredCapacity"] == desired
    mismatch = aws.client("autoscaling").exceptions.IdempotentParameterMismatchError
    with pytest.raises(mismatch):
        launch(aws, "launching", AvailabilityZones=[ZONES[1]], ClientToken="again")


def test_a_group_in_several_zones_needs_one_named_and_a_group_in_one_does_not(aws: Server) -> None:
    with refused(aws, "ValidationError.*must specify AvailabilityZones"):
        launch(aws, "launching")
    with refused(aws, "ValidationError.*not in the configuration"):
        launch(aws, "launching", AvailabilityZones=["eu-central-1c"])
    assert launch(aws, "single")["Instances"][0]["AvailabilityZone"] == ZONES[0]


def test_launch_instances_takes_a_subnet_for_a_zone(aws: Server) -> None:
    subnet = group(aws, "launching")["VPCZoneIdentifier"].split(",")[1]
    (collection,) = launch(aws, "launching", SubnetIds=[subnet])["Instances"]
    assert (collection["SubnetId"], collection["AvailabilityZone"]) == (subnet, ZONES[1])


def test_launch_instances_stays_within_the_maximum_size(aws: Server) -> None:
    with refused(aws, "ValidationError.*above max value 2"):
        launch(aws, "limited", AvailabilityZones=[ZONES[0]])
    assert group(aws, "limited")["DesiredCapacity"] == 2


def test_launch_instances_refuses_on_demand_mixed_with_spot_and_takes_either_alone(aws: Server) -> None:
    client = aws.client("autoscaling")

    def policy(percentage: int) -> dict[str, Any]:
        template = {"LaunchTemplateSpecification": {"LaunchTemplateName": "single", "Version": "$Latest"}}
        distribution = {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": percentage}
        return {
            "LaunchTemplate": template | {"Overrides": [{"InstanceType": "m7i.large"}]},
            "InstancesDistribution": distribution,
        }

    subnet = group(aws, "single")["VPCZoneIdentifier"]
    client.create_auto_scaling_group(
        AutoScalingGroupName="mixed",
        MinSize=0,
        MaxSize=5,
        DesiredCapacity=0,
        VPCZoneIdentifier=subnet,
        MixedInstancesPolicy=policy(50),
    )
    with refused(aws, "ValidationError.*On-Demand and Spot"):
        launch(aws, "mixed")
    client.update_auto_scaling_group(AutoScalingGroupName="mixed", MixedInstancesPolicy=policy(0))
    (collection,) = launch(aws, "mixed")["Instances"]
    assert (collection["MarketType"], collection["InstanceType"]) == ("Spot", "m7i.large")
    described = aws.client("ec2").describe_instances(InstanceIds=collection["InstanceIds"])
    assert described["Reservations"][0]["Instances"][0]["InstanceLifecycle"] == "spot"


def test_an_instance_boots_before_it_is_in_service(aws: Server) -> None:
    (instance,) = launch(aws, "launching", AvailabilityZones=[ZONES[0]])["Instances"][0]["InstanceIds"]
    assert aws.instance(instance)["state"] == "pending"
    assert instance in members(aws, "launching", "Pending")
    until(lambda: instance in members(aws, "launching"), "the instance is in service")
    described = aws.client("ec2").describe_instances(InstanceIds=[instance])
    assert described["Reservations"][0]["Instances"][0]["State"]["Name"] == "running"


def terminate(aws: Server, instance: str) -> dict[str, Any]:
    client = aws.client("autoscaling")
    answer = client.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    return dict(answer["Activity"])


def test_terminating_with_decrement_shrinks_the_group_before_the_instance_is_gone(aws: Server, weather: Any) -> None:
    (instance,) = settled(aws, "ending", 1)
    weather({"termination_seconds": 3600})
    assert terminate(aws, instance)["AutoScalingGroupName"] == "ending"
    assert group(aws, "ending")["DesiredCapacity"] == 0
    assert members(aws, "ending", "Terminating") == [instance]
    assert aws.instance(instance)["state"] == "shutting-down"
    with refused(aws, "ScalingActivityInProgress"):
        terminate(aws, instance)


def test_a_terminated_instance_is_in_its_group_no_more_and_its_activity_has_ended(aws: Server) -> None:
    (instance,) = launch(aws, "launching", AvailabilityZones=[ZONES[0]])["Instances"][0]["InstanceIds"]
    until(lambda: instance in members(aws, "launching"), "the instance is in service")
    activity = terminate(aws, instance)
    until(lambda: aws.instance(instance)["state"] == "terminated", "the instance is terminated")
    assert instance not in [i["InstanceId"] for i in group(aws, "launching")["Instances"]]
    with refused(aws, "ValidationError.*Instance Id not found"):
        terminate(aws, instance)
    described = aws.client("autoscaling").describe_scaling_activities(AutoScalingGroupName="launching")
    (found,) = [a for a in described["Activities"] if a["ActivityId"] == activity["ActivityId"]]
    assert found["StatusCode"] == "Successful"


def test_the_minimum_size_refuses_a_decrement(aws: Server) -> None:
    client = aws.client("autoscaling")
    first, second = settled(aws, "limited", 2)
    client.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    with refused(aws, "ValidationError.*min size constraint"):
        client.terminate_instance_in_auto_scaling_group(InstanceId=second, ShouldDecrementDesiredCapacity=True)


def test_an_instance_that_goes_is_replaced_in_its_zone_unless_launch_is_suspended(aws: Server) -> None:
    client = aws.client("autoscaling")
    gone, kept = settled(aws, "replaced", 2)
    zone = aws.instance(gone)["zone"]
    client.suspend_processes(AutoScalingGroupName="replaced", ScalingProcesses=["Launch"])
    aws.client("ec2").terminate_instances(InstanceIds=[gone])
    until(lambda: aws.instance(gone)["state"] == "terminated", "the instance is terminated")
    assert settled(aws, "replaced", 1) == [kept]
    client.resume_processes(AutoScalingGroupName="replaced", ScalingProcesses=["Launch"])
    new = set(settled(aws, "replaced", 2)) - {kept}
    assert {aws.instance(i)["zone"] for i in new} == {zone}


def test_protected_instances_survive_a_smaller_capacity_and_a_suspended_terminate_keeps_all(aws: Server) -> None:
    client = aws.client("autoscaling")
    protected, other = settled(aws, "replaced", 2)
    client.suspend_processes(AutoScalingGroupName="replaced", ScalingProcesses=["Terminate"])
    client.set_desired_capacity(AutoScalingGroupName="replaced", DesiredCapacity=1)
    assert len(members(aws, "replaced")) == 2
    client.set_instance_protection(AutoScalingGroupName="replaced", InstanceIds=[protected], ProtectedFromScaleIn=True)
    client.resume_processes(AutoScalingGroupName="replaced")
    assert settled(aws, "replaced", 1) == [protected]
    assert aws.instance(other)["state"] in ("shutting-down", "terminated")


def test_an_instance_refresh_can_be_seen(aws: Server) -> None:
    client = aws.client("autoscaling")
    assert client.describe_instance_refreshes(AutoScalingGroupName="managed")["InstanceRefreshes"] == []
    started = client.start_instance_refresh(AutoScalingGroupName="managed")["InstanceRefreshId"]
    (refresh,) = client.describe_instance_refreshes(AutoScalingGroupName="managed")["InstanceRefreshes"]
    assert (refresh["InstanceRefreshId"], refresh["Status"]) == (started, "InProgress")
    with pytest.raises(client.exceptions.InstanceRefreshInProgressFault):
        client.start_instance_refresh(AutoScalingGroupName="managed")
    client.cancel_instance_refresh(AutoScalingGroupName="managed")
    (refresh,) = client.describe_instance_refreshes(AutoScalingGroupName="managed")["InstanceRefreshes"]
    assert refresh["Status"] == "Cancelled"


def test_a_group_with_instances_is_deleted_only_by_force(aws: Server) -> None:
    client = aws.client("autoscaling")
    client.create_auto_scaling_group(
        AutoScalingGroupName="doomed",
        MinSize=1,
        MaxSize=1,
        LaunchTemplate={"LaunchTemplateName": "single", "Version": "$Latest"},
        VPCZoneIdentifier=group(aws, "single")["VPCZoneIdentifier"],
    )
    (instance,) = settled(aws, "doomed", 1)
    with pytest.raises(client.exceptions.ResourceInUseFault):
        client.delete_auto_scaling_group(AutoScalingGroupName="doomed")
    client.delete_auto_scaling_group(AutoScalingGroupName="doomed", ForceDelete=True)
    until(lambda: aws.instance(instance)["state"] == "terminated", "the instance is terminated")


# AWS's ordinary weather


def test_a_new_instance_is_unknown_for_a_while(aws: Server, weather: Any) -> None:
    ec2, before = aws.client("ec2"), group(aws, "settling")
    weather({"settling": {"seconds": 3600}})
    (instance,) = launch(aws, "settling", AvailabilityZones=[ZONES[0]])["Instances"][0]["InstanceIds"]

    def shown() -> list[Any]:
        filters = [{"Name": "instance-id", "Values": [instance]}]
        return list(ec2.describe_instances(Filters=filters)["Reservations"])

    assert shown() == []
    for call in (ec2.describe_instances, ec2.create_tags):
        named = {"InstanceIds": [instance]} if call == ec2.describe_instances else {"Resources": [instance], "Tags": []}
        with pytest.raises(ec2.exceptions.ClientError, match=r"InvalidInstanceID\.NotFound"):
            call(**named)
    assert group(aws, "settling")["DesiredCapacity"] == before["DesiredCapacity"]
    assert instance not in [i["InstanceId"] for i in group(aws, "settling")["Instances"]]
    weather({"settling": {"seconds": 0.5}})
    until(shown, "EC2 knows the instance")
    ec2.create_tags(Resources=[instance], Tags=[{"Key": "known", "Value": "yes"}])
    after = until(
        lambda: group(aws, "settling")["DesiredCapacity"] > before["DesiredCapacity"] and group(aws, "settling"),
        "the group shows its new capacity",
    )
    assert instance in [i["InstanceId"] for i in after["Instances"]]


def test_a_zone_without_capacity_launches_nothing_until_there_is_room(aws: Server, weather: Any) -> None:
    weather({"no_capacity": {"zones": [ZONES[1]]}})
    desired = group(aws, "launching")["DesiredCapacity"]
    answer = launch(aws, "launching", AvailabilityZones=[ZONES[1]])
    assert (answer["Instances"], answer["Errors"][0]["ErrorCode"]) == ([], "InsufficientInstanceCapacity")
    assert group(aws, "launching")["DesiredCapacity"] == desired
    assert launch(aws, "launching", AvailabilityZones=[ZONES[0]])["Instances"]
    weather({"no_capacity": {}})
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="launching", DesiredCapacity=desired + 2)
    assert len(group(aws, "launching")["Instances"]) == desired + 1
    weather({})
    settled(aws, "launching", desired + 2)


def test_an_action_can_be_refused_by_name(aws: Server, weather: Any) -> None:
    refuse = {"action": "autoscaling:SuspendProcesses", "code": "ResourceInUse", "times": 1}
    weather({"refuse": [refuse, {"action": "ec2:DescribeSubnets", "code": "InternalError", "status": 500}]})
    client = aws.client("autoscaling")
    with pytest.raises(client.exceptions.ResourceInUseFault):
        client.suspend_processes(AutoScalingGroupName="managed", ScalingProcesses=["AlarmNotification"])
    client.suspend_processes(AutoScalingGroupName="managed", ScalingProcesses=["AlarmNotification"])
    with pytest.raises(aws.client("ec2").exceptions.ClientError) as caught:
        aws.client("ec2").describe_subnets()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_lifecycle_hooks_hold_an_instance_until_they_are_completed(aws: Server) -> None:
    client = aws.client("autoscaling")
    for name, transition in (("coming", "LAUNCHING"), ("going", "TERMINATING")):
        client.put_lifecycle_hook(
            AutoScalingGroupName="hooked",
            LifecycleHookName=name,
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
            HeartbeatTimeout=600,
        )

    def complete(hook: str) -> None:
        client.complete_lifecycle_action(
            AutoScalingGroupName="hooked",
            LifecycleHookName=hook,
            InstanceId=instance,
            LifecycleActionResult="CONTINUE",
        )

    (instance,) = launch(aws, "hooked")["Instances"][0]["InstanceIds"]
    until(lambda: instance in members(aws, "hooked", "Pending:Wait"), "the hook holds the new instance")
    assert aws.instance(instance)["state"] == "running"
    with refused(aws, "is not in InService or EnteringStandby or Standby"):
        client.set_instance_protection(AutoScalingGroupName="hooked", InstanceIds=[instance], ProtectedFromScaleIn=True)
    client.record_lifecycle_action_heartbeat(
        AutoScalingGroupName="hooked", LifecycleHookName="coming", InstanceId=instance
    )
    complete("coming")
    assert members(aws, "hooked") == [instance]
    client.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    until(lambda: instance in members(aws, "hooked", "Terminating:Wait"), "the hook holds the old instance")
    assert aws.instance(instance)["state"] == "running"
    with refused(aws, "ScalingActivityInProgress"):
        client.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    complete("going")
    until(lambda: aws.instance(instance)["state"] == "terminated", "the instance is terminated")
    with refused(aws, "No active Lifecycle Action"):
        complete("going")


def test_a_lifecycle_hook_that_nobody_completes_ends_by_itself(aws: Server) -> None:
    client = aws.client("autoscaling")
    client.put_lifecycle_hook(
        AutoScalingGroupName="hooked-briefly",
        LifecycleHookName="going",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
        HeartbeatTimeout=1,
    )
    (instance,) = settled(aws, "hooked-briefly", 1)
    client.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    until(lambda: instance in members(aws, "hooked-briefly", "Terminating:Wait"), "the hook holds the instance")
    until(lambda: aws.instance(instance)["state"] == "terminated", "the instance is terminated")


def test_a_group_with_a_launch_configuration_launches_from_it_and_its_instances_keep_it(aws: Server) -> None:
    client = aws.client("autoscaling")
    (old,) = settled(aws, "configured", 1)
    with refused(aws, "launch template"):
        launch(aws, "configured")
    client.create_launch_configuration(
        LaunchConfigurationName="configured-2", ImageId="ami-2", InstanceType="m6i.xlarge"
    )
    client.update_auto_scaling_group(AutoScalingGroupName="configured", LaunchConfigurationName="configured-2")
    client.set_desired_capacity(AutoScalingGroupName="configured", DesiredCapacity=2)
    (new,) = set(settled(aws, "configured", 2)) - {old}
    described = group(aws, "configured")
    assert "LaunchTemplate" not in described
    of_instances = {i["InstanceId"]: i["LaunchConfigurationName"] for i in described["Instances"]}
    assert of_instances == {old: "configured-1", new: "configured-2"}
    assert (aws.instance(new)["image_id"], aws.instance(new)["type"]) == ("ami-2", "m6i.xlarge")
    # What was launched from a former configuration goes first.
    client.set_desired_capacity(AutoScalingGroupName="configured", DesiredCapacity=1)
    until(lambda: members(aws, "configured") == [new], "the older instance has gone")


def test_a_group_of_several_types_launches_the_first_of_them(aws: Server) -> None:
    (instance,) = settled(aws, "several-types", 1)
    assert aws.instance(instance)["type"] == "m7i.large"
    policy = group(aws, "several-types")["MixedInstancesPolicy"]
    types = [override["InstanceType"] for override in policy["LaunchTemplate"]["Overrides"]]
    assert types == ["m7i.large", "m6i.large"]
    assert launch(aws, "several-types")["Instances"][0]["InstanceType"] == "m7i.large"


def test_an_override_by_attributes_launches_a_type_that_it_allows_from_its_own_template(aws: Server) -> None:
    (instance,) = settled(aws, "by-attributes", 1)
    assert aws.instance(instance)["type"] == "m7i.large"
    ((member),) = group(aws, "by-attributes")["Instances"]
    assert member["LaunchTemplate"]["LaunchTemplateName"] == "of-the-override"
    (override,) = group(aws, "by-attributes")["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]
    assert override["InstanceRequirements"]["AllowedInstanceTypes"] == ["m7i.*"]


def test_an_image_by_parameter_is_what_the_parameter_names_when_an_instance_starts(aws: Server) -> None:
    (first,) = settled(aws, "by-parameter", 1)
    aws.client("ssm").put_parameter(Name="/lab/image", Value="ami-moved", Overwrite=True)
    (launched,) = launch(aws, "by-parameter")["Instances"][0]["InstanceIds"]
    assert aws.instance(launched)["image_id"] == "ami-moved" != aws.instance(first)["image_id"]
    name = {"LaunchTemplateName": "by-parameter"}
    (said,) = aws.client("ec2").describe_launch_template_versions(**name)["LaunchTemplateVersions"]
    (now,) = aws.client("ec2").describe_launch_template_versions(**name, ResolveAlias=True)["LaunchTemplateVersions"]
    images = [version["LaunchTemplateData"]["ImageId"] for version in (said, now)]
    assert images == ["resolve:ssm:/lab/image", "ami-moved"]


def test_the_hook_of_a_spec_holds_instances_that_go(aws: Server) -> None:
    client = aws.client("autoscaling")
    (hook,) = client.describe_lifecycle_hooks(AutoScalingGroupName="going-slowly")["LifecycleHooks"]
    assert (hook["LifecycleTransition"], hook["HeartbeatTimeout"]) == ("autoscaling:EC2_INSTANCE_TERMINATING", 1)
    (instance,) = settled(aws, "going-slowly", 1)
    client.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    until(lambda: instance in members(aws, "going-slowly", "Terminating:Wait"), "the hook holds the instance")
    until(lambda: aws.instance(instance)["state"] == "terminated", "the instance is terminated")
