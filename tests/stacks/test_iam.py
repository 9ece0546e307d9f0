"""What a simulator of IAM that is not ours answers to requests of each step's role: allowed, and above all denied."""

import copy
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from eks_rolling.observed.marks import GROUP_MAXIMUM, GROUP_PUT_BACK, INSTANCE_REPLACES
from lab.aws.policies import Resource, statements
from stacks.functions import STEPS
from stacks.roles import NETWORK_INTERFACES, TAG_KEYS, TARGET_RESOURCES
from tests.assembly import PSEUDO, Assembly, in_network, synthesize, with_way_back

JUDGE = Path(__file__).resolve().parent.parent / "judges" / "iam.mjs"
ACCOUNT = "eu-central-1:123456789012"
GROUP = f"arn:aws:autoscaling:{ACCOUNT}:autoScalingGroup:0d9e:autoScalingGroupName/ng-a"
INSTANCE = f"arn:aws:ec2:{ACCOUNT}:instance/i-0123456789abcdef0"
OURS = {"aws:ResourceTag/kubernetes.io/cluster/demo": "owned"}
SHARED = {"aws:ResourceTag/kubernetes.io/cluster/demo": "shared"}
THEIRS = {"aws:ResourceTag/kubernetes.io/cluster/other": "owned"}
MANAGED = OURS | {"aws:ResourceTag/eks:nodegroup-name": "workers"}


@dataclass(frozen=True)
class Request:
    """What a step's role asks for, and whether it may."""

    step: str
    action: str
    resource: str
    allowed: bool
    context: dict[str, Any] = field(default_factory=dict)
    network: bool = False


def requests() -> Iterator[Request]:
    for step, permissions in STEPS.items():
        for action in permissions.groups:
            keys = {"aws:TagKeys": [GROUP_MAXIMUM]} if action in TAG_KEYS else {}
            yield Request(step, action, GROUP, True, OURS | keys)
            yield Request(step, action, GROUP, True, SHARED | keys)
            for context in (THEIRS, MANAGED, {}):
                yield Request(step, action, GROUP, False, context | keys)
        for action in permissions.instances:
            yield Request(step, action, INSTANCE, True, OURS | {"aws:TagKeys": [INSTANCE_REPLACES]})
            yield Request(step, action, INSTANCE, False, THEIRS | {"aws:TagKeys": [INSTANCE_REPLACES]})
            yield Request(step, action, INSTANCE, False, OURS | {"aws:TagKeys": [INSTANCE_REPLACES, "Name"]})
            yield Request(step, action, INSTANCE, False, OURS | {"aws:TagKeys": ["kubernetes.io/cluster/other"]})
        for action in permissions.targets:
            kind = TARGET_RESOURCES[action].replace("*", "web")
            yield Request(step, action, f"arn:aws:elasticloadbalancing:{ACCOUNT}:{kind}", True)
        for action, resource in FORBIDDEN.items():
            yield Request(step, action, resource, False, OURS)
        own = f"arn:aws:ssm:{ACCOUNT}:parameter/image"
        yield Request(step, "ssm:GetParameters", own, permissions.resolves_images, {"aws:ViaAWSService": "true"})
        yield Request(step, "ssm:GetParameters", own, allowed=False, context={"aws:ViaAWSService": "false"})
        yield Request(step, "ssm:GetParameter", own, allowed=False, context={"aws:ViaAWSService": "true"})
        document, elsewhere = "arn:aws:s3:::Reports/rolls/roll-1/report.json", "arn:aws:s3:::Reports/other/report.json"
        yield Request(step, "s3:PutObject", document, permissions.writes_reports)
        yield Request(step, "s3:PutObject", elsewhere, allowed=False)
        yield Request(step, "s3:GetObject", document, permissions.reads_reports)
        yield Request(step, "s3:DeleteObject", document, allowed=False)
        yield Request(step, "sns:Publish", f"arn:aws:sns:{ACCOUNT}:Messages", permissions.notifies)
        yield Request(step, "sns:Publish", f"arn:aws:sns:{ACCOUNT}:other", allowed=False)
        yield Request(step, "eks:DescribeCluster", f"arn:aws:eks:{ACCOUNT}:cluster/demo", bool(permissions.kubernetes))
        yield Request(step, "eks:DescribeCluster", f"arn:aws:eks:{ACCOUNT}:cluster/other", allowed=False)
    for action in NETWORK_INTERFACES:
        itself = {"lambda:SourceFunctionArn": f"arn:aws:lambda:{ACCOUNT}:function:step"}
        on = f"arn:aws:ec2:{ACCOUNT}:network-interface/eni-1" if "Describe" not in action else "*"
        yield Request("terminate", action, on, True, network=True)
        yield Request("terminate", action, on, action == "ec2:DescribeSubnets", itself, network=True)


