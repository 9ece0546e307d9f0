"""The token webhook, with tokens that a function makes as it would for EKS."""

import base64
import time
from typing import Any

import pytest

from tests.aws_lab import Server

pytestmark = pytest.mark.lab
PREFIX = "k8s-aws-v1."


def token(aws: Server, cluster: str = "demo", seconds: int = 60, function: str = "probe-identity") -> str:
    answer, error = aws.invoke(function, {"cluster": cluster, "seconds": seconds})
    assert error is None, answer
    return str(answer["token"])


def review(aws: Server, value: str) -> dict[str, Any]:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": value}}
    answer = aws.lab("POST", "authenticate", request)
    assert (answer["kind"], answer["apiVersion"]) == ("TokenReview", "authentication.k8s.io/v1")
    return dict(answer["status"])


def changed(value: str, old: str, new: str) -> str:
    url = base64.urlsafe_b64decode(value.removeprefix(PREFIX) + "==").decode()
    assert old in url
    return PREFIX + base64.urlsafe_b64encode(url.replace(old, new).encode()).decode().rstrip("=")


def test_a_role_with_an_access_entry_is_in_its_groups(aws: Server, deployed: dict[str, str]) -> None:
    status = review(aws, token(aws))
    assert status["authenticated"] is True
    assert status["user"]["groups"] == ["probe:rollers", "system:authenticated"]
    assert status["user"]["username"].endswith("/probe-identity")
    assert status["user"]["extra"]["canonicalArn"][0].startswith("arn:aws:iam::123456789012:role/")


def test_a_role_without_an_access_entry_is_named_and_denied(aws: Server, deployed: dict[str, str]) -> None:
    client, value = aws.client("eks"), token(aws)
    (principal,) = client.list_access_entries(clusterName="demo")["accessEntries"]
    entry = client.describe_access_entry(clusterName="demo", principalArn=principal)["accessEntry"]
    client.delete_access_entry(clusterName="demo", principalArn=principal)
    try:
        status = review(aws, value)
    finally:
        client.create_access_entry(
            clusterName="demo", principalArn=principal, kubernetesGroups=entry["kubernetesGroups"]
        )
    assert status == {"authenticated": False, "error": f"{principal} has no access entry in cluster demo"}


def test_a_token_for_another_cluster_is_denied(aws: Server, deployed: dict[str, str]) -> None:
    status = review(aws, token(aws, cluster="other"))
    assert status["authenticated"] is False
    assert "signature" in status["error"]
    assert "x-k8s-aws-id" in status["error"]


def test_a_token_lives_longer_than_its_url_says(aws: Server, deployed: dict[str, str]) -> None:
    value = token(aws, seconds=1)
    time.sleep(2.1)
    assert review(aws, value)["authenticated"] is True


def test_a_token_that_lives_too_long_is_denied(aws: Server, deployed: dict[str, str]) -> None:
    assert "at most 900 s" in review(aws, token(aws, seconds=3600))["error"]


def test_a_token_that_was_changed_is_denied(aws: Server, deployed: dict[str, str]) -> None:
    value = token(aws)
    assert "not for GetCallerIdentity" in review(aws, changed(value, "GetCallerIdentity", "AssumeRole"))["error"]
    assert "not the STS endpoint" in review(aws, changed(value, "127.0.0.1", "evil.example"))["error"]
    assert "signature" in review(aws, changed(value, "X-Amz-Expires=60", "X-Amz-Expires=61"))["error"]
    assert "names no cluster" in review(aws, changed(value, "%3Bx-k8s-aws-id", ""))["error"]
    assert "does not begin with" in review(aws, "something else")["error"]


def test_an_invented_key_is_denied(aws: Server, deployed: dict[str, str]) -> None:
    value = token(aws)
    url = base64.urlsafe_b64decode(value.removeprefix(PREFIX) + "==").decode()
    key = url.split("X-Amz-Credential=")[1].split("%2F")[0]
    assert "security token" in review(aws, changed(value, key, "ASIAINVENTED00000000"))["error"]
