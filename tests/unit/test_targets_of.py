"""Target groups: which are asked, how often, and what comes of those that appear and go while they are asked."""

from collections import Counter
from dataclasses import replace
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from eks_rolling.clients.aws import AwsClient
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.observed.marks import registrations_on
from eks_rolling.payloads import NodeTask, Status, StepResult
from eks_rolling.roll import lock
from eks_rolling.settings import Settings
from eks_rolling.steps import await_load_balancers, leave_load_balancers
from tests.world import World

OLD, ADDRESS = "i-1", "10.0.0.7"


def arn(name: str) -> str:
    return f"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/{name}/abc"


class Pages:
    def __init__(self, **page: Any) -> None:
        self._page = page

    def paginate(self) -> list[dict[str, Any]]:
        return [self._page]


class Elbv2:
    """Target groups: name -> (type, whether a load balancer leads there, target -> its state). Counts what it is asked.

    One called `deleted` goes between the list and the question.
    """

    def __init__(self, groups: dict[str, tuple[str, bool, dict[str, str]]]) -> None:
        self.groups = groups
        self.asked: Counter[str] = Counter()

    def get_paginator(self, _: str) -> Pages:
        self.asked["groups"] += 1
        listed = [
            {"TargetGroupArn": arn(name), "TargetType": kind, "LoadBalancerArns": ["arn:lb"] if leads else []}
            for name, (kind, leads, _) in self.groups.items()
        ]
        return Pages(TargetGroups=listed)

    def describe_target_health(self, **asked: str) -> dict[str, Any]:
        self.asked["health"] += 1
        name = asked["TargetGroupArn"].split("/")[1]
        if name == "deleted":
            raise ClientError({"Error": {"Code": "TargetGroupNotFound", "Message": "gone"}}, "DescribeTargetHealth")
        states = self.groups[name][2]
        health = [{"Target": {"Id": i, "Port": 80}, "TargetHealth": {"State": state}} for i, state in states.items()]
        return {"TargetHealthDescriptions": health}

    def describe_target_group_attributes(self, **_: str) -> dict[str, Any]:
        self.asked["attributes"] += 1
        return {"Attributes": [{"Key": "deregistration_delay.timeout_seconds", "Value": "30"}]}

    def deregister_targets(self, **asked: Any) -> None:
        name = asked["TargetGroupArn"].split("/")[1]
        if name == "kept":
            raise ClientError({"Error": {"Code": "TargetGroupNotFound", "Message": "gone"}}, "DeregisterTargets")
        self.groups[name][2].update({target["Id"]: "draining" for target in asked["Targets"]})


class Elb:
    """A classic load balancer that is deleted meanwhile."""

    def get_paginator(self, _: str) -> Pages:
        balancer = {"LoadBalancerName": "old", "Instances": [{"InstanceId": OLD}]}
        return Pages(LoadBalancerDescriptions=[balancer])

    def describe_instance_health(self, **_: Any) -> None:
        raise ClientError({"Error": {"Code": "LoadBalancerNotFound", "Message": "gone"}}, "DescribeInstanceHealth")


def account(elbv2: Elbv2) -> AwsClient:
    aws = AwsClient("demo", session=boto3.session.Session(region_name="eu-central-1"))
    aws.__dict__ |= {"_elbv2": elbv2, "_elb": Elb()}
    return aws


def test_those_that_drain_or_are_unused_are_no_others() -> None:
    known = {OLD: "healthy", "i-2": "healthy", "i-3": "initial", "i-4": "unhealthy"}
    states = known | {"i-5": "draining", "i-6": "unused"}
    targets = account(Elbv2({"web": ("instance", True, states)})).targets_of([OLD, "i-3"])
    assert [(t.instance, t.state, t.others_healthy, t.others) for t in targets] == [
        (OLD, "healthy", 1, 3),
        ("i-3", "initial", 2, 3),
    ]


def test_a_group_that_is_deleted_while_they_are_asked_sends_nobody_anything() -> None:
    both = {OLD: "healthy", "i-2": "healthy"}
    groups = {"kept": ("instance", True, both), "deleted": ("instance", True, both), "function": ("lambda", True, both)}
    aws = account(Elbv2(groups))
    (target,) = aws.targets_of([OLD])
    assert (target.name, target.instance, target.others_healthy, target.delay_seconds) == ("kept", OLD, 1, 30.0)
    aws.deregister(target)


