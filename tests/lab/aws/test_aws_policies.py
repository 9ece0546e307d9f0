"""What a role may call: its policies, evaluated for every call."""

import json
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from eks_rolling.clients.aws import translated
from eks_rolling.errors import AccessDenied
from lab.aws.policies import ANY, PolicyError, Resource, statements
from tests.aws_lab import REGION, Server, document, role

GROUPS = "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/*"
TAGGED = {"Null": {"aws:ResourceTag/kubernetes.io/cluster/demo": "false"}}
EQUAL = {"StringEquals": {"aws:ResourceTag/x": ["y", "z"]}}
KEYS = {"ForAllValues:StringEquals": {"aws:TagKeys": ["x", "y"]}}
GROUP = "arn:aws:autoscaling:eu-central-1:1:autoScalingGroup:2:autoScalingGroupName/a"


@pytest.mark.parametrize(
    ("policy", "action", "resource", "allowed"),
    [
        (document("ec2:DescribeInstances"), "ec2:DescribeInstances", ANY, True),
        (document("ec2:DescribeInstances"), "ec2:DescribeSubnets", ANY, False),
        (document(["s3:Get*", "s3:List?ucket"]), "s3:GetObject", Resource("arn:aws:s3:::b/k"), True),
        (document(["s3:Get*", "s3:List?ucket"]), "s3:ListBucket", Resource("arn:aws:s3:::b"), True),
        (document(["s3:Get*", "s3:List?ucket"]), "s3:PutObject", Resource("arn:aws:s3:::b/k"), False),
        (document("s3:PutObject", "arn:aws:s3:::b/rolls/*"), "s3:PutObject", Resource("arn:aws:s3:::b/rolls/x"), True),
        (document("s3:PutObject", "arn:aws:s3:::b/rolls/*"), "s3:PutObject", Resource("arn:aws:s3:::b/other"), False),
        # An action that takes no resource is allowed on "*" only.
        (document("ec2:DescribeInstances", "arn:aws:ec2:*:*:instance/*"), "ec2:DescribeInstances", ANY, False),
        (document("ec2:createtags"), "ec2:CreateTags", None, True),
        (document("ec2:CreateTags", "arn:aws:ec2:::instance/i-1"), "sns:Publish", None, False),
        (document("a:B", GROUPS, TAGGED), "a:B", Resource.tagged(GROUP, {"kubernetes.io/cluster/demo": ""}), True),
        (
            document("a:B", GROUPS, TAGGED),
            "a:B",
            Resource.tagged(GROUP, {"kubernetes.io/cluster/other": "owned"}),
            False,
        ),
        (document("a:B", GROUPS, {"Null": {"aws:ResourceTag/x": True}}), "a:B", Resource(GROUP), True),
        (document("a:B", "*", EQUAL), "a:B", Resource.tagged("r", {"x": "y"}), True),
        (document("a:B", "*", EQUAL), "a:B", Resource("r"), False),
        (document("a:B", "*", {"StringLike": {"s3:prefix": "y*"}}), "a:B", Resource("r", {"s3:prefix": ("z",)}), False),
        (document("a:B", "*", KEYS), "a:B", Resource("r", {"aws:TagKeys": ("x", "y")}), True),
        (document("a:B", "*", KEYS), "a:B", Resource("r", {"aws:TagKeys": ("x", "z")}), False),
    ],
)
def test_a_statement_allows_what_iam_says_it_does(
    policy: str, action: str, resource: Resource | None, allowed: bool
) -> None:
    assert any(s.allows(action, resource) for s in statements(policy)) is allowed


