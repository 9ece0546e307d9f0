"""What a lab's cluster and account look like at a moment: before and after a roll, and what a roll has left behind."""

from dataclasses import dataclass
from typing import Any

from lab.kube import Kube
from lab.rolls import Rolls

Json = dict[str, Any]


@dataclass(frozen=True)
class NodeView:
    """A node for people: `version` is its instance's launch template version, or its launch configuration."""

    name: str
    instance: str
    zone: str
    version: str
    ready: bool
    taint: str
    cordoned: bool
    pods: int
    """But for cluster-autoscaler's, which comes back on whichever node the scheduler likes."""


@dataclass(frozen=True)
class ClusterState:
    """Everything that a roll changes, in values that can be compared."""

    nodes: tuple[NodeView, ...]
    groups: dict[str, Json]
    protected: tuple[str, ...]
    autoscaler: int | None
    marks: tuple[str, ...]
    jobs: tuple[str, ...] = ()
    """Those that lost a pod: of a Job, not of the clients' queue."""

    @property
    def zones(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.zone] = counts.get(node.zone, 0) + 1
        return counts

    def restored(self, before: "ClusterState") -> bool:
        """Whether everything but the nodes themselves is as it was."""
        return (self.groups, self.autoscaler, self.marks) == (before.groups, before.autoscaler, before.marks) and len(
            self.protected
        ) == len(before.protected)


async def look(kube: Kube, rolls: Rolls) -> ClusterState:
    """Reads it now."""
    groups = rolls.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    deployments = await kube.list("/apis/apps/v1/namespaces/kube-system/deployments")
    replicas = [d["spec"]["replicas"] for d in deployments if d["metadata"]["name"] == "cluster-autoscaler"]
    return ClusterState(
        nodes=await look_at_nodes(kube, rolls),
        groups={
            g["AutoScalingGroupName"]: {
                "min": g["MinSize"],
                "max": g["MaxSize"],
                "desired": g["DesiredCapacity"],
                "suspended": sorted(p["ProcessName"] for p in g.get("SuspendedProcesses", [])),
                "tags": {t["Key"]: t["Value"] for t in g.get("Tags", [])},
            }
            for g in groups
        },
        protected=tuple(i["InstanceId"] for g in groups for i in g["Instances"] if i["ProtectedFromScaleIn"]),
        autoscaler=replicas[0] if replicas else None,
        marks=tuple(await _marks(kube, rolls)),
        jobs=tuple(
            f"{job['metadata']['namespace']}/{job['metadata']['name']}"
            for job in await kube.list("/apis/batch/v1/jobs")
            if job.get("status", {}).get("failed")
        ),
    )


async def lock_holders(kube: Kube) -> list[str]:
    """Who holds our lock: nobody, or one."""
    leases = await kube.list("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")
    holders = [lease["spec"].get("holderIdentity") for lease in leases if _ours(lease["metadata"]["name"])]
    return [str(holder) for holder in holders if holder]


async def look_at_nodes(kube: Kube, rolls: Rolls) -> tuple[NodeView, ...]:
    """The nodes alone, by zone and name."""
    groups = rolls.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    versions = {i["InstanceId"]: _version(i) for g in groups for i in g["Instances"]}
    pods = await kube.list("/api/v1/pods")
    nodes = [_node(item, versions, pods) for item in await kube.list("/api/v1/nodes")]
    return tuple(sorted(nodes, key=lambda n: (n.zone, n.name)))


def _version(instance: Any) -> str:
    name: str = instance.get("LaunchConfigurationName", "")
    return str(instance.get("LaunchTemplate", {}).get("Version", name))


def _node(item: Json, versions: dict[str, str], pods: list[Json]) -> NodeView:
    metadata, spec = item["metadata"], item["spec"]
    conditions = {c["type"]: c["status"] for c in item["status"].get("conditions", ())}
    instance = spec.get("providerID", "").rpartition("/")[2]
    ours = [t["effect"] for t in spec.get("taints", ()) if t["key"] == "eks-rolling"]
    return NodeView(
        name=metadata["name"],
        instance=instance,
        zone=metadata["labels"].get("topology.kubernetes.io/zone", ""),
        version=versions.get(instance, ""),
        ready=conditions.get("Ready") == "True",
        taint=ours[0] if ours else "",
        cordoned=bool(spec.get("unschedulable")),
        pods=sum(p["spec"].get("nodeName") == metadata["name"] and not _is_autoscaler(p) for p in pods),
    )


def _is_autoscaler(pod: Json) -> bool:
    return bool(pod["metadata"].get("labels", {}).get("app") == "cluster-autoscaler")


async def _marks(kube: Kube, rolls: Rolls) -> list[str]:
    """Everything with our name on it, as one line each."""
    found = []
    for node in await kube.list("/api/v1/nodes"):
        keys = [*node["metadata"].get("annotations", {}), *node["metadata"].get("labels", {})]
        found += [f"node {node['metadata']['name']}: {key}" for key in keys if _ours(key)]
        found += [f"node {node['metadata']['name']}: taint" for t in node["spec"].get("taints", ()) if _ours(t["key"])]
    for budget in await kube.list("/apis/policy/v1/poddisruptionbudgets"):
        if budget["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "eks-rolling":
            found.append(f"budget {budget['metadata']['namespace']}/{budget['metadata']['name']}")
    for kind in ("deployments", "statefulsets"):
        for item in await kube.list(f"/apis/apps/v1/{kind}"):
            keys = item["metadata"].get("annotations", {})
            found += [f"{kind} {item['metadata']['name']}: {key}" for key in keys if key.endswith("original-replicas")]
    found += [f"lock held by {holder}" for holder in await lock_holders(kube)]
    instances = [i for r in rolls.ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    for instance in instances:
        if instance["State"]["Name"] == "running":
            keys = [t["Key"] for t in instance.get("Tags", [])]
            found += [f"instance {instance['InstanceId']}: {key}" for key in keys if _ours(key)]
    return sorted(found)


def _ours(key: str) -> bool:
    return key.startswith(("eks-rolling", "node.kubernetes.io/exclude-from"))
