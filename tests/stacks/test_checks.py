"""The template before others' eyes: cdk-nag's rules, cfn-lint, CloudFormation as moto has it, and AWS's limits."""

import io
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from eks_rolling.settings import ENVIRONMENT_VARIABLE
from tests.assembly import DOCUMENT, NETWORK, Assembly, in_network, synthesize

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IAM = r"AwsSolutions-IAM5\[Resource::"

ACCEPTED = {
    "AwsSolutions-S1": "reports are no secrets to log the readers of; who wants that has CloudTrail's data events",
    "AwsSolutions-SF1": "an execution's history has every event for 90 days; a log of ALL would hold each poll twice",
    "AwsSolutions-SQS3": "it is the dead letter queue",
    "AwsSolutions-L1": "Python 3.13 is supported until 2029; the layer is built and tested for it",
    IAM + r"\*\]": "actions that take no resource; test_roles checks each against its reason",
    IAM + r"<Reports\w+\.Arn>/rolls/\*\]": "a roll's documents are named by the roll",
    IAM + r"arn:.*:autoScalingGroup:\*:autoScalingGroupName/\*\]": "the cluster's groups by tag, see the condition",
    IAM
    + r"arn:.*:ec2:.*:instance/\*\]": "the cluster's instances by tag, see the condition; for CreateFleet any new one",
    IAM + r"arn:.*:ec2:.*:(capacity-reservation|fleet|image|launch-template|placement-group|subnet|volume)/\*\]": (
        "CreateFleet: what LaunchInstances touches is named by the group's launch template (stacks/roles.py)"
    ),
    IAM + r"arn:.*:elasticloadbalancing:.*:(loadbalancer|targetgroup/\*)/\*\]": (
        "load balancers carry no tag of the cluster in general; which ones is found by the instance's registration"
    ),
    IAM + r"arn:.*:ssm:.*:parameter/(aws/service/)?\*\]": (
        "a launch template may name its image by any parameter; one's own only through EC2, see the condition"
    ),
    IAM + r"arn:.*:states:.*:execution:eks-rolling-demo-(node|roll):\*\]": "executions are named when they start",
    IAM + r"arn:.*:states:.*:execution:\{.*RollNodeMachine.*\}\*\]": "executions are named when they start",
    IAM + r"<Functions\w+\.Arn>:\*\]": "CDK allows a function together with its versions; there are none",
}
"""cdk-nag's findings (patterns) that are meant to be so, each with its reason."""

NAG = """
import json, sys
import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks
from stacks.roll_stack import add_clusters

app = cdk.App(outdir=sys.argv[1], context={"aws:cdk:bundling-stacks": []})
add_clusters(app, json.loads(sys.argv[2]))
cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
app.synth()
"""


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The rules that cdk-nag's AwsSolutions pack finds broken, of the stack in its network."""
    directory = tmp_path_factory.mktemp("nag")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        [sys.executable, "-c", NAG, str(directory), json.dumps({**DOCUMENT, "network": NETWORK})],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # It ends badly as soon as there is any finding; the report has them all.
    assert "ValidationFailed" in result.stderr, result.stderr[-2000:]
    report = json.loads((directory / "validation-report.json").read_text())
    (nag,) = [r for r in report["pluginReports"] if "AwsSolutions" in json.dumps(r)[:500]]
    return [violation["ruleName"] for violation in nag["violations"]]


@pytest.mark.heavy
def test_every_finding_of_cdk_nag_is_accepted_for_a_reason(findings: list[str]) -> None:
    assert [f for f in findings if not any(re.fullmatch(pattern, f) for pattern in ACCEPTED)] == []


@pytest.mark.heavy
def test_every_accepted_finding_is_still_found(findings: list[str]) -> None:
    assert [p for p in ACCEPTED if not any(re.fullmatch(p, f) for f in findings)] == []


