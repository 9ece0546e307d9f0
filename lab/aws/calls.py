"""Every call that moto answers: who called what, when, and with what result; and whether they may."""

import copy
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response

from lab.aws.account import Account
from lab.aws.compat.registry import around
from lab.aws.faults import Faults
from lab.aws.fleet import Fleet
from lab.aws.policies import Policies, dependent

_KEPT = 50_000
_LONGEST_TEXT = 200
_FLEET_SERVICES = {"autoscaling", "ec2", "elb", "elbv2"}
_PERMISSIONS = {
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
}
_NAMES = {
    "elb": "elasticloadbalancing",
    "elbv2": "elasticloadbalancing",
    "service-quotas": "servicequotas",
    "stepfunctions": "states",
}
_DENIED = {"ec2": "UnauthorizedOperation", "sns": "AuthorizationError"}
_JSON_DENIED = "AccessDeniedException"
_JSON_SERVICES = {"eks", "events", "lambda", "logs", "service-quotas", "stepfunctions"}


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
    fault: bool = False
    """Whether a fault answered, not the service: it says nothing of what the role may do."""


class CallLog:
    """The latest calls, oldest first. Those of roles are also written to a file, all of them, one JSON line each."""

    def __init__(self, file: Path) -> None:
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("w", buffering=1)

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
            if call.role is not None:
                self._file.write(f"{json.dumps(asdict(call), default=str)}\n")

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

    def session(self, access_key: str) -> str:
        """The key's assumed role with its session, as messages of AWS name a caller."""
        return str(self._account.sts.get_assumed_role_from_access_key(access_key).arn)

    def secret(self, access_key: str) -> str | None:
        """The key's secret; None for a key that STS never gave out."""
        key = self._account.iam.access_keys.get(access_key)
        return getattr(key, "secret_access_key", None)


Listener = Callable[["Call", dict[str, Any], Any], None]
"""Called with the call, all of its parameters, and the body that was answered."""


Freezer = Callable[[str, float], Callable[[], bool]]
"""Lets a function's processes stand still for so many seconds: see `Lambdas.freeze`."""


class Gate:
    """Who may call what, and what they called."""

    def __init__(self, log: CallLog, policies: Policies, role_of: RoleOfKey) -> None:
        self._log = log
        self._policies = policies
        self._role_of = role_of

    def refusal(self, access_key: str, action: str, parameters: dict[str, Any]) -> str | None:
        """Why the key's role may not make the call; None where it may. `action` is written as in a policy."""
        role = self._role_of(access_key)
        if role is None:
            return None
        return self._policies.refusal(role, self._role_of.session(access_key), action, parameters)

    def refusal_of_role(self, role: str, session: str, action: str, parameters: dict[str, Any]) -> str | None:
        """The same for a role that a service of AWS assumes in the server itself."""
        who = f"{role.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/{session}"
        return self._policies.refusal(role, who, action, parameters)

    def passed(self, call: Call) -> None:
        """Records a call, and what was called on behalf of its caller."""
        self._log.add(call)
        others = dependent(f"{call.service}:{call.action}", call.parameters) if call.status < 400 else ()
        for other in others:
            service, _, action = other.partition(":")
            self._log.add(replace(call, service=service, action=action, parameters={}))


def install(gate: Gate, fleet: Fleet, faults: Faults, role_of: RoleOfKey, listener: Listener, freeze: Freezer) -> None:
    """Records what every service answers, after bringing the fleet up to date and before anybody else acts on it;
    refuses what the caller's role may not call."""

    def call_action(original: Any, self: Any) -> Any:
        at, action, parameters = time.time(), str(self._get_action()), copy.deepcopy(_parameters(self))
        service = _NAMES.get(self.service_name, self.service_name)
        time.sleep(faults.delay(self.service_name))
        caller = role_of(self.access_key) or ""
        seconds = faults.freeze_seconds(caller, action=f"{service}:{action}")
        if seconds:
            if not freeze(role_of.session(self.access_key).rpartition("/")[2], seconds)():
                # The process has ended, so it never made the call.
                return 503, {}, ""
            at = time.time()
        if struck := faults.refusal(self.service_name, f"{service}:{action}", caller):
            _, headers, body = self.serialized(ActionResult(_error(self.service_name, struck.code, struck.message)))
            answer = struck.status, headers, body
        elif refused := gate.refusal(self.access_key, f"{service}:{action}", _as_known(parameters, fleet)):
            _, headers, body = self.serialized(ActionResult(_denied(self.service_name, refused)))
            answer = 403, headers, body
        elif self.service_name in _FLEET_SERVICES:
            with fleet.lock:
                fleet.advance()
                answer = original(self)
                fleet.remember()
        else:
            answer = original(self)
        status, _, body = answer
        call = Call(
            at,
            service,
            action,
            role_of(self.access_key),
            _told(parameters),
            int(status),
            error_code(body) if int(status) >= 400 else None,
            struck is not None,
        )
        gate.passed(call)
        listener(call, parameters, body)
        return answer

    def s3_response(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        at = time.time()
        time.sleep(faults.delay("s3"))
        answer = original(self, request, *args, **kwargs)
        status, _, body = answer
        error = error_code(body) if status >= 400 else None
        action, told = _s3_action(self), _s3_parameters(request.path)
        gate.passed(Call(at, "s3", action, role_of(self.get_access_key()), told, int(status), error))
        return answer

    def s3_authorize(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        asked = {"Prefix": self.querystring["prefix"][0]} if "prefix" in self.querystring else {}
        parameters = _s3_parameters(self.path) | asked
        action = f"s3:{_s3_action(self)}"
        if struck := faults.refusal("s3", action, role_of(self.get_access_key()) or ""):
            raise S3ClientError(struck.code, struck.message)
        refused = gate.refusal(self.get_access_key(), action, parameters)
        if refused:
            raise S3ClientError("AccessDenied", refused)
        original(self, *args, **kwargs)

    around(BaseResponse, "call_action", call_action)
    around(S3Response, "bucket_response", s3_response)
    around(S3Response, "key_response", s3_response)
    around(S3Response, "_authenticate_and_authorize_s3_action", s3_authorize)


def _as_known(parameters: dict[str, Any], fleet: Fleet) -> dict[str, Any]:
    """The parameters as policies see them: an instance whose tags are not known yet is one that carries none."""
    named = parameters.get("Resources")
    if not isinstance(named, list) or all(fleet.is_tagged(str(resource)) for resource in named):
        return parameters
    return parameters | {"Resources": [r if fleet.is_tagged(str(r)) else f"{r}-untagged" for r in named]}


def _s3_action(response: Any) -> str:
    action = str(response.data.get("Action", response.method))
    return _PERMISSIONS.get(action, action)


def _s3_parameters(path: str) -> dict[str, Any]:
    bucket, _, key = path.strip("/").partition("/")
    return {"Bucket": bucket, "Key": key} if key else {"Bucket": bucket}


def _denied(service: str, message: str) -> Exception:
    code = _DENIED.get(service, _JSON_DENIED if service in _JSON_SERVICES else "AccessDenied")
    return _error(service, code, message)


def _error(service: str, code: str, message: str) -> Exception:
    # moto finds a service's own form of an error by the module that its exception comes from.
    kind = type("LabError", (ServiceException,), {"__module__": f"moto.{service}.exceptions"})
    error: Exception = kind(code, message)
    return error


def _parameters(response: Any) -> dict[str, Any]:
    parsed = getattr(response, "params", None)
    if isinstance(parsed, dict):
        return {**(getattr(response, "uri_match", None) or {}), **parsed}
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
