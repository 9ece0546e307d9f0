"""Says who the function is, to STS and to the cluster."""

import base64
from typing import Any

import boto3


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """The caller's ARN; with a `cluster`, an EKS token for it as well."""
    sts = boto3.client("sts")
    answer: dict[str, Any] = {"arn": sts.get_caller_identity()["Arn"]}
    if "cluster" in event:
        answer["token"] = token(sts, event["cluster"], event.get("seconds", 60))
    return answer


def token(sts: Any, cluster: str, seconds: int) -> str:
    """An EKS token: GetCallerIdentity, presigned over the cluster's name."""

    def add_header(request: Any, **_: Any) -> None:
        request.headers["x-k8s-aws-id"] = cluster

    sts.meta.events.register("before-sign.sts.GetCallerIdentity", add_header)
    try:
        url = sts.generate_presigned_url("get_caller_identity", ExpiresIn=seconds, HttpMethod="GET")
    finally:
        sts.meta.events.unregister("before-sign.sts.GetCallerIdentity", add_header)
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
