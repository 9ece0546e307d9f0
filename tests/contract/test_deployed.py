"""`doctor --deployed` on the application in the lab's AWS: well as deployed, and each line when its thing is broken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from eks_rolling.names import machine_name
from eks_rolling_cli.checks import Check, Health, run_checks
from eks_rolling_cli.deployed import CHECKS, ENDPOINTS
from eks_rolling_cli.doctor import CHECKS as ANYWHERE
from eks_rolling_cli.target import Options, Target
from lab.application import synthesize
from lab.aws.deploy import deploy
from tests.aws_lab import REGION, SPEC, Server
from tests.contract.test_aws_client import Session

pytestmark = pytest.mark.lab

ALARM = "shop-errors"
BY_FUNCTIONS = {"dry run"}
"""They need a cluster: tests/e2e has them plan. IAM's simulator is not in the lab: tests/unit has its answers."""

NOT_IN_A_LAB = {"stack", "message key"}
"""A lab deploys without CloudFormation, and encrypts nothing: tests/unit has their answers."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def outputs(aws: Server) -> Json:
    """The application, deployed for the server's cluster; its gate waits for an alarm."""
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=ALARM, Namespace="shop", MetricName="errors", Statistic="Sum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    return deployed(aws)


def deployed(aws: Server) -> Json:
    settings = {"alarms": [ALARM], "notifications": ["on-call@example.com"]}
    (made,) = deploy(synthesize(SPEC.cluster, settings), endpoint=aws.endpoint, region=REGION).values()
    return made


@pytest.fixture
def target(aws: Server, outputs: Json) -> Target:
    found = Target(Options(cluster=SPEC.cluster))
    found.__dict__["session"] = Session(aws)
    assert machine_name(SPEC.cluster, "roll") in found.machine("roll")
    return found


def line(target: Target, name: str) -> Check:
    (check,) = run_checks(target, {name: (ANYWHERE | CHECKS)[name]})
    return check


TRAIL = "everything"


@contextmanager
def trail(aws: Server, *, runs: bool = True, selectors: Json | None = None) -> Iterator[None]:
    """A trail of the account; `selectors` are what PutEventSelectors takes."""
    cloudtrail = aws.client("cloudtrail")
    aws.client("s3").create_bucket(Bucket=TRAIL, CreateBucketConfiguration={"LocationConstraint": REGION})
    cloudtrail.create_trail(Name=TRAIL, S3BucketName=TRAIL)
    if runs:
        cloudtrail.start_logging(Name=TRAIL)
    if selectors:
        cloudtrail.put_event_selectors(TrailName=TRAIL, **selectors)
    try:
        yield
    finally:
        cloudtrail.delete_trail(Name=TRAIL)
        aws.client("s3").delete_bucket(Bucket=TRAIL)


def test_what_was_just_deployed_is_well(aws: Server, target: Target) -> None:
    looks = {name: look for name, look in CHECKS.items() if name not in BY_FUNCTIONS | NOT_IN_A_LAB}
    found = list(run_checks(target, looks))
    assert [c for c in found if c.health is not Health.OK] == []
    said = {c.name: c.said for c in found}
    assert said["functions"] == f"{len(target.functions)} functions, one version"
    assert said["gate"] == f"quiet: {ALARM}"
    assert said["log groups"] == f"{len(target.functions)} log groups"


def without_access_entry(aws: Server, target: Target) -> str:
    terminate = next(f for f in target.functions if f["Handler"] == "eks_rolling.steps.terminate.handler")
    aws.client("eks").delete_access_entry(clusterName=SPEC.cluster, principalArn=terminate["Role"])
    return "no access entry for the role of terminate"


def groups_of_an_entry_were_changed(aws: Server, target: Target) -> str:
    terminate = next(f for f in target.functions if f["Handler"] == "eks_rolling.steps.terminate.handler")
    groups = ["eks-rolling-look", "eks-rolling-lock"]
    aws.client("eks").update_access_entry(
        clusterName=SPEC.cluster, principalArn=terminate["Role"], kubernetesGroups=groups
    )
    return "access entries were changed: terminate is not in eks-rolling-evict"


def denied_by_the_organization(aws: Server, _: Target) -> str:
    aws.lab("PUT", "faults", {"organization_denies": ["autoscaling:LaunchInst*"]})
    return "a policy of the organization denies autoscaling:LaunchInstances"


