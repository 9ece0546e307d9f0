"""Every error code that AWS's models list for a call of ours is sorted; a new one fails here until somebody has."""

import ast
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError, SSOTokenLoadError, TokenRetrievalError
from botocore.parsers import ResponseParserError

from eks_rolling.clients import aws, aws_errors, eks
from eks_rolling.clients.aws import AwsClient, translated
from eks_rolling.clients.aws_errors import CODES, Sort, sort
from eks_rolling.clients.protocols import HttpAnswer, Launched
from eks_rolling.errors import AccessDenied, NotFound, Permanent, Transient

CLIENTS = {
    "_autoscaling": "autoscaling",
    "_ec2": "ec2",
    "_elbv2": "elbv2",
    "_elb": "elb",
    "_cloudwatch": "cloudwatch",
    "_quotas": "service-quotas",
    "_s3": "s3",
    "_sns": "sns",
    "_stepfunctions": "stepfunctions",
    "eks": "eks",
    "lambda_": "lambda",
}


def calls() -> Iterator[tuple[str, str]]:
    """Service and method of every boto3 call in the clients' source, those by paginators too."""
    for module in (aws, eks):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if name not in CLIENTS:
                continue
            method = node.func.attr
            if method == "get_paginator":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant)
                method = str(argument.value)
            yield CLIENTS[name], method


@cache
def model_of(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def modelled(service: str, method: str) -> set[str]:
    model = model_of(service)
    (operation,) = [o for o in model.operation_names if o.lower() == method.replace("_", "").lower()]
    return {shape.error_code for shape in model.operation_model(operation).error_shapes}


def unsorted(known: Callable[[str], bool]) -> dict[str, list[str]]:
    """The calls, by the codes that nobody has sorted."""
    found: dict[str, list[str]] = {}
    for service, method in sorted({*calls()}):
        for code in modelled(service, method):
            if not known(code):
                found.setdefault(code, []).append(f"{service}.{method}")
    return found


def clients_made() -> set[str]:
    """The services of which the source makes a client, by whichever name it goes."""
    return {
        str(node.args[0].value)
        for module in (aws, eks)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "client"
        if node.args and isinstance(node.args[0], ast.Constant)
    }


SIGNS_ONLY = {"sts"}
"""Its calls are signed here, and made by the API server."""


def test_every_client_that_there_is_was_looked_through() -> None:
    assert {service for service, _ in calls()} == set(CLIENTS.values()) == clients_made() - SIGNS_ONLY


def test_every_modelled_code_is_sorted() -> None:
    assert unsorted(CODES.__contains__) == {}


def test_a_code_that_is_taken_out_of_the_table_is_missed() -> None:
    """The planted fault: without it the test above could not fail."""
    assert "ResourceInUse" in CODES
    assert list(unsorted(lambda code: code in CODES and code != "ResourceInUse")) == ["ResourceInUse"]


def test_no_code_is_sorted_twice() -> None:
    words = [code for codes in aws_errors._CODES.values() for code in codes.split()]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ResourceInUse", 400, Sort.TRANSIENT),
        ("ResourceInUseFault", 400, Sort.TRANSIENT),
        ("ScalingActivityInProgressFault", 400, Sort.TRANSIENT),
        ("InvalidInstanceID.NotFound", 400, Sort.GONE),
        ("ValidationError", 400, Sort.PERMANENT),
        ("UnauthorizedOperation", 403, Sort.DENIED),
        ("NobodyHasSeenThis", 503, Sort.TRANSIENT),
        ("NobodyHasSeenThis", 429, Sort.TRANSIENT),
        ("NobodyHasSeenThis", 400, Sort.PERMANENT),
        ("KMSAccessDenied", 502, Sort.DENIED),
        ("InvalidSubnetIDException", 502, Sort.PERMANENT),
        ("EC2AccessDeniedException", 502, Sort.DENIED),
        ("ResourceNotReadyException", 502, Sort.TRANSIENT),
        ("SnapStartNotReadyException", 409, Sort.TRANSIENT),
    ],
)
def test_sorted(code: str, status: int, expected: Sort) -> None:
    assert sort(code, status) is expected


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("Throttling", Transient),
        ("AccessDenied", AccessDenied),
        ("InvalidInstanceID.NotFound", NotFound),
        ("ValidationError", Permanent),
    ],
)
def test_each_sort_has_its_fault(code: str, fault: type[Exception]) -> None:
    with pytest.raises(fault, match=f"Cannot do it.*{code}") as caught, translated("do it"):
        raise ClientError({"Error": {"Code": code, "Message": "so"}}, "CreateTags")
    assert caught.type is fault


