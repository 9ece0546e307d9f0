"""The apiserver's token webhook: from an EKS token to a Kubernetes user.

An EKS token is a presigned GetCallerIdentity URL. As EKS does, this looks at the URL itself first, then asks STS with
it, and with the cluster's name in the signed header, who signed it, and lets that role in if it has an access entry.
"""

import base64
import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

import urllib3

from lab.aws import presigned
from lab.aws.access import AccessEntries

PREFIX = "k8s-aws-v1."
CLUSTER_HEADER = "x-k8s-aws-id"
_MAX_EXPIRES_SECONDS = 900
_OWN_ADDRESSES = ("127.0.0.1", "localhost", "10.0.255.1")  # the last one is how pods reach the AWS server
_CLOCK_SKEW = timedelta(minutes=5)
_ASSUMED_ROLE = re.compile(r"arn:aws:sts::(\d{12}):assumed-role/([^/]+)/(.+)")


class DeniedError(Exception):
    """The token lets nobody in; the text says what is wrong with it."""


@dataclass(frozen=True)
class Identity:
    """Who STS says has signed a request."""

    arn: str
    account: str
    user_id: str


def read_token(token: str, hosts: Callable[[str], bool], now: datetime) -> SplitResult:
    """The request inside a token, if it is what EKS expects; `hosts` says which hosts are STS. Raises DeniedError."""
    url = _decode(token)
    query = {name.lower(): value for name, value in parse_qsl(url.query, keep_blank_values=True)}
    if url.scheme not in ("https", "http") or not hosts(url.netloc):
        raise DeniedError(f"the token's host {url.netloc!r} is not the STS endpoint")
    if query.get("action") != "GetCallerIdentity":
        raise DeniedError(f"the token is for the action {query.get('action')!r}, not for GetCallerIdentity")
    _check_time(query, now)
    # The header's value is not in the URL. Whoever asks STS sends the cluster's name, and the signature covers it.
    if CLUSTER_HEADER not in query.get("x-amz-signedheaders", "").lower().split(";"):
        raise DeniedError(f"the token does not sign the {CLUSTER_HEADER} header, so it names no cluster")
    return url


def _decode(token: str) -> SplitResult:
    if not token.startswith(PREFIX):
        raise DeniedError(f"the token does not begin with {PREFIX!r}")
    encoded = token.removeprefix(PREFIX)
    try:
        decoded = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError as error:  # no base64, no ASCII, no UTF-8
        raise DeniedError("the token is not base64url") from error
    return urlsplit(decoded)


def _check_time(query: Mapping[str, str], now: datetime) -> None:
    try:
        signed = datetime.strptime(query.get("x-amz-date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        expires = int(query.get("x-amz-expires", ""))
    except ValueError as error:
        raise DeniedError("the token has no X-Amz-Date or no X-Amz-Expires") from error
    if not 0 <= expires <= _MAX_EXPIRES_SECONDS:
        raise DeniedError(f"the token's X-Amz-Expires is {expires} s, at most {_MAX_EXPIRES_SECONDS} s are allowed")
    if now > signed + presigned.LIFETIME:
        raise DeniedError(f"the token expired at {signed + presigned.LIFETIME:%H:%M:%S}")
    if signed > now + _CLOCK_SKEW:
        raise DeniedError(f"the token was signed in the future, at {signed:%H:%M:%S}")


def user_of(identity: Identity, cluster: str, entries: AccessEntries) -> dict[str, Any]:
    """The Kubernetes user of an assumed role, by its access entry; raises DeniedError."""
    assumed = _ASSUMED_ROLE.fullmatch(identity.arn)
    if assumed is None:
        raise DeniedError(f"{identity.arn} is no assumed role")
    account, role, session = assumed.groups()
    entry = entries.of_role(cluster, account, role)
    if entry is None:
        raise DeniedError(f"arn:aws:iam::{account}:role/{role} has no access entry in cluster {cluster}")
    return {
        "username": entry.username.replace("{{SessionName}}", session.replace("@", "-")),
        "uid": f"aws-iam-authenticator:{account}:{identity.user_id.split(':')[0]}",
        "groups": [*entry.kubernetes_groups, "system:authenticated"],
        "extra": {
            "arn": [identity.arn],
            "canonicalArn": [entry.principal_arn],
            "principalId": [identity.user_id.split(":")[0]],
            "sessionName": [session],
        },
    }


def review(request: Mapping[str, Any], authenticate: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Answers a TokenReview (authentication.k8s.io/v1) with the user that `authenticate` finds for its token."""
    try:
        status: dict[str, Any] = {
            "authenticated": True,
            "user": authenticate(str(request.get("spec", {}).get("token", ""))),
        }
    except DeniedError as denied:
        status = {"authenticated": False, "error": str(denied)}
    return {
        "apiVersion": request.get("apiVersion", "authentication.k8s.io/v1"),
        "kind": "TokenReview",
        "status": status,
    }


class Authenticator:
    """Finds the user of a token, by the lab's own STS."""

    def __init__(self, *, cluster: str, region: str, port: int, entries: AccessEntries) -> None:
        self._cluster = cluster
        self._region = region
        self._port = port
        self._entries = entries
        self._http = urllib3.PoolManager()

    def __call__(self, token: str) -> dict[str, Any]:
        """The Kubernetes user; raises DeniedError."""
        url = read_token(token, self._is_sts, datetime.now(tz=UTC))
        return user_of(self._ask_sts(url), self._cluster, self._entries)

    def _is_sts(self, host: str) -> bool:
        own = {f"{address}:{self._port}" for address in _OWN_ADDRESSES}
        return host == f"sts.{self._region}.amazonaws.com" or host in own

    def _ask_sts(self, url: SplitResult) -> Identity:
        answer = self._http.request(
            "GET",
            f"http://127.0.0.1:{self._port}/?{url.query}",
            headers={"Host": url.netloc, CLUSTER_HEADER: self._cluster, "Accept": "application/json"},
        )
        text = answer.data.decode()
        if answer.status != 200:
            raise DeniedError(f"STS refused the token for cluster {self._cluster}: {_tag(text, 'Message')}")
        return Identity(*(_tag(text, name) for name in ("Arn", "Account", "UserId")))


def _tag(text: str, name: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return html.unescape(found[1]) if found else ""
