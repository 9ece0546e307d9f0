"""What steps called, by the names that permissions have."""

from typing import Any, cast

import boto3
import pytest

from eks_rolling.clients.call_log import Calls, kubernetes_call


@pytest.mark.parametrize(
    ("method", "url", "call"),
    [
        ("GET", "/api/v1/nodes?limit=500", "list nodes"),
        ("GET", "/api/v1/nodes/n-1", "get nodes"),
        ("GET", "/api/v1/namespaces/shop/pods?labelSelector=a", "list pods"),
        ("PATCH", "/api/v1/nodes/n-1", "patch nodes"),
        ("POST", "/api/v1/namespaces/shop/pods/web-1/eviction", "create pods/eviction"),
        ("DELETE", "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/b", "delete poddisruptionbudgets"),
        ("GET", "/apis/apps/v1/deployments", "list deployments"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/eks-rolling", "update leases"),
        ("GET", "/api/v1/namespaces/shop", "get namespaces"),
        ("GET", "/version", "get /version"),
        ("GET", "/", "get /"),
        ("GET", "", "get /"),
        ("GET", "/livez/ping?verbose", "get /livez/ping"),
        ("HEAD", "/readyz", "head /readyz"),
        ("GET", "/api", "get /api"),
        ("GET", "/api/v1/", "get /api/v1"),
        ("GET", "/apis", "get /apis"),
        ("GET", "/apis/apps", "get /apis/apps"),
        ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
    ],
)
def test_requests_are_named_as_rbac_names_them(method: str, url: str, call: str) -> None:
    assert kubernetes_call(method, url) == call


def test_aws_calls_are_named_as_policies_name_them_and_told_once() -> None:
    calls = Calls()
    session = boto3.session.Session(region_name="eu-central-1", aws_access_key_id="none", aws_secret_access_key="none")
    calls.follow(session.events)
    for service, operation in (
        ("s3", "ListObjectsV2"),
        ("cloudwatch", "DescribeAlarms"),
        ("cloudwatch", "DescribeAlarms"),
    ):
        meta = cast(Any, session).client(service).meta
        # As botocore does right before it sends.
        meta.events.emit(
            f"before-call.{service}.{operation}",
            model=meta.service_model.operation_model(operation),
            params={},
            context={},
        )
    assert calls.taken() == ("cloudwatch:DescribeAlarms", "s3:ListBucket")
    assert calls.taken() == ()