def without_log_group(aws: Server, target: Target) -> str:
    name = target.functions[0]["LoggingConfig"]["LogGroup"]
    aws.client("logs").delete_log_group(logGroupName=name)
    return f"1 log group missing: {name}"


def an_alarm_fires(aws: Server, _: Target) -> str:
    name = own_alarms(aws)[0]
    aws.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    return f"firing: {name}"


def the_gates_alarm_fires(aws: Server, _: Target) -> str:
    aws.client("cloudwatch").set_alarm_state(AlarmName=ALARM, StateValue="ALARM", StateReason="a test")
    return f"firing: {ALARM}"


def no_alarm_left(aws: Server, _: Target) -> str:
    aws.client("cloudwatch").delete_alarms(AlarmNames=own_alarms(aws))
    return "no alarm reaches the topic"


def own_alarms(aws: Server) -> list[str]:
    pages = (
        aws.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    )
    listed = [a for page in pages for a in (*page["MetricAlarms"], *page["CompositeAlarms"])]
    return sorted(a["AlarmName"] for a in listed if a["AlarmName"].startswith("EksRolling-"))


BROKEN: list[tuple[str, Callable[[Server, Target], str], Health]] = [
    ("access entries", without_access_entry, Health.FAIL),
    ("access entries", groups_of_an_entry_were_changed, Health.FAIL),
    ("organization", denied_by_the_organization, Health.FAIL),
    ("log groups", without_log_group, Health.WARN),
    ("alarms", an_alarm_fires, Health.WARN),
    ("gate", the_gates_alarm_fires, Health.WARN),
    ("alarms", no_alarm_left, Health.FAIL),
]


@pytest.mark.parametrize(("name", "break_it", "health"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_what_is_broken_is_named_with_what_to_do(
    aws: Server, target: Target, name: str, break_it: Callable[[Server, Target], str], health: Health
) -> None:
    said = break_it(aws, target)
    try:
        found = line(target, name)
        assert (found.health, found.said) == (health, said)
        assert found.remedy
    finally:
        aws.lab("PUT", "faults", {})
        deployed(aws)
        for alarm in [ALARM, *own_alarms(aws)]:
            aws.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="OK", StateReason="a test")
    assert line(target, name).health is Health.OK, "what it said to do makes it well"


@pytest.mark.parametrize(
    ("runs", "selectors", "well"),
    [
        (True, None, True),
        (False, None, False),
        (True, {"EventSelectors": [{"ReadWriteType": "ReadOnly", "IncludeManagementEvents": True}]}, False),
        (True, {"EventSelectors": [{"ReadWriteType": "All", "IncludeManagementEvents": False}]}, False),
        (True, {"EventSelectors": [{"ReadWriteType": "WriteOnly", "IncludeManagementEvents": True}]}, True),
        (
            True,
            {
                "AdvancedEventSelectors": [
                    {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]},
                ]
            },
            True,
        ),
        (
            True,
            {"AdvancedEventSelectors": [{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Data"]}]}]},
            False,
        ),
    ],
)
def test_a_trail_has_to_run_and_to_record_what_writes(
    aws: Server, target: Target, *, runs: bool, selectors: Json | None, well: bool
) -> None:
    with trail(aws, runs=runs, selectors=selectors):
        found = line(target, "CloudTrail")
    assert (found.health is Health.OK) == well, found
    assert line(target, "CloudTrail").said == "no trail is running that records write management events"


def test_functions_of_a_private_network_have_every_endpoint_or_a_way_out(aws: Server, target: Target) -> None:
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    place = {"VpcId": vpc, "SubnetIds": [subnet], "SecurityGroupIds": []}
    target.__dict__["functions"] = [f | {"VpcConfig": place} for f in target.functions]

    (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    needed = sorted({*ENDPOINTS, "monitoring"})
    assert line(target, "way out").said == (f"{subnet} has no way out, and the VPC no endpoint for {', '.join(needed)}")
    for service in needed:
        kind: Json = {"VpcEndpointType": "Interface", "PrivateDnsEnabled": True}
        if service == "s3":
            kind = {"VpcEndpointType": "Gateway", "RouteTableIds": [table["RouteTableId"]]}
        ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.{service}", **kind)
    assert line(target, "way out").said == "1 subnet without a way out, with every endpoint"

    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    found = line(target, "way out")
    assert (found.health, found.remedy) == (Health.FAIL, "name private subnets under network")
    ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0")
    nat = ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType="private")["NatGateway"]["NatGatewayId"]
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    assert line(target, "way out").said == "1 subnet with a way out"
