"""One worker node: from its instance's start to its end, with the pods on it."""

import asyncio
import contextlib
import logging

from lab.background import in_background
from lab.instances import Instance, node_name
from lab.kube import ConflictError, Json, Kube, KubeError, NotFoundError, UnreachableError
from lab.network.netns import NetworkError, ZoneAddresses, add_host_address, remove_host_address
from lab.node import times
from lab.node.insist import insist
from lab.node.node import UNINITIALIZED_TAINT, capacity, csi_node, is_ready, node_conditions, node_object
from lab.node.pod import PodRunner, Services
from lab.node.status import is_ended
from lab.node.storage import NodeStorage
from lab.spec import LabSpec

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_CLOUD_CONTROLLER_SECONDS = 0.3


class WorkerNode:
    """The kubelet of one instance, and what the cloud's node controller does for it."""

    def __init__(
        self,
        instance: Instance,
        spec: LabSpec,
        services: Services,
        cloud: Kube,
        storage: NodeStorage,
        addresses: ZoneAddresses,
    ) -> None:
        """`services` are the kubelet's, with its own identity; `cloud` is the API server as the cloud's controller."""
        self.instance = instance
        self.name = node_name(instance.private_ip, spec.region)
        self.address = instance.private_ip
        self.zone_index = spec.zone_index(instance.zone)
        self.allocatable = capacity(spec)
        self._spec = spec
        self._services = services
        self._cloud = cloud
        self._storage = storage
        self._addresses = addresses
        self._pods: dict[str, tuple[PodRunner, asyncio.Task[None]]] = {}
        self._ended: set[str] = set()
        """Pods whose run is over. Their ids never come back, and a lab's life is short: none is taken out again."""
        self.silent = False
        """Its kubelet has stopped: it hears nothing and says nothing, and what it runs goes on."""
        self._ready = False
        self._shutting_down = False
        self._posting: asyncio.Task[None] | None = None
        self._registering: asyncio.Task[None] | None = None
        self._reasserting: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._contradictions = 0
        """How often the API server has said of the ready node that it is not."""

    def start(self, version: str, after: asyncio.Task[None] | None = None) -> None:
        """Begins to register the node and to get it Ready; `version` is the kubelet's, `after` the end of the node
        that had this address before."""
        self._posting = in_background(self._services.events.run(), f"{self.name}'s events")
        self._registering = in_background(self._start(version, after), f"{self.name}'s registration")

    async def _start(self, version: str, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait([after])
        await insist(lambda: add_host_address(self.address))
        node = await insist(lambda: self._register(version))
        await insist(lambda: self._register_driver(node))
        await asyncio.sleep(self._spec.delays.node_ready)
        await insist(self._report_ready)
        self._ready = True
        await asyncio.sleep(_CLOUD_CONTROLLER_SECONDS)
        await insist(self._initialize)

    def see_node(self, node: Json) -> None:
        """Takes in what the API server says of the node: if that isn't Ready, it is told better."""
        if not self._ready or is_ready(node):
            return
        self._contradictions += 1
        if self._reasserting is None or self._reasserting.done():
            self._reasserting = in_background(self._reassert(), f"{self.name}'s readiness")

    def see_pod(self, pod: Json) -> None:
        """Takes in a pod that is bound to this node: new, or a new version of it."""
        if self.silent:
            return
        uid = pod["metadata"]["uid"]
        if uid in self._pods:
            self._pods[uid][0].update(pod)
            return
        if self._shutting_down:
            return
        if uid in self._ended or (is_ended(pod) and not pod["metadata"].get("deletionTimestamp")):
            # News of a pod may still be on the way when its run is over: to run it again would take its volume.
            return
        runner = PodRunner(pod, self, self._services, self._storage, self._addresses)
        task = in_background(runner.run(), f"pod {runner.key}")
        task.add_done_callback(lambda _: self._end_pod(uid))
        self._pods[uid] = (runner, task)

    def _end_pod(self, uid: str) -> None:
        del self._pods[uid]
        self._ended.add(uid)

    def forget_pod(self, pod: Json) -> None:
        """Takes in that the API server has forgotten a pod."""
        if pod["metadata"]["uid"] in self._pods and not self.silent:
            self._pods[pod["metadata"]["uid"]][0].remove(pod)

    def find_pod(self, namespace: str, name: str) -> PodRunner | None:
        """The pod of that name on this node; the newest, if a former one is still ending."""
        found = [runner for runner, _ in self._pods.values() if runner.key == f"{namespace}/{name}"]
        return found[-1] if found else None

    def shut_down(self, seconds: float) -> None:
        """The instance shuts down, and its kubelet ends the pods first (shutdownGracePeriod): the node is not Ready any
        more, takes no new pods, and those that it has get so long at most. Once is enough."""
        if self._shutting_down:
            return
        self._shutting_down, self._ready = True, False
        self._leaving = in_background(insist(self._report_shutdown), f"{self.name}'s shutdown")
        for runner, _ in self._pods.values():
            runner.shut_down(seconds)

    def kill(self) -> None:
        """The instance is gone: so is everything that ran on it, at once."""
        self._ready = False
        for runner, task in self._pods.values():
            runner.kill()
            task.cancel()
        for work in (self._posting, self._registering, self._reasserting, self._leaving):
            if work is not None:
                work.cancel()

    async def end(self) -> None:
        """Gives back what the node held, after `kill`."""
        with contextlib.suppress(NetworkError):
            await remove_host_address(self.address)
        await asyncio.gather(*(task for _, task in self._pods.values()), return_exceptions=True)
        await self._services.kube.close()

    async def _register(self, version: str) -> Json:
        wanted = node_object(self.instance, self._spec, version, times.now())
        try:
            return await self._services.kube.create("/api/v1/nodes", wanted)
        except ConflictError:
            found = await self._services.kube.get(f"/api/v1/nodes/{self.name}")
        if found["spec"].get("providerID") == wanted["spec"]["providerID"]:
            return found
        # The former holder of this address: the cloud's controller removes its object before the new one's can come.
        with contextlib.suppress(NotFoundError):
            await self._cloud.delete(f"/api/v1/nodes/{self.name}")
        return await self._services.kube.create("/api/v1/nodes", wanted)

    async def _register_driver(self, node: Json) -> None:
        path = "/apis/storage.k8s.io/v1/csinodes"
        wanted = csi_node(self.instance, node)
        try:
            await self._services.kube.create(path, wanted)
        except ConflictError:
            found = await self._services.kube.get(f"{path}/{self.name}")
            if found["metadata"].get("ownerReferences") == wanted["metadata"]["ownerReferences"]:
                return
            # It would go with the former holder of this name.
            await self._services.kube.delete(f"{path}/{self.name}")
            await self._services.kube.create(path, wanted)

    async def _report_ready(self) -> None:
        conditions = node_conditions(ready=True, now=times.now())
        path = f"/api/v1/nodes/{self.name}/status"
        await self._services.kube.patch(path, {"status": {"conditions": conditions}}, kind="strategic")

    async def _report_shutdown(self) -> None:
        conditions = node_conditions(ready=False, now=times.now(), why="node is shutting down")
        path = f"/api/v1/nodes/{self.name}/status"
        await self._services.kube.patch(path, {"status": {"conditions": conditions}}, kind="strategic")

    async def _initialize(self) -> None:
        """What the cloud's node controller does once it has found the node's instance: lifts the startup taint."""
        path = f"/api/v1/nodes/{self.name}"
        node = await self._cloud.get(path)
        taints = [taint for taint in node["spec"].get("taints", ()) if taint["key"] != UNINITIALIZED_TAINT]
        version = node["metadata"]["resourceVersion"]
        await self._cloud.patch(path, {"metadata": {"resourceVersion": version}, "spec": {"taints": taints}})

    async def _reassert(self) -> None:
        """Says Ready again, as soon as the heartbeats are back without which it would not be true.

        Nobody says it twice, so what contradicts while it is being said is answered, too.
        """
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"
        while True:
            try:
                answered = self._contradictions
                lease = await self._services.kube.get(path)
                age = times.now() - times.parse(lease["spec"]["renewTime"])
                if age.total_seconds() < 1.5 * self._spec.heartbeat_seconds:
                    await self._report_ready()
                    if self._contradictions == answered:
                        return
            except NotFoundError:
                return
            except (KubeError, UnreachableError) as error:
                _log.warning("%s: %s", self.name, error)
            await asyncio.sleep(_RETRY_SECONDS)
