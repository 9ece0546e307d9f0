"""EventBridge: what raises events, which rules they match, what their targets receive."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.aws_lab import Server, document, role
from tests.waiting import until

pytestmark = pytest.mark.lab


@pytest.fixture
def template(aws: Server) -> str:
    """A launch template of the test's own."""
    made = aws.client("ec2").create_launch_template(
        LaunchTemplateName=f"template-{time.time_ns()}", LaunchTemplateData={"ImageId": "ami-1"}
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def inputs(aws: Server, deployed: dict[str, str]) -> list[dict[str, Any]]:
    """The inputs of the executions that EventBridge has started."""
    client = aws.client("stepfunctions")
    listed = client.list_executions(stateMachineArn=deployed["ProbeArn"])["executions"]
    started = [e for e in listed if "_" in e["name"]]
    for execution in started:
        assert len(execution["name"]) == 73
    return [json.loads(client.describe_execution(executionArn=e["executionArn"])["input"]) for e in started]


def template_events(aws: Server, deployed: dict[str, str], template: str) -> list[dict[str, Any]]:
    return [given for given in inputs(aws, deployed) if template in json.dumps(given)]


def test_good_template_changes_start_the_machine_and_failed_ones_do_not(
    aws: Server, deployed: dict[str, str], template: str
) -> None:
    client = aws.client("ec2")
    data = {"ImageId": "ami-2", "InstanceType": "m6i.large"}
    with pytest.raises(client.exceptions.ClientError, match="VersionNotFound"):
        client.modify_launch_template(LaunchTemplateId=template, DefaultVersion="77")
    with pytest.raises(client.exceptions.ClientError, match="DryRunOperation"):
        client.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=data, DryRun=True)
    client.create_launch_template_version(LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData=data)
    client.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")
    found = until(
        lambda: len(template_events(aws, deployed, template)) == 2 and template_events(aws, deployed, template),
        "both good changes have started the machine",
    )
    details = {event["detail"]["eventName"]: event["detail"] for event in found}
    created = details["CreateLaunchTemplateVersion"]
    assert created["eventSource"] == "ec2.amazonaws.com"
    request = created["requestParameters"]["CreateLaunchTemplateVersionRequest"]
    assert (request["LaunchTemplateId"], request["SourceVersion"]) == (template, "1")
    assert request["LaunchTemplateData"] == data
    version = created["responseElements"]["CreateLaunchTemplateVersionResponse"]["launchTemplateVersion"]
    assert (version["launchTemplateId"], version["versionNumber"]) == (template, 2)
    modified = details["ModifyLaunchTemplate"]
    assert modified["requestParameters"]["ModifyLaunchTemplateRequest"]["SetDefaultVersion"] == "2"
    changed = modified["responseElements"]["ModifyLaunchTemplateResponse"]["launchTemplate"]
    assert (changed["launchTemplateId"], changed["defaultVersionNumber"]) == (template, 2)
    assert {event["detail-type"] for event in found} == {"AWS API Call via CloudTrail"}


@pytest.fixture
def seen(aws: Server, deployed: dict[str, str]) -> Iterator[Any]:
    """Collects what reaches a topic through a rule; call it with the rule's pattern and more of its target."""
    client, topic = aws.client("events"), aws.client("sns").create_topic(Name=f"seen-{time.time_ns()}")["TopicArn"]
    rule = topic.rsplit(":", 1)[1]

    def collect(pattern: dict[str, Any], **target: Any) -> Any:
        client.put_rule(Name=rule, EventPattern=json.dumps(pattern))
        client.put_targets(Rule=rule, Targets=[{"Id": "topic", "Arn": topic} | target])
        return lambda: [json.loads(m["message"]) for m in aws.lab("GET", "messages") if m["topic"] == topic]

    yield collect
    client.remove_targets(Rule=rule, Ids=["topic"])
    client.delete_rule(Name=rule)


def test_a_group_update_is_an_event_with_or_without_an_error(aws: Server, seen: Any) -> None:
    events = seen({"source": ["aws.autoscaling"], "detail": {"eventName": ["UpdateAutoScalingGroup"]}})
    client = aws.client("autoscaling")
    client.update_auto_scaling_group(
        AutoScalingGroupName="managed", LaunchTemplate={"LaunchTemplateName": "managed", "Version": "1"}
    )
    with pytest.raises(client.exceptions.ClientError):
        client.update_auto_scaling_group(AutoScalingGroupName="managed", MinSize=9)
    good, bad = until(lambda: len(events()) == 2 and events(), "both events have come")
    assert good["detail"]["requestParameters"] == {
        "autoScalingGroupName": "managed",
        "launchTemplate": {"launchTemplateName": "managed", "version": "1"},
    }
    assert good["detail"]["responseElements"] is None
    assert "errorCode" not in good["detail"]
    assert bad["detail"]["errorCode"] == "ValidationError"


