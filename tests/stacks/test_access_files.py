"""The files that give people access: what the command needs is in them, by names that exist."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from eks_rolling.names import MACHINES, machine_name
from eks_rolling.roll.lock import lock_name
from eks_rolling.settings import Settings
from tests.stacks.test_iam import Request, judged
from tests.stacks.test_roles import reference

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FILES = ("operator.json", "deployer.json")


def policy(name: str) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads((REPOSITORY / "deploy" / "iam" / name).read_text())["Statement"]
    return statements


def actions(name: str) -> set[str]:
    listed = [s["Action"] for s in policy(name)]
    return {a for each in listed for a in ([each] if isinstance(each, str) else each)}


def rbac(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((REPOSITORY / "deploy" / name).read_text()))


@pytest.mark.parametrize("name", FILES)
def test_every_action_is_one_that_aws_knows(name: str) -> None:
    for action in actions(name):
        service, _, called = action.partition(":")
        assert any(fnmatch(known, called.lower()) for known in reference()[service]["Actions"]), action


def test_the_operators_policy_allows_what_the_commands_page_says_it_calls() -> None:
    page = (REPOSITORY / "docs" / "command.md").read_text().partition("## Permissions it needs")[2]
    called = set(re.findall(r"`([a-z0-9]+:[A-Z][A-Za-z]*\*?)`", page))
    assert "states:StartExecution" in called
    assert sorted(c for c in called if not any(fnmatch(c, allowed) for allowed in actions("operator.json"))) == []


def test_the_operators_policy_names_the_machines_that_are_deployed() -> None:
    named = {s["Sid"]: s["Resource"] for s in policy("operator.json")}
    machines = [machine_name("CLUSTER", machine) for machine in MACHINES]
    assert sorted(arn.rpartition(":")[2] for arn in named["Rolls"]) == sorted(machines)
    assert sorted(arn.split(":")[-2] for arn in named["Executions"]) == sorted(machines)


def filled(name: str) -> dict[str, Any]:
    """The file as somebody fills it in for the cluster demo."""
    text = (REPOSITORY / "deploy" / "iam" / name).read_text()
    for word, value in {"ACCOUNT": "123456789012", "REGION": "eu-central-1", "CLUSTER": "demo", "BUCKET": "b"}.items():
        text = text.replace(word, value)
    return dict(json.loads(text))


HERE = "eu-central-1:123456789012"
MACHINE, OTHER = (
    f"arn:aws:states:{HERE}:stateMachine:eks-rolling-demo",
    f"arn:aws:states:{HERE}:stateMachine:eks-rolling",
)
RUN = f"arn:aws:states:{HERE}:execution:eks-rolling-demo"
BOOTSTRAP = "arn:aws:iam::123456789012:role/cdk-hnb659fds"

OPERATOR_MAY = [
    ("autoscaling:DescribeAutoScalingGroups", "*"),
    ("ec2:DescribeInstances", "*"),
    ("ec2:DescribeLaunchTemplateVersions", "*"),
    ("elasticloadbalancing:DescribeTargetHealth", "*"),
    ("cloudtrail:DescribeTrails", "*"),
    ("eks:ListClusters", "*"),
    ("eks:DescribeCluster", f"arn:aws:eks:{HERE}:cluster/demo"),
    ("eks:ListAccessEntries", f"arn:aws:eks:{HERE}:cluster/demo"),
    ("eks:DescribeAccessEntry", f"arn:aws:eks:{HERE}:access-entry/demo/role/123456789012/EksRolling-demo-Plan/1"),
    ("cloudformation:DescribeStacks", f"arn:aws:cloudformation:{HERE}:stack/EksRolling-demo/1"),
    ("sns:GetTopicAttributes", f"arn:aws:sns:{HERE}:EksRolling-demo-Messages-1"),
    ("iam:SimulatePrincipalPolicy", "arn:aws:iam::123456789012:role/EksRolling-demo-FunctionsPlanRole-1"),
    ("iam:GetRolePolicy", "arn:aws:iam::123456789012:role/EksRolling-demo-FunctionsPlanRole-1"),
    ("logs:DescribeLogGroups", "*"),
    ("cloudwatch:DescribeAlarms", "*"),
    ("cloudtrail:GetEventSelectors", "*"),
    ("states:ListStateMachines", "*"),
    ("states:DescribeStateMachine", f"{MACHINE}-roll"),
    ("states:StartExecution", f"{MACHINE}-roll"),
    ("states:StartExecution", f"{MACHINE}-restore"),
    ("states:ListExecutions", f"{MACHINE}-node"),
    ("states:SendTaskSuccess", "*"),
    ("states:SendTaskFailure", "*"),
    ("states:DescribeExecution", f"{RUN}-node:i-1-roll-1"),
    ("states:GetExecutionHistory", f"{RUN}-roll:roll-1"),
    ("states:StopExecution", f"{RUN}-roll:roll-1"),
    ("lambda:GetFunctionConcurrency", f"arn:aws:lambda:{HERE}:function:EksRolling-demo-FunctionsPlan-1"),
    ("lambda:GetFunctionConfiguration", f"arn:aws:lambda:{HERE}:function:EksRolling-demo-FunctionsPlan-1"),
    ("sns:ListSubscriptionsByTopic", f"arn:aws:sns:{HERE}:EksRolling-demo-Messages-1"),
    ("events:DescribeRule", f"arn:aws:events:{HERE}:rule/EksRolling-demo-Change-1"),
    ("s3:GetObject", "arn:aws:s3:::b/rolls/roll-1/report.json"),
    ("s3:ListBucket", "arn:aws:s3:::b"),
]
OPERATOR_MAY_NOT = [
    ("states:StartExecution", f"{OTHER}-demo-two-roll"),
    ("states:GetExecutionHistory", f"arn:aws:states:{HERE}:execution:eks-rolling-demo-two-roll:roll-1"),
    ("states:StopExecution", f"arn:aws:states:{HERE}:execution:eks-rolling-demo-two-roll:roll-1"),
    ("states:UpdateStateMachine", f"{MACHINE}-roll"),
    ("states:DeleteStateMachine", f"{MACHINE}-roll"),
    ("eks:DescribeCluster", f"arn:aws:eks:{HERE}:cluster/other"),
    ("eks:ListAccessEntries", f"arn:aws:eks:{HERE}:cluster/other"),
    ("iam:GetRolePolicy", "arn:aws:iam::123456789012:role/admin"),
    ("iam:PutRolePolicy", "arn:aws:iam::123456789012:role/EksRolling-demo-FunctionsPlanRole-1"),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/EksRolling-demo-FunctionsPlanRole-1"),
    ("eks:DescribeAccessEntry", f"arn:aws:eks:{HERE}:access-entry/other/role/123456789012/EksRolling-demo-Plan/1"),
    ("cloudformation:DescribeStacks", f"arn:aws:cloudformation:{HERE}:stack/EksRolling-demo-two/1"),
    ("kms:Decrypt", f"arn:aws:kms:{HERE}:key/1"),
    ("kms:ScheduleKeyDeletion", f"arn:aws:kms:{HERE}:key/1"),
    ("eks:CreateAccessEntry", f"arn:aws:eks:{HERE}:cluster/demo"),
    ("autoscaling:UpdateAutoScalingGroup", f"arn:aws:autoscaling:{HERE}:autoScalingGroup:1:autoScalingGroupName/ng"),
    ("ec2:TerminateInstances", f"arn:aws:ec2:{HERE}:instance/i-1"),
    ("lambda:InvokeFunction", f"arn:aws:lambda:{HERE}:function:EksRolling-demo-FunctionsPlan-1"),
    ("lambda:UpdateFunctionCode", f"arn:aws:lambda:{HERE}:function:EksRolling-demo-FunctionsPlan-1"),
    ("sns:Publish", f"arn:aws:sns:{HERE}:EksRolling-demo-Messages-1"),
    ("s3:PutObject", "arn:aws:s3:::b/rolls/roll-1/report.json"),
    ("s3:DeleteObject", "arn:aws:s3:::b/rolls/roll-1/report.json"),
    ("s3:GetObject", "arn:aws:s3:::other/rolls/roll-1/report.json"),
    ("sts:AssumeRole", f"{BOOTSTRAP}-deploy-role-123456789012-eu-central-1"),
]
DEPLOYER_MAY = [
    ("sts:AssumeRole", f"{BOOTSTRAP}-deploy-role-123456789012-eu-central-1"),
    ("sts:AssumeRole", f"{BOOTSTRAP}-file-publishing-role-123456789012-eu-central-1"),
    ("sts:AssumeRole", f"{BOOTSTRAP}-lookup-role-123456789012-eu-central-1"),
    ("ssm:GetParameter", f"arn:aws:ssm:{HERE}:parameter/cdk-bootstrap/hnb659fds/version"),
]
DEPLOYER_MAY_NOT = [
    ("sts:AssumeRole", f"{BOOTSTRAP}-cfn-exec-role-123456789012-eu-central-1"),
    ("sts:AssumeRole", f"{BOOTSTRAP}-deploy-role-123456789012-us-east-1"),
    ("sts:AssumeRole", "arn:aws:iam::210987654321:role/cdk-hnb659fds-deploy-role-210987654321-eu-central-1"),
    ("sts:AssumeRole", "arn:aws:iam::123456789012:role/admin"),
    ("ssm:GetParameter", f"arn:aws:ssm:{HERE}:parameter/password"),
    ("ssm:PutParameter", f"arn:aws:ssm:{HERE}:parameter/cdk-bootstrap/hnb659fds/version"),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/node"),
    ("cloudformation:CreateStack", f"arn:aws:cloudformation:{HERE}:stack/EksRolling-demo/1"),
    ("states:StartExecution", f"{MACHINE}-roll"),
]


@pytest.mark.parametrize(
    ("name", "may", "may_not"),
    [("operator", OPERATOR_MAY, OPERATOR_MAY_NOT), ("deployer", DEPLOYER_MAY, DEPLOYER_MAY_NOT)],
)
def test_a_simulator_of_iam_allows_and_denies_what_is_meant(
    name: str, may: list[tuple[str, str]], may_not: list[tuple[str, str]]
) -> None:
    asked = [Request(name, *each, allowed) for listed, allowed in ((may, True), (may_not, False)) for each in listed]
    answers = judged(asked, {name: filled(f"{name}.json")})
    assert [r for r, allowed in zip(asked, answers, strict=True) if allowed != r.allowed] == []


def test_an_operators_policy_that_is_too_wide_is_caught() -> None:
    """The planted fault: a star behind the cluster's name takes in a cluster whose name begins so."""
    wide = filled("operator.json")
    (rolls,) = [s for s in wide["Statement"] if s["Sid"] == "Rolls"]
    rolls["Resource"] = f"{MACHINE}-*"
    asked = [Request("operator", *each, allowed=False) for each in OPERATOR_MAY_NOT]
    answers = judged(asked, {"operator": wide})
    assert [r.resource for r, allowed in zip(asked, answers, strict=True) if allowed] == [f"{OTHER}-demo-two-roll"]


