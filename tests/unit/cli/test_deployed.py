"""`doctor --deployed`: answers that the lab's account does not give."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from eks_rolling_cli.checks import Check, Health, run_checks
from eks_rolling_cli.deployed import CHECKS, ENDPOINTS
from eks_rolling_cli.target import Options, Target
from tests.unit.cli.targets import FakeTarget

Json = dict[str, Any]
ROLE = "arn:aws:iam::123456789012:role/EksRolling-demo-PlanRole"


class Client:
    """Answers each call, by its name, with what it was given; paginators answer one page of it."""

    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self, answers: Json) -> None:
        self._answers = answers

    def get_paginator(self, name: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [self._answers[name]])

    def __getattr__(self, name: str) -> Any:
        return lambda **_: self._answers[name]


class Session:
    def __init__(self, answers: Json) -> None:
        self._answers = answers

    def client(self, _: str, **__: Any) -> Client:
        return Client(self._answers)


def line(target: FakeTarget, name: str, **answers: Any) -> Check:
    target.__dict__["session"] = Session(answers)
    (check,) = run_checks(target, {name: CHECKS[name]})
    return check


def function(step: str, **more: Any) -> Json:
    return {
        "FunctionName": step, "Handler": f"eks_rolling.steps.{step}.handler", "Role": ROLE, "State": "Active",
        "LastUpdateStatus": "Successful", "CodeSha256": "a", "Layers": [{"Arn": "layer:1"}], **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("functions", "health", "said"),
    [
        ([function("plan"), function("evict")], Health.OK, "2 functions, one version"),
        (
            [function("plan"), function("evict", State="Inactive")],
            Health.OK,
            "2 functions, one version; 1 function asleep, the first call wakes them",
        ),
        (
            [function("plan"), function("evict", State="Failed", StateReason="no subnet has an address left")],
            Health.FAIL,
            "not ready: evict: no subnet has an address left",
        ),
        (
            [function("plan", LastUpdateStatus="Failed", LastUpdateStatusReason="the role cannot be assumed")],
            Health.FAIL,
            "not ready: plan: the role cannot be assumed",
        ),
        ([function("plan"), function("evict", CodeSha256="b")], Health.FAIL, "2 different versions of their code"),
        (
            [function("plan"), function("evict", Layers=[{"Arn": "layer:2"}])],
            Health.FAIL,
            "2 different versions of their layers",
        ),
    ],
)
def test_functions_are_there_and_of_one_deployment(
    target: FakeTarget, functions: list[Json], health: Health, said: str
) -> None:
    target.__dict__["functions"] = functions
    found = line(target, "functions")
    assert found.health is health
    assert said in found.said
    assert bool(found.remedy) == (health is not Health.OK)


def test_a_function_that_the_workflow_calls_and_that_is_not_there_is_named(target: FakeTarget) -> None:
    target.__dict__ |= {"functions": [function("plan")], "missing_functions": ["EksRolling-demo-FunctionsEvict-1"]}
    found = line(target, "functions")
    assert (found.health, found.said) == (
        Health.FAIL,
        "the workflow calls what is not there: EksRolling-demo-FunctionsEvict-1",
    )
    assert "npx cdk deploy" in found.remedy


def test_what_the_workflows_call_is_looked_for_and_what_is_gone_is_told_from_what_is_there() -> None:
    """Of all machines; one function is called by two of them."""
    target = Target(Options(cluster="demo"))
    called = {"roll": ["plan", "restore"], "restore": ["restore", "gone"]}

    class StepFunctions:
        def describe_state_machine(self, **asked: str) -> Json:
            names = called[asked["stateMachineArn"]]
            states = {name: {"Arguments": {"FunctionName": f"arn:function:{name}"}} for name in names}
            return {"definition": json.dumps({"States": states}), "roleArn": f"role of {asked['stateMachineArn']}"}

    class Functions:
        def get_function_configuration(self, **asked: str) -> Json:
            if asked["FunctionName"].endswith("gone"):
                error: Any = {"Error": {"Code": "ResourceNotFoundException", "Message": "Function not found"}}
                raise ClientError(error, "GetFunctionConfiguration")
            return {"FunctionName": asked["FunctionName"]}

    target.__dict__ |= {
        "machines": {name: name for name in called},
        "stepfunctions": StepFunctions(),
        "session": SimpleNamespace(client=lambda *_, **__: Functions()),
    }
    assert [f["FunctionName"] for f in target.functions] == ["arn:function:plan", "arn:function:restore"]
    assert target.missing_functions == ["gone"]
    assert target.machine_roles == {"role of roll", "role of restore"}


def test_the_workflows_own_roles_are_judged_too(target: FakeTarget) -> None:
    target.__dict__ |= {"functions": [function("plan")], "machine_roles": {"arn:aws:iam::1:role/RollMachineRole"}}
    found = line(
        target,
        "organization",
        list_role_policies={"PolicyNames": ["own"]},
        get_role_policy={"PolicyDocument": {"Statement": {"Effect": "Allow", "Action": "lambda:InvokeFunction"}}},
        simulate_principal_policy={"EvaluationResults": []},
    )
    assert found.said == "no policy of the organization and no boundary denies what 2 roles may do"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"EvalDecision": "implicitDeny"}, ""),
        ({"EvalDecision": "allowed", "OrganizationsDecisionDetail": {"AllowedByOrganizations": True}}, ""),
        ({"EvalDecision": "explicitDeny"}, "a policy denies ec2:CreateTags"),
        (
            {"EvalDecision": "implicitDeny", "OrganizationsDecisionDetail": {"AllowedByOrganizations": False}},
            "a policy of the organization denies ec2:CreateTags",
        ),
        (
            {
                "EvalDecision": "implicitDeny",
                "PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False},
            },
            "a permissions boundary denies ec2:CreateTags",
        ),
    ],
)
def test_what_something_else_than_the_stacks_policies_denies_is_named_with_who_does(
    target: FakeTarget, result: Json, said: str
) -> None:
    """What a condition or a resource decides denies nothing here: the simulation names neither."""
    target.__dict__["functions"] = [function("plan")]
    found = line(
        target,
        "organization",
        list_role_policies={"PolicyNames": ["own"]},
        get_role_policy={"PolicyDocument": {"Statement": {"Effect": "Allow", "Action": "ec2:CreateTags"}}},
        simulate_principal_policy={"EvaluationResults": [{"EvalActionName": "ec2:CreateTags", **result}]},
    )
    assert found.health is (Health.FAIL if said else Health.OK)
    assert said in found.said


def test_who_has_not_confirmed_their_subscription_is_named(target: FakeTarget) -> None:
    listed = [
        {"Endpoint": "ann@example.com", "SubscriptionArn": "arn:aws:sns:eu-central-1:123456789012:t:1"},
        {"Endpoint": "on-call@example.com", "SubscriptionArn": "PendingConfirmation"},
    ]
    found = line(target, "subscribers", list_subscriptions_by_topic={"Subscriptions": listed})
    assert (found.health, found.said) == (Health.WARN, "not confirmed yet: on-call@example.com")
    found = line(target, "subscribers", list_subscriptions_by_topic={"Subscriptions": listed[:1]})
    assert (found.health, found.said) == (Health.OK, "1 subscription confirmed")
    found = line(target, "subscribers", list_subscriptions_by_topic={"Subscriptions": []})
    assert (found.health, found.said) == (Health.OK, "there is no subscription to confirm")


PLACE = {"VpcId": "vpc-1", "SubnetIds": ["subnet-1"]}
EVERY = [*ENDPOINTS]


def endpoint(service: str, **more: Any) -> Json:
    name = {"ServiceName": f"com.amazonaws.eu-central-1.{service}", "State": "available"}
    if service == "s3":
        return {**name, "VpcEndpointType": "Gateway", "RouteTableIds": ["rtb-1"], **more}
    return {**name, "VpcEndpointType": "Interface", "PrivateDnsEnabled": True, **more}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "1 subnet without a way out, with every endpoint"),
        ({"ec2": None}, "subnet-1 has no way out, and the VPC no endpoint for ec2"),
        ({"ec2": {"PrivateDnsEnabled": False}}, "the endpoint for ec2 does not serve subnet-1"),
        ({"s3": {"RouteTableIds": ["rtb-of-another"]}}, "the endpoint for s3 does not serve subnet-1"),
        ({"s3": {"VpcEndpointType": "Interface", "PrivateDnsEnabled": True}}, "with every endpoint"),
        ({"states": {"State": "pendingAcceptance"}}, "the endpoint for states does not serve subnet-1"),
    ],
)
def test_an_endpoint_counts_where_it_serves_the_functions(target: FakeTarget, changed: Json, said: str) -> None:
    target.__dict__["functions"] = [function("plan", VpcConfig=PLACE)]
    there = [endpoint(s, **(changed.get(s) or {})) for s in EVERY if s not in changed or changed[s] is not None]
    found = line(target, "way out", **routes(), describe_vpc_endpoints={"VpcEndpoints": there})
    assert said in found.said
    assert found.health is (Health.OK if "with every endpoint" in said else Health.FAIL)


def routes(*more: Json) -> Json:
    local = {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active"}
    table = {"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Associations": [{"Main": True}], "Routes": [local, *more]}
    subnets = [{"SubnetId": "subnet-1", "VpcId": "vpc-1", "AvailableIpAddressCount": 5}]
    return {"describe_subnets": {"Subnets": subnets}, "describe_route_tables": {"RouteTables": [table]}}


@pytest.mark.parametrize(("state", "health"), [("active", Health.OK), ("blackhole", Health.FAIL)])
def test_a_way_out_whose_gateway_was_deleted_is_none(target: FakeTarget, state: str, health: Health) -> None:
    target.__dict__["functions"] = [function("plan", VpcConfig=PLACE)]
    out = {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": state}
    assert line(target, "way out", **routes(out), describe_vpc_endpoints={"VpcEndpoints": []}).health is health


def test_a_way_out_by_ipv6_alone_leads_not_to_aws(target: FakeTarget) -> None:
    target.__dict__["functions"] = [function("plan", VpcConfig=PLACE)]
    out = {"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1", "State": "active"}
    found = line(target, "way out", **routes(out), describe_vpc_endpoints={"VpcEndpoints": []})
    assert found.health is Health.FAIL
    assert found.said.startswith("subnet-1 has no way out, and the VPC no endpoint for autoscaling")


@pytest.mark.parametrize(("count", "health"), [(300, Health.OK), (301, Health.WARN)])
def test_target_groups_are_counted_as_a_look_asks_them(target: FakeTarget, count: int, health: Health) -> None:
    led = [{"TargetType": "instance", "LoadBalancerArns": ["arn:lb"]}] * count
    idle = [{"TargetType": "instance", "LoadBalancerArns": []}] * 500
    other = [{"TargetType": "ip", "LoadBalancerArns": ["arn:lb"]}] * 299
    found = line(target, "target groups", describe_target_groups={"TargetGroups": led + idle + other})
    assert found.health is health
    assert found.said.startswith(f"a look asks up to {count} target groups")


@pytest.mark.parametrize(("quota", "health"), [(1000.0, Health.OK), (10.0, Health.OK), (5.0, Health.WARN)])
def test_a_roll_has_room_beside_other_functions(target: FakeTarget, quota: float, health: Health) -> None:
    target.__dict__["functions"] = [function("plan")]
    answers: Json = {"get_service_quota": {"Quota": {"Value": quota}}, "get_function_concurrency": {}}
    found = line(target, "concurrency", **answers)
    assert (found.health, found.said) == (health, f"{quota:.0f} functions may run at once; a roll runs up to 3")


@pytest.mark.parametrize(("reserved", "health"), [(0, Health.FAIL), (5, Health.OK)])
def test_a_function_that_somebody_has_stopped_is_named(target: FakeTarget, reserved: int, health: Health) -> None:
    target.__dict__["functions"] = [function("evict")]
    answers = {
        "get_service_quota": {"Quota": {"Value": 1000.0}},
        "get_function_concurrency": {"ReservedConcurrentExecutions": reserved},
    }
    found = line(target, "concurrency", **answers)
    assert found.health is health
    assert ("somebody has stopped evict" in found.said) == (health is Health.FAIL)


def test_subnets_without_a_free_address_are_named(target: FakeTarget) -> None:
    target.__dict__["functions"] = [function("plan", VpcConfig=PLACE)]
    answers = routes({"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "active"})
    answers["describe_subnets"]["Subnets"][0]["AvailableIpAddressCount"] = 0
    found = line(target, "way out", **answers)
    assert found.health is Health.WARN
    assert found.said == "subnet-1 has no free address: an idle function could not be started again"


@pytest.mark.parametrize(
    ("status", "health", "remedy"),
    [
        ("CREATE_COMPLETE", Health.OK, ""),
        ("UPDATE_COMPLETE", Health.OK, ""),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", Health.OK, ""),
        ("UPDATE_IN_PROGRESS", Health.WARN, "wait until the deployment has ended"),
        ("UPDATE_ROLLBACK_IN_PROGRESS", Health.WARN, "wait until the deployment has ended"),
        ("UPDATE_ROLLBACK_COMPLETE", Health.WARN, "describe-stack-events --stack-name EksRolling-demo"),
        ("UPDATE_ROLLBACK_FAILED", Health.FAIL, "continue-update-rollback --stack-name EksRolling-demo"),
        ("UPDATE_FAILED", Health.FAIL, "npx cdk deploy --all"),
        ("ROLLBACK_COMPLETE", Health.FAIL, "npx cdk deploy --all"),
        ("DELETE_FAILED", Health.FAIL, "npx cdk deploy --all"),
    ],
)
def test_a_deployment_that_failed_is_told_with_what_is_in_force(
    target: FakeTarget, status: str, health: Health, remedy: str
) -> None:
    stack = {"StackStatus": status, "StackStatusReason": "the principalArn is invalid"}
    found = line(target, "stack", describe_stacks={"Stacks": [stack]})
    assert found.health is health
    assert found.said.startswith(f"EksRolling-demo is {status}")
    assert remedy in found.remedy
    assert ("the principalArn is invalid" in found.said) == (health is not Health.OK)
    assert ("what was deployed before is in force" in found.said) == (status == "UPDATE_ROLLBACK_COMPLETE")


@pytest.mark.parametrize(
    ("state", "health", "remedy"),
    [
        ("Enabled", Health.OK, ""),
        ("Disabled", Health.FAIL, "`aws kms enable-key --key-id key-1`"),
        ("PendingDeletion", Health.FAIL, "`aws kms cancel-key-deletion --key-id key-1`"),
    ],
)
def test_a_key_without_which_no_message_is_sent_is_named(
    target: FakeTarget, state: str, health: Health, remedy: str
) -> None:
    answers = {
        "get_topic_attributes": {"Attributes": {"KmsMasterKeyId": "arn:aws:kms:eu-central-1:1:key/key-1"}},
        "describe_key": {"KeyMetadata": {"KeyId": "key-1", "KeyState": state}},
    }
    found = line(target, "message key", **answers)
    assert found.health is health
    assert remedy in found.remedy


def test_a_topic_whose_key_was_taken_away_is_told(target: FakeTarget) -> None:
    found = line(target, "message key", get_topic_attributes={"Attributes": {}})
    assert (found.health, found.said) == (Health.WARN, "messages are not encrypted any more")


@pytest.mark.parametrize(
    ("groups", "health", "said"),
    [
        (["eks-rolling-look", "eks-rolling-check", "eks-rolling-redis-look"], Health.OK, "the roles of 1 function"),
        (["eks-rolling-look", "eks-rolling-check"], Health.FAIL, "plan is not in eks-rolling-redis-look"),
        ([], Health.FAIL, "plan is not in eks-rolling-check, eks-rolling-look, eks-rolling-redis-look"),
        (
            ["eks-rolling-look", "eks-rolling-check", "eks-rolling-redis-look", "admins"],
            Health.WARN,
            "plan is also in admins",
        ),
    ],
)
def test_an_access_entry_has_the_groups_that_its_step_needs_and_no_others(
    target: FakeTarget, groups: list[str], health: Health, said: str
) -> None:
    target.__dict__["functions"] = [function("plan"), function("report")]
    answers: Json = {
        "list_access_entries": {"accessEntries": [ROLE]},
        "describe_access_entry": {"accessEntry": {"kubernetesGroups": groups}},
    }
    found = line(target, "access entries", **answers)
    assert (found.health, bool(found.remedy)) == (health, health is not Health.OK)
    assert said in found.said


def test_a_stack_by_another_name_is_told_from_one_that_may_not_be_seen(target: FakeTarget) -> None:
    class Refusing:
        def __init__(self, code: str, message: str) -> None:
            self._error: Any = {"Error": {"Code": code, "Message": message}}

        def client(self, *_: Any, **__: Any) -> Any:
            def describe(**_: str) -> Json:
                raise ClientError(self._error, "DescribeStacks")

            return SimpleNamespace(describe_stacks=describe, exceptions=SimpleNamespace(ClientError=ClientError))

    for code, message, said in (
        ("ValidationError", "Stack with id EksRolling-demo does not exist", "knows no stack EksRolling-demo"),
        ("AccessDenied", "not authorized", "cannot be checked"),
    ):
        target.__dict__["session"] = Refusing(code, message)
        (found,) = run_checks(target, {"stack": CHECKS["stack"]})
        assert (found.health, said in found.said) == (Health.WARN, True)