def test_status_changes_of_an_execution_are_events(aws: Server, deployed: dict[str, str], seen: Any) -> None:
    events = seen({"source": ["aws.states"], "detail": {"stateMachineArn": [deployed["NodeArn"]]}})
    execution = aws.client("stepfunctions").start_execution(
        stateMachineArn=deployed["NodeArn"], input=json.dumps({"node": "quick"})
    )["executionArn"]
    own = until(
        lambda: len([e for e in events() if e["detail"]["executionArn"] == execution]) == 2 and events(),
        "both changes have come",
    )
    running, succeeded = (event["detail"] for event in own if event["detail"]["executionArn"] == execution)
    assert (running["status"], running["stopDate"], running["output"]) == ("RUNNING", None, None)
    assert succeeded["status"] == "SUCCEEDED"
    assert json.loads(succeeded["output"]) == {"ok": True, "rounds": 1}
    assert succeeded["stopDate"] >= succeeded["startDate"] > 1_600_000_000_000
    assert json.loads(succeeded["input"]) == {"node": "quick"}


def test_an_aborted_execution_reaches_a_function_with_the_input_that_the_rule_makes(
    aws: Server, deployed: dict[str, str]
) -> None:
    client, s3 = aws.client("stepfunctions"), aws.client("s3")
    execution = client.start_execution(stateMachineArn=deployed["ProbeArn"], input=json.dumps({"nodes": ["slow-9"]}))
    client.stop_execution(executionArn=execution["executionArn"])

    def restored() -> list[dict[str, Any]]:
        listed = s3.list_objects_v2(Bucket=deployed["Bucket"], Prefix="restored/").get("Contents", [])
        bodies = [s3.get_object(Bucket=deployed["Bucket"], Key=o["Key"])["Body"].read() for o in listed]
        return [b for b in map(json.loads, bodies) if b["execution"] == execution["executionArn"]]

    (given,) = until(restored, "the function was called")
    assert given["why"] == "it was ABORTED"


def test_put_events_reaches_a_state_machine_and_cannot_pretend_to_be_aws(aws: Server, deployed: dict[str, str]) -> None:
    client = aws.client("events")
    client.put_rule(Name="own", EventPattern=json.dumps({"source": ["own.source"]}))
    target = {"Id": "machine", "Arn": deployed["NodeArn"], "RoleArn": "arn:aws:iam::123456789012:role/events"}
    transform = {"InputPathsMap": {"who": "$.detail.who"}, "InputTemplate": '{"node": <who>, "text": "it is <who>"}'}
    client.put_targets(Rule="own", Targets=[target | {"InputTransformer": transform}])
    entry = {"DetailType": "mine", "Detail": json.dumps({"who": "quick"})}
    states = aws.client("stepfunctions")

    def started() -> list[str]:
        listed = states.list_executions(stateMachineArn=deployed["NodeArn"])["executions"]
        return [e["executionArn"] for e in listed if "_" in e["name"]]

    with role(aws, "events", document("states:StartExecution", deployed["NodeArn"])):
        answer = client.put_events(Entries=[entry | {"Source": "own.source"}, entry | {"Source": "aws.ec2"}])
        (execution,) = until(started, "the machine is started")
    assert answer["FailedEntryCount"] == 1
    assert answer["Entries"][1]["ErrorCode"] == "NotAuthorizedForSourceException"
    given = states.describe_execution(executionArn=execution)["input"]
    assert json.loads(given) == {"node": "quick", "text": "it is quick"}


def test_events_can_be_delivered_twice(aws: Server, seen: Any) -> None:
    events = seen({"source": ["twice.source"]}, Input=json.dumps({"constant": True}))
    aws.lab("PUT", "faults", {"duplicate_events": True})
    try:
        aws.client("events").put_events(Entries=[{"Source": "twice.source", "DetailType": "x", "Detail": "{}"}])
        until(lambda: events() == [{"constant": True}] * 2, "the event has come twice")
    finally:
        aws.lab("PUT", "faults", {})
