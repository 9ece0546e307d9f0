"""The EBS CSI driver: provisions volumes, attaches and detaches them with EBS's delays and rules.

A volume is a directory below its zone's. It belongs to one node at a time, to none of another zone, and outlives
pods and nodes.
"""

import asyncio
import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from lab.background import in_background
from lab.kube import ConflictError, Items, Json, Kube, KubeError, NotFoundError, UnreachableError
from lab.node.events import Recorder
from lab.node.volumes import PublishedVolume, VolumeError
from lab.spec import Delays
from lab.waiting import Changes

_log = logging.getLogger(__name__)
DRIVER = "ebs.csi.aws.com"
ZONE_LABEL = "topology.kubernetes.io/zone"
_PROVISIONER_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
_ATTACHER_FINALIZER = "external-attacher/ebs-csi-aws-com"
_PUBLISH_SECONDS = 30.0
_RETRY_SECONDS = 1.0


def storage_objects() -> list[tuple[str, Json]]:
    """The driver and its storage class, with the paths to create them at."""
    return [
        ("/apis/storage.k8s.io/v1/csidrivers", {
            "metadata": {"name": DRIVER},
            "spec": {"attachRequired": True, "podInfoOnMount": False, "fsGroupPolicy": "File"},
        }),
        ("/apis/storage.k8s.io/v1/storageclasses", {
            "metadata": {"name": "gp3", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": DRIVER,
            "parameters": {"type": "gp3"},
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        }),
    ]  # fmt: skip


def wants_volume(claim: Json) -> str | None:
    """The node whose zone a claim's new volume belongs to, or None if the driver has nothing to do for it."""
    annotations = claim["metadata"].get("annotations", {})
    ours = annotations.get("volume.kubernetes.io/storage-provisioner") == DRIVER
    if not ours or claim["spec"].get("volumeName") or claim["metadata"].get("deletionTimestamp"):
        return None
    node: str | None = annotations.get("volume.kubernetes.io/selected-node")
    return node


def new_volume(claim: Json, zone: str, reclaim_policy: str) -> Json:
    """The PersistentVolume for a claim, in a zone."""
    metadata = claim["metadata"]
    uid: str = metadata["uid"]
    requirement = {"key": ZONE_LABEL, "operator": "In", "values": [zone]}
    return {
        "metadata": {
            "name": f"pvc-{uid}",
            "annotations": {"pv.kubernetes.io/provisioned-by": DRIVER},
            "finalizers": [_PROVISIONER_FINALIZER],
        },
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "storageClassName": claim["spec"]["storageClassName"],
            "persistentVolumeReclaimPolicy": reclaim_policy,
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"], "name": metadata["name"], "uid": uid,
            },
            "csi": {"driver": DRIVER, "volumeHandle": f"vol-0{uid.replace('-', '')[:16]}", "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}},
        },
    }  # fmt: skip


def zone_of_volume(volume: Json) -> str | None:
    """The zone that a PersistentVolume's node affinity names."""
    terms = volume["spec"].get("nodeAffinity", {}).get("required", {}).get("nodeSelectorTerms", ())
    for expression in (e for term in terms for e in term.get("matchExpressions", ())):
        if expression["key"] in (ZONE_LABEL, f"topology.{DRIVER}/zone"):
            return str(expression["values"][0])
    return None


def refusal(attachment: Json, others: Items, volume_zone: str | None, node_zone: str | None) -> str | None:
    """Why EBS would not attach the volume, or None. `others`: every attachment of the same volume."""
    node = attachment["spec"]["nodeName"]
    for other in others:
        elsewhere = other["spec"]["nodeName"]
        if elsewhere != node and other.get("status", {}).get("attached"):
            return f"Multi-Attach error: the volume is already attached to node {elsewhere}"
    if node_zone is None:
        return f"there is no instance of node {node}"
    if volume_zone != node_zone:
        return f"the volume is in {volume_zone}, node {node} in {node_zone}"
    return None


