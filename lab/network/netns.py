"""A network namespace per pod, joined to its zone's bridge."""

import asyncio
import ctypes
import itertools
import os
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

from lab.addresses import pod_network, zone_bridge, zone_gateway

_MNT_DETACH = 2


class NetworkError(Exception):
    """A namespace or link could not be made; the message is what `ip` said."""


class ZoneAddresses:
    """Hands out a zone's pod addresses in turn, so that one is free for long before it comes again: what still holds
    an old address finds nobody there, as with a VPC's cool-down."""

    def __init__(self, zone_index: int) -> None:
        self._network = IPv4Network(pod_network(zone_index))
        self._in_use: set[str] = set()
        self._next = self._endless()

    def take(self) -> str:
        """A free address. Raises NetworkError when the zone has none left."""
        if len(self._in_use) >= self._network.num_addresses - 3:
            raise NetworkError(f"no free address in {self._network}")
        address = next(candidate for candidate in self._next if candidate not in self._in_use)
        self._in_use.add(address)
        return address

    def give_back(self, address: str) -> None:
        self._in_use.discard(address)

    def _endless(self) -> Iterator[str]:
        first, last = int(self._network.network_address) + 2, int(self._network.broadcast_address) - 1
        for number in itertools.cycle(range(first, last + 1)):
            yield str(self._network.network_address + (number - int(self._network.network_address)))


class NetworkNamespace:
    """One pod's network: eth0 with its address, every packet through the lab's namespace, as in a VPC."""

    _numbers = itertools.count(1)

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    async def create(cls, directory: Path, zone_index: int, address: str) -> "NetworkNamespace":
        """A namespace kept by a mount on a file in `directory`, which must be the caller's own mount namespace.

        Raises NetworkError.
        """
        number = next(cls._numbers)
        link = f"pod{number}"
        path = directory / link
        path.touch()
        gateway = zone_gateway(zone_index)
        inside = (
            f"link set lo up\n"
            f"link add eth0 type veth peer name {link} netns {os.getpid()}\n"
            f"addr add {address}/32 dev eth0\n"
            f"link set eth0 up\n"
            f"route add {gateway} dev eth0\n"
            f"route add default via {gateway}\n"
        )
        try:
            # The peer goes up first: eth0 has no carrier, hence no routes, before.
            await _run("unshare", f"--net={path}", "ip", "-batch", "-", standard_input=inside)
            await _run("ip", "link", "set", link, "master", zone_bridge(zone_index), "up")
        except NetworkError:
            cls(path).remove()
            raise
        return cls(path)

    def remove(self) -> None:
        """Lets go of the namespace: it ends with its last process."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.umount2(str(self.path).encode(), _MNT_DETACH)
        self.path.unlink(missing_ok=True)


async def add_host_address(address: str) -> None:
    """Gives the lab's own namespace an instance's address; already there is fine. Raises NetworkError."""
    await _run("ip", "addr", "replace", f"{address}/32", "dev", "lo")


async def remove_host_address(address: str) -> None:
    """Raises NetworkError where it was not there."""
    await _run("ip", "addr", "del", f"{address}/32", "dev", "lo")


async def _run(*command: str, standard_input: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate(standard_input.encode())
    if process.returncode:
        raise NetworkError(f"{' '.join(command)}: {said.decode(errors='replace').strip()}")
