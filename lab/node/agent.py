"""The node agent: every node of the lab, and what a cloud would do for them.

python -m lab.node.agent LAB
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from lab.background import in_background
from lab.controlplane.identities import NODE_AGENT
from lab.instances import Instance, follow_instances, is_up, node_name
from lab.kube import ConflictError, Json, Kube, NotFoundError
from lab.network.netns import ZoneAddresses
from lab.node.events import Recorder
from lab.node.insist import insist
from lab.node.kubelet import kubelet_access
from lab.node.kubelet_api import serve_kubelet_api
from lab.node.node import instance_id
from lab.node.pod import PodRunner, Services
from lab.node.storage import Storage
from lab.node.worker_node import WorkerNode
from lab.paths import LabPaths
from lab.spec import LabSpec

_log = logging.getLogger(__name__)


class NodeAgent:
    """All nodes of one lab."""

    def __init__(self, paths: LabPaths, spec: LabSpec, kube: Kube) -> None:
        self._spec = spec
        self._kube = kube
        self._events = Recorder(kube)
        self._storage = Storage(kube, paths.volumes, spec.delays, self._zone_of_node, self._events)
        self._addresses = [ZoneAddresses(index) for index in range(len(spec.zones))]
        self._paths = paths
        self._version = ""
        self._nodes: dict[str, WorkerNode] = {}
        """By node name."""
        self._ending: dict[str, asyncio.Task[None]] = {}
        """By node name; the latest of each name."""
        self._removing: dict[str, asyncio.Task[None]] = {}
        self._bound: dict[str, Json] = {}
        """Every pod that is bound to a node, by UID."""
        self._known_nodes: dict[str, Json] = {}
        self._instances: dict[str, Instance] | None = None
        """By id; None until the AWS server has told them."""

    async def run(self) -> None:
        """Runs for ever; cancelled, it ends every process of every pod."""
        self._paths.network_namespaces.mkdir(parents=True, exist_ok=True)
        self._version = await insist(self._server_version)
        await insist(self._storage.set_up)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._events.run())
                tasks.create_task(self._storage.run())
                tasks.create_task(self._follow_instances())
                tasks.create_task(self._follow_nodes())
                tasks.create_task(self._follow_pods())
                tasks.create_task(serve_kubelet_api(self._paths, self._find_pod))
        finally:
            for node in self._nodes.values():
                node.kill()
            await asyncio.gather(*(node.end() for node in self._nodes.values()))

    async def _server_version(self) -> str:
        """The kubelets are as new as the API server, but for those of images that the spec names."""
        version: str = (await self._kube.get("/version"))["gitVersion"]
        return version

    async def _follow_instances(self) -> None:
        async with aiohttp.ClientSession() as session:
            async for instances in follow_instances(session):
                self._instances = {instance.id: instance for instance in instances}
                running = {i.id for i in instances if i.is_running and i.kubelet != "absent"}
                silent = {i.id for i in instances if i.kubelet == "stopped"}
                up = {i.id for i in instances if is_up(i, self._spec)}
                self._lose([node for node in self._nodes.values() if node.instance.id not in up])
                for node in self._nodes.values():
                    if node.instance.id not in running:
                        node.shut_down(self._spec.shutdown_grace(node.instance.group))
                    node.silent = node.instance.id in silent
                present = {node.instance.id for node in self._nodes.values()}
                for identity in running - present:
                    await self._launch(self._instances[identity])
                self._remove_orphans()

    async def _launch(self, instance: Instance) -> None:
        name = node_name(instance.private_ip, self._spec.region)
        kubelet = Kube(kubelet_access(self._paths, name))
        await kubelet.open()
        node = WorkerNode(
            instance,
            self._spec,
            Services(kubelet, Recorder(kubelet), self._paths, self._spec.region, self._spec.restart_backoff),
            self._kube,
            self._storage.for_node(name, kubelet),
            self._addresses[self._spec.zone_index(instance.zone)],
        )
        _log.info("instance %s runs: node %s", instance.id, node.name)
        self._nodes[node.name] = node
        version = self._spec.kubelets.get(instance.image_id, self._version)
        node.start(version, after=self._ending.pop(node.name, None))
        for pod in self._bound.values():
            if pod["spec"]["nodeName"] == node.name:
                node.see_pod(pod)

    def _lose(self, nodes: Sequence[WorkerNode]) -> None:
        for node in nodes:
            _log.info("instance %s is gone: node %s", node.instance.id, node.name)
            node.kill()
            del self._nodes[node.name]
        for node in nodes:
            self._ending[node.name] = in_background(node.end(), f"the end of {node.name}")

    def _remove_orphans(self) -> None:
        """Has Nodes removed whose instance is no more: the cloud's node lifecycle controller."""
        if self._instances is None:
            return
        for name, node in self._known_nodes.items():
            identity = instance_id(node)
            instance = self._instances.get(identity or "")
            if identity and (instance is None or instance.state == "terminated") and name not in self._removing:
                self._removing[name] = in_background(self._remove_node(node), f"removal of {name}")

    async def _remove_node(self, node: Json) -> None:
        name = node["metadata"]["name"]
        options = {"preconditions": {"uid": node["metadata"]["uid"]}}
        try:
            await asyncio.sleep(self._spec.delays.node_removal)
            with contextlib.suppress(NotFoundError, ConflictError):
                await insist(
                    lambda: self._kube.delete(f"/api/v1/nodes/{name}", options), unless=(NotFoundError, ConflictError)
                )
        finally:
            del self._removing[name]

    async def _follow_nodes(self) -> None:
        async for event in self._kube.watch("/api/v1/nodes"):
            if event.type == "SYNCED":
                continue
            name = event.object["metadata"]["name"]
            if event.type == "DELETED":
                self._known_nodes.pop(name, None)
                continue
            self._known_nodes[name] = event.object
            self._remove_orphans()
            if name in self._nodes:
                self._nodes[name].see_node(event.object)

    async def _follow_pods(self) -> None:
        async for event in self._kube.watch("/api/v1/pods", fieldSelector="spec.nodeName!="):
            if event.type == "SYNCED":
                continue
            pod = event.object
            node = self._nodes.get(pod["spec"]["nodeName"])
            if event.type == "DELETED":
                self._bound.pop(pod["metadata"]["uid"], None)
                if node is not None:
                    node.forget_pod(pod)
                continue
            self._bound[pod["metadata"]["uid"]] = pod
            if node is not None:
                node.see_pod(pod)

    def _find_pod(self, namespace: str, name: str) -> PodRunner | None:
        found = (node.find_pod(namespace, name) for node in self._nodes.values())
        return next((runner for runner in found if runner is not None), None)

    def _zone_of_node(self, name: str) -> str | None:
        node = self._nodes.get(name)
        return node.instance.zone if node else None


async def run(paths: LabPaths) -> None:
    """The nodes of the lab, until SIGTERM."""
    spec = LabSpec.load(paths.spec)
    async with Kube.from_kubeconfig(paths.kubeconfig_of(NODE_AGENT)) as kube:
        agent = asyncio.create_task(NodeAgent(paths, spec, kube).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await agent


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if sys.version_info < (3, 12):
        # A thread per process is what 3.11 waits with otherwise.
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(run(LabPaths(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
