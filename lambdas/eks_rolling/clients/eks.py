"""From an EKS cluster's name to a client of its API server, with the caller's own IAM role."""

import base64
from typing import TYPE_CHECKING, Any

import boto3
from botocore.model import ServiceId
from botocore.signers import RequestSigner

from eks_rolling.clients.aws import CONFIG, translated
from eks_rolling.clients.call_log import CALLS
from eks_rolling.clients.kubernetes import FOR_FUNCTIONS, KubernetesClient, Remedies
from eks_rolling.errors import AccessDenied, NotFound

if TYPE_CHECKING:
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_eks.type_defs import ClusterTypeDef

PRESIGNED_SECONDS = 900
"""How long the signature is good for: the most that the cluster's side accepts (aws-iam-authenticator)."""


def connect(
    cluster: str, session: boto3.session.Session | None = None, remedies: Remedies = FOR_FUNCTIONS
) -> KubernetesClient:
    """A client for the cluster's API server.

    Raises NotFound when there is no such cluster, AccessDenied when it may not be described.
    """
    session = session or boto3.session.Session()
    CALLS.follow(session.events)
    description = describe(cluster, session)
    authority = base64.b64decode(description["certificateAuthority"]["data"]).decode()
    return KubernetesClient(
        description["endpoint"], authority, lambda: bearer_token(cluster, session), remedies=remedies
    )


def describe(cluster: str, session: boto3.session.Session) -> "ClusterTypeDef":
    """The cluster as EKS describes it. Raises as `connect` does."""
    eks: EKSClient = session.client("eks", config=CONFIG)
    with translated(f"describe EKS cluster {cluster}"):
        try:
            return eks.describe_cluster(name=cluster)["cluster"]
        except eks.exceptions.ResourceNotFoundException as error:
            raise NotFound(
                f"There is no EKS cluster {cluster} in {session.region_name}; correct the setting cluster."
            ) from error


def bearer_token(cluster: str, session: boto3.session.Session) -> str:
    """A bearer token for the cluster: a presigned GetCallerIdentity, as aws-iam-authenticator reads it.

    The signed header x-k8s-aws-id binds it to this cluster. Raises AccessDenied when there are no credentials.
    """
    region = session.region_name
    credentials = session.get_credentials()
    if credentials is None:
        raise AccessDenied("No AWS credentials were found to sign in to the cluster with.")
    # The signer wants botocore's session for its events; the endpoint is the regional one, never an override,
    # because the server checks the host.
    inner: Any = session._session  # noqa: SLF001 (boto3 has no other way to it)
    host = inner.get_component("endpoint_resolver").construct_endpoint("sts", region)["hostname"]
    signer = RequestSigner(ServiceId("sts"), region, "sts", "v4", credentials, session.events)
    request: dict[str, Any] = {
        "method": "GET",
        "url": f"https://{host}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(request, region_name=region, expires_in=PRESIGNED_SECONDS, operation_name="")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
