"""The dashboard and the alarms: every metric is shown, whatever a person must look at rings."""

import json
from itertools import pairwise
from typing import Any

import pytest

from eks_rolling.report.metrics import NAMESPACE, Name
from eks_rolling.settings import Deadlines
from stacks.functions import STEPS
from tests.assembly import synthesize


def alarms() -> dict[str, dict[str, Any]]:
    return {
        name.removeprefix("Observability")[:-8]: alarm
        for name, alarm in synthesize().of_type("AWS::CloudWatch::Alarm").items()
        if name.startswith("Observability")
    }


def functions_of(alarm: dict[str, Any]) -> set[str]:
    metrics = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", ()) if "MetricStat" in m]
    return {d["Value"]["Ref"] for m in metrics for d in m["Dimensions"] if d["Name"] == "FunctionName"}


@pytest.mark.parametrize("name", sorted(Name))
def test_every_metric_is_on_the_dashboard(name: Name) -> None:
    (dashboard,) = synthesize().of_type("AWS::CloudWatch::Dashboard").values()
    assert f'"{name}' in json.dumps(dashboard).replace("\\", "")


def test_every_function_is_on_the_dashboard_whatever_its_name_is_cut_to() -> None:
    """CloudFormation cuts the stack's name where a function's would be longer than 64 characters."""
    (dashboard,) = synthesize().of_type("AWS::CloudWatch::Dashboard").values()
    _, parts = dashboard["DashboardBody"]["Fn::Join"]
    for metric in ("Errors", "Throttles", "Duration"):
        begins = f'["AWS/Lambda","{metric}","FunctionName","'
        shown = [after["Ref"] for before, after in pairwise(parts) if str(before).endswith(begins)]
        assert sorted(shown) == sorted(synthesize().of_type("AWS::Lambda::Function")), metric


def test_every_alarm_sends_a_sentence_to_the_topic_and_is_quiet_without_data() -> None:
    (topic,) = synthesize().of_type("AWS::SNS::Topic")
    for alarm in alarms().values():
        assert alarm["AlarmActions"] == [{"Ref": topic}]
        assert alarm["AlarmDescription"].startswith("demo: ")
        assert len(alarm["AlarmDescription"]) <= 1024
        assert alarm["TreatMissingData"] == "notBreaching"


def test_a_roll_rings_when_it_failed_and_not_when_a_person_ended_it() -> None:
    """Those that are aborted, refused, cancelled or blocked fail as executions too."""
    alarm = alarms()["RollFailed"]
    by_id = {m["Id"]: m.get("MetricStat", {}).get("Metric", {}) for m in alarm["Metrics"]}
    assert by_id["failed"]["MetricName"] == Name.ROLLS_ENDED
    assert {"Name": "outcome", "Value": "failed"} in by_id["failed"]["Dimensions"]
    assert by_id["timedOut"]["MetricName"] == "ExecutionsTimedOut"
    assert "eks-rolling rolls --cluster demo" in alarm["AlarmDescription"]
    assert not [name for name in alarms() if name in {"RollEndedBadly", "RollNodeEndedBadly"}]


def test_a_restore_that_ends_badly_rings() -> None:
    assert "eks-rolling start --cluster demo" in alarms()["RestoreEndedBadly"]["AlarmDescription"]


def test_every_functions_errors_are_watched_by_alarms_of_ten_metrics_at_most() -> None:
    watched = [functions_of(a) for name, a in alarms().items() if name.startswith("FunctionErrors")]
    assert all(len(some) <= 10 for some in watched)
    assert len(set().union(*watched)) == sum(len(some) for some in watched) == len(STEPS)


def test_a_pause_of_cluster_autoscaler_rings_once_it_lasts_longer_than_a_roll_may() -> None:
    alarm = alarms()["AutoscalerPaused"]
    assert (alarm["Namespace"], alarm["MetricName"]) == (NAMESPACE, "AutoscalerPausedSeconds")
    assert alarm["Dimensions"] == [{"Name": "cluster", "Value": "demo"}]
    assert alarm["Threshold"] == Deadlines().roll
    assert alarm["Statistic"] == "Maximum"


def test_messages_are_encrypted_and_alarms_may_send_them() -> None:
    """A topic policy replaces the default one, by which an account's alarms may publish; so does a key."""
    (topic,) = synthesize().of_type("AWS::SNS::Topic").values()
    (key,) = synthesize().of_type("AWS::KMS::Key").items()
    assert topic["KmsMasterKeyId"] == {"Fn::GetAtt": [key[0], "Arn"]}
    assert key[1]["EnableKeyRotation"] is True
    (policy,) = synthesize().of_type("AWS::SNS::TopicPolicy").values()
    for statements, action in (
        (policy["PolicyDocument"]["Statement"], "sns:Publish"),
        (key[1]["KeyPolicy"]["Statement"], "kms:GenerateDataKey"),
    ):
        (allowed,) = [s for s in statements if s["Principal"] == {"Service": "cloudwatch.amazonaws.com"}]
        assert action in allowed["Action"]
        assert allowed["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_functions_and_machines_are_traced() -> None:
    functions = synthesize().of_type("AWS::Lambda::Function").values()
    assert all(f["TracingConfig"] == {"Mode": "Active"} for f in functions)
    machines = synthesize().of_type("AWS::StepFunctions::StateMachine").values()
    assert all(m["TracingConfiguration"] == {"Enabled": True} for m in machines)
