"""Deploying a synthesized assembly: everything in it is made, and made again only where it changed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.aws.deploy import deploy
from lab.aws.template import TemplateError
from tests.aws_lab import REGION, Server

pytestmark = pytest.mark.lab


def test_everything_in_the_template_is_there(aws: Server, deployed: dict[str, str]) -> None:
    names = [f["FunctionName"] for f in aws.client("lambda").list_functions()["Functions"]]
    assert {"probe-work", "probe-identity", "probe-restore"} <= set(names)
    configuration = aws.client("lambda").get_function_configuration(FunctionName="probe-restore")
    assert configuration["Environment"]["Variables"] == {"GREETING": "hello", "BUCKET": deployed["Bucket"]}
    machine = aws.client("stepfunctions").describe_state_machine(stateMachineArn=deployed["ProbeArn"])
    assert json.loads(machine["definition"])["QueryLanguage"] == "JSONata"
    rules = aws.client("events").list_rules()["Rules"]
    targets = {rule["Name"]: aws.client("events").list_targets_by_rule(Rule=rule["Name"])["Targets"] for rule in rules}
    assert deployed["ProbeArn"] in [t["Arn"] for name in targets for t in targets[name] if "TemplateChanged" in name]
    (alarm,) = aws.client("cloudwatch").describe_alarms(AlarmNames=["probe-failed"])["MetricAlarms"]
    assert alarm["MetricName"] == "ExecutionsFailed"
    assert len(aws.client("eks").list_access_entries(clusterName="demo")["accessEntries"]) == 1


def test_deploying_again_changes_only_what_is_different(
    aws: Server, deployed: dict[str, str], assembly: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "assembly"
    shutil.copytree(assembly, changed)
    template = json.loads((changed / "Probe.template.json").read_text())
    resources = template["Resources"].values()
    work = next(r for r in resources if r.get("Properties", {}).get("FunctionName") == "probe-work")
    work["Properties"]["Timeout"] = 6
    (changed / "Probe.template.json").write_text(json.dumps(template))
    before = _machines(aws)
    client = aws.client("lambda")
    try:
        assert deploy(changed, endpoint=aws.endpoint, region=REGION)["Probe"] == deployed
        assert client.get_function_configuration(FunctionName="probe-work")["Timeout"] == 6
    finally:
        assert deploy(assembly, endpoint=aws.endpoint, region=REGION)["Probe"] == deployed
    assert client.get_function_configuration(FunctionName="probe-work")["Timeout"] == 3
    assert _machines(aws) == before


def _machines(aws: Server) -> list[Any]:
    return [m["stateMachineArn"] for m in aws.client("stepfunctions").list_state_machines()["stateMachines"]]


def test_an_unknown_type_of_resource_is_an_error_before_anything_is_made(
    aws: Server, assembly: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "assembly"
    shutil.copytree(assembly, changed)
    template = json.loads((changed / "Probe.template.json").read_text())
    template["Resources"]["Odd"] = {"Type": "AWS::Odd::Thing"}
    (changed / "Probe.template.json").write_text(json.dumps(template))
    with pytest.raises(TemplateError, match="AWS::Odd::Thing"):
        deploy(changed, endpoint=aws.endpoint, region=REGION)
