"""How much one request of AWS's takes: whatever a roll asks for is asked for in as many requests as it takes."""

from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from eks_rolling.clients.aws import AwsClient
from eks_rolling.errors import AccessDenied, NotFound
from eks_rolling.observed.aws import Group

Json = dict[str, Any]

TAKES = {
    "DescribeAutoScalingGroups": 50,
    "DescribeAlarms": 100,
    "DescribeInstanceTypes": 100,
    "DescribeLaunchConfigurations": 50,
    "DescribeImages": 200,
    "DescribeInstances": 200,
    "DescribeLaunchTemplates": 200,
    "DescribeSubnets": 200,
}
"""Names or values in a request (API references)."""

LOG_ALARM = "log-alarm"

DELETED = "deleted"
"""A group that goes between the list and what is asked about it."""


def named(asked: Json) -> list[str]:
    """What a request asks for."""
    filtered = [value for each in asked.get("Filters", ()) for value in each["Values"]]
    by_name = (
        "AutoScalingGroupNames", "AlarmNames", "InstanceTypes", "LaunchConfigurationNames", "LaunchTemplateIds",
    )  # fmt: skip
    return [*filtered, *(value for key in by_name for value in asked.get(key, ()))]


class Account:
    """Answers as AWS does, and refuses what is too much for one request."""

    def __init__(self, knows_log_alarms: bool = True) -> None:
        self.asked: list[tuple[str, Json]] = []
        self._knows_log_alarms = knows_log_alarms

    def __call__(self, _: Any, operation: str, asked: Json) -> Json:
        self.asked.append((operation, asked))
        names = named(asked)
        if len(names) > TAKES.get(operation, 1):
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "too many"}}, operation)
        match operation:
            case "DescribeAutoScalingGroups":
                return {"AutoScalingGroups": [group(name) for name in names]}
            case "DescribeInstanceRefreshes" | "DescribeLifecycleHooks" if asked["AutoScalingGroupName"] == DELETED:
                said = f"AutoScalingGroup name not found - AutoScalingGroup '{DELETED}' not found"
                raise ClientError({"Error": {"Code": "ValidationError", "Message": said}}, operation)
            case "DescribeInstanceRefreshes":
                return {"InstanceRefreshes": []}
            case "DescribeLifecycleHooks":
                return {"LifecycleHooks": [{"LifecycleHookName": "drain", "LifecycleTransition": "x_TERMINATING"}]}
            case "DescribeLaunchConfigurations":
                return {"LaunchConfigurations": [configuration(name) for name in names if name != DELETED]}
            case "DescribeLaunchTemplateVersions":
                return versions(asked["Versions"])
            case "DescribeAlarms":
                return self._alarms(names, asked["AlarmTypes"])
            case _:
                return self._of_ec2(operation, asked, names)

    def _of_ec2(self, operation: str, asked: Json, names: list[str]) -> Json:
        match operation:
            case "DescribeInstanceTypes":
                there(operation, "InstanceType", asked)
                return {"InstanceTypes": [kind(name) for name in names if name != DELETED]}
            case "DescribeLaunchTemplates":
                ids = there(operation, "LaunchTemplateId", asked)
                return {"LaunchTemplates": [launch_template(each) for each in ids]}
            case "DescribeSubnets":
                there(operation, "SubnetId", asked)
                return {"Subnets": [subnet(name) for name in names if name != DELETED]}
            case "DescribeImages":
                assert asked["IncludeDeprecated"] is True, "other owners' deprecated images launch too"
                return {"Images": [image(name) for name in names if "gone" not in name]}
            case _:
                return {"Reservations": []}

    def _alarms(self, names: list[str], kinds: list[str]) -> Json:
        if "LogAlarm" in kinds and not self._knows_log_alarms:
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "enum value set"}}, "DescribeAlarms")
        told = [{"AlarmName": name, "StateValue": "ALARM"} for name in names if name != "absent"]
        logs = [alarm for alarm in told if alarm["AlarmName"] == LOG_ALARM]
        answer = {"MetricAlarms": [alarm for alarm in told if alarm not in logs], "LogAlarms": logs}
        return {f"{each}s": answer.get(f"{each}s", []) for each in kinds}


def there(operation: str, what: str, asked: Json) -> list[str]:
    """What is asked for by its id, which EC2 refuses for the sake of one that it does not know."""
    ids: list[str] = asked.get(f"{what}s", [])
    if DELETED in ids:
        raise ClientError({"Error": {"Code": f"Invalid{what}.NotFound", "Message": "it does not exist"}}, operation)
    return ids


def launch_template(identity: str) -> Json:
    tags = [{"Key": "team", "Value": "shop"}]
    return {"LaunchTemplateId": identity, "LatestVersionNumber": 2, "DefaultVersionNumber": 1, "Tags": tags}


def subnet(identity: str) -> Json:
    return {"SubnetId": identity, "AvailabilityZone": "a", "AvailableIpAddressCount": 5}


def group(name: str) -> Json:
    return {
        "AutoScalingGroupName": name, "MinSize": 0, "MaxSize": 1, "DesiredCapacity": 0, "AvailabilityZones": ["a"],
        "Instances": [],
    }  # fmt: skip


def configuration(name: str) -> Json:
    return {"LaunchConfigurationName": name, "LaunchConfigurationARN": f"arn:{name}", "ImageId": "ami-1"}


def versions(numbers: list[str]) -> Json:
    """As EC2 answers: for one that is gone it tells of none."""
    if "7" in numbers:
        error: Any = {"Error": {"Code": "InvalidLaunchTemplateId.VersionNotFound", "Message": "version 7"}}
        raise ClientError(error, "DescribeLaunchTemplateVersions")
    told = [{"VersionNumber": int(n), "LaunchTemplateData": {"ImageId": f"ami-{n}"}} for n in numbers]
    return {"LaunchTemplateVersions": told}


