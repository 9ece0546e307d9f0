"""One test's share of a cluster: a namespace, nodes of its own, and short words for what tests do with them."""

import contextlib
import itertools
from typing import Any

from lab.kube import Items, Json, KubeError, NotFoundError
from tests.blocking_kube import BlockingKube
from tests.fake_kubelet import node, node_ready

POD_SPEC: Json = {
    "terminationGracePeriodSeconds": 1,
    "containers": [
        {"name": "main", "image": "lab/none", "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}}},
    ],
}


class Cluster:
    """Pods made here are confined to the nodes made here."""

    def __init__(self, kube: BlockingKube, name: str) -> None:
        self.kube = kube
        self.name = name
        self._nodes: list[str] = []
        self._marks = itertools.count()
        kube.create("/api/v1/namespaces", {"metadata": {"name": name}})
        kube.wait_for("the namespace's service account", f"/api/v1/namespaces/{name}/serviceaccounts",
                      lambda accounts: accounts or None)  # fmt: skip

    def discard(self) -> None:
        """Takes everything away, without waiting for it."""
        self.kube.delete(f"/api/v1/namespaces/{self.name}")
        for name in self._nodes:
            with contextlib.suppress(NotFoundError):
                self.kube.delete(f"/api/v1/nodes/{name}")

    # Nodes

    def add_node(
        self, zone: str = "a", *, pods: int = 29, annotations: dict[str, str] | None = None, instance: str = ""
    ) -> str:
        """A node that is Ready and that the scheduler gives pods to; returns its name."""
        registered = self.register_node(zone, pods=pods, annotations=annotations, instance=instance)
        name = str(registered["metadata"]["name"])
        self.kube.patch(f"/api/v1/nodes/{name}/status", node_ready(), kind="strategic")
        self.kube.wait_for(f"{name} without taints", "/api/v1/nodes",
                           lambda nodes: nodes if nodes and not taints(nodes[0]) else None,
                           fieldSelector=f"metadata.name={name}")  # fmt: skip
        self._let_the_scheduler_hear_of(name)
        return name

    def register_node(
        self, zone: str, *, pods: int = 29, annotations: dict[str, str] | None = None, instance: str = ""
    ) -> Json:
        """A node as it is at first, not Ready. `instance` is the id of the one that it says to be on."""
        name = f"{self.name}-{zone}{len(self._nodes)}"
        self._nodes.append(name)
        pool = {"tests/pool": self.name}
        body = node(name, zone, pods=pods, labels=pool, annotations=annotations or {}, instance=instance)
        return self.kube.create("/api/v1/nodes", body)

    def taint(self, name: str, effect: str, key: str = "eks-rolling") -> None:
        """Sets our taint, as a roll does, or another; effect "" takes it away. Returns once the scheduler knows."""
        wanted = [{"key": key, "effect": effect}] if effect else []
        self.kube.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": wanted}})
        self._let_the_scheduler_hear_of(name)

    def _let_the_scheduler_hear_of(self, name: str) -> None:
        """Until the scheduler knows the node as it is now.

        It watches nodes and pods apart, and may meet a new pod before an older change to a node. A pod that asks for
        a label only this change brings is bound once the change, and with it every earlier one to any node, is known.
        """
        mark = {"tests/mark": f"{self.name}-{next(self._marks)}"}
        self.kube.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": mark}})
        self.add_pod("scout", nodeSelector=mark, tolerations=[{"operator": "Exists"}])
        self.wait_for_pod("scout", "bound", is_bound)
        self.kube.delete(self.path("v1/pods/scout"), {"gracePeriodSeconds": 0})

    # Workloads

    def create(self, path: str, body: Json) -> Json:
        """`path` is below the namespace of its API group: "v1/pods", "apps/v1/deployments"."""
        return self.kube.create(self.path(path), body)

    def path(self, path: str) -> str:
        """The URL path of what `create` calls `path`, or of one object of it ("v1/pods/NAME")."""
        if path.startswith("v1/"):
            return f"/api/v1/namespaces/{self.name}/{path.removeprefix('v1/')}"
        group, version, rest = path.split("/", 2)
        return f"/apis/{group}/{version}/namespaces/{self.name}/{rest}"

    def add_pod(self, name: str, labels: dict[str, str] | None = None, *,
                annotations: dict[str, str] | None = None, **spec: Any) -> Json:  # fmt: skip
        """A bare pod; `spec` is merged over the usual one."""
        metadata = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
        return self.create("v1/pods", {"metadata": metadata, "spec": self._pod_spec(spec)})

    def add_deployment(self, name: str, replicas: int, *, ready: bool = True, **spec: Any) -> None:
        """Pods labelled app=`name`; returns once all are ready."""
        self.create("apps/v1/deployments", self.workload(name, replicas, spec))
        if ready:
            self.wait_for_ready(name, replicas)

    def add_stateful_set(self, name: str, replicas: int, *, claims: Items | None = None, **spec: Any) -> None:
        """Pods `name`-0, ... labelled app=`name`; returns once all are ready."""
        body = self.workload(name, replicas, spec)
        body["spec"] |= {"serviceName": name, "volumeClaimTemplates": claims or []}
        self.create("apps/v1/statefulsets", body)
        self.wait_for_ready(name, replicas)

    def add_budget(self, name: str, app: str, *, observed: bool = True, **rule: Any) -> None:
        """A PodDisruptionBudget for app=`app`; returns once the disruption controller has counted."""
        body = {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": app}}, **rule}}
        self.create("policy/v1/poddisruptionbudgets", body)
        if observed:
            self.wait_for_budget(name, lambda status: "observedGeneration" in status)

    def workload(self, name: str, replicas: int, spec: Json | None = None) -> Json:
        """The body of a Deployment, and most of a StatefulSet's."""
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": self._pod_spec(spec or {})}
        return {
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        }

    def _pod_spec(self, spec: Json) -> Json:
        return {"nodeSelector": {"tests/pool": self.name}, **POD_SPEC, **spec}

    # Looking and waiting

    def pods(self, app: str) -> Items:
        """Pods labelled app=`app` that are not being deleted, by name."""
        found = self.kube.list(self.path("v1/pods"), labelSelector=f"app={app}")
        return sorted((pod for pod in found if lives(pod)), key=lambda pod: str(pod["metadata"]["name"]))

    def pod(self, name: str) -> Json:
        return self.kube.get(self.path(f"v1/pods/{name}"))

    def wait_for_ready(self, app: str, count: int) -> Items:
        """Until so many pods labelled app=`app`, and no others, are there and ready."""

        def all_ready(pods: Items) -> Items | None:
            alive = [pod for pod in pods if lives(pod)]
            return alive if len(alive) == count and all(map(is_ready, alive)) else None

        return self.kube.wait_for(f"{count} pods of {app} ready", self.path("v1/pods"), all_ready,
                                  labelSelector=f"app={app}")  # fmt: skip

    def wait_for_pod(self, name: str, what: str, condition: Any, *, seconds: float = 15) -> Json:
        """Until the pod is there and `condition(pod)` holds."""
        return self.kube.wait_for(f"{name} {what}", self.path("v1/pods"),
                                  lambda pods: next((pod for pod in pods if condition(pod)), None),
                                  seconds=seconds, fieldSelector=f"metadata.name={name}")  # fmt: skip

    def wait_for_budget(self, name: str, condition: Any) -> Json:
        """Until `condition(status)` holds; returns the status."""
        budget = self.kube.wait_for(f"budget {name}", self.path("policy/v1/poddisruptionbudgets"),
                                    lambda found: next((one for one in found if condition(one["status"])), None),
                                    fieldSelector=f"metadata.name={name}")  # fmt: skip
        status: Json = budget["status"]
        return status

    # Evicting

    def evict(self, pod: str, **options: Any) -> Json:
        """Asks for an eviction with these DeleteOptions; raises KubeError."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.name},
            "deleteOptions": options,
        }
        return self.kube.create(self.path(f"v1/pods/{pod}/eviction"), body)

    def refusal(self, pod: str, **options: Any) -> KubeError:
        """The error that an eviction is answered with; an assertion error if it is granted."""
        try:
            self.evict(pod, **options)
        except KubeError as error:
            return error
        raise AssertionError(f"{pod} was evicted")


def taints(node: Json) -> Items:
    found: Items = node["spec"].get("taints", [])
    return found


def lives(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def is_bound(pod: Json) -> bool:
    return "nodeName" in pod["spec"]


def is_ready(pod: Json) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def condition(item: Json, kind: str) -> Json:
    """The condition of that type, or an empty one."""
    conditions: Items = item.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == kind), {})
