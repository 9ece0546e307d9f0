"""Target groups that come and go while they are asked."""

from typing import Any

import boto3
from botocore.exceptions import ClientError

from eks_rolling.clients.aws import AwsClient


class Pages:
    def __init__(self, **page: Any) -> None:
        self._page = page

    def paginate(self) -> list[dict[str, Any]]:
        return [self._page]


class Elbv2:
    """Three groups, of which one is deleted between the list and the question."""

    def get_paginator(self, _: str) -> Pages:
        kinds = {"kept": "instance", "deleted": "instance", "function": "lambda"}
        return Pages(TargetGroups=[{"TargetGroupArn": arn, "TargetType": kind} for arn, kind in kinds.items()])

    def describe_target_health(self, **asked: str) -> dict[str, Any]:
        if asked["TargetGroupArn"] == "deleted":
            raise ClientError({"Error": {"Code": "TargetGroupNotFound", "Message": "gone"}}, "DescribeTargetHealth")
        assert asked["TargetGroupArn"] == "kept"
        states = {"i-1": "healthy", "i-2": "healthy"}
        health = [{"Target": {"Id": i, "Port": 80}, "TargetHealth": {"State": state}} for i, state in states.items()]
        return {"TargetHealthDescriptions": health}

    def describe_target_group_attributes(self, **_: str) -> dict[str, Any]:
        return {"Attributes": [{"Key": "deregistration_delay.timeout_seconds", "Value": "30"}]}

    def deregister_targets(self, **_: Any) -> None:
        raise ClientError({"Error": {"Code": "TargetGroupNotFound", "Message": "gone"}}, "DeregisterTargets")


class Elb:
    """A classic load balancer that is deleted meanwhile."""

    def get_paginator(self, _: str) -> Pages:
        balancer = {"LoadBalancerName": "old", "Instances": [{"InstanceId": "i-1"}]}
        return Pages(LoadBalancerDescriptions=[balancer])

    def describe_instance_health(self, **_: Any) -> None:
        raise ClientError({"Error": {"Code": "LoadBalancerNotFound", "Message": "gone"}}, "DescribeInstanceHealth")


def test_a_group_that_is_deleted_while_they_are_asked_sends_nobody_anything() -> None:
    aws = AwsClient("demo", session=boto3.session.Session(region_name="eu-central-1"))
    aws.__dict__ |= {"_elbv2": Elbv2(), "_elb": Elb()}
    (target,) = aws.targets_of(["i-1"])
    assert (target.group, target.instance, target.others_healthy, target.delay_seconds) == ("kept", "i-1", 1, 30.0)
    aws.deregister(target)
