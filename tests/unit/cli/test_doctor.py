"""Checks: each is a line, whatever the others found, with what to do."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    NoCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from eks_rolling.errors import AccessDenied
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.plan.permissions import Verb
from eks_rolling.roll import lock
from eks_rolling_cli.checks import Check, Health, Unwell, run_checks
from eks_rolling_cli.doctor import CHECKS
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.target import Target
from tests.unit.cli.histories import planned
from tests.unit.cli.targets import RESTORE, ROLL, FakeTarget


def well(_: Target) -> str:
    return "as it should be"


def raising(error: Exception) -> Callable[[Target], str]:
    def look(_: Target) -> str:
        raise error

    return look


@pytest.mark.parametrize(
    ("error", "health", "said", "remedy"),
    [
        (Unwell("no trail", "make one", Health.WARN), Health.WARN, "no trail", "make one"),
        (CommandError("Nothing is deployed. Deploy it."), Health.FAIL, "Nothing is deployed", "Deploy it"),
        (
            AccessDenied("Cannot list nodes: forbidden. Ask for it."),
            Health.FAIL,
            "Cannot list nodes: forbidden",
            "Ask for it",
        ),
    ],
)
def test_what_one_check_finds_keeps_no_other_from_being_made(
    target: FakeTarget, error: Exception, health: Health, said: str, remedy: str
) -> None:
    first, second = run_checks(target, {"first": raising(error), "second": well})
    assert (first.name, first.health, first.said, first.remedy) == ("first", health, said, remedy)
    assert (second.health, second.said) == (Health.OK, "as it should be")


def lock_line(target: FakeTarget) -> tuple[Health, str, str]:
    (check,) = run_checks(target, {"lock": CHECKS["lock"]})
    return check.health, check.said, check.remedy


def test_a_lock_without_a_living_roll_asks_for_a_restore(target: FakeTarget) -> None:
    assert lock_line(target)[:2] == (Health.OK, "no roll holds the lock")
    target.world.put_lease(Lease(lock.lock_name("kube-system"), "roll-1", 0.0, 180.0))
    health, said, remedy = lock_line(target)
    assert health is Health.FAIL
    assert said.startswith("roll-1 died holding the lock")
    assert "eks-rolling restore" in remedy
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    assert lock_line(target)[:2] == (Health.OK, "the roll roll-1 is running")


def test_a_redis_group_that_a_roll_is_moving_is_not_told_to_be_out_of_reach(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"nodes": [], "redis": [{"group": "shop/shards", "healthy": False}]}
    monkeypatch.setattr("eks_rolling_cli.plan_locally.plan_here", lambda *_: ({}, plan))
    (check,) = run_checks(target, {"plan": CHECKS["plan"]})
    assert check.said == "Redis does not look healthy from here: shop/shards"
    target.fake.add(ROLL, "roll-1", planned("i-1"))
    target.world.put_lease(Lease(lock.lock_name("kube-system"), "roll-1", 0.0, 180.0))
    (check,) = run_checks(target, {"plan": CHECKS["plan"]})
    assert (check.health, "while the roll roll-1 runs: shop/shards" in check.said) == (Health.WARN, True)
    assert "eks-rolling watch roll-1 --cluster demo" in check.remedy


@pytest.mark.parametrize(
    ("api_group", "resource", "health"),
    [
        ("", "pods", Health.FAIL),
        ("storage.k8s.io", "csinodes", Health.FAIL),
        ("batch", "cronjobs", Health.WARN),
        ("networking.k8s.io", "networkpolicies", Health.WARN),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", Health.WARN),
    ],
)
def test_what_a_plan_needs_is_a_failure_and_what_it_goes_on_without_a_warning(
    target: FakeTarget, api_group: str, resource: str, health: Health
) -> None:
    target.world.forbidden = {Verb("", "list", api_group, resource)}
    (check,) = run_checks(target, {"reading": CHECKS["reading"]})
    assert (check.health, check.said) == (health, f"you may not list {resource}")


@pytest.mark.parametrize(("lease", "health"), [("", Health.OK), ("another", Health.OK), ("eks-rolling", Health.WARN)])
def test_who_may_write_the_rolls_lease_alone_may_pause(target: FakeTarget, lease: str, health: Health) -> None:
    """As the operators' Role grants it: by its name."""
    target.world.forbidden = {Verb("", "update", "coordination.k8s.io", "leases", "kube-system", lease)}
    (check,) = run_checks(target, {"control": CHECKS["control"]})
    assert check.health is health
    assert check.said.endswith("the Lease kube-system/eks-rolling")