FORBIDDEN = {
    "ec2:TerminateInstances": INSTANCE,
    "ec2:RunInstances": INSTANCE,
    "iam:PassRole": "arn:aws:iam::123456789012:role/node",
    "eks:CreateAccessEntry": f"arn:aws:eks:{ACCOUNT}:cluster/demo",
    "eks:UpdateClusterConfig": f"arn:aws:eks:{ACCOUNT}:cluster/demo",
    "autoscaling:DeleteAutoScalingGroup": GROUP,
    "lambda:UpdateFunctionCode": f"arn:aws:lambda:{ACCOUNT}:function:step",
    "lambda:InvokeFunction": f"arn:aws:lambda:{ACCOUNT}:function:step",
    "states:StartExecution": f"arn:aws:states:{ACCOUNT}:stateMachine:eks-rolling-demo-roll",
}
"""What no step may do, even to what is the cluster's."""


def policy_of(assembly: Assembly, step: str) -> dict[str, Any]:
    """The policy of a step's role, with everything that CloudFormation would fill in."""
    name = "".join(word.capitalize() for word in step.split("_"))
    (policy,) = [
        properties["PolicyDocument"]
        for logical_id, properties in assembly.of_type("AWS::IAM::Policy").items()
        if logical_id.startswith(f"Functions{name}Role")
    ]
    filled: dict[str, Any] = _filled(policy)
    return filled


def _filled(value: Any) -> Any:
    match value:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(_filled(part) for part in parts)
        case {"Ref": name} | {"Fn::GetAtt": [name, _]}:
            if name in PSEUDO:
                return PSEUDO[name]
            for kind, arn in (("Reports", "arn:aws:s3:::Reports"), ("Messages", f"arn:aws:sns:{ACCOUNT}:Messages")):
                if name.startswith(kind):
                    return arn
            return f"arn:aws:logs:{ACCOUNT}:log-group:{name}:*"
        case dict():
            return {key: _filled(item) for key, item in value.items()}
        case list():
            return [_filled(item) for item in value]
    return value


@cache
def policies(*, network: bool) -> dict[str, dict[str, Any]]:
    assembly = in_network() if network else synthesize()
    return {step: policy_of(assembly, step) for step in STEPS}


def judged(asked: list[Request], granted: dict[str, dict[str, Any]]) -> list[bool]:
    questions = [
        {
            "action": request.action,
            "resource": request.resource,
            "context": request.context,
            "policies": [granted[request.step] if not request.network else policies(network=True)[request.step]],
        }
        for request in asked
    ]
    ran = subprocess.run(["node", JUDGE], input=json.dumps(questions), capture_output=True, text=True, check=True)
    answers = json.loads(ran.stdout)
    assert [answer for answer in answers if "error" in answer] == []
    return [answer["result"] == "Allowed" for answer in answers]


def test_the_plan_alone_reads_the_parameters_that_aws_publishes() -> None:
    """Their ARNs name no account, which the simulator does not know."""
    public = ":parameter/aws/service/*"
    reads = [
        (step, statement["Action"])
        for step, policy in policies(network=False).items()
        for statement in policy["Statement"]
        if public in json.dumps(statement["Resource"])
    ]
    assert reads == [("plan", "ssm:GetParameters")]


def test_the_lab_evaluates_every_statement_of_every_role() -> None:
    """One that it does not know would break every roll in a lab."""
    read = {step: statements(json.dumps(policy)) for step, policy in policies(network=False).items()}
    assert all(read.values())
    (own,) = [s for s in read["plan"] if any(key == "aws:ViaAWSService" for _, key, _ in s.conditions)]
    parameter = Resource(f"arn:aws:ssm:{ACCOUNT}:parameter/image")
    assert not own.allows("ssm:GetParameters", parameter)


