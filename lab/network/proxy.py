"""The service proxy's process: Service addresses, node ports, the load balancer, the cluster's DNS.

python -m lab.network.proxy LAB
"""

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

import aiohttp

from lab.controlplane.identities import SERVICE_PROXY
from lab.instances import follow_instances, is_up, node_name
from lab.kube import Kube
from lab.network.balancer import Balancer
from lab.network.dns import Dns
from lab.network.pod_targets import follow_pods
from lab.network.services import ServiceProxy
from lab.network.sources import prepare_namespace
from lab.paths import LabPaths
from lab.spec import LabSpec


async def serve(paths: LabPaths, spec: LabSpec) -> None:
    """Serves until cancelled."""
    balancer = Balancer(spec.delays.health_check_interval)
    async with Kube.from_kubeconfig(paths.kubeconfig_of(SERVICE_PROXY)) as kube, asyncio.TaskGroup() as tasks:
        services = ServiceProxy(kube)
        tasks.create_task(services.run())
        tasks.create_task(balancer.run())
        tasks.create_task(Dns(services.names).run())
        for group in spec.target_groups:
            if group.pods_of:
                tasks.create_task(follow_pods(kube, group.name, group.pods_of))
        tasks.create_task(_follow_instances(spec, services, balancer))


async def _follow_instances(spec: LabSpec, services: ServiceProxy, balancer: Balancer) -> None:
    async with aiohttp.ClientSession() as session:
        async for instances in follow_instances(session):
            running = [instance for instance in instances if is_up(instance, spec)]
            services.see_nodes({node_name(i.private_ip, spec.region): i.private_ip for i in running})
            balancer.see_instances({i.id: i.private_ip for i in running})


async def run(paths: LabPaths) -> None:
    """Serves until SIGTERM."""
    spec = LabSpec.load(paths.spec)
    prepare_namespace(len(spec.zones))
    serving = asyncio.create_task(serve(paths, spec))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(run(LabPaths(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