def test_operators_are_bound_to_a_role_that_is_there_and_may_write_on_the_lock_alone() -> None:
    documents = rbac("iam/operator-rbac.yaml")
    there = {d["metadata"]["name"] for d in (*rbac("rbac.yaml"), *documents) if d["kind"] in {"ClusterRole", "Role"}}
    assert {d["roleRef"]["name"] for d in documents if "roleRef" in d} <= there
    (role,) = [d for d in documents if d["kind"] == "Role"]
    (rule,) = role["rules"]
    assert f"{role['metadata']['namespace']}/{rule['resourceNames'][0]}" == lock_name(Settings(cluster="x").namespace)
    assert (rule["resources"], rule["verbs"]) == (["leases"], ["get", "update"])


def test_operators_may_neither_change_groups_nor_read_secrets() -> None:
    """The functions do that: nobody needs it to operate a roll."""
    assert not [
        a for a in actions("operator.json") if re.search(r":(Update|Terminate|Create|Delete|Put|Set|Launch)", a)
    ]
    assert "secrets" not in (REPOSITORY / "deploy" / "iam" / "operator-rbac.yaml").read_text()


ENDPOINTS = {"elbv2": "elasticloadbalancing", "elb": "elasticloadbalancing", "cloudwatch": "monitoring",
             "service-quotas": "servicequotas", "stepfunctions": "states"}  # fmt: skip
"""The names of VPC endpoints that are not botocore's for the service."""


def test_the_page_on_private_networks_lists_an_endpoint_for_every_service_that_functions_call() -> None:
    clients = (REPOSITORY / "lambdas" / "eks_rolling" / "clients").glob("*.py")
    called = {name for file in clients for name in re.findall(r"\.client\(\s*\"([a-z0-9-]+)\"", file.read_text())}
    assert {"autoscaling", "lambda", "eks"} <= called
    listed = re.findall(
        r"^\| `([a-z0-9]+)` \|", (REPOSITORY / "docs" / "private-networks.md").read_text(), re.MULTILINE
    )
    # A token for the API server is a signed request to STS, which the API server makes.
    assert {ENDPOINTS.get(name, name) for name in called} <= set(listed)
