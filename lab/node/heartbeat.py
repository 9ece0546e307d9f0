"""The nodes' heartbeats: a lease per running instance, renewed in time whatever the node agent is busy with.

python -m lab.node.heartbeat LAB
"""

import asyncio
import logging
import sys
from pathlib import Path

import aiohttp

from lab.background import in_background
from lab.instances import follow_instances, node_name
from lab.kube import Json, Kube, KubeError, NotFoundError, UnreachableError
from lab.node import times
from lab.node.kubelet import kubelet_access
from lab.node.node import lease
from lab.paths import LabPaths
from lab.spec import LabSpec

_log = logging.getLogger(__name__)
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_LEASE_SECONDS = 40
_UNREGISTERED_SECONDS = 0.5


async def beat_as_kubelet(paths: LabPaths, name: str, seconds: float) -> None:
    """Renews one node's lease for ever, as its kubelet."""
    async with Kube(kubelet_access(paths, name)) as kube:
        await beat(kube, name, seconds)


async def beat(kube: Kube, name: str, seconds: float) -> None:
    """Renews one node's lease for ever, from the moment there is such a node."""
    renewal: Json = {}
    while True:
        try:
            if renewal:
                renewal["spec"]["renewTime"] = times.micros(times.now())
                await kube.patch(f"{_LEASES}/{name}", renewal)
                await asyncio.sleep(seconds)
                continue
            node = await kube.get(f"/api/v1/nodes/{name}")
            await kube.patch(
                f"{_LEASES}/{name}",
                lease(name, node, _LEASE_SECONDS, times.now()),
                kind="apply",
                fieldManager="kubelet",
                force=True,
            )
            renewal = {"spec": {"holderIdentity": name}}
        except NotFoundError:
            renewal = {}
            await asyncio.sleep(_UNREGISTERED_SECONDS)
        except (KubeError, UnreachableError) as error:
            _log.warning("%s: no heartbeat: %s", name, error)
            await asyncio.sleep(_UNREGISTERED_SECONDS)


async def run(paths: LabPaths) -> None:
    """Keeps the nodes of all running instances alive, for ever."""
    spec = LabSpec.load(paths.spec)
    beating: dict[str, asyncio.Task[None]] = {}
    async with aiohttp.ClientSession() as session:
        async for instances in follow_instances(session, poll_seconds=1.0):
            running = {node_name(i.private_ip, spec.region) for i in instances if i.is_running and not i.kubelet}
            for name in running - beating.keys():
                beating[name] = in_background(
                    beat_as_kubelet(paths, name, spec.heartbeat_seconds), f"{name}'s heartbeat"
                )
            for name in beating.keys() - running:
                beating.pop(name).cancel()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(run(LabPaths(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
