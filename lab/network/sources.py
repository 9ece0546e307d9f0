"""Outgoing connections that bear somebody else's address: what a proxy needs for endpoints to see their true clients.

A connection made for a pod is bound to the pod's address and to a port that pods do not use for connections of their
own. What comes back to such a port is taken from its way to the pod by a routing rule, and so reaches the proxy. All
packets of pods pass through the lab's namespace, which makes this possible without any packet filter.
"""

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import socket
import subprocess
from pathlib import Path

from lab.addresses import POD_CIDR, zone_bridge

# Above the kernel's own range for connections, which ends at 60999.
_PORTS = range(61000, 65535)
_TABLE = 100
_ATTEMPTS = 64
_PODS = ipaddress.ip_network(POD_CIDR)

# Linux's, not all of them known to Python's socket module.
_IP_FREEBIND = 15
_IP_TRANSPARENT = 19
_IP_BIND_ADDRESS_NO_PORT = 24


def prepare_namespace(zones: int) -> None:
    """Makes the routing rules. To be called once, as root of the lab's namespace. Raises OSError."""
    commands = [f"route replace local default dev lo table {_TABLE}"]
    for index in range(zones):
        ports = f"{_PORTS.start}-{_PORTS.stop - 1}"
        commands.append(f"rule add priority 100 iif {zone_bridge(index)} ipproto tcp dport {ports} lookup {_TABLE}")
    result = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(commands) + "\n", capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise OSError(f"the routing rules could not be made: {result.stderr.strip()}")
    interfaces = ["all", "default", *(zone_bridge(index) for index in range(zones))]
    for interface in interfaces:
        settings = Path("/proc/sys/net/ipv4/conf") / interface
        # A pod that is told of a shorter way would talk past the proxy.
        (settings / "send_redirects").write_text("0")
        (settings / "rp_filter").write_text("0")
    Path("/proc/sys/net/ipv4/tcp_tw_reuse").write_text("1")


def listening_socket(address: str, port: int) -> socket.socket:
    """A socket to listen with, also at an address that is not there yet. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind((address, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def is_pod(address: str) -> bool:
    return ipaddress.ip_address(address) in _PODS


class Connector:
    """Makes connections that come from a given address."""

    def __init__(self) -> None:
        self._ports = itertools.cycle(_PORTS)

    async def connect(self, target: tuple[str, int], source: str | None) -> socket.socket:
        """A connected socket; `source` may be a pod's address, one of the lab's own, or None. Raises OSError."""
        if source is None or source == target[0]:
            # To itself a pod can't seem to speak: its kernel would drop that.
            return await self._attempt(target, None, 0)
        if not is_pod(source):
            return await self._attempt(target, source, 0)
        if not is_pod(target[0]):
            # What the lab itself answers to a pod's address is on no way that a rule could take it from.
            return await self._attempt(target, None, 0)
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._attempt(target, source, next(self._ports))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                    raise
        return await self._attempt(target, source, next(self._ports))

    async def _attempt(self, target: tuple[str, int], source: str | None, port: int) -> socket.socket:
        outgoing = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            outgoing.setblocking(False)
            outgoing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source is not None:
                outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                option = _IP_TRANSPARENT if port else _IP_BIND_ADDRESS_NO_PORT
                outgoing.setsockopt(socket.IPPROTO_IP, option, 1)
                outgoing.bind((source, port))
            await asyncio.get_running_loop().sock_connect(outgoing, target)
        except BaseException:
            with contextlib.suppress(OSError):
                outgoing.close()
            raise
        return outgoing
