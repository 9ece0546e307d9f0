"""Who the lab's own parts are to the API server."""

ADMIN = "admin"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
NODE_AGENT = "node-agent"
SERVICE_PROXY = "service-proxy"

GROUPS = {
    ADMIN: "system:masters",
    CONTROLLER_MANAGER: "",
    SCHEDULER: "",
    # What the cloud does for nodes: lifts their first taint, removes those without an instance, provisions and attaches
    # volumes. Their kubelets have identities of their own: `lab.node.kubelet`. Another process plays every kube-proxy.
    # No single upstream role covers either, and nothing that is under test uses these two.
    NODE_AGENT: "system:masters",
    SERVICE_PROXY: "system:masters",
}

REVIEWER_CONFIG = "token-webhook.kubeconfig"
"""The file that tells the API server where to have everybody else's tokens reviewed: the AWS server."""

AUTHORIZER_CONFIG = "authorization-webhook.kubeconfig"
"""The file that tells the API server where to ask whether the lab is to refuse a request: the AWS server, too."""


def user_name(identity: str) -> str:
    """Its user name; the control plane's own are those that the built-in roles are bound to."""
    return f"system:{identity}" if identity in (CONTROLLER_MANAGER, SCHEDULER) else f"lab:{identity}"
