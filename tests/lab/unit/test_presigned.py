"""Presigned requests, signed by botocore."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lab.aws.presigned import RefusedError, authorization

HOST = "sts.eu-central-1.amazonaws.com"
HEADERS = {"host": HOST, "x-k8s-aws-id": "demo"}


def signed(by: str = "secret", session: str | None = "a/session+token==", expires: int = 60) -> str:
    """The query of a request presigned now, over the cluster's name."""
    url = f"https://{HOST}/?Action=GetCallerIdentity&Version=2011-06-15"
    request = AWSRequest("GET", url, headers={"x-k8s-aws-id": "demo"})
    SigV4QueryAuth(Credentials("KEY", by, session), "sts", "eu-central-1", expires).add_auth(request)
    return urlsplit(str(request.url)).query


def secret_of(key: str) -> str | None:
    return {"KEY": "secret"}.get(key)


@pytest.mark.parametrize("session", [None, "a/session+token=="])
def test_a_good_signature_becomes_an_authorization_header(session: str | None) -> None:
    header = authorization(signed(session=session), HEADERS, secret_of, datetime.now(tz=UTC))
    assert header.startswith("AWS4-HMAC-SHA256 Credential=KEY/")
    assert "SignedHeaders=host;x-k8s-aws-id" in header


def test_sts_looks_at_the_date_and_not_at_the_expiry_of_the_request() -> None:
    later = datetime.now(tz=UTC) + timedelta(minutes=14)
    assert authorization(signed(expires=60), HEADERS, secret_of, later)


@pytest.mark.parametrize(
    ("query", "headers", "later", "code"),
    [
        (lambda: signed(by="another"), HEADERS, 0, "SignatureDoesNotMatch"),
        (signed, HEADERS | {"x-k8s-aws-id": "other"}, 0, "SignatureDoesNotMatch"),
        (signed, HEADERS | {"host": "elsewhere"}, 0, "SignatureDoesNotMatch"),
        (signed, HEADERS, 902, "SignatureDoesNotMatch"),
        (lambda: signed().replace("KEY", "NONE"), HEADERS, 0, "InvalidClientTokenId"),
        (lambda: "Action=GetCallerIdentity", HEADERS, 0, "IncompleteSignature"),
    ],
    ids=["another secret", "another cluster", "another host", "expired", "unknown key", "not signed"],
)
def test_a_bad_one_is_refused(query: Callable[[], str], headers: dict[str, str], later: int, code: str) -> None:
    with pytest.raises(RefusedError) as refused:
        authorization(query(), headers, secret_of, datetime.now(tz=UTC) + timedelta(seconds=later))
    assert refused.value.code == code
