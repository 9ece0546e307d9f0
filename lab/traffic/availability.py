"""How many pods of each workload were missing, at every moment, as the watch of the API server tells."""

import time
from dataclasses import dataclass, field

from lab.kube import Items, Json, Kube


@dataclass(slots=True)
class Availability:
    """Keeps up with a namespace's pods. Unavailable is what a disruption budget counts: wanted minus Ready ones that
    are not being deleted."""

    wanted: dict[str, int]
    most: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[float, str, int]] = field(default_factory=list)
    _pods: dict[str, Json] = field(default_factory=dict)

    @classmethod
    async def of(cls, kube: Kube, namespace: str) -> "Availability":
        """For every Deployment and StatefulSet that is in the namespace now, and every controller of a kind of its own,
        by its label `app`."""
        wanted: dict[str, int] = {}
        for kind in ("deployments", "statefulsets"):
            for item in await kube.list(f"/apis/apps/v1/namespaces/{namespace}/{kind}"):
                app = item["spec"]["selector"]["matchLabels"]["app"]
                wanted[app] = wanted.get(app, 0) + item["spec"]["replicas"]
        for pod in await kube.list(f"/api/v1/namespaces/{namespace}/pods"):
            if app := of_its_own_kind(pod):
                wanted[app] = wanted.get(app, 0) + 1
        return cls(wanted)

    async def follow(self, kube: Kube, namespace: str) -> None:
        """Until cancelled."""
        synced = False
        async for event in kube.watch(f"/api/v1/namespaces/{namespace}/pods"):
            if event.type == "SYNCED":
                synced = True
            elif event.type == "DELETED":
                self._pods.pop(event.object["metadata"]["uid"], None)
            else:
                self._pods[event.object["metadata"]["uid"]] = event.object
            if synced:
                self._count()

    def _count(self) -> None:
        ready = available(list(self._pods.values()))
        for app, wanted in self.wanted.items():
            missing = max(0, wanted - ready.get(app, 0))
            last = next((n for _, name, n in reversed(self.changes) if name == app), None)
            if missing != last:
                self.changes.append((time.time(), app, missing))
            self.most[app] = max(self.most.get(app, 0), missing)


def of_its_own_kind(pod: Json) -> str:
    """The label `app` of a pod whose controller is of a kind that Kubernetes itself does not have; "" of others."""
    owners = pod["metadata"].get("ownerReferences") or ()
    foreign = [o for o in owners if o.get("controller") and not o["apiVersion"].startswith(("apps/", "batch/", "v1"))]
    return str(pod["metadata"].get("labels", {}).get("app", "")) if foreign else ""


def available(pods: Items) -> dict[str, int]:
    """Ready pods that are not being deleted, per label `app`."""
    counts: dict[str, int] = {}
    for pod in pods:
        conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", ())}
        if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
            app = pod["metadata"].get("labels", {}).get("app", "")
            counts[app] = counts.get(app, 0) + 1
    return counts