REGION = {
    **{f"pods-{n}": ("ip", True, {"10.0.0.9": "healthy"}) for n in range(200)},
    **{f"idle-{n}": ("instance", False, {OLD: "unused"}) for n in range(60)},
    **{f"others-{n}": ("instance", True, {"i-9": "healthy"}) for n in range(38)},
}
"""A region's other target groups."""


@pytest.mark.parametrize(
    ("wanted", "among", "found", "asked"),
    [
        ([OLD], None, ["web"], 39),
        ([ADDRESS], None, ["pods"], 201),
        ([OLD, ADDRESS], None, ["pods", "web"], 240),
        ([OLD], {arn("web")}, ["web"], 1),
        ([OLD], {arn("another"), "old"}, [], 0),
    ],
)
def test_only_groups_that_can_lead_to_what_is_looked_for_are_asked(
    wanted: list[str], among: set[str] | None, found: list[str], asked: int
) -> None:
    """An instance is never in a group of addresses, and nothing comes from a group without a load balancer."""
    mine = {"web": ("instance", True, {OLD: "healthy"}), "pods": ("ip", True, {ADDRESS: "healthy"})}
    elbv2 = Elbv2(REGION | mine)
    targets = account(elbv2).targets_of(wanted, among)
    assert sorted(t.name for t in targets) == found
    assert elbv2.asked == Counter(groups=1, health=asked, attributes=len(found))


class Leaving:
    """A node on its way out of its target group, in a region of 300; its cluster is in memory."""

    def __init__(self) -> None:
        self.world = World()
        self.world.group("ng-a", ["zone-a"], maximum=3)
        node = self.world.add_node("ng-a", "zone-a")
        self.node = node
        self.instance = self.world.nodes_by_name[node].instance
        settings = Settings(cluster="demo")
        self.world.put_lease(Lease(lock.lock_name(settings.namespace), "roll-1", 0.0, 180.0))
        self.elbv2 = Elbv2(REGION | {"web": ("instance", True, {self.instance: "healthy", "i-2": "healthy"})})
        self.clients = replace(self.world.clients(settings), aws=account(self.elbv2))

    def takes(self, step: ModuleType) -> tuple[StepResult, int]:
        """What one look of the step answers, and how many target groups it asked."""
        before = self.elbv2.asked["health"]
        task = NodeTask(roll="roll-1", instance=self.instance, node=self.node, group="ng-a")
        return step.run(task, self.clients), self.elbv2.asked["health"] - before

    def stands(self, name: str, state: str) -> None:
        """The load balancer's next answer."""
        self.elbv2.groups[name][2][self.instance] = state


def test_while_a_node_drains_only_what_it_left_is_asked_and_all_of_it_before_it_goes_on() -> None:
    """N2. One group is its own; one that it joins in the middle is seen before the step ends, and recorded [R1]."""
    leaving = Leaving()
    result, asked = leaving.takes(leave_load_balancers)
    assert (result.reason, asked) == ("the node's registrations are recorded", 39)
    result, asked = leaving.takes(leave_load_balancers)
    assert (result.reason, asked) == ("deregistered from web", 1)
    result, asked = leaving.takes(leave_load_balancers)
    assert (result.reason, asked) == ("connections of web are draining", 1)

    leaving.stands("web", "unused")
    leaving.elbv2.groups["late"] = ("instance", True, {leaving.instance: "healthy", "i-2": "healthy"})
    result, asked = leaving.takes(leave_load_balancers)
    assert (result.reason, asked) == ("the node's registrations are recorded", 1 + 40)
    recorded = registrations_on(leaving.world.nodes_by_name[leaving.node])
    assert [t.name for t in recorded] == ["web", "late"]
    assert leaving.takes(leave_load_balancers)[0].reason == "deregistered from late"

    result, asked = leaving.takes(await_load_balancers)
    assert (result.status, result.reason, asked) == (Status.WAIT, "connections may still come from late (draining)", 2)
    leaving.stands("late", "unused")
    leaving.elbv2.groups["last"] = ("instance", True, {leaving.instance: "healthy"})
    result, asked = leaving.takes(await_load_balancers)
    assert (result.status, result.reason) == (Status.WAIT, "connections may still come from last (healthy)")
    leaving.stands("last", "unused")
    result, asked = leaving.takes(await_load_balancers)
    assert (result.status, asked) == (Status.DONE, 2 + 41)
