"""The instances that the AWS server says there are, as the lab's other processes see them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from typing import Any

import aiohttp

from lab.addresses import AWS_URL
from lab.spec import LabSpec

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.3
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


@dataclass(frozen=True)
class Instance:
    """One EC2 instance."""

    id: str
    state: str
    """pending, running, shutting-down or terminated."""
    group: str
    """Its Auto Scaling group's name."""
    zone: str
    type: str
    private_ip: str
    image_id: str
    launched: float
    """Seconds since the epoch."""
    kubelet: str = ""
    """What its tag `lab/kubelet` says: "stopped", it is silent from now on; "absent", it never joined."""

    @property
    def is_running(self) -> bool:
        return self.state == "running"


def is_up(instance: Instance, spec: LabSpec) -> bool:
    """Whether its operating system runs: of one that shuts down, where its kubelet ends pods first."""
    return instance.is_running or (instance.state == "shutting-down" and spec.shutdown_grace(instance.group) > 0)


def node_name(private_ip: str, region: str) -> str:
    """What an instance's Node is called: its private DNS name."""
    return f"ip-{private_ip.replace('.', '-')}.{region}.compute.internal"


def instance_from(record: dict[str, Any]) -> Instance:
    """Reads one record of `GET /_lab/instances`; what it has beyond the contract is ignored."""
    return Instance(**{field.name: record[field.name] for field in fields(Instance) if field.name in record})


async def follow_instances(
    session: aiohttp.ClientSession, poll_seconds: float = _POLL_SECONDS
) -> AsyncIterator[list[Instance]]:
    """Yields all instances at once, then whenever they have changed, for ever.

    While the AWS server does not answer, what it said last holds.
    """
    known: list[Instance] | None = None
    reachable = True
    while True:
        try:
            async with session.get(f"{AWS_URL}/_lab/instances", timeout=_TIMEOUT) as answer:
                answer.raise_for_status()
                now = [instance_from(record) for record in await answer.json()]
        except (aiohttp.ClientError, TimeoutError) as error:
            if reachable:
                _log.warning("the AWS server does not answer: %s", error)
            reachable = False
        else:
            reachable = True
            if now != known:
                known = now
                yield now
        await asyncio.sleep(poll_seconds)
