"""As whom a node's kubelet talks to the API server: as itself, never as another node's."""

from dataclasses import replace

from lab.controlplane.identities import NODE_AGENT
from lab.controlplane.pki import kubelet_certificate
from lab.kube import Access
from lab.paths import LabPaths


def kubelet_access(paths: LabPaths, node: str) -> Access:
    """The API server, with the certificate of that node's kubelet; it may do what the Node authorizer and the admission
    plugin NodeRestriction leave it."""
    access = Access.from_kubeconfig(paths.kubeconfig_of(NODE_AGENT))
    return replace(access, token=None, certificate=kubelet_certificate(paths, node))