@pytest.mark.parametrize(
    "policy",
    [
        json.dumps({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}),
        json.dumps({"Statement": {"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}}),
        document("s3:GetObject", "*", {"Bool": {"aws:SecureTransport": "true"}}),
    ],
)
def test_what_the_lab_does_not_evaluate_is_an_error_and_not_passed_over(policy: str) -> None:
    with pytest.raises(PolicyError):
        statements(policy)


def client(server: Server, session: boto3.session.Session, service: str) -> Any:
    make: Any = session.client
    return make(service, endpoint_url=server.endpoint, config=Config(retries={"total_max_attempts": 1}))


CALLS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "autoscaling:SuspendProcesses": (
        "autoscaling",
        "suspend_processes",
        {"AutoScalingGroupName": "replaced"},
        "AccessDenied",
    ),
    "cloudwatch:DescribeAlarms": ("cloudwatch", "describe_alarms", {}, "AccessDenied"),
    "ec2:DescribeSubnets": ("ec2", "describe_subnets", {}, "UnauthorizedOperation"),
    "eks:DescribeCluster": ("eks", "describe_cluster", {"name": "demo"}, "AccessDeniedException"),
    "elasticloadbalancing:DescribeTargetGroups": ("elbv2", "describe_target_groups", {}, "AccessDenied"),
    "elasticloadbalancing:DescribeLoadBalancers": ("elb", "describe_load_balancers", {}, "AccessDenied"),
    "lambda:InvokeFunction": ("lambda", "invoke", {"FunctionName": "none"}, "AccessDeniedException"),
    "s3:PutObject": ("s3", "put_object", {"Bucket": "reports", "Key": "rolls/x", "Body": b"x"}, "AccessDenied"),
    "sns:Publish": (
        "sns",
        "publish",
        {"TopicArn": "arn:aws:sns:eu-central-1:123456789012:messages", "Message": "x"},
        "AuthorizationError",
    ),
    "states:StartExecution": (
        "stepfunctions",
        "start_execution",
        {"stateMachineArn": "arn:aws:states:eu-central-1:123456789012:stateMachine:none"},
        "AccessDeniedException",
    ),
}


@pytest.mark.lab
@pytest.mark.parametrize("action", CALLS)
def test_a_call_that_no_policy_allows_is_denied_as_the_service_does_and_names_the_action(
    aws: Server, action: str
) -> None:
    service, operation, parameters, code = CALLS[action]
    with role(aws, "denied", document("sts:AssumeRole")) as session:
        call = getattr(client(aws, session, service), operation)
        with pytest.raises(ClientError) as denied:
            call(**parameters)
        with pytest.raises(AccessDenied, match=f"denied.*may not {action}") as ours, translated("try it"):
            call(**parameters)
        recorded = aws.lab("GET", "calls")[-1]
    assert denied.value.response["Error"]["Code"] == code
    assert denied.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert str(ours.value).startswith("Cannot try it:")
    assert (f"{recorded['service']}:{recorded['action']}", recorded["status"]) == (action, 403)
    assert recorded["role"].endswith(":role/denied")


@pytest.mark.lab
def test_a_tag_condition_lets_a_role_change_the_clusters_own_groups_and_instances_only(aws: Server) -> None:
    """N4, by IAM."""
    other = aws.client("autoscaling")
    other.create_auto_scaling_group(
        AutoScalingGroupName="untagged",
        LaunchTemplate={"LaunchTemplateName": "replaced"},
        MinSize=0,
        MaxSize=1,
        AvailabilityZones=["eu-central-1a"],
    )
    (instance,) = other.describe_auto_scaling_groups(AutoScalingGroupNames=["managed"])["AutoScalingGroups"][0][
        "Instances"
    ]
    own = {"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}
    allow = (
        document("autoscaling:*", GROUPS, TAGGED | own),
        document("ec2:CreateTags", "arn:aws:ec2:*:*:instance/*", TAGGED),
    )
    with role(aws, "tagged", *allow) as session:
        autoscaling, ec2 = client(aws, session, "autoscaling"), client(aws, session, "ec2")
        autoscaling.suspend_processes(AutoScalingGroupName="replaced", ScalingProcesses=["AZRebalance"])
        tag = {"ResourceType": "auto-scaling-group", "Key": "a", "Value": "b", "PropagateAtLaunch": False}
        autoscaling.create_or_update_tags(Tags=[{"ResourceId": "replaced", **tag}])
        ec2.create_tags(Resources=[instance["InstanceId"]], Tags=[{"Key": "a", "Value": "b"}])
        with pytest.raises(ClientError, match="AccessDenied"):
            autoscaling.create_or_update_tags(Tags=[{"ResourceId": "replaced", **tag, "Key": "b"}])
        with pytest.raises(ClientError, match="AccessDenied"):
            autoscaling.suspend_processes(AutoScalingGroupName="untagged", ScalingProcesses=["AZRebalance"])
        with pytest.raises(ClientError, match="AccessDenied"):
            autoscaling.create_or_update_tags(Tags=[{"ResourceId": "untagged", **tag}])
    aws.client("autoscaling").resume_processes(AutoScalingGroupName="replaced")


@pytest.mark.lab
def test_documents_are_listed_below_an_allowed_prefix_only(aws: Server) -> None:
    location = {"LocationConstraint": REGION}
    aws.client("s3").create_bucket(Bucket="permitted", CreateBucketConfiguration=location)
    allow = document("s3:ListBucket", "arn:aws:s3:::permitted", {"StringLike": {"s3:prefix": "rolls/*"}})
    with role(aws, "listing", allow) as session:
        s3 = client(aws, session, "s3")
        s3.list_objects_v2(Bucket="permitted", Prefix="rolls/one/")
        with pytest.raises(ClientError, match="s3:ListBucket"):
            s3.list_objects_v2(Bucket="permitted", Prefix="other/")
        with pytest.raises(ClientError, match="s3:ListBucket"):
            s3.list_objects_v2(Bucket="permitted")


@pytest.mark.lab
def test_launch_instances_needs_what_it_calls_on_the_callers_behalf(aws: Server) -> None:
    launch = {
        "AutoScalingGroupName": "launching",
        "RequestedCapacity": 1,
        "AvailabilityZones": ["eu-central-1a"],
    }
    fleet = ["ec2:CreateFleet", "ec2:DescribeLaunchTemplateVersions"]
    with (
        role(aws, "without", document("autoscaling:LaunchInstances", GROUPS)) as session,
        pytest.raises(ClientError, match="ec2:CreateFleet"),
    ):
        client(aws, session, "autoscaling").launch_instances(ClientToken="without", **launch)
    with role(aws, "with", document("autoscaling:LaunchInstances", GROUPS), document(fleet)) as session:
        answer = client(aws, session, "autoscaling").launch_instances(ClientToken="with", **launch)
    assert answer["Instances"]
    calls = [f"{c['service']}:{c['action']}" for c in aws.lab("GET", "calls") if c["role"] and "role/with" in c["role"]]
    assert [c for c in calls if c.startswith("ec2:")] == fleet


@pytest.mark.lab
def test_what_the_organization_denies_no_policy_allows_and_the_simulator_says_so(aws: Server) -> None:
    with role(aws, "limited", document(["ec2:DescribeInstances", "ec2:CreateTags"])) as session:
        ec2, arn = client(aws, session, "ec2"), aws.client("iam").get_role(RoleName="limited")["Role"]["Arn"]
        ec2.describe_instances()
        aws.lab("PUT", "faults", {"organization_denies": ["ec2:Desc*"]})
        try:
            with pytest.raises(ClientError, match="with an explicit deny in a service control policy"):
                ec2.describe_instances()
            # Nobody without a role is held to it: that is the organization's administrator.
            aws.client("ec2").describe_instances()
            actions = ["ec2:DescribeInstances", "ec2:CreateTags", "ec2:DeleteTags"]
            answer = aws.client("iam").simulate_principal_policy(PolicySourceArn=arn, ActionNames=actions)
        finally:
            aws.lab("PUT", "faults", {})
    judged = {
        r["EvalActionName"]: (r["EvalDecision"], r["OrganizationsDecisionDetail"]["AllowedByOrganizations"])
        for r in answer["EvaluationResults"]
    }
    assert judged == {
        "ec2:DescribeInstances": ("explicitDeny", False),
        "ec2:CreateTags": ("allowed", True),
        "ec2:DeleteTags": ("implicitDeny", True),
    }