class Storage:
    """The driver's controller and what its node side needs to know."""

    def __init__(
        self, kube: Kube, directory: Path, delays: Delays, zone_of_node: Callable[[str], str | None], events: Recorder
    ) -> None:
        self._kube = kube
        self._directory = directory
        self._delays = delays
        self._zone_of_node = zone_of_node
        """None for a node that has no running instance."""
        self._events = events
        self._claims: dict[str, Json] = {}
        self._volumes: dict[str, Json] = {}
        self._attachments: dict[str, Json] = {}
        self._changes = Changes()
        self._in_use: Counter[tuple[str, str]] = Counter()
        self._busy: dict[str, asyncio.Task[None]] = {}

    async def set_up(self) -> None:
        """Creates the driver and its storage class, where they are not there yet."""
        for path, body in storage_objects():
            with contextlib.suppress(ConflictError):
                await self._kube.create(path, body)

    async def run(self) -> None:
        """Serves claims and attachments for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("/api/v1/persistentvolumeclaims", self._claims, self._see_claim))
            tasks.create_task(self._follow("/api/v1/persistentvolumes", self._volumes, self._see_volume))
            tasks.create_task(
                self._follow("/apis/storage.k8s.io/v1/volumeattachments", self._attachments, self._see_attachment)
            )

    def for_node(self, node: str, kubelet: Kube) -> "NodeStorage":
        """The driver's node side on one node, whose kubelet says what is in use there."""
        return NodeStorage(self, node, kubelet)

    # What the node side asks

    async def publish(self, node: str, kubelet: Kube, namespace: str, claim: str) -> PublishedVolume:
        """Waits until the claim's volume is attached to the node. Raises VolumeError."""
        try:
            async with asyncio.timeout(_PUBLISH_SECONDS):
                await self._changes.until(lambda: self._volume_of(namespace, claim) is not None)
                volume = self._volume_of(namespace, claim)
                if volume is None or "csi" not in volume["spec"]:
                    raise VolumeError(f'claim "{claim}" is not bound to an EBS volume')
                handle: str = volume["spec"]["csi"]["volumeHandle"]
                self._in_use[node, handle] += 1
                try:
                    await self._report_in_use(node, kubelet)
                    await self._changes.until(lambda: self._is_attached(node, volume["metadata"]["name"]))
                except BaseException:
                    self._in_use[node, handle] -= 1
                    raise
        except TimeoutError as error:
            raise VolumeError(f'timed out waiting for the volume of claim "{claim}" to be attached') from error
        except (KubeError, UnreachableError) as error:
            raise VolumeError(str(error)) from error
        place = self._place(volume)
        place.mkdir(parents=True, exist_ok=True)
        return PublishedVolume(handle, place)

    async def unpublish(self, node: str, kubelet: Kube, handle: str) -> None:
        """Says that one pod of the node uses a volume no more."""
        self._in_use[node, handle] -= 1
        self._changes.tell()
        try:
            await self._report_in_use(node, kubelet)
        except NotFoundError:
            return  # the node is gone, and its report with it
        except (KubeError, UnreachableError) as error:
            _log.warning("%s: volumes in use not reported: %s", node, error)

    async def _report_in_use(self, node: str, kubelet: Kube) -> None:
        """Tells the attach-detach controller which volumes it must not take away."""
        handles = sorted(handle for (where, handle), count in self._in_use.items() if where == node and count)
        names = [f"kubernetes.io/csi/{DRIVER}^{handle}" for handle in handles]
        await kubelet.patch(f"/api/v1/nodes/{node}/status", {"status": {"volumesInUse": names}})

    def _volume_of(self, namespace: str, claim: str) -> Json | None:
        found = self._claims.get(f"{namespace}/{claim}")
        if found is None or found.get("status", {}).get("phase") != "Bound":
            return None
        return self._volumes.get(found["spec"].get("volumeName", ""))

    def _is_attached(self, node: str, volume: str) -> bool:
        return any(
            a["spec"]["nodeName"] == node and a.get("status", {}).get("attached")
            and not a["metadata"].get("deletionTimestamp")
            for a in self._attachments_of(volume)
        )  # fmt: skip

    def _attachments_of(self, volume: str) -> Items:
        return [a for a in self._attachments.values() if a["spec"]["source"].get("persistentVolumeName") == volume]

    def _place(self, volume: Json) -> Path:
        return self._directory / (zone_of_volume(volume) or "any") / str(volume["spec"]["csi"]["volumeHandle"])

    # The controller

    async def _follow(self, path: str, known: dict[str, Json], see: Callable[[Json], None]) -> None:
        async for event in self._kube.watch(path):
            if event.type == "SYNCED":
                continue
            metadata = event.object["metadata"]
            name = f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else metadata["name"]
            if event.type == "DELETED":
                known.pop(name, None)
            else:
                known[name] = event.object
                see(event.object)
            self._changes.tell()

    def _see_claim(self, claim: Json) -> None:
        node = wants_volume(claim)
        if node is not None:
            self._once(claim, "provision", lambda: self._provision(claim, node))

    def _see_volume(self, volume: Json) -> None:
        spec = volume["spec"]
        ours = spec.get("csi", {}).get("driver") == DRIVER and _PROVISIONER_FINALIZER in volume["metadata"].get(
            "finalizers", ()
        )
        released = volume.get("status", {}).get("phase") == "Released"
        if ours and released and spec["persistentVolumeReclaimPolicy"] == "Delete":
            self._once(volume, "remove", lambda: self._remove(volume))

    def _see_attachment(self, attachment: Json) -> None:
        if attachment["spec"]["attacher"] != DRIVER:
            return
        if attachment["metadata"].get("deletionTimestamp"):
            self._once(attachment, "detach", lambda: self._detach(attachment))
        elif not attachment.get("status", {}).get("attached"):
            self._once(attachment, "attach", lambda: self._attach(attachment))

    def _once(self, about: Json, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does work on an object that is not already being done; tried again until it succeeds."""
        key = f"{what} {about['metadata']['uid']}"
        if key not in self._busy:
            self._busy[key] = in_background(self._insist(key, work), key)

    async def _insist(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            while True:
                try:
                    await work()
                except NotFoundError:
                    return
                except (KubeError, UnreachableError) as error:
                    _log.warning("%s: %s; again in %g s", key, error, _RETRY_SECONDS)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    return
        finally:
            del self._busy[key]

    async def _provision(self, claim: Json, node: str) -> None:
        zone = self._zone_of_node(node)
        if zone is None:
            # The scheduler chooses another node once it sees that the claim is not to be had on this one.
            self._events.warning(claim, "ProvisioningFailed", f"there is no instance of node {node}", host=node)
            await self._kube.patch(
                _path_of_claim(claim), {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": None}}}
            )
            return
        storage_class = await self._kube.get(
            f"/apis/storage.k8s.io/v1/storageclasses/{claim['spec']['storageClassName']}"
        )
        volume = new_volume(claim, zone, storage_class.get("reclaimPolicy", "Delete"))
        with contextlib.suppress(ConflictError):
            await self._kube.create("/api/v1/persistentvolumes", volume)

    async def _remove(self, volume: Json) -> None:
        name = volume["metadata"]["name"]
        await self._changes.until(lambda: not self._attachments_of(name))
        await asyncio.to_thread(shutil.rmtree, self._place(volume), ignore_errors=True)
        path = f"/api/v1/persistentvolumes/{name}"
        await self._kube.delete(path)
        metadata = (await self._kube.get(path))["metadata"]
        left = [finalizer for finalizer in metadata.get("finalizers", ()) if finalizer != _PROVISIONER_FINALIZER]
        version = metadata["resourceVersion"]
        await self._kube.patch(path, {"metadata": {"finalizers": left, "resourceVersion": version}})

    async def _attach(self, attachment: Json) -> None:
        name, node = attachment["metadata"]["name"], attachment["spec"]["nodeName"]
        path = f"/apis/storage.k8s.io/v1/volumeattachments/{name}"
        volume_name = attachment["spec"]["source"].get("persistentVolumeName", "")
        await self._changes.until(lambda: volume_name in self._volumes)
        volume = self._volumes[volume_name]
        await self._kube.patch(path, {"metadata": {"finalizers": [_ATTACHER_FINALIZER]}})
        said: str | None = None
        while why := refusal(
            attachment, self._attachments_of(volume_name), zone_of_volume(volume), self._zone_of_node(node)
        ):
            if why != said:
                status = {"attached": False, "attachError": {"message": why}}
                await self._kube.patch(f"{path}/status", {"status": status})
                said = why
            await asyncio.sleep(_RETRY_SECONDS)
            if self._is_leaving(name):
                return
        await asyncio.sleep(self._delays.volume_attach)
        if not self._is_leaving(name):
            await self._kube.patch(f"{path}/status", {"status": {"attached": True, "attachError": None}})

    def _is_leaving(self, attachment: str) -> bool:
        found = self._attachments.get(attachment)
        return found is None or bool(found["metadata"].get("deletionTimestamp"))

    async def _detach(self, attachment: Json) -> None:
        name, node = attachment["metadata"]["name"], attachment["spec"]["nodeName"]
        volume = self._volumes.get(attachment["spec"]["source"].get("persistentVolumeName", ""))
        if volume is not None:
            handle = volume["spec"]["csi"]["volumeHandle"]
            # Whatever the API server believes: under a running process a volume stays.
            await self._changes.until(lambda: not self._in_use[node, handle])
        if self._zone_of_node(node) is not None:
            await asyncio.sleep(self._delays.volume_detach)
        path = f"/apis/storage.k8s.io/v1/volumeattachments/{name}"
        await self._kube.patch(path, {"metadata": {"finalizers": None}})


class NodeStorage:
    """The driver's node side, as one node's pods see it."""

    def __init__(self, storage: Storage, node: str, kubelet: Kube) -> None:
        self._storage = storage
        self._node = node
        self._kubelet = kubelet

    async def publish(self, namespace: str, claim: str) -> PublishedVolume:
        return await self._storage.publish(self._node, self._kubelet, namespace, claim)

    async def unpublish(self, handle: str) -> None:
        await self._storage.unpublish(self._node, self._kubelet, handle)


def _path_of_claim(claim: Json) -> str:
    metadata = claim["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/persistentvolumeclaims/{metadata['name']}"
