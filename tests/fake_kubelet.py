"""Nodes without machines: pods bound to them are said to run, so that the control plane can be watched alone."""

import asyncio
import contextlib
import datetime as dt
import itertools
from typing import Any

from lab.kube import ConflictError, InvalidError, Json, Kube, NotFoundError

START_SECONDS = 0.2
STOP_SECONDS = 0.1
MIRROR = "kubernetes.io/config.mirror"
"""A pod with this annotation was made by a kubelet, which tells of it itself."""

NOT_READY = "tests/not-ready"
"""A pod with this annotation runs, but never becomes ready."""


async def play_kubelet(kube: Kube) -> None:
    """Starts whatever is bound to any node, and finishes whatever is to be deleted, for ever."""
    addresses = (f"10.244.{high}.{low}" for high, low in itertools.product(range(64), range(2, 255)))
    begun: set[str] = set()
    async with asyncio.TaskGroup() as group:
        async for event in kube.watch("/api/v1/pods", fieldSelector="spec.nodeName!="):
            if event.type in ("SYNCED", "DELETED"):
                continue
            pod = event.object
            uid = pod["metadata"]["uid"]
            if pod["metadata"].get("deletionTimestamp"):
                if f"{uid} ends" not in begun:
                    begun.add(f"{uid} ends")
                    group.create_task(_finish(kube, pod))
            elif uid not in begun and MIRROR not in pod["metadata"].get("annotations", {}):
                begun.add(uid)
                group.create_task(_run(kube, pod, next(addresses)))


def node(
    name: str, zone: str, *, pods: int, labels: dict[str, str], annotations: dict[str, str], instance: str = ""
) -> Json:
    """A node as a kubelet registers it. Without `instance` it is on none that EC2 could have."""
    capacity = {"cpu": "4", "memory": "16Gi", "pods": str(pods)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, **labels},
            "annotations": annotations,
        },
        "spec": {"providerID": f"aws:///{zone}/{instance or f'i-{name}'}"},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def node_ready() -> Json:
    """The status patch of a node that is well."""
    return {"status": {"conditions": [_condition("Ready")]}}


async def _run(kube: Kube, pod: Json, address: str) -> None:
    await asyncio.sleep(START_SECONDS)
    ready = NOT_READY not in pod["metadata"].get("annotations", {})
    now = _now()
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": ready,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        for container in pod["spec"]["containers"]
    ]
    status: dict[str, Any] = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "containerStatuses": containers,
        "conditions": [_condition("Ready", ready=ready), _condition("ContainersReady", ready=ready)],
    }
    try:
        await kube.patch(f"{_path(pod)}/status", {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status},
                         kind="strategic")  # fmt: skip
    except (NotFoundError, ConflictError):
        pass
    except InvalidError as error:  # so a patch is refused that is meant for an earlier pod of that name
        if "metadata.uid" not in str(error):
            raise


async def _finish(kube: Kube, pod: Json) -> None:
    await asyncio.sleep(STOP_SECONDS)
    gone = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
    with contextlib.suppress(NotFoundError, ConflictError):
        await kube.delete(_path(pod), gone)


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _condition(kind: str, *, ready: bool = True) -> Json:
    return {"type": kind, "status": "True" if ready else "False", "lastTransitionTime": _now()}


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
