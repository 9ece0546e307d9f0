"""What the synthesized rules match: CloudTrail's records of calls that change what a group launches, and no others.

Two engines judge that are not ours: moto's, with AWS's rule on leaves, as the lab runs it; and Quamina, by the author
of EventBridge's own engine, where its wheel can be had (not from Python 3.13 on).
"""

import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from moto.events.models import EventPattern

from lab.aws import compat
from stacks.triggers import LAUNCHES
from tests.assembly import synthesize

Json = dict[str, Any]

LAUNCH_TEMPLATE, GROUP, BADLY = "LaunchTemplateChanged", "GroupChanged", "RollEndedBadly"


def record(service: str, name: str, request: Json | None, response: Json | None = None, **more: Any) -> Json:
    """CloudTrail's record of a call, as EventBridge delivers it (CloudTrail user guide, record contents)."""
    detail = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::123456789012:assumed-role/deployer/ana"},
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": "eu-central-1",
        "requestParameters": request,
        "responseElements": response,
        "readOnly": False,
        "eventType": "AwsApiCall",
        **more,
    }
    source = {"source": f"aws.{service}", "detail-type": "AWS API Call via CloudTrail"}
    about = {"version": "0", "id": "1", "account": "123456789012", "time": "2026-11-27T02:00:00Z", "resources": []}
    return {**about, "region": "eu-central-1", **source, "detail": detail}


def update(**request: Any) -> Json:
    return record("autoscaling", "UpdateAutoScalingGroup", {"autoScalingGroupName": "ng-a", **request})


VERSION = record(
    "ec2",
    "CreateLaunchTemplateVersion",
    {"CreateLaunchTemplateVersionRequest": {"LaunchTemplateId": "lt-1", "LaunchTemplateData": {"ImageId": "ami-1"}}},
    {
        "CreateLaunchTemplateVersionResponse": {
            "launchTemplateVersion": {"launchTemplateId": "lt-1", "versionNumber": 2}
        }
    },
)
DEFAULT = record(
    "ec2",
    "ModifyLaunchTemplate",
    {"ModifyLaunchTemplateRequest": {"LaunchTemplateId": "lt-1", "SetDefaultVersion": "2"}},
    {"ModifyLaunchTemplateResponse": {"launchTemplate": {"launchTemplateId": "lt-1", "defaultVersionNumber": 2}}},
)
MIXED = {"launchTemplate": {"launchTemplateSpecification": {"launchTemplateId": "lt-1", "version": "3"}}}
SPOT = {"instancesDistribution": {"onDemandPercentageAboveBaseCapacity": 50}}


def ended(status: str) -> Json:
    roll = {"Fn::GetAtt": [synthesize().machine_id("roll"), "Arn"]}
    arn = json.dumps(roll)
    detail = {"status": status, "stateMachineArn": arn, "name": "roll-1"}
    return {"source": "aws.states", "detail-type": "Step Functions Execution Status Change", "detail": detail}


RECORDS: dict[str, tuple[Json, str | None]] = {
    "a new version of a template": (VERSION, LAUNCH_TEMPLATE),
    "another default version": (DEFAULT, LAUNCH_TEMPLATE),
    "a new template": (record("ec2", "CreateLaunchTemplate", {"CreateLaunchTemplateRequest": {}}), None),
    "a version that was deleted": (record("ec2", "DeleteLaunchTemplateVersions", {}), None),
    "a group pointed at another version": (update(launchTemplate={"launchTemplateId": "lt-1", "version": "7"}), GROUP),
    "a group pointed at a number": (update(launchTemplate={"launchTemplateId": "lt-1", "version": 7}), GROUP),
    "a group pointed at another template": (update(launchTemplate={"launchTemplateName": "other"}), GROUP),
    "a mixed policy's template": (update(mixedInstancesPolicy=MIXED), GROUP),
    "a mixed policy's types": (
        update(mixedInstancesPolicy={"launchTemplate": {"overrides": [{"instanceType": "m7i.large"}]}}),
        GROUP,
    ),
    "an override's own template": (
        update(
            mixedInstancesPolicy={
                "launchTemplate": {
                    "overrides": [{"weightedCapacity": "1", "launchTemplateSpecification": {"launchTemplateName": "x"}}]
                }
            }
        ),
        GROUP,
    ),
    "types by what they have": (
        update(
            mixedInstancesPolicy={
                "launchTemplate": {"overrides": [{"instanceRequirements": {"vCpuCount": {"min": 2, "max": 4}}}]}
            }
        ),
        GROUP,
    ),
    "a launch configuration": (update(launchConfigurationName="old-style"), GROUP),
    "a new maximum size, as a roll sets it": (update(maxSize=4), None),
    "an update that sets nothing, as a roll's rehearsal": (update(), None),
    "another share of spot": (update(mixedInstancesPolicy=SPOT), None),
    "zones and a cooldown": (update(vPCZoneIdentifier="subnet-1", defaultCooldown=60), None),
    "a group that is made": (
        record("autoscaling", "CreateAutoScalingGroup", {"launchTemplate": {"launchTemplateId": "lt-1"}}),
        None,
    ),
    "the desired capacity": (record("autoscaling", "SetDesiredCapacity", {"desiredCapacity": 3}), None),
    "a roll that was stopped": (ended("ABORTED"), BADLY),
    "a roll that failed": (ended("FAILED"), BADLY),
    "a roll that took too long": (ended("TIMED_OUT"), BADLY),
    "a roll that succeeded": (ended("SUCCEEDED"), None),
}


