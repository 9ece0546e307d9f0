"""The template around the workflow: roles, triggers, what is kept."""

import pytest

from eks_rolling.names import machine_name
from stacks.functions import STEPS
from tests.assembly import synthesize


@pytest.mark.parametrize("step", sorted(STEPS))
def test_only_steps_that_touch_the_cluster_have_an_access_entry(step: str) -> None:
    entries = synthesize().of_type("AWS::EKS::AccessEntry")
    name = "".join(word.capitalize() for word in step.split("_"))
    found = [e for logical_id, e in entries.items() if logical_id.startswith(f"Functions{name}AccessEntry")]
    wanted = STEPS[step].kubernetes
    assert [e["KubernetesGroups"] for e in found] == ([list(wanted)] if wanted else [])


def test_an_event_that_started_nothing_is_told() -> None:
    (queue,) = synthesize().of_type("AWS::SQS::Queue")
    alarms = synthesize().of_type("AWS::CloudWatch::Alarm").values()
    (alarm,) = [a for a in alarms if a.get("Namespace") == "AWS/SQS"]
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}]
    assert alarm["AlarmActions"]


def test_a_roll_that_ends_badly_starts_the_restore_with_its_name() -> None:
    """R2: stopping an execution skips its Catch."""
    (rule,) = [
        p
        for p in synthesize().of_type("AWS::Events::Rule").values()
        if p.get("EventPattern", {}).get("source") == ["aws.states"]
    ]
    assert rule["EventPattern"]["detail"]["status"] == ["ABORTED", "FAILED", "TIMED_OUT"]
    (target,) = rule["Targets"]
    assert target["Arn"] == {"Ref": synthesize().machine_id("restore")}
    assert target["InputTransformer"]["InputPathsMap"] == {"detail-name": "$.detail.name"}
    assert target["DeadLetterConfig"]


def test_the_clock_starts_a_look_for_what_is_left_behind() -> None:
    (rule,) = [p for p in synthesize().of_type("AWS::Events::Rule").values() if "ScheduleExpression" in p]
    assert rule["ScheduleExpression"] == "rate(1 hour)"
    (target,) = rule["Targets"]
    assert (target["Arn"], target["Input"]) == ({"Ref": synthesize().machine_id("restore")}, '{"look":true}')


def test_reports_are_private_and_outlive_the_stack() -> None:
    (bucket,) = [r for r in synthesize().template["Resources"].values() if r["Type"] == "AWS::S3::Bucket"]
    assert bucket["DeletionPolicy"] == "Retain"
    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())


def test_machine_names_fit_for_the_longest_cluster_name() -> None:
    assert len(machine_name("c" * 100, "restore")) <= 80
    assert machine_name("c" * 99 + "a", "roll") != machine_name("c" * 99 + "b", "roll")