TEMPLATE = f"arn:aws:ec2:{ACCOUNT}:launch-template/lt-0123456789abcdef0"
NODES = "arn:aws:iam::123456789012:role/nodes"
FROM_TEMPLATE = {"ec2:LaunchTemplate": TEMPLATE, "ec2:IsLaunchTemplateResource": "true"}
TO_EC2 = {"iam:PassedToService": "ec2.amazonaws.com"}


def test_what_puts_versions_back_may_do_so_to_the_clusters_launch_templates_alone() -> None:
    """And launch from nothing else, with no other role, where it may launch at all (N4)."""
    step, keys = "put_back_version", {"aws:TagKeys": [GROUP_PUT_BACK]}
    asked = [
        Request(step, "ec2:ModifyLaunchTemplate", TEMPLATE, True, OURS),
        Request(step, "ec2:ModifyLaunchTemplate", TEMPLATE, False, THEIRS),
        Request(step, "ec2:ModifyLaunchTemplate", TEMPLATE, False),
        Request(step, "ec2:CreateLaunchTemplateVersion", TEMPLATE, False, OURS),
        Request(step, "ec2:DeleteLaunchTemplate", TEMPLATE, False, OURS),
        Request(step, "ec2:RunInstances", TEMPLATE, True, OURS),
        Request(step, "ec2:RunInstances", TEMPLATE, False, THEIRS),
        Request(step, "ec2:RunInstances", INSTANCE, True, FROM_TEMPLATE),
        Request(step, "ec2:RunInstances", INSTANCE, False),
        Request(step, "ec2:RunInstances", INSTANCE, False, {**FROM_TEMPLATE, "ec2:IsLaunchTemplateResource": "false"}),
        Request(step, "ec2:CreateTags", INSTANCE, True, {"ec2:CreateAction": "RunInstances"}),
        Request(step, "ec2:CreateTags", INSTANCE, False, OURS),
        Request(step, "iam:PassRole", NODES, True, TO_EC2),
        Request(step, "iam:PassRole", NODES, False, {"iam:PassedToService": "lambda.amazonaws.com"}),
        Request(step, "iam:PassRole", "arn:aws:iam::123456789012:role/admin", False, TO_EC2),
        Request(step, "autoscaling:UpdateAutoScalingGroup", GROUP, True, OURS),
        Request(step, "autoscaling:UpdateAutoScalingGroup", GROUP, False, MANAGED),
        Request(step, "autoscaling:CreateOrUpdateTags", GROUP, True, OURS | keys),
        Request(step, "autoscaling:CreateOrUpdateTags", GROUP, False, OURS | {"aws:TagKeys": ["Name"]}),
        Request(step, "autoscaling:CreateOrUpdateTags", GROUP, False, OURS | {"aws:TagKeys": [GROUP_MAXIMUM]}),
        Request(step, "autoscaling:TerminateInstanceInAutoScalingGroup", GROUP, False, OURS),
        Request(step, "ec2:TerminateInstances", INSTANCE, False, OURS),
    ]
    allowed = judged(asked, {step: policy_of(with_way_back(), step)})
    assert [r for r, may in zip(asked, allowed, strict=True) if may != r.allowed] == []
    assert statements(json.dumps(policy_of(with_way_back(), step)))


@cache
def answers() -> list[tuple[Request, bool]]:
    asked = list(requests())
    return list(zip(asked, judged(asked, policies(network=False)), strict=True))


@pytest.mark.parametrize("step", sorted(STEPS))
def test_each_request_is_answered_as_it_is_meant(step: str) -> None:
    """N4: what is another cluster's, or a managed node group's, is out of reach."""
    wrong = [request for request, allowed in answers() if request.step == step and allowed != request.allowed]
    assert wrong == []


def test_a_permission_that_is_too_wide_is_caught() -> None:
    """The planted fault: a condition that was lost."""
    wide = copy.deepcopy(policies(network=False))
    for statement in wide["terminate"]["Statement"]:
        statement.pop("Condition", None)
    asked = [request for request in requests() if request.step == "terminate" and not request.network]
    wrong = [r for r, allowed in zip(asked, judged(asked, wide), strict=True) if allowed != r.allowed]
    assert {(r.action, r.allowed) for r in wrong} == {("autoscaling:TerminateInstanceInAutoScalingGroup", False)}
    assert len(wrong) == 3