def test_a_plan_that_would_be_blocked_is_a_warning(target: FakeTarget) -> None:
    (check,) = run_checks(target, {"plan": CHECKS["plan"]})
    assert (check.health, check.said) == (Health.OK, "a plan can be made: 6 outdated nodes")
    groups = target.world.groups_by_name
    groups["ng-a"] = replace(groups["ng-a"], suspended=frozenset({"Launch"}))
    (check,) = run_checks(target, {"plan": CHECKS["plan"]})
    assert check.health is Health.WARN
    assert check.remedy == "`eks-rolling plan --cluster demo` names them"


def test_without_credentials_or_a_region_that_is_said_once(target: FakeTarget) -> None:
    nowhere = raising(CommandError("No region is set: pass --region or set AWS_REGION.", Exit.USAGE))
    (only,) = run_checks(target, {"credentials": nowhere, "cluster": nowhere, "plan": well}, first="credentials")
    assert (only.name, only.said) == ("credentials", "No region is set: pass --region or set AWS_REGION")
    assert [c.health for c in run_checks(target, {"credentials": well, "plan": nowhere}, first="credentials")] == [
        Health.OK,
        Health.FAIL,
    ]


RULES: dict[str, dict[str, object]] = {
    "LaunchTemplateChanged": {"machine": ROLL, "EventPattern": '{"source": ["aws.ec2"]}'},
    "GroupChanged": {"machine": ROLL, "EventPattern": '{"source": ["aws.autoscaling"]}'},
    "RollEndedBadly": {"machine": RESTORE, "EventPattern": '{"source": ["aws.states"]}'},
    "LookForOrphans": {"machine": RESTORE, "ScheduleExpression": "rate(1 hour)"},
    "Theirs": {"machine": ROLL, "ScheduleExpression": "cron(0 3 * * ? *)"},
}


class Events:
    """EventBridge with these rules; each list of names is of a page of its own."""

    def __init__(self, rules: dict[str, dict[str, object]]) -> None:
        self._rules = rules

    def get_paginator(self, _: str) -> "Events":
        return self

    def paginate(self, **asked: str) -> list[dict[str, list[str]]]:
        return [{"RuleNames": [name]} for name, rule in self._rules.items() if rule["machine"] == asked["TargetArn"]]

    def describe_rule(self, **asked: str) -> dict[str, object]:
        return {"Name": asked["Name"], "State": "ENABLED", **self._rules[asked["Name"]]}


def trigger_line(target: FakeTarget, rules: dict[str, dict[str, object]]) -> Check:
    target.__dict__["session"] = SimpleNamespace(client=lambda *_, **__: Events(rules))
    (check,) = run_checks(target, {"triggers": CHECKS["triggers"]})
    return check


def test_each_kind_of_rule_is_there_and_enabled(target: FakeTarget) -> None:
    found = trigger_line(target, RULES)
    assert found.health is Health.OK
    for gone in RULES:
        found = trigger_line(target, {name: rule for name, rule in RULES.items() if name != gone})
        assert found.health is (Health.OK if gone == "Theirs" else Health.WARN), gone
    found = trigger_line(target, {**RULES, "GroupChanged": RULES["GroupChanged"] | {"State": "DISABLED"}})
    assert (found.health, found.said) == (Health.WARN, "disabled: GroupChanged")
    found = trigger_line(target, {name: rule for name, rule in RULES.items() if name != "RollEndedBadly"})
    assert found.said == "nothing restores after a roll that was stopped"


@pytest.mark.parametrize(
    ("code", "health", "remedy"),
    [
        ("AccessDenied", Health.WARN, "ask for the permission to see it"),
        ("ThrottlingException", Health.WARN, "try again in a moment"),
        ("NotFound", Health.FAIL, "deploy the stack again: npx cdk deploy --all"),
        ("ResourceNotFoundException", Health.FAIL, "deploy the stack again: npx cdk deploy --all"),
    ],
)
def test_what_is_gone_is_told_from_what_may_not_be_seen(
    target: FakeTarget, code: str, health: Health, remedy: str
) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "no"}}, "ListSubscriptionsByTopic")
    (check,) = run_checks(target, {"messages": raising(error)})
    assert (check.health, check.remedy) == (health, remedy)


