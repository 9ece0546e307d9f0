"""What the token webhook sees in a token, and who it takes its bearer for."""

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from lab.aws.access import AccessEntries, AccessEntry, default_username
from lab.aws.tokens import DeniedError, Identity, read_token, review, user_of

NOW = datetime(2025, 1, 31, 12, 0, 30, tzinfo=UTC)
QUERY = {
    "Action": "GetCallerIdentity",
    "X-Amz-Date": "20250131T120000Z",
    "X-Amz-Expires": "60",
    "X-Amz-SignedHeaders": "host;x-k8s-aws-id",
}
ROLE = "arn:aws:iam::123456789012:role/roller"


def token(host: str = "sts", **changes: str) -> str:
    query = QUERY | {name.replace("_", "-"): value for name, value in changes.items()}
    url = f"https://{host}/?{urlencode(query)}"
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def read(value: str) -> Any:
    return read_token(value, lambda host: host == "sts", NOW)


def test_a_good_token_is_its_url() -> None:
    assert read(token()).netloc == "sts"
    assert read(token(X_Amz_Expires="1")).netloc == "sts"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("bearer", "does not begin with"),
        ("k8s-aws-v1.\u00e4", "not base64url"),
        (token(host="evil"), "'evil' is not the STS endpoint"),
        (token(Action="AssumeRole"), "'AssumeRole', not for GetCallerIdentity"),
        (token(X_Amz_Expires="901"), "X-Amz-Expires is 901 s, at most 900"),
        (token(X_Amz_Expires="-1"), "X-Amz-Expires is -1 s"),
        (token(X_Amz_Date="20250131T114500Z"), "expired at 12:00:00"),
        (token(X_Amz_Date="20250131T130000Z"), "signed in the future"),
        (token(X_Amz_Date="today"), "no X-Amz-Date"),
        (token(X_Amz_SignedHeaders="host"), "names no cluster"),
    ],
)
def test_a_bad_token_is_denied_with_its_fault(value: str, why: str) -> None:
    with pytest.raises(DeniedError, match=why):
        read(value)


@pytest.fixture
def entries() -> AccessEntries:
    made = AccessEntries()
    made.put(AccessEntry("demo", ROLE, ["rollers"], default_username(ROLE), {}))
    return made


def test_a_role_is_who_its_access_entry_says(entries: AccessEntries) -> None:
    identity = Identity("arn:aws:sts::123456789012:assumed-role/roller/step", "123456789012", "AROA1:step")
    user = user_of(identity, "demo", entries)
    assert user["username"] == "arn:aws:sts::123456789012:assumed-role/roller/step"
    assert user["groups"] == ["rollers", "system:authenticated"]
    assert user["uid"] == "aws-iam-authenticator:123456789012:AROA1"


@pytest.mark.parametrize(
    ("arn", "cluster", "why"),
    [
        ("arn:aws:sts::123456789012:assumed-role/other/step", "demo", "role/other has no access entry"),
        ("arn:aws:sts::123456789012:assumed-role/roller/step", "second", "no access entry in cluster second"),
        ("arn:aws:sts::123456789012:user/moto", "demo", "is no assumed role"),
    ],
)
def test_others_are_denied(entries: AccessEntries, arn: str, cluster: str, why: str) -> None:
    with pytest.raises(DeniedError, match=why):
        user_of(Identity(arn, "123456789012", "AROA1:step"), cluster, entries)


def test_a_role_with_a_path_is_found_by_its_name() -> None:
    entries = AccessEntries()
    entries.put(AccessEntry("demo", "arn:aws:iam::123456789012:role/path/to/roller", [], "me", {}))
    identity = Identity("arn:aws:sts::123456789012:assumed-role/roller/step", "123456789012", "AROA1:step")
    assert user_of(identity, "demo", entries)["username"] == "me"


def test_a_review_says_who_or_why_not() -> None:
    def authenticate(value: str) -> dict[str, Any]:
        if value != "good":
            raise DeniedError("it is bad")
        return {"username": "me"}

    good = review({"spec": {"token": "good"}}, authenticate)
    assert good["status"] == {"authenticated": True, "user": {"username": "me"}}
    assert review({}, authenticate)["status"] == {"authenticated": False, "error": "it is bad"}
