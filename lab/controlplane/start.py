"""The control plane's processes: their files and exact commands.

The flags follow what makes a single, short-lived member fast (no fsync, no leader election, generous client rates)
and what EKS has: Node authorization and RBAC, the default admission plugins and NodeRestriction, tokens reviewed by a
webhook.
"""

import json
from pathlib import Path
from typing import Any

from lab.addresses import (
    APISERVER_PORT,
    APISERVER_URL,
    CONTROLLER_MANAGER_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    LAB_ADDRESS,
    SCHEDULER_PORT,
    SERVICE_CIDR,
)
from lab.controlplane.identities import AUTHORIZER_CONFIG, CONTROLLER_MANAGER, REVIEWER_CONFIG, SCHEDULER
from lab.parts import Part
from lab.paths import LabPaths
from lab.spec import LabSpec

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS = (*COMPONENTS, "kubectl")

_CONTROLLERS = (
    "clusterrole-aggregation",
    "cronjob",
    "daemonset",
    "deployment",
    "disruption",
    "endpoints",
    "endpointslice",
    "garbage-collector",
    "job",
    "namespace",
    "node-lifecycle",
    "persistentvolume-attach-detach",
    "persistentvolume-binder",
    "persistentvolume-protection",
    "persistentvolumeclaim-protection",
    "pod-garbage-collector",
    "replicaset",
    "root-ca-certificate-publisher",
    "serviceaccount",
    "serviceaccount-token",
    "statefulset",
    "taint-eviction",
)

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "None",
            "namespaces": ["kube-node-lease"],
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
        },
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/openapi/*", "/api*", "/version"]},
        {"level": "Metadata"},
    ],
}


def link_programs(paths: LabPaths, programs: Path) -> None:
    """Makes the programs in the directory `programs` (`lab.controlplane.build.programs`) the lab's own."""
    paths.binaries.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        link = paths.binaries / name
        link.unlink(missing_ok=True)
        link.symlink_to(programs / name)


def prepare(paths: LabPaths) -> None:
    """Writes what the processes read: certificates, kubeconfigs, configuration."""
    # Takes a quarter of a second to import, which nobody but the supervisor needs.
    from lab.controlplane.pki import write_pki

    write_pki(paths)
    _audit_policy(paths).write_text(json.dumps(_AUDIT_POLICY))
    _authorization(paths).write_text(json.dumps(_authorizers(paths)))
    _scheduler_configuration(paths).write_text(json.dumps({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"kubeconfig": str(paths.kubeconfig_of(SCHEDULER)), "qps": 2000, "burst": 4000},
    }))  # fmt: skip


def parts(paths: LabPaths, spec: LabSpec) -> list[Part]:
    """The four processes, in the order in which they come up."""
    programs = paths.binaries
    return [
        Part(
            "etcd",
            (str(programs / "etcd"), *_etcd_flags(paths)),
            ready_url=f"http://127.0.0.1:{ETCD_PORT}/health",
        ),
        Part(
            "kube-apiserver",
            (str(programs / "kube-apiserver"), *_apiserver_flags(paths)),
            # Without a ready etcd it backs off and comes up later, not earlier.
            after=("etcd",),
            ready_url=f"{APISERVER_URL}/readyz",
        ),
        Part(
            "kube-controller-manager",
            (str(programs / "kube-controller-manager"), *_controller_manager_flags(paths, spec)),
            after=("kube-apiserver",),
            ready_url=f"https://127.0.0.1:{CONTROLLER_MANAGER_PORT}/healthz",
        ),
        Part(
            "kube-scheduler",
            (str(programs / "kube-scheduler"), *_scheduler_flags(paths)),
            after=("kube-apiserver",),
            ready_url=f"https://127.0.0.1:{SCHEDULER_PORT}/healthz",
        ),
    ]


def _etcd_flags(paths: LabPaths) -> list[str]:
    client = f"http://127.0.0.1:{ETCD_PORT}"
    peer = f"http://127.0.0.1:{ETCD_PEER_PORT}"
    return [
        f"--data-dir={paths.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--heartbeat-interval=20",
        "--election-timeout=200",
        f"--quota-backend-bytes={4 << 30}",
        "--log-level=error",
    ]


def _apiserver_flags(paths: LabPaths) -> list[str]:
    pki = paths.pki
    return [
        f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
        "--bind-address=0.0.0.0",
        f"--secure-port={APISERVER_PORT}",
        # Where the Service "kubernetes" leads to: an endpoint may not be a loopback address.
        f"--advertise-address={LAB_ADDRESS}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--token-auth-file={pki / 'tokens.csv'}",
        f"--authentication-token-webhook-config-file={pki / REVIEWER_CONFIG}",
        "--authentication-token-webhook-version=v1",
        "--authentication-token-webhook-cache-ttl=5s",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        # Without the front proxy's settings the other components look for them for ever.
        # The allowed name keeps the shared authority's client certificates from posing as it.
        f"--requestheader-client-ca-file={pki / 'ca.crt'}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--authorization-config={_authorization(paths)}",
        # EKS runs it; it is none of the defaults. Without it a kubelet may write on every Node and pod.
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        "--event-ttl=15m",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
        f"--audit-policy-file={_audit_policy(paths)}",
        f"--audit-log-path={paths.audit_log}",
        "--audit-log-maxsize=1024",
    ]


def _controller_manager_flags(paths: LabPaths, spec: LabSpec) -> list[str]:
    kubeconfig = paths.kubeconfig_of(CONTROLLER_MANAGER)
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={CONTROLLER_MANAGER_PORT}",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        # With one identity for all controllers RBAC forbids most of them their work.
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={paths.pki / 'service-accounts.key'}",
        f"--root-ca-file={paths.pki / 'ca.crt'}",
        "--kube-api-qps=2000",
        "--kube-api-burst=4000",
        f"--node-monitor-grace-period={spec.node_monitor_grace_seconds}s",
        "--controllers=" + ",".join(f"{name}-controller" for name in _CONTROLLERS),
    ]


def _scheduler_flags(paths: LabPaths) -> list[str]:
    kubeconfig = paths.kubeconfig_of(SCHEDULER)
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={SCHEDULER_PORT}",
        f"--config={_scheduler_configuration(paths)}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
    ]


def _authorizers(paths: LabPaths) -> dict[str, Any]:
    """As on EKS, Node and RBAC; before them a webhook that refuses what a fault forbids our own roles."""
    webhook = {
        # No answer is kept: a fault is in force at once, and no longer than it is to be.
        "authorizedTTL": "1ms",
        "unauthorizedTTL": "1ms",
        "timeout": "30s",
        "failurePolicy": "NoOpinion",
        "subjectAccessReviewVersion": "v1",
        "matchConditionSubjectAccessReviewVersion": "v1",
        "matchConditions": [
            {"expression": "has(request.groups) && request.groups.exists(g, g.startsWith('eks-rolling-'))"}
        ],
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": str(paths.pki / AUTHORIZER_CONFIG)},
    }
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Webhook", "name": "faults", "webhook": webhook},
            {"type": "Node", "name": "node"},
            {"type": "RBAC", "name": "rbac"},
        ],
    }


def _authorization(paths: LabPaths) -> Path:
    return paths.pki / "authorization.json"


def _audit_policy(paths: LabPaths) -> Path:
    return paths.pki / "audit-policy.json"


def _scheduler_configuration(paths: LabPaths) -> Path:
    return paths.pki / "scheduler.json"
