"""The CloudTrail-shaped events of the calls that decide what an Auto Scaling group launches.

EC2 wraps a call's parameters in `<Action>Request` (PascalCase) and its answer in `<Action>Response` (camelCase); Auto
Scaling writes parameters in camelCase and no answer. A failed call, a dry run too, has an errorCode and no answer.
"""

import json
import uuid
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.parsers
import botocore.session

from lab.aws import ACCOUNT_ID
from lab.aws.calls import Call
from lab.aws.events import EventBus

DETAIL_TYPE = "AWS API Call via CloudTrail"
RECORDED = {
    ("ec2", "CreateLaunchTemplateVersion"),
    ("ec2", "ModifyLaunchTemplate"),
    ("autoscaling", "UpdateAutoScalingGroup"),
}
# CloudTrail writes a parameter's name in the API, boto3 has one of its own for this one.
_API_NAMES = {"DefaultVersion": "SetDefaultVersion"}


class Trail:
    """Publishes an event for each recorded call; pass it to `calls.install` as the listener."""

    def __init__(self, bus: EventBus, region: str) -> None:
        self._bus = bus
        self._region = region

    def __call__(self, call: Call, parameters: dict[str, Any], body: Any) -> None:
        if (call.service, call.action) in RECORDED:
            self._bus.publish(f"aws.{call.service}", DETAIL_TYPE, self._detail(call, parameters, body))

    def _detail(self, call: Call, given: dict[str, Any], body: Any) -> dict[str, Any]:
        wrapped = call.service == "ec2"
        parameters = {_API_NAMES.get(name, name): value for name, value in _plain(given).items() if name != "DryRun"}
        detail: dict[str, Any] = {
            "eventVersion": "1.11",
            "userIdentity": {"type": "AssumedRole", "accountId": ACCOUNT_ID, "arn": call.role},
            "eventTime": datetime.fromtimestamp(call.at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "eventSource": f"{call.service}.amazonaws.com",
            "eventName": call.action,
            "awsRegion": self._region,
            "sourceIPAddress": "127.0.0.1",
            "userAgent": "lab",
            "requestParameters": {f"{call.action}Request": parameters} if wrapped else camel_case(parameters),
            "responseElements": None,
            "requestID": str(uuid.uuid4()),
            "eventID": str(uuid.uuid4()),
            "readOnly": False,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": ACCOUNT_ID,
            "eventCategory": "Management",
        }
        if call.error is not None:
            detail["errorCode"] = f"Client.{call.error}" if wrapped else call.error
        elif wrapped:
            detail["responseElements"] = {f"{call.action}Response": camel_case(_parse(call.action, body))}
        return detail


def camel_case(value: Any) -> Any:
    """The value with the first letter of every key in lower case."""
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: camel_case(member) for name, member in value.items()}
    if isinstance(value, list):
        return [camel_case(member) for member in value]
    return value


def _parse(action: str, body: Any) -> Any:
    content = body if isinstance(body, bytes) else str(body).encode()
    shape = _ec2_model().operation_model(action).output_shape
    answer = botocore.parsers.create_parser("ec2").parse({"status_code": 200, "headers": {}, "body": content}, shape)
    answer.pop("ResponseMetadata", None)
    return _plain(answer)


def _plain(value: Any) -> Any:
    """The value as JSON has it, times as CloudTrail writes them."""

    def text(other: Any) -> str:
        return other.strftime("%Y-%m-%dT%H:%M:%S.000Z") if isinstance(other, datetime) else str(other)

    return json.loads(json.dumps(value, default=text))


@cache
def _ec2_model() -> Any:
    return botocore.session.get_session().get_service_model("ec2")
