"""What stands in a roll's way, put into a lab one at a time and taken away again."""

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from lab.kube import Json, NotFoundError
from lab.operator import Operator
from lab.rolls import Outcome
from tests.blocking_kube import BlockingKube
from tests.waiting import until

ZONES = ("eu-central-1a", "eu-central-1b")
PLURALS = {"Pod": "v1/pods", "ReplicaSet": "apps/v1/replicasets", "Deployment": "apps/v1/deployments",
           "StatefulSet": "apps/v1/statefulsets", "PodDisruptionBudget": "policy/v1/poddisruptionbudgets",
           "PersistentVolumeClaim": "v1/persistentvolumeclaims", "DaemonSet": "apps/v1/daemonsets",
           "ConfigMap": "v1/configmaps"}  # fmt: skip


@dataclass
class Ground:
    """A lab with nothing in the way of a roll, whose nodes are all outdated."""

    operator: Operator
    kube: BlockingKube
    functions: Any
    plans: int = 0
    nodes: dict[str, str] = field(default_factory=dict)
    """Node -> instance."""

    @classmethod
    def of(cls, operator: Operator) -> "Ground":
        functions = operator.rolls.client("lambda")
        ground = cls(operator, BlockingKube(operator.kube.access, operator.loop), functions)
        for node in ground.kube.list("/api/v1/nodes"):
            ground.nodes[node["metadata"]["name"]] = node["spec"]["providerID"].rpartition("/")[2]
        return ground

    def plan(self, request: Json) -> Json:
        """The plan's document, by the deployed function as a roll would call it."""
        self.plans += 1
        names = [f["FunctionName"] for f in self.functions.list_functions()["Functions"]]
        (name,) = [n for n in names if "FunctionsPlan" in n]
        roll = f"plan-{self.plans}"
        answer = self.functions.invoke(
            FunctionName=name, Payload=json.dumps({"roll": roll, "input": {"dry_run": True, **request}}).encode()
        )
        said = answer["Payload"].read().decode()
        assert "FunctionError" not in answer, said
        return self.operator.rolls.document(roll, "plan.json")

    def roll(self, request: Json, *, within_seconds: float = 60.0) -> Outcome:
        """A roll, to its end."""
        execution = self.operator.rolls.start(request)
        rolls = self.operator.rolls
        until(lambda: not rolls.progress(execution).running, "the roll's end", within_seconds=within_seconds)
        return rolls.outcome(execution)

    # Kubernetes

    def path(self, kind: str, name: str = "", namespace: str = "shop") -> str:
        version, _, plural = PLURALS[kind].rpartition("/")
        root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
        return f"{root}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")

    @contextmanager
    def made(self, kind: str, name: str, *, namespace: str = "shop", **body: Any) -> Iterator[None]:
        """An object, and afterwards neither it nor its pods."""
        metadata = {"name": name, **body.pop("metadata", {})}
        self.kube.create(self.path(kind, namespace=namespace), {"metadata": metadata, **body})
        try:
            yield
        finally:
            self._remove(kind, name, namespace)

    def _remove(self, kind: str, name: str, namespace: str) -> None:
        gone = {"propagationPolicy": "Foreground", "gracePeriodSeconds": 0}
        with contextlib.suppress(NotFoundError):
            self.kube.delete(self.path(kind, name, namespace), gone)
        self.kube.wait_for(
            f"no {kind} {name}",
            self.path(kind, namespace=namespace),
            lambda found: True if not any(i["metadata"]["name"] == name for i in found) else None,
            seconds=30,
        )

    @contextmanager
    def workload(
        self, name: str, replicas: int, *, kind: str = "Deployment", annotations: dict[str, str] | None = None,
        namespace: str = "shop", ready: int | None = None, image: str = "pause:1", strategy: Json | None = None,
        pod_annotations: dict[str, str] | None = None, **spec: Any,
    ) -> Iterator[None]:  # fmt: skip
        """Pods labelled app=`name`, of which `ready` are waited for (all, unless said)."""
        labels = {"app": name}
        container = {"name": name, "image": image, **spec.pop("container", {})}
        pod = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
        body: Json = {"replicas": replicas, "selector": {"matchLabels": labels}}
        body |= {"template": {"metadata": {"labels": labels, "annotations": pod_annotations or {}}, "spec": pod}}
        body |= {"strategy": strategy} if strategy else {}
        body |= {"serviceName": name} if kind == "StatefulSet" else {}
        with self.made(kind, name, namespace=namespace, metadata={"annotations": annotations or {}}, spec=body):
            wanted = replicas if ready is None else ready
            self.kube.wait_for(
                f"{wanted} pods of {name}",
                self.path(kind, namespace=namespace),
                lambda found: next(
                    (
                        True
                        for i in found
                        if i["metadata"]["name"] == name
                        and i.get("status", {}).get("readyReplicas", 0) == wanted
                        and i["status"].get("observedGeneration") == i["metadata"]["generation"]
                    ),
                    None,
                ),
                seconds=30,
            )
            yield

    @contextmanager
    def budget(self, name: str, app: str, **rule: Any) -> Iterator[None]:
        spec = {"selector": {"matchLabels": {"app": app}}, **rule}
        with self.made("PodDisruptionBudget", name, spec=spec):
            self.kube.wait_for(
                f"budget {name} counted",
                self.path("PodDisruptionBudget"),
                lambda found: next(
                    (
                        True
                        for i in found
                        if i["metadata"]["name"] == name and "observedGeneration" in i.get("status", {})
                    ),
                    None,
                ),
            )
            yield

    @contextmanager
    def patched_node(self, node: str, patch: Json, back: Json) -> Iterator[None]:
        self.kube.patch(f"/api/v1/nodes/{node}", patch)
        try:
            yield
        finally:
            self.kube.patch(f"/api/v1/nodes/{node}", back)

    def pod_of(self, app: str) -> Json:
        return self.kube.list(self.path("Pod"), labelSelector=f"app={app}")[0]

    # AWS

    @contextmanager
    def group(self, name: str, **changes: Any) -> Iterator[None]:
        """The group with these settings, for the time of the block."""
        scaling: Any = self.operator.rolls.autoscaling
        (before,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        scaling.update_auto_scaling_group(AutoScalingGroupName=name, **changes)
        try:
            yield
        finally:
            scaling.update_auto_scaling_group(AutoScalingGroupName=name, **{key: before[key] for key in changes})

    @contextmanager
    def idle_group(self, name: str) -> Iterator[None]:
        """A group of the cluster without an instance, and afterwards none."""
        scaling: Any = self.operator.rolls.autoscaling
        cluster = self.operator.lab.spec.cluster
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=0,
            MaxSize=2,
            DesiredCapacity=0,
            LaunchTemplate={"LaunchTemplateName": "workers", "Version": "$Latest"},
            VPCZoneIdentifier=self.subnet_in(ZONES[0]),
            Tags=[{"Key": f"kubernetes.io/cluster/{cluster}", "Value": "owned", "PropagateAtLaunch": True}],
        )
        try:
            yield
        finally:
            scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)

    @contextmanager
    def overridden(self, name: str, *overrides: Any) -> Iterator[None]:
        """The group with a mixed instances policy of its own launch template and these overrides."""
        scaling: Any = self.operator.rolls.autoscaling
        (before,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        template = {key: before["LaunchTemplate"][key] for key in ("LaunchTemplateId", "Version")}
        policy = {"LaunchTemplate": {"LaunchTemplateSpecification": template, "Overrides": list(overrides)}}
        scaling.update_auto_scaling_group(AutoScalingGroupName=name, MixedInstancesPolicy=policy)
        try:
            yield
        finally:
            scaling.update_auto_scaling_group(AutoScalingGroupName=name, LaunchTemplate=template)

    @contextmanager
    def new_version(self, template: str, **data: Any) -> Iterator[None]:
        """The launch template has a version that differs by `data`, and afterwards one that does not."""
        ec2 = self.operator.rolls.ec2
        versions = ec2.describe_launch_template_versions(LaunchTemplateName=template)["LaunchTemplateVersions"]
        source: Any = {"LaunchTemplateName": template, "SourceVersion": str(max(v["VersionNumber"] for v in versions))}
        wanted: Any = data
        ec2.create_launch_template_version(**source, LaunchTemplateData=wanted)
        try:
            yield
        finally:
            ec2.create_launch_template_version(**source, LaunchTemplateData={})

    @contextmanager
    def hooked(self, name: str, hook: str, seconds: int) -> Iterator[None]:
        """The group with a lifecycle hook that holds each instance that goes for so long."""
        scaling = self.operator.rolls.autoscaling
        scaling.put_lifecycle_hook(
            AutoScalingGroupName=name,
            LifecycleHookName=hook,
            LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
            HeartbeatTimeout=seconds,
        )
        try:
            yield
        finally:
            scaling.delete_lifecycle_hook(AutoScalingGroupName=name, LifecycleHookName=hook)

    @contextmanager
    def one_more_node(self, name: str) -> Iterator[str]:
        """The group has one node more, of the version of now; its name."""
        scaling = self.operator.rolls.autoscaling
        known = {n["metadata"]["name"] for n in self.kube.list("/api/v1/nodes")}
        (before,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=before["DesiredCapacity"] + 1)
        node = self.kube.wait_for(
            "another node", "/api/v1/nodes", lambda found: _ready_beside(found, known), seconds=60
        )
        try:
            yield node["metadata"]["name"]
        finally:
            scaling.terminate_instance_in_auto_scaling_group(
                InstanceId=node["spec"]["providerID"].rpartition("/")[2], ShouldDecrementDesiredCapacity=True
            )
            until(lambda: {n["metadata"]["name"] for n in self.kube.list("/api/v1/nodes")} == known, "the node is gone")

    @contextmanager
    def suspended(self, name: str, process: str) -> Iterator[None]:
        scaling = self.operator.rolls.autoscaling
        scaling.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=[process])
        try:
            yield
        finally:
            scaling.resume_processes(AutoScalingGroupName=name, ScalingProcesses=[process])

    @contextmanager
    def tagged(self, name: str, key: str, value: str | None) -> Iterator[None]:
        """The group with another value of a tag, which new instances do not get; None: without the tag."""
        scaling: Any = self.operator.rolls.autoscaling
        where = {"ResourceId": name, "ResourceType": "auto-scaling-group", "Key": key}
        filters = [{"Name": "auto-scaling-group", "Values": [name]}]
        before = [t for t in scaling.describe_tags(Filters=filters)["Tags"] if t["Key"] == key]

        def put(wanted: list[Any]) -> None:
            if wanted:
                scaling.create_or_update_tags(Tags=wanted)
            else:
                scaling.delete_tags(Tags=[where])

        put([] if value is None else [{**where, "Value": value, "PropagateAtLaunch": False}])
        try:
            yield
        finally:
            put(before)

    @contextmanager
    def refreshed(self, name: str) -> Iterator[None]:
        scaling = self.operator.rolls.autoscaling
        scaling.start_instance_refresh(AutoScalingGroupName=name)
        try:
            yield
        finally:
            scaling.cancel_instance_refresh(AutoScalingGroupName=name)

    @contextmanager
    def warm_pool(self, name: str) -> Iterator[None]:
        scaling = self.operator.rolls.autoscaling
        scaling.put_warm_pool(AutoScalingGroupName=name, MinSize=0)
        try:
            yield
        finally:
            scaling.delete_warm_pool(AutoScalingGroupName=name, ForceDelete=True)

    @contextmanager
    def protected(self, name: str, instance: str) -> Iterator[None]:
        scaling = self.operator.rolls.autoscaling
        ids = [instance]
        scaling.set_instance_protection(AutoScalingGroupName=name, InstanceIds=ids, ProtectedFromScaleIn=True)
        try:
            yield
        finally:
            scaling.set_instance_protection(AutoScalingGroupName=name, InstanceIds=ids, ProtectedFromScaleIn=False)

    @contextmanager
    def small_subnet(self, name: str, free: int) -> Iterator[None]:
        """The group in a subnet of its zone that has so many free addresses."""
        ec2 = self.operator.rolls.ec2
        groups = self.operator.rolls.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        (usual,) = groups["AutoScalingGroups"][0]["VPCZoneIdentifier"].split(",")
        (at,) = ec2.describe_subnets(SubnetIds=[usual])["Subnets"]
        made = ec2.create_subnet(VpcId=at["VpcId"], CidrBlock="10.0.250.0/28", AvailabilityZone=at["AvailabilityZone"])
        subnet = made["Subnet"]["SubnetId"]
        taken = [
            ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
            for _ in range(11 - free)
        ]
        try:
            with self.group(name, VPCZoneIdentifier=subnet):
                yield
        finally:
            for interface in taken:
                ec2.delete_network_interface(NetworkInterfaceId=interface)
            ec2.delete_subnet(SubnetId=subnet)

    def subnet_in(self, zone: str) -> str:
        filters: Any = [{"Name": "availability-zone", "Values": [zone]}, {"Name": "cidr-block", "Values": ["10.0.*"]}]
        found = self.operator.rolls.ec2.describe_subnets(Filters=filters)["Subnets"]
        return min(found, key=lambda s: s["CidrBlock"])["SubnetId"]


def _ready_beside(nodes: list[Json], known: set[str]) -> Json | None:
    """A node that is Ready and not known."""
    for node in nodes:
        conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", ())}
        if node["metadata"]["name"] not in known and conditions.get("Ready") == "True":
            return node
    return None


Seed = Callable[[Ground], AbstractContextManager[Any]]
