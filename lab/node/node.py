"""A Node object as a kubelet on EKS registers and reports it. Pure."""

import datetime as dt
import platform

from lab.addresses import KUBELET_PORT
from lab.instances import Instance, node_name
from lab.kube import Items, Json
from lab.node import times
from lab.node.storage import DRIVER, ZONE_LABEL
from lab.spec import LabSpec

UNINITIALIZED_TAINT = "node.cloudprovider.kubernetes.io/uninitialized"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_VOLUMES_PER_NODE = 25
_HEALTHY = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


def provider_id(instance: Instance) -> str:
    return f"aws:///{instance.zone}/{instance.id}"


def instance_id(node: Json) -> str | None:
    """The instance that a Node is on."""
    identity: str = node["spec"].get("providerID", "")
    return identity.rpartition("/")[2] if identity.startswith("aws://") else None


def capacity(spec: LabSpec) -> dict[str, str]:
    """What every node of the lab has, all of it allocatable."""
    return {
        "cpu": spec.node_cpu,
        "memory": spec.node_memory,
        "pods": str(spec.node_pods),
        "ephemeral-storage": "20Gi",
    }


def node_object(instance: Instance, spec: LabSpec, version: str, now: dt.datetime) -> Json:
    """The Node as it registers: tainted until the cloud controller has seen it, and not Ready."""
    name = node_name(instance.private_ip, spec.region)
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    group = next((g for g in spec.groups if g.name == instance.group), None)
    labels = {
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/instance-type": instance.type,
        "beta.kubernetes.io/os": "linux",
        "failure-domain.beta.kubernetes.io/region": spec.region,
        "failure-domain.beta.kubernetes.io/zone": instance.zone,
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": instance.type,
        "topology.kubernetes.io/region": spec.region,
        ZONE_LABEL: instance.zone,
    }
    if group is not None:
        labels |= group.labels
        if group.managed_node_group:
            labels["eks.amazonaws.com/nodegroup"] = group.name
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            # Without it nobody ever asks for a volume to be attached.
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {
            "providerID": provider_id(instance),
            "taints": [
                {"key": UNINITIALIZED_TAINT, "value": "true", "effect": "NoSchedule"},
                *({"key": key, "effect": effect} for key, effect in (group.taints if group else {}).items()),
            ],
        },
        "status": {
            "capacity": capacity(spec),
            "allocatable": capacity(spec),
            "conditions": node_conditions(ready=False, now=now),
            "addresses": [
                {"type": "InternalIP", "address": instance.private_ip},
                {"type": "InternalDNS", "address": name},
                {"type": "Hostname", "address": name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
            "nodeInfo": {
                "architecture": architecture,
                "bootID": instance.id,
                "containerRuntimeVersion": "lab://1",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": version,
                "machineID": instance.id,
                "operatingSystem": "linux",
                "osImage": f"Amazon Linux 2023 ({instance.image_id})",
                "systemUUID": instance.id,
            },
        },
    }


def node_conditions(*, ready: bool, now: dt.datetime, why: str = "container runtime network not ready") -> Items:
    """The conditions that a kubelet reports; `why` it is not Ready."""
    stamp = {"lastHeartbeatTime": times.seconds(now), "lastTransitionTime": times.seconds(now)}
    conditions: Items = [
        {"type": kind, "status": "False", "reason": reason, "message": message, **stamp}
        for kind, reason, message in _HEALTHY
    ]
    if ready:
        last = {"status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    else:
        last = {"status": "False", "reason": "KubeletNotReady", "message": why}
    return [*conditions, {"type": "Ready", **last, **stamp}]


def csi_node(instance: Instance, node: Json) -> Json:
    """The CSINode that goes with a Node, and goes when it goes."""
    metadata = node["metadata"]
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": metadata["name"], "ownerReferences": [owner(node)]},
        "spec": {
            "drivers": [{
                "name": DRIVER,
                "nodeID": instance.id,
                "topologyKeys": [ZONE_LABEL],
                "allocatable": {"count": _VOLUMES_PER_NODE},
            }],
        },
    }  # fmt: skip


def owner(node: Json) -> Json:
    """An owner reference to a Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "name": node["metadata"]["name"],
        "uid": node["metadata"]["uid"],
    }


def is_ready(node: Json) -> bool:
    """Whether a Node's status says Ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))


def lease(name: str, node: Json, duration_seconds: int, now: dt.datetime) -> Json:
    """A node's heartbeat."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner(node)]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": duration_seconds, "renewTime": times.micros(now)},
    }
