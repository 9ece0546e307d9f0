"""Target health, as DescribeTargetHealth and the service proxy see it."""

from typing import Any

import pytest

from tests.aws_lab import ZONES, Server
from tests.waiting import until

pytestmark = pytest.mark.lab


def target_group(aws: Server, name: str) -> dict[str, Any]:
    (found,) = [group for group in aws.lab("GET", "targets") if group["name"] == name]
    return dict(found)


def health(aws: Server, name: str, instance: str, port: int) -> tuple[str, str | None]:
    described = aws.client("elbv2").describe_target_health(
        TargetGroupArn=target_group(aws, name)["target_group"], Targets=[{"Id": instance, "Port": port}]
    )
    (found,) = described["TargetHealthDescriptions"]
    return found["TargetHealth"]["State"], found["TargetHealth"].get("Reason")


def report(aws: Server, name: str, instance: str, port: int, *, healthy: bool) -> None:
    arn = target_group(aws, name)["target_group"]
    aws.lab("POST", "target-health", [{"target_group": arn, "id": instance, "port": port, "healthy": healthy}])


def in_service(aws: Server) -> list[str]:
    described = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["serving"])
    instances = described["AutoScalingGroups"][0]["Instances"]
    return [i["InstanceId"] for i in instances if i["LifecycleState"] == "InService"]


def new_instance(aws: Server) -> str:
    """An instance launched into the serving group, in service."""
    answer = aws.client("autoscaling").launch_instances(
        AutoScalingGroupName="serving", RequestedCapacity=1, AvailabilityZones=[ZONES[0]]
    )
    instance = str(answer["Instances"][0]["InstanceIds"][0])
    until(lambda: instance in in_service(aws), "the instance is in service")
    return instance


def retire(aws: Server, instance: str) -> None:
    aws.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=instance, ShouldDecrementDesiredCapacity=True
    )


def test_the_proxy_learns_ports_paths_and_listeners(aws: Server) -> None:
    web, raw = target_group(aws, "web"), target_group(aws, "raw")
    assert (web["protocol"], web["port"], web["health_path"]) == ("HTTP", 30080, "/healthz")
    assert (web["health_port"], web["listener_ports"]) == (30080, [8080])
    assert (raw["protocol"], raw["port"], raw["health_path"], raw["listener_ports"]) == ("TCP", 30090, None, [8090])
    assert {target["id"] for target in web["targets"]} >= set(in_service(aws))


def test_a_target_is_initial_until_its_health_check_reports(aws: Server) -> None:
    instance = new_instance(aws)
    assert health(aws, "web", instance, 30080)[0] == "initial"
    report(aws, "web", instance, 30080, healthy=True)
    assert health(aws, "web", instance, 30080) == ("healthy", None)
    report(aws, "web", instance, 30080, healthy=False)
    assert health(aws, "web", instance, 30080) == ("unhealthy", "Target.FailedHealthChecks")
    retire(aws, instance)


def test_an_instance_that_boots_is_no_target_yet(aws: Server) -> None:
    answer = aws.client("autoscaling").launch_instances(
        AutoScalingGroupName="serving", RequestedCapacity=1, AvailabilityZones=[ZONES[1]]
    )
    instance = answer["Instances"][0]["InstanceIds"][0]
    assert health(aws, "web", instance, 30080) == ("unused", "Target.NotRegistered")
    until(lambda: health(aws, "web", instance, 30080)[0] == "initial", "the instance is registered")
    retire(aws, instance)


def test_a_deregistered_target_drains_and_then_is_unused(aws: Server) -> None:
    instance = new_instance(aws)
    arn = target_group(aws, "web")["target_group"]
    report(aws, "web", instance, 30080, healthy=True)
    aws.client("elbv2").deregister_targets(TargetGroupArn=arn, Targets=[{"Id": instance}])
    assert health(aws, "web", instance, 30080) == ("draining", "Target.DeregistrationInProgress")
    (shown,) = [target for target in target_group(aws, "web")["targets"] if target["id"] == instance]
    assert shown["state"] == "draining"
    assert shown["draining_until"] is not None
    report(aws, "web", instance, 30080, healthy=True)
    assert health(aws, "web", instance, 30080)[0] == "draining"
    until(lambda: health(aws, "web", instance, 30080)[0] == "unused", "the target has drained")
    assert health(aws, "web", instance, 30080) == ("unused", "Target.NotRegistered")
    everyone = aws.client("elbv2").describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    assert instance not in [description["Target"]["Id"] for description in everyone]
    assert instance in in_service(aws)
    retire(aws, instance)


def test_a_group_does_not_register_again_what_was_deregistered(aws: Server) -> None:
    instance = new_instance(aws)
    arn = target_group(aws, "raw")["target_group"]
    aws.client("elbv2").deregister_targets(TargetGroupArn=arn, Targets=[{"Id": instance}])
    retire(aws, new_instance(aws))
    assert health(aws, "raw", instance, 30090) == ("unused", "Target.NotRegistered")
    retire(aws, instance)


def test_a_terminating_instance_drains_before_it_shuts_down(aws: Server) -> None:
    instance = new_instance(aws)
    retire(aws, instance)
    assert health(aws, "web", instance, 30080)[0] == "draining"
    assert aws.instance(instance)["state"] == "running"
    until(lambda: aws.instance(instance)["state"] == "shutting-down", "the instance shuts down")
    until(lambda: aws.instance(instance)["state"] == "terminated", "the instance is terminated")
    assert health(aws, "web", instance, 30080) == ("unused", "Target.NotRegistered")


def test_deregistering_what_is_not_registered_is_no_error(aws: Server) -> None:
    arn = target_group(aws, "web")["target_group"]
    aws.client("elbv2").deregister_targets(TargetGroupArn=arn, Targets=[{"Id": "i-0123456789abcdef0"}])


def test_a_target_group_without_a_listener_is_not_in_use(aws: Server) -> None:
    client = aws.client("elbv2")
    vpc = client.describe_target_groups(Names=["web"])["TargetGroups"][0]["VpcId"]
    (made,) = client.create_target_group(Name="idle", Protocol="TCP", Port=9, VpcId=vpc)["TargetGroups"]
    instance = in_service(aws)[0]
    client.register_targets(TargetGroupArn=made["TargetGroupArn"], Targets=[{"Id": instance}])
    assert health(aws, "idle", instance, 9) == ("unused", "Target.NotInUse")


def test_targets_of_addresses_are_those_told_and_drain_when_they_are_told_no_more(aws: Server) -> None:
    def told(*addresses: str) -> dict[str, str]:
        aws.lab("POST", "pod-targets", {"target_group": "pods", "addresses": addresses})
        return {target["id"]: target["state"] for target in target_group(aws, "pods")["targets"]}

    (described,) = aws.client("elbv2").describe_target_groups(Names=["pods"])["TargetGroups"]
    assert described["TargetType"] == "ip"
    assert told("10.244.0.9", "10.244.64.9") == {"10.244.0.9": "initial", "10.244.64.9": "initial"}
    report(aws, "pods", "10.244.0.9", 8080, healthy=True)
    assert health(aws, "pods", "10.244.0.9", 8080)[0] == "healthy"
    # Told again, it stays as it is.
    assert told("10.244.0.9") == {"10.244.0.9": "healthy", "10.244.64.9": "draining"}
    assert told("10.244.0.9", "10.244.64.9") == {"10.244.0.9": "healthy", "10.244.64.9": "initial"}
