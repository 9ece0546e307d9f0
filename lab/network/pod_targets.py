"""Registers pods' addresses as targets, as the load balancer controller of a cluster does; without readiness gates."""

import asyncio
import contextlib
import logging

import aiohttp

from lab.addresses import AWS_URL
from lab.kube import Items, Kube
from lab.traffic.endpoint_slices import EndpointSlices

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


def ready_addresses(slices: Items) -> list[str]:
    """The addresses of endpoints that are Ready, which those that terminate are not."""
    return sorted(
        address
        for piece in slices
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint["addresses"]
    )


async def follow_pods(kube: Kube, target_group: str, service: str) -> None:
    """Keeps a target group at the ready pods of a Service (namespace/name), for ever."""
    namespace, _, name = service.partition("/")
    slices = EndpointSlices()
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        tasks.create_task(slices.follow(kube, namespace, name))
        told: list[str] | None = None
        while True:
            now = ready_addresses(slices.now)
            if now != told:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    await _tell(session, target_group, now)
                    told = now
            await asyncio.sleep(_LOOK_SECONDS)


async def _tell(session: aiohttp.ClientSession, target_group: str, addresses: list[str]) -> None:
    body = {"target_group": target_group, "addresses": addresses}
    async with session.post(f"{AWS_URL}/_lab/pod-targets", json=body, timeout=_TIMEOUT) as answer:
        answer.raise_for_status()
    _log.info("%s: %s", target_group, ", ".join(addresses) or "no pods")