@pytest.mark.parametrize(
    "said",
    [
        "The instance i-1 is not part of Auto Scaling group ng-a.",
        "Instance Id not found - No managed instance found for instance ID: i-1",
        "AutoScalingGroup name not found - AutoScalingGroup 'ng-a' not found",
    ],
)
def test_what_has_left_its_group_is_gone(said: str) -> None:
    """A restore has nothing to put back there, and leaves nothing behind."""
    with pytest.raises(NotFound), translated("change scale-in protection"):
        raise ClientError({"Error": {"Code": "ValidationError", "Message": said}}, "SetInstanceProtection")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("InsufficientInstanceCapacity", None),
        ("VcpuLimitExceeded", None),
        ("ValidationError", None),
        ("AccessDenied", AccessDenied),
        ("IdempotentParameterMismatch", Permanent),
        ("ResourceContention", Transient),
    ],
)
def test_a_launch_that_is_refused_for_want_of_capacity_is_asked_for_again_with_another_token(
    monkeypatch: pytest.MonkeyPatch, code: str, fault: type[Exception] | None
) -> None:
    """Whether it is refused, or answered without an instance."""

    def refuse(_: Any, operation: str, __: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    client = AwsClient("demo", session=boto3.session.Session("none", "none", region_name="eu-central-1"))
    if fault is None:
        assert client.launch("ng-a", "zone-a", "token-1") == Launched(error=code, message="no")
    else:
        with pytest.raises(fault):
            client.launch("ng-a", "zone-a", "token-1")


def test_an_instance_that_comes_or_goes_is_protected_later() -> None:
    """Groups are described as they were a moment ago, so that no look before the call can tell."""
    said = "The instance i-1 is not in InService or EnteringStandby or Standby."
    with pytest.raises(Transient, match="is not in InService") as caught, translated("change scale-in protection"):
        raise ClientError({"Error": {"Code": "ValidationError", "Message": said}}, "SetInstanceProtection")
    assert caught.type is Transient


@pytest.mark.parametrize("code", ["ResourceNotReadyException", "TooManyRequestsException", "ENILimitReachedException"])
def test_a_function_that_could_not_be_called_yet_is_told_from_one_that_failed(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Hooks' functions sleep between rolls."""

    def refuse(_: Any, operation: str, __: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "not now"}}, operation)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    client = AwsClient("demo", session=boto3.session.Session("none", "none", region_name="eu-central-1"))
    assert client.invoke("hook", {}, 1) == HttpAnswer(fault=f"{code}: not now", uncalled=True)


def test_a_function_that_is_not_there_or_may_not_be_called_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    client = AwsClient("demo", session=boto3.session.Session("none", "none", region_name="eu-central-1"))
    for code, fault in (("ResourceNotFoundException", NotFound), ("AccessDeniedException", AccessDenied)):

        def refuse(_: Any, operation: str, __: Any, code: str = code) -> Any:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

        monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
        with pytest.raises(fault):
            client.invoke("hook", {}, 1)


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ExpiredTokenException", "Message": "The security token is expired"}}, "List"),
        ClientError({"Error": {"Code": "InvalidClientTokenId", "Message": "The security token is invalid"}}, "List"),
        TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"),
        SSOTokenLoadError(error_msg="Token for ops does not exist"),
    ],
)
def test_credentials_that_are_not_accepted_are_no_lost_connection_and_no_missing_permission(error: Exception) -> None:
    with pytest.raises(AccessDenied, match=r"Sign in again\.$") as raised, translated("list executions"):
        raise error
    assert "Allow it" not in str(raised.value)


def test_an_answer_that_is_none_is_asked_for_again() -> None:
    """A proxy answers with a page of its own."""
    with pytest.raises(Transient, match="Cannot list executions now: invalid XML"), translated("list executions"):
        raise ResponseParserError("invalid XML received: b'<!doctype html>'")