@pytest.mark.heavy
@pytest.mark.parametrize("assembly", [synthesize, in_network])
def test_cfn_lint_finds_nothing(assembly: Any, tmp_path: Path) -> None:
    template = tmp_path / "template.json"
    template.write_text(json.dumps(assembly().template))
    command = [str(Path(sys.executable).parent / "cfn-lint"), "--regions", "eu-central-1"]
    # W3005: CDK names a role as a dependency that a reference makes one already.
    result = subprocess.run(
        [*command, "--ignore-checks", "W3005", "--", str(template)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


SILENTLY_NOT_MADE = {
    "AWS::CloudWatch::Alarm",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EKS::AccessEntry",
    "AWS::Lambda::LayerVersion",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}
"""What moto 5.2.5 leaves out of a stack that it then calls complete; the lab makes alarms and entries otherwise."""


@pytest.fixture(scope="module")
def stack() -> Iterator[dict[str, dict[str, Any]]]:
    """The resources of the whole template in moto's CloudFormation, in this process: logical id -> summary."""
    template = {k: v for k, v in in_network().template.items() if k != "Rules"}
    with mock_aws(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tried to parse", UserWarning)
        session: Any = boto3.session.Session("a", "b", region_name="eu-central-1")
        session.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="21", Type="String")
        _publish(session.client("s3"), template)
        text = _in_a_network_of(session.client("ec2"), json.dumps(template))
        cloudformation = session.client("cloudformation")
        cloudformation.create_stack(
            StackName="EksRolling-demo", TemplateBody=text, Capabilities=["CAPABILITY_NAMED_IAM"]
        )
        (made,) = cloudformation.describe_stacks()["Stacks"]
        assert made["StackStatus"] == "CREATE_COMPLETE"
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName="EksRolling-demo")
        yield {r["LogicalResourceId"]: r for page in pages for r in page["StackResourceSummaries"]}


def _in_a_network_of(ec2: Any, text: str) -> str:
    """The template with a network that is there, instead of the one that the settings name."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="cluster", Description="the cluster's", VpcId=vpc)["GroupId"]
    text = text.replace(str(NETWORK["vpc_id"]), vpc).replace(str(NETWORK["cluster_security_group_id"]), group)
    for number, subnet in enumerate(NETWORK["subnet_ids"]):
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"]
        text = text.replace(subnet, made)
    return text


def _publish(s3: Any, template: dict[str, Any]) -> None:
    """What the functions' code lies in: some zip file."""
    bucket = "cdk-hnb659fds-assets-123456789012-eu-central-1"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.py", "")
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            s3.put_object(Bucket=bucket, Key=resource["Properties"]["Code"]["S3Key"], Body=packed.getvalue())


@pytest.mark.heavy
def test_cloudformation_makes_the_whole_stack(stack: dict[str, dict[str, Any]]) -> None:
    wanted = in_network().template["Resources"]
    missing = {r["Type"] for n, r in wanted.items() if not stack.get(n, {}).get("PhysicalResourceId")}
    assert missing == SILENTLY_NOT_MADE


def test_a_stack_is_within_cloudformations_limits() -> None:
    """500 resources, 1 MB, 200 outputs (CloudFormation quotas); half of it at most, so that there is room."""
    template = in_network().template
    assert len(template["Resources"]) < 250
    assert len(json.dumps(template)) < 500_000
    assert len(template["Outputs"]) < 100


@cache
def _of_long_names() -> Assembly:
    """The stack of a cluster with the longest name, in a network, with as many hooks and nodes' roles as settings take,
    of long names."""
    from lab.application import assembly

    account = "123456789012"
    hooks = [
        {
            "name": f"hook-{n}", "when": "before_node", "timeout_seconds": 1,
            "function": f"arn:aws:lambda:eu-central-1:{account}:function:{'f' * 60}-{n}",
        }
        for n in range(20)
    ]  # fmt: skip
    roles = [f"arn:aws:iam::{account}:role/{'path/' * 10}{'r' * 60}-{n}" for n in range(10)]
    settings = {"cluster": "c" * 100, "hooks": hooks, "roll_back": {"enabled": True, "node_roles": roles}}
    directory = assembly({"settings": {**DOCUMENT["settings"], **settings}, "network": NETWORK})
    (template,) = directory.glob("*.template.json")
    return Assembly(json.loads(template.read_text()))


@pytest.mark.parametrize("assembly", [in_network, _of_long_names])
def test_roles_are_within_iams_limits(assembly: Any) -> None:
    """10,240 characters of inline policies in a role (IAM quotas), references counted as they are written."""
    size: Counter[str] = Counter()
    for policy in assembly().of_type("AWS::IAM::Policy").values():
        for role in policy["Roles"]:
            size[role["Ref"]] += len(json.dumps(policy["PolicyDocument"], separators=(",", ":")))
    assert max(size.values()) < 10_240


def test_definitions_are_within_step_functions_limit() -> None:
    """1 MB (Step Functions quotas)."""
    assert all(len(json.dumps(synthesize().definition(m))) < 500_000 for m in ("roll", "node", "restore"))


@cache
def _of_many_settings() -> Assembly:
    """The stack of a settings document that is longer than a function's environment could hold."""
    from lab.application import assembly

    alarms = [f"{'a' * 250}-{n}" for n in range(40)]
    directory = assembly({"settings": {**DOCUMENT["settings"], "alarms": alarms}})
    return Assembly(json.loads((directory / "EksRolling-demo.template.json").read_text()))


@pytest.mark.parametrize("assembly", [in_network, _of_many_settings])
def test_no_function_has_an_environment_that_lambda_refuses(assembly: Any) -> None:
    """4 KB (Lambda quotas), however long the settings are: they are a file."""
    for function in assembly().of_type("AWS::Lambda::Function").values():
        variables = function["Environment"]["Variables"]
        assert ENVIRONMENT_VARIABLE in variables
        # A reference becomes a name of at most 200 characters.
        references = json.dumps(variables).count('{"Ref"') + json.dumps(variables).count('"Fn::GetAtt"')
        assert len(json.dumps(variables)) + 200 * references < 4096