def asking(path: tuple[str, ...]) -> Json:
    """The parameters of an update that has this leaf."""
    first, *rest = path
    inner = asking(tuple(rest)) if rest else "a value"
    return {first: [inner] if first == "overrides" else inner}


for _path in LAUNCHES:
    RECORDS[f"an update with {'.'.join(_path)}"] = (update(**asking(_path)), GROUP)
for _name, _record in (("version", VERSION), ("default", DEFAULT), ("group", update(launchTemplate={"version": "1"}))):
    for _code in ("Client.DryRunOperation", "Client.InvalidLaunchTemplateId.NotFound", "AccessDenied"):
        _failed = copy.deepcopy(_record)
        _failed["detail"] |= {"errorCode": _code, "responseElements": None}
        RECORDS[f"a {_name} refused with {_code}"] = (_failed, None)


@cache
def patterns() -> dict[str, Json]:
    """The synthesized patterns, by their rule's name in `stacks.triggers`."""
    rules = synthesize().of_type("AWS::Events::Rule")
    found = {
        next(word for word in (LAUNCH_TEMPLATE, GROUP, BADLY) if word in logical_id): rule["EventPattern"]
        for logical_id, rule in rules.items()
        if "EventPattern" in rule
    }
    # What CloudFormation fills in is a text of its own here, the same in the records.
    return {name: _filled(pattern) for name, pattern in found.items()}


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) & {"Ref", "Fn::GetAtt"}:
            machine = value.get("Ref") or value["Fn::GetAtt"][0]
            return json.dumps({"Fn::GetAtt": [machine, "Arn"]})
        return {key: _filled(item) for key, item in value.items()}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def alternatives(pattern: Json) -> Iterator[Json]:
    """The pattern without `$or`, which Quamina does not know: one for each way to match."""
    for key, value in pattern.items():
        others = {k: v for k, v in pattern.items() if k != key}
        if key == "$or":
            for choice in value:
                yield from alternatives(_merged(others, choice))
            return
        if isinstance(value, dict):
            inner = list(alternatives(value))
            if inner != [value]:
                for choice in inner:
                    yield from alternatives(others | {key: choice})
                return
    yield pattern


def _merged(one: Json, other: Json) -> Json:
    return one | {k: _merged(one[k], v) if isinstance(v, dict) and k in one else v for k, v in other.items()}


def moto_says(questions: list[tuple[Json, Json]]) -> list[bool]:
    compat.CORRECTIONS["patterns_match_leaves"]()
    return [EventPattern("", pattern).matches_event(event) for event, pattern in questions]


def quamina_says(questions: list[tuple[Json, Json]]) -> list[bool]:
    """In a process of its own: it brings Go's runtime along."""
    script = (
        "import json, sys, event_ruler\n"
        "print(json.dumps([any(event_ruler.test_event_pattern(json.dumps(event), json.dumps(each)) for each in ways)"
        " for event, ways in json.load(sys.stdin)]))"
    )
    given = json.dumps([(event, list(alternatives(pattern))) for event, pattern in questions])
    ran = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, text=True, check=True)
    answers: list[bool] = json.loads(ran.stdout)
    return answers


ENGINES = {"moto": moto_says, "quamina": quamina_says}
NO_WHEEL = importlib.util.find_spec("event_ruler") is None and sys.version_info >= (3, 13)
JUDGES = [
    "moto",
    pytest.param("quamina", marks=pytest.mark.skipif(NO_WHEEL, reason="Quamina has wheels for Python up to 3.12 only")),
]


def matched(engine: str, rules: dict[str, Json]) -> dict[str, list[str]]:
    """The rules that each record matches."""
    questions = [(name, event, rule) for name, (event, _) in RECORDS.items() for rule in rules]
    answers = ENGINES[engine]([(event, rules[rule]) for _, event, rule in questions])
    found: dict[str, list[str]] = {name: [] for name in RECORDS}
    for (name, _, rule), matches in zip(questions, answers, strict=True):
        if matches:
            found[name].append(rule)
    return found


@pytest.mark.parametrize("engine", JUDGES)
def test_each_record_starts_what_it_has_to_and_nothing_else(engine: str) -> None:
    wanted = {name: [rule] if rule else [] for name, (_, rule) in RECORDS.items()}
    assert matched(engine, patterns()) == wanted


@pytest.mark.parametrize("engine", JUDGES)
def test_a_pattern_that_asks_for_an_object_is_caught(engine: str) -> None:
    """The planted fault: AWS matches leaves, so this pattern never fires."""
    wrong = copy.deepcopy(patterns()[GROUP])
    wrong["detail"]["$or"] = [{"requestParameters": {"launchTemplate": [{"exists": True}]}}]
    assert [name for name, rules in matched(engine, {GROUP: wrong}).items() if rules] == []


def test_the_names_of_the_leaves_are_those_of_the_api() -> None:
    """CloudTrail writes a parameter's name with a small first letter."""
    import botocore.session

    model: Any = botocore.session.get_session().get_service_model("autoscaling")
    for path in LAUNCHES:
        shape = model.operation_model("UpdateAutoScalingGroup").input_shape
        for word in path:
            shape = shape.member if shape.type_name == "list" else shape
            shape = shape.members[word[:1].upper() + word[1:]] if word != "vCpuCount" else shape.members["VCpuCount"]
        assert shape.type_name in {"string", "integer"}, path


def test_a_pattern_is_no_longer_than_eventbridge_takes() -> None:
    """4,096 characters (API reference of PutRule)."""
    assert all(len(json.dumps(pattern)) < 3_000 for pattern in patterns().values())