@pytest.mark.parametrize(
    ("error", "health", "remedy"),
    [
        (NoCredentialsError(), Health.FAIL, "sign in to AWS again"),
        (CredentialRetrievalError(provider="sso", error_msg="expired"), Health.FAIL, "sign in to AWS again"),
        (UnauthorizedSSOTokenError(), Health.FAIL, "sign in to AWS again"),
        (TokenRetrievalError(provider="sso", error_msg="expired"), Health.FAIL, "sign in to AWS again"),
        (ConnectTimeoutError(endpoint_url="https://sns"), Health.WARN, "try again in a moment"),
    ],
)
def test_whom_aws_does_not_know_is_not_told_to_try_again(
    target: FakeTarget, error: BotoCoreError, health: Health, remedy: str
) -> None:
    (check,) = run_checks(target, {"messages": raising(error)})
    assert (check.health, check.remedy) == (health, remedy)


MANAGEMENT: dict[str, object] = {"Field": "eventCategory", "Equals": ["Management"]}
OTHERS = ["kms.amazonaws.com", "rdsdata.amazonaws.com"]


def advanced(*fields: dict[str, object]) -> dict[str, object]:
    return {"AdvancedEventSelectors": [{"FieldSelectors": [MANAGEMENT, *fields]}]}


class Trails:
    """CloudTrail with these trails: what each records, or the code with which it refuses to say."""

    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self, trails: dict[str, dict[str, object] | str]) -> None:
        self._trails = trails

    def describe_trails(self, **_: object) -> dict[str, object]:
        return {"trailList": [{"Name": name, "TrailARN": name} for name in self._trails]}

    def get_trail_status(self, **_: object) -> dict[str, object]:
        return {"IsLogging": True}

    def get_event_selectors(self, **asked: str) -> dict[str, object]:
        said = self._trails[asked["TrailName"]]
        if isinstance(said, str):
            raise ClientError({"Error": {"Code": said, "Message": "of the organization"}}, "GetEventSelectors")
        return said


def trail_line(target: FakeTarget, **trails: dict[str, object] | str) -> Check:
    target.__dict__["session"] = SimpleNamespace(client=lambda *_, **__: Trails(trails))
    (check,) = run_checks(target, {"CloudTrail": CHECKS["CloudTrail"]})
    return check


@pytest.mark.parametrize(
    ("selectors", "records"),
    [
        (advanced(), True),
        (advanced({"Field": "readOnly", "Equals": ["false"]}), True),
        (advanced({"Field": "readOnly", "Equals": ["true"]}), False),
        (advanced({"Field": "readOnly", "NotEquals": ["true"]}), True),
        (advanced({"Field": "eventSource", "NotEquals": OTHERS}), True),
        (advanced({"Field": "eventSource", "NotEquals": ["ec2.amazonaws.com"]}), False),
        (advanced({"Field": "eventSource", "NotStartsWith": ["autoscaling."]}), False),
        (advanced({"Field": "eventSource", "Equals": ["iam.amazonaws.com"]}), False),
        (advanced({"Field": "eventSource", "Equals": ["ec2.amazonaws.com"]}), False),
        (advanced({"Field": "eventSource", "Equals": ["ec2.amazonaws.com", "autoscaling.amazonaws.com"]}), True),
        (advanced({"Field": "eventName", "NotEndsWith": ["Group"]}), False),
        (advanced({"Field": "userIdentity.arn", "StartsWith": ["arn:aws:sts::1:assumed-role/audited"]}), False),
        (advanced({"Field": "userIdentity.arn", "NotEquals": ["arn:aws:sts::1:assumed-role/robot"]}), True),
        ({"AdvancedEventSelectors": []}, False),
    ],
)
def test_a_trail_has_to_record_the_changes_of_launch_templates_and_of_groups(
    target: FakeTarget, selectors: dict[str, object], records: bool
) -> None:
    assert trail_line(target, mine=selectors).health is (Health.OK if records else Health.WARN)


def test_a_trail_that_may_not_be_seen_hides_none_that_records(target: FakeTarget) -> None:
    """An organization's trail is its management account's."""
    assert trail_line(target, theirs="AccessDeniedException", mine=advanced()).said == "trail mine records changes"
    found = trail_line(target, theirs="AccessDeniedException")
    assert found.health is Health.WARN
    assert "theirs" in found.said
    assert "cannot be told" in found.said
