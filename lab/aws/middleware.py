"""What stands in front of moto: the lab's own requests, Lambda invocations, and presigned STS calls."""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from pydantic import ValidationError

from lab.aws import authorize, presigned, tokens
from lab.aws.account import Account
from lab.aws.calls import Call, CallLog, Gate, RoleOfKey
from lab.aws.faults import Faults
from lab.aws.fleet import Fleet
from lab.aws.lambdas import FunctionNotFoundError, Lambdas, NotReadyError, TooManyRequestsError
from lab.aws.targets import State, Targets, deregistration_delay, health_port, listener_ports

KUBELET_TAG = "lab/kubelet"
"""On an instance: how its kubelet fares (`lab.instances`)."""

LOG = logging.getLogger(__name__)
_INVOCATION = re.compile(r"/2015-03-31/functions/(.+)/invocations/?")
_KEY = re.compile(r"Credential=([^/]+)/")
_PROTOCOLS = {"HTTP": "HTTP", "HTTPS": "HTTPS"}

StartResponse = Callable[..., Any]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> "Answer":
        """The value as JSON."""
        return cls(status, json.dumps(value, default=str).encode())


class Middleware:
    """The AWS server's WSGI application."""

    def __init__(
        self,
        moto: Callable[..., Iterable[bytes]],
        *,
        account: Account,
        fleet: Fleet,
        targets: Targets,
        lambdas: Lambdas,
        faults: Faults,
        calls: CallLog,
        gate: Gate,
        authenticator: tokens.Authenticator,
    ) -> None:
        self._moto = moto
        self._account = account
        self._fleet = fleet
        self._targets = targets
        self._lambdas = lambdas
        self._faults = faults
        self._calls = calls
        self._gate = gate
        self._authenticator = authenticator
        self._role_of = RoleOfKey(account)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        invocation = _INVOCATION.fullmatch(path)
        if path.startswith("/_lab/"):
            answer = self._lab(method, path.removeprefix("/_lab/"), environ)
        elif invocation and method == "POST":
            answer = self._invoke(unquote(invocation[1]), environ)
        elif method == "GET" and "X-Amz-Signature=" in environ["QUERY_STRING"] and self._is_sts(environ):
            try:
                environ["HTTP_AUTHORIZATION"] = self._authorization(environ)
            except presigned.RefusedError as refused:
                answer = _sts_error(refused)
            else:
                return self._moto(environ, start_response)
        else:
            return self._moto(environ, start_response)
        start_response(
            f"{answer.status} {HTTPStatus(answer.status).phrase}",
            [*answer.headers, ("Content-Length", str(len(answer.body)))],
        )
        return [answer.body]

    # The lab's own parts ask

    def _lab(self, method: str, what: str, environ: dict[str, Any]) -> Answer:
        if not environ.get("REMOTE_ADDR", "").startswith("127."):
            return Answer.of({"error": "this is for the lab's own parts"}, 403)
        try:
            match method, what:
                case "GET", "instances":
                    return Answer.of(self._instances())
                case "GET", "targets":
                    return Answer.of(self._target_groups())
                case "POST", "target-health" | "pod-targets":
                    take = self._report if what == "target-health" else self._take_pods
                    return Answer.of(take(_json(environ)))
                case "POST", "authenticate" | "authorize":
                    return Answer.of(self._reviewed(what, _json(environ)))
                case "GET", "faults":
                    return Answer.of(self._faults.describe())
                case "PUT", "faults":
                    self._faults.put(_json(environ))
                    return Answer.of(self._faults.describe())
                case "GET", "calls":
                    since = parse_qs(environ["QUERY_STRING"]).get("since", ["0"])[0]
                    return Answer.of(self._calls.describe(float(since)))
                case "GET", "messages":
                    return Answer.of(self._messages())
                case "GET", "ready":
                    return Answer.of({"ready": True})
            return Answer.of({"error": f"there is no {method} /_lab/{what}"}, 404)
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            return Answer.of({"error": str(error)}, 400)

    def _reviewed(self, what: str, request: Any) -> dict[str, Any]:
        if what == "authorize":
            return authorize.review(request, self._faults, self._lambdas.freeze)
        return tokens.review(request, self._authenticator)

    def _instances(self) -> list[dict[str, Any]]:
        return [
            {
                "id": member.instance.id,
                "state": member.instance.state,
                "group": member.group,
                "zone": member.instance.placement.zone,
                "type": member.instance.instance_type,
                "private_ip": member.address,
                "image_id": member.instance.image_id,
                "launched": member.launched,
                "kubelet": self._account.ec2.tags.get(member.instance.id, {}).get(KUBELET_TAG, ""),
            }
            for member in self._fleet.members()
        ]

    def _target_groups(self) -> list[dict[str, Any]]:
        self._fleet.advance()
        return [
            {
                "target_group": group.arn,
                "name": group.name,
                "protocol": _PROTOCOLS.get(group.protocol, "TCP"),
                "port": int(group.port),
                "health_path": group.health_check_path if group.health_check_protocol in _PROTOCOLS else None,
                "health_port": health_port(group),
                "listener_ports": listener_ports(group),
                "targets": [
                    {"id": t.id, "port": t.port, "state": t.state, "draining_until": t.draining_until}
                    for t in self._targets.of(group.arn)
                ],
            }
            for group in list(self._account.elbv2.target_groups.values())
        ]

    def _report(self, seen: Any) -> dict[str, int]:
        for check in seen:
            self._targets.report(check["target_group"], check["id"], int(check["port"]), healthy=bool(check["healthy"]))
        return {"taken": len(seen)}

    def _take_pods(self, told: Any) -> dict[str, int]:
        """Registers and deregisters addresses until a target group has those told, as the load balancer controller
        does that runs in a cluster."""
        (group,) = [g for g in self._account.elbv2.target_groups.values() if g.name == told["target_group"]]
        wanted = {str(address) for address in told["addresses"]}
        there = {t.id for t in self._targets.of(group.arn) if t.state is not State.DRAINING}
        for address in sorted(wanted - there):
            self._targets.register(group.arn, address, int(group.port))
        for address in sorted(there - wanted):
            self._targets.deregister(group.arn, address, int(group.port), deregistration_delay(group))
        return {"registered": len(wanted - there), "deregistered": len(there - wanted)}

    def _messages(self) -> list[dict[str, Any]]:
        return [
            {"topic": topic.arn, "subject": subject, "message": _as_mailed(message), "attributes": attributes or {}}
            for topic in list(self._account.sns.topics.values())
            for _, message, subject, attributes, *_ in topic.sent_notifications
        ]

    # Lambda

    def _invoke(self, name: str, environ: dict[str, Any]) -> Answer:
        at, kind = time.time(), environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        found = _KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        key = found[1] if found else ""
        told = {"FunctionName": name.removesuffix(":$LATEST").rsplit(":", 1)[-1], "InvocationType": kind}
        if struck := self._faults.refusal("lambda", "lambda:InvokeFunction", self._role_of(key) or ""):
            answer = _lambda_error(struck.status, struck.code, struck.message)
        elif refused := self._gate.refusal(key, "lambda:InvokeFunction", told):
            answer = _lambda_error(403, "AccessDeniedException", refused)
        else:
            answer = self._run(name, kind, _body(environ))
        role = self._role_of(key)
        error = dict(answer.headers).get("X-Amz-Function-Error") or dict(answer.headers).get("x-amzn-ErrorType")
        self._gate.passed(Call(at, "lambda", "InvokeFunction", role, told, answer.status, error))
        return answer

    def _run(self, name: str, kind: str, payload: bytes) -> Answer:
        try:
            if kind == "Event":
                self._lambdas.invoke_later(name, payload)
                return Answer(202, b"")
            result = self._lambdas.invoke(name, payload)
        except FunctionNotFoundError as error:
            return _lambda_error(404, "ResourceNotFoundException", str(error))
        except TooManyRequestsError as error:
            return _lambda_error(429, "TooManyRequestsException", str(error))
        except NotReadyError as error:
            return _lambda_error(502, "ResourceNotReadyException", str(error))
        headers = [("Content-Type", "application/json"), ("X-Amz-Executed-Version", "$LATEST")]
        if result.failed:
            headers.append(("X-Amz-Function-Error", "Unhandled"))
        return Answer(200, result.payload, tuple(headers))

    # Presigned STS calls

    def _is_sts(self, environ: dict[str, Any]) -> bool:
        return "Action=GetCallerIdentity" in environ["QUERY_STRING"] and "/sts/" in unquote(environ["QUERY_STRING"])

    def _authorization(self, environ: dict[str, Any]) -> str:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        return presigned.authorization(environ["QUERY_STRING"], headers, self._role_of.secret, datetime.now(tz=UTC))


def _body(environ: dict[str, Any]) -> bytes:
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    return bytes(stream.read(int(length)) if length else b"")


def _json(environ: dict[str, Any]) -> Any:
    return json.loads(_body(environ))


def _lambda_error(status: int, code: str, message: str) -> Answer:
    body = json.dumps({"Type": "User", "message": message, "Message": message}).encode()
    # Step Functions writes the request's id into the cause of a failed task.
    headers = (
        ("Content-Type", "application/json"),
        ("x-amzn-ErrorType", code),
        ("x-amzn-RequestId", str(uuid.uuid4())),
    )
    return Answer(status, body, headers)


def _sts_error(refused: presigned.RefusedError) -> Answer:
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{escape(refused.code)}</Code><Message>{escape(str(refused))}</Message></Error></ErrorResponse>"
    )
    return Answer(403, body.encode(), (("Content-Type", "text/xml"),))


def _as_mailed(message: str) -> str:
    """A published message as a subscriber by mail gets it: of one for each protocol the default."""
    try:
        told = json.loads(message)
    except ValueError:
        return message
    return str(told.get("default", message)) if isinstance(told, dict) else message