def kind(name: str) -> Json:
    return {"InstanceType": name, "MemoryInfo": {"SizeInMiB": 1024}, "VCpuInfo": {"DefaultVCpus": 2}}


def image(name: str) -> Json:
    return {"ImageId": name, "State": name.partition("-")[0]}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    made = Account()
    monkeypatch.setattr(BaseClient, "_make_api_call", lambda *given: made(*given))
    return made


@pytest.fixture
def client() -> AwsClient:
    return AwsClient("demo", session=boto3.session.Session("none", "none", region_name="eu-central-1"))


@pytest.mark.parametrize("count", [1, 50, 51, 120])
def test_any_number_of_groups_is_asked_for_by_name(account: Account, client: AwsClient, count: int) -> None:
    names = [f"ng-{number:03}" for number in range(count)]
    assert [g.name for g in client.groups([*names, names[0]])] == names


@pytest.mark.parametrize("count", [0, 1, 200, 201, 450])
def test_any_number_of_templates_is_described(account: Account, client: AwsClient, count: int) -> None:
    ids = [f"lt-{number:03}" for number in range(count)]
    assert client.template_versions(ids) == dict.fromkeys(ids, (2, 1))


def test_a_template_a_subnet_and_a_type_that_are_gone_hide_no_others(account: Account, client: AwsClient) -> None:
    """What is the matter with one group keeps nobody from planning a roll of the others."""
    assert client.template_versions(["lt-1", DELETED, "lt-2"]) == {"lt-1": (2, 1), "lt-2": (2, 1)}
    assert client.template_tags([DELETED, "lt-2"]) == {"lt-2": {"team": "shop"}}
    assert client.free_addresses(Group("ng", subnets=("subnet-1", DELETED))) == {"a": 5}
    assert client.free_addresses(Group("ng")) == {}
    assert list(client.instance_types(["m6i.large", DELETED])) == ["m6i.large"]


@pytest.mark.parametrize("count", [1, 100, 101, 250])
def test_any_number_of_alarms_is_looked_at(account: Account, client: AwsClient, count: int) -> None:
    names = [f"alarm-{number:03}" for number in range(count)]
    assert client.alarms_firing(names) == names
    assert client.alarms_firing([]) == []


def test_any_number_of_images_instances_and_types_is_described(account: Account, client: AwsClient) -> None:
    assert client.images_gone(f"available-{number}" for number in range(450)) == frozenset()
    assert client.instances([f"i-{number}" for number in range(450)]) == {}
    assert len(client.instance_types(f"m{number}.large" for number in range(250))) == 250


def test_an_image_launches_in_some_states_and_one_that_is_not_shown_does_not(
    account: Account, client: AwsClient
) -> None:
    """EC2 shows neither disabled images nor those that are no longer shared, and deregistered ones for a while."""
    there = ["available-1", "pending-1"]
    gone = ["available-gone", "deregistered-1", "disabled-1", "failed-1", "invalid-1", "error-1"]
    assert client.images_gone([*there, *gone]) == frozenset(gone)
    assert client.images_gone([]) == frozenset()


def test_an_alarm_of_logs_holds_the_gate_like_any_other(account: Account, client: AwsClient) -> None:
    assert client.alarms_firing(["errors", LOG_ALARM]) == ["errors", LOG_ALARM]
    asked = [asked["AlarmTypes"] for _, asked in account.asked]
    assert asked == [["MetricAlarm", "CompositeAlarm"], ["LogAlarm"]]


def test_a_region_without_alarms_of_logs_names_the_missing_one(
    monkeypatch: pytest.MonkeyPatch, client: AwsClient
) -> None:
    made = Account(knows_log_alarms=False)
    monkeypatch.setattr(BaseClient, "_make_api_call", lambda *given: made(*given))
    assert client.alarms_firing(["errors"]) == ["errors"]
    with pytest.raises(NotFound, match="absent do not exist"):
        client.alarms_firing(["errors", "absent"])
    assert client.alarms_missing(["errors", "absent"]) == ["absent"]
    assert client.alarms_missing([]) == []


def test_who_may_not_look_at_alarms_is_told_so(monkeypatch: pytest.MonkeyPatch, client: AwsClient) -> None:
    def deny(_: Any, operation: str, __: Json) -> Json:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)

    monkeypatch.setattr(BaseClient, "_make_api_call", deny)
    with pytest.raises(AccessDenied, match="DescribeAlarms"):
        client.alarms_firing(["errors"])


def test_a_group_that_is_deleted_while_it_is_looked_at_keeps_nobody_from_the_others(
    account: Account, client: AwsClient
) -> None:
    assert [g.name for g in client.groups(["ng-a", DELETED])] == [DELETED, "ng-a"]
    assert [h.group for h in client.lifecycle_hooks([DELETED, "ng-a"])] == ["ng-a"]


def test_a_version_that_was_deleted_hides_no_other(account: Account, client: AwsClient) -> None:
    said = client.template_data(["lt-1:6", "lt-1:7", "lt-1:8", "lt-2:7"])
    assert said == {"lt-1:6": {"ImageId": "ami-6"}, "lt-1:8": {"ImageId": "ami-8"}}


def test_any_number_of_launch_configurations_is_described_by_what_they_launch(
    account: Account, client: AwsClient
) -> None:
    names = [f"lc:conf-{number:03}" for number in range(120)]
    said = client.template_data([*names, f"lc:{DELETED}"])
    assert said == {name: {"ImageId": "ami-1"} for name in names}
