"""Presigned requests (Signature Version 4 in the query), checked as AWS checks them.

moto checks no signatures. For a presigned GetCallerIdentity it matters: the signature is what ties an EKS token to the
name of its cluster, which stands in a signed header and not in the URL.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

_ALGORITHM = "AWS4-HMAC-SHA256"
LIFETIME = timedelta(minutes=15)
"""How long STS accepts a presigned request, whatever its X-Amz-Expires says; EKS tokens live on that."""
_EMPTY = hashlib.sha256(b"").hexdigest()


class RefusedError(Exception):
    """AWS would refuse the request with this code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def authorization(
    query_string: str, headers: Mapping[str, str], secret_of: Callable[[str], str | None], now: datetime
) -> str:
    """The Authorization header that says the same as the query of a presigned `GET /` without a body.

    `headers` are those of the request, names in lower case; `secret_of` gives an access key's secret. Raises
    RefusedError if the request has expired, or is not signed with the key that it names and over the headers it has.
    """
    query = dict(parse_qsl(query_string, keep_blank_values=True))
    try:
        credential, date, signed = query["X-Amz-Credential"], query["X-Amz-Date"], query["X-Amz-SignedHeaders"]
        given = query["X-Amz-Signature"]
        key, day, region, service, _ = credential.split("/")
        begins = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except (KeyError, ValueError) as error:
        raise RefusedError("IncompleteSignature", f"The request is not completely signed: {error}") from error
    if now > begins + LIFETIME:
        raise RefusedError("SignatureDoesNotMatch", f"Signature expired: {date} is more than {LIFETIME} ago")
    secret = secret_of(key)
    if secret is None:
        raise RefusedError("InvalidClientTokenId", "The security token included in the request is invalid.")
    canonical = _canonical_request(query, headers, signed.split(";"))
    if not hmac.compare_digest(given, _signature(canonical, secret, date, (day, region, service))):
        raise RefusedError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. It was made with another "
            f"key, or over other values of the headers {signed}.",
        )
    return f"{_ALGORITHM} Credential={credential}, SignedHeaders={signed}, Signature={given}"


def _canonical_request(query: Mapping[str, str], headers: Mapping[str, str], signed: list[str]) -> str:
    pairs = sorted((name, value) for name, value in query.items() if name != "X-Amz-Signature")
    encoded = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed]
    return "\n".join(["GET", "/", encoded, *lines, "", ";".join(signed), _EMPTY])


def _signature(canonical: str, secret: str, date: str, scope: tuple[str, str, str]) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join([_ALGORITHM, date, "/".join([*scope, "aws4_request"]), digest])
    key = f"AWS4{secret}".encode()
    for part in (*scope, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
