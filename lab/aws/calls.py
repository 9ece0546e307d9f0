"""Every call that moto answers: who called what, when, and with what result."""

import copy
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.s3.responses import S3Response

from lab.aws.account import Account
from lab.aws.compat.registry import around
from lab.aws.faults import Faults
from lab.aws.fleet import Fleet

_KEPT = 50_000
_LONGEST_TEXT = 200
_FLEET_SERVICES = {"autoscaling", "ec2", "elb", "elbv2"}
_PERMISSIONS = {
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
}
_NAMES = {"stepfunctions": "states", "elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}


@dataclass(frozen=True)
class Call:
    """A call as `/_lab/calls` shows it. `service` and `action` are those of an IAM policy, `at` is in epoch seconds;
    `role` is the ARN of the caller's role, None for whoever calls with keys of no role."""

    at: float
    service: str
    action: str
    role: str | None
    parameters: dict[str, Any]
    status: int
    error: str | None = field(default=None)


class CallLog:
    """The latest calls, oldest first."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def describe(self, since: float = 0.0) -> list[dict[str, Any]]:
        """The calls answered after `since`, in epoch seconds."""
        with self._lock:
            return [asdict(call) for call in self._calls if call.at > since]


class RoleOfKey:
    """Which role an access key belongs to."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def __call__(self, access_key: str) -> str | None:
        key = self._account.iam.access_keys.get(access_key)
        return getattr(key, "role_arn", None)

    def secret(self, access_key: str) -> str | None:
        """The key's secret; None for a key that STS never gave out."""
        key = self._account.iam.access_keys.get(access_key)
        return getattr(key, "secret_access_key", None)


Listener = Callable[["Call", dict[str, Any], Any], None]
"""Called with the call, all of its parameters, and the body that was answered."""


def install(log: CallLog, fleet: Fleet, faults: Faults, role_of: RoleOfKey, listener: Listener) -> None:
    """Records what every service answers, after bringing the fleet up to date and before anybody else acts on it."""

    def call_action(original: Any, self: Any) -> Any:
        at, action, parameters = time.time(), self._get_action(), copy.deepcopy(_parameters(self))
        time.sleep(faults.delay(self.service_name))
        if faults.throttles(self.service_name):
            answer = self.serialized(ActionResult(_throttling(self.service_name)))
        elif self.service_name in _FLEET_SERVICES:
            with fleet.lock:
                fleet.advance()
                answer = original(self)
        else:
            answer = original(self)
        status, _, body = answer
        call = Call(
            at,
            _NAMES.get(self.service_name, self.service_name),
            str(action),
            role_of(self.access_key),
            _told(parameters),
            int(status),
            error_code(body) if int(status) >= 400 else None,
        )
        log.add(call)
        listener(call, parameters, body)
        return answer

    def s3_response(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        at = time.time()
        time.sleep(faults.delay("s3"))
        answer = original(self, request, *args, **kwargs)
        status, _, body = answer
        bucket, _, key = request.path.strip("/").partition("/")
        told = {"Bucket": bucket, "Key": key} if key else {"Bucket": bucket}
        error = error_code(body) if status >= 400 else None
        action = str(self.data.get("Action", request.method))
        log.add(
            Call(at, "s3", _PERMISSIONS.get(action, action), role_of(self.get_access_key()), told, int(status), error)
        )
        return answer

    around(BaseResponse, "call_action", call_action)
    around(S3Response, "bucket_response", s3_response)
    around(S3Response, "key_response", s3_response)


def _throttling(service: str) -> Exception:
    # moto finds a service's own form of an error by the module that its exception comes from.
    kind = type("ThrottlingError", (ServiceException,), {"__module__": f"moto.{service}.exceptions"})
    error: Exception = kind("RequestLimitExceeded" if service == "ec2" else "Throttling", "Rate exceeded")
    return error


def _parameters(response: Any) -> dict[str, Any]:
    parsed = getattr(response, "params", None)
    if isinstance(parsed, dict):
        return dict(parsed)
    try:
        body = json.loads(response.body)
    except (TypeError, ValueError):
        return {name: value[0] for name, value in response.querystring.items() if isinstance(value, list) and value}
    return {**(body if isinstance(body, dict) else {}), **response.uri_match}


def _told(parameters: dict[str, Any]) -> dict[str, Any]:
    """What of a call's parameters is short enough to be told: texts, numbers, and lists of them."""
    return {name: value for name, value in parameters.items() if len(json.dumps(value, default=str)) <= _LONGEST_TEXT}


def error_code(body: Any) -> str | None:
    """The error's code in an answer's body, JSON or XML."""
    text = body.decode() if isinstance(body, bytes) else str(body)
    if "<Code>" in text:
        return text.split("<Code>", 1)[1].split("</Code>", 1)[0]
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    code = answer.get("__type") or answer.get("code") if isinstance(answer, dict) else None
    return str(code).rsplit("#", 1)[-1] if code else None
