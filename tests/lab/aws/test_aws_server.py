"""The server itself: seeding, the lab's own requests, calls, faults, its end."""

import json
import os
import signal
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from lab.spec import LabSpec
from tests.aws_lab import SPEC, ZONES, Server, start_server
from tests.waiting import until

pytestmark = pytest.mark.lab


def test_the_groups_of_the_spec_are_there_with_running_instances(aws: Server) -> None:
    pages = aws.client("autoscaling").get_paginator("describe_auto_scaling_groups").paginate()
    groups = {group["AutoScalingGroupName"]: group for page in pages for group in page["AutoScalingGroups"]}
    assert set(groups) >= {group.name for group in SPEC.groups}
    tags = {tag["Key"]: tag["Value"] for tag in groups["managed"]["Tags"]}
    assert tags["kubernetes.io/cluster/demo"] == "owned"
    assert tags["eks:nodegroup-name"] == "managed"
    assert groups["limited"]["LaunchTemplate"]["Version"] == "$Latest"
    assert groups["sharing"]["LaunchTemplate"] == groups["limited"]["LaunchTemplate"]
    assert {instance["LifecycleState"] for instance in groups["managed"]["Instances"]} == {"InService"}


def test_instances_look_the_same_from_everywhere(aws: Server) -> None:
    group = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["managed"])
    (member,) = group["AutoScalingGroups"][0]["Instances"]
    described = aws.client("ec2").describe_instances(InstanceIds=[member["InstanceId"]])
    (instance,) = described["Reservations"][0]["Instances"]
    seen = aws.instance(member["InstanceId"])
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert seen["state"] == instance["State"]["Name"] == "running"
    assert seen["zone"] == instance["Placement"]["AvailabilityZone"] == member["AvailabilityZone"]
    assert seen["type"] == instance["InstanceType"] == member["InstanceType"]
    assert seen["private_ip"] == instance["PrivateIpAddress"]
    assert seen["image_id"] == instance["ImageId"]
    assert tags["aws:ec2launchtemplate:version"] == member["LaunchTemplate"]["Version"] == "1"
    assert tags["kubernetes.io/cluster/demo"] == "owned"


def test_addresses_come_from_the_zones_network_and_are_used_once(aws: Server) -> None:
    instances = aws.lab("GET", "instances")
    for instance in instances:
        assert instance["private_ip"].startswith(f"10.0.{ZONES.index(instance['zone'])}.")
    living = [instance["private_ip"] for instance in instances if instance["state"] != "terminated"]
    assert len(living) == len(set(living))


def test_the_cluster_has_the_labs_endpoint_and_the_certificate_once_there_is_one(aws: Server) -> None:
    describe = aws.client("eks").describe_cluster
    assert describe(name="demo")["cluster"]["endpoint"] == "https://127.0.0.1:6443"
    aws.paths.pki.mkdir(exist_ok=True)
    (aws.paths.pki / "ca.crt").write_text("certificate")
    assert describe(name="demo")["cluster"]["certificateAuthority"]["data"] == "Y2VydGlmaWNhdGU="


def test_calls_are_recorded_with_the_callers_role_and_the_error(aws: Server) -> None:
    iam, sts = aws.client("iam"), aws.client("sts")
    iam.create_role(RoleName="roller", AssumeRolePolicyDocument="{}")
    allow = {"Effect": "Allow", "Action": "autoscaling:SetDesiredCapacity", "Resource": "*"}
    iam.put_role_policy(
        RoleName="roller", PolicyName="all", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    )
    key = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/roller", RoleSessionName="session")["Credentials"]
    client = _with_keys(aws, key)
    since = time.time()
    with pytest.raises(client.exceptions.ClientError):
        client.set_desired_capacity(AutoScalingGroupName="none", DesiredCapacity=1)
    (call,) = aws.lab("GET", f"calls?since={since - 0.001}")
    assert (call["service"], call["action"]) == ("autoscaling", "SetDesiredCapacity")
    assert call["role"] == "arn:aws:iam::123456789012:role/roller"
    assert call["parameters"] == {"AutoScalingGroupName": "none", "DesiredCapacity": 1}
    assert (call["status"], call["error"]) == (400, "ValidationError")
    assert [json.loads(line) for line in aws.paths.calls.read_text().splitlines()][-1] == call


def _with_keys(aws: Server, key: dict[str, Any]) -> Any:
    import boto3

    return boto3.client(
        "autoscaling",
        region_name="eu-central-1",
        endpoint_url=aws.endpoint,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key["SessionToken"],
    )


def test_a_throttled_service_says_so_and_others_do_not(aws: Server) -> None:
    aws.lab("PUT", "faults", {"throttle": {"seed": 1, "share": 1.0, "services": ["autoscaling"]}})
    client = aws.client("autoscaling")
    try:
        with pytest.raises(client.exceptions.ClientError, match="Throttling"):
            client.describe_auto_scaling_groups()
        aws.client("ec2").describe_vpcs()
        assert aws.lab("GET", "faults")["throttled"] == 1
    finally:
        aws.lab("PUT", "faults", {})
    client.describe_auto_scaling_groups()


def test_what_is_no_fault_is_refused_by_name(aws: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        aws.lab("PUT", "faults", {"lambda_kil": {}})
    with refused.value:
        assert b"lambda_kil" in refused.value.read()


def test_a_killed_server_takes_its_lambda_processes_with_it(tmp_path: Path, assembly: Path) -> None:
    from lab.aws.deploy import deploy

    server = start_server(tmp_path, LabSpec())
    deploy(assembly, endpoint=server.endpoint, region="eu-central-1")
    answer, _ = server.invoke("probe-work", {"node": "whoami", "round": 0})
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(10)
    until(lambda: not _alive(answer["pid"]), "the function's process has ended")


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
