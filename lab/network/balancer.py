"""The load balancer: listeners, target groups, health checks. Balances connections, as an NLB does."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from lab.addresses import AWS_URL, LAB_ADDRESS
from lab.background import in_background
from lab.network.listeners import Listeners
from lab.network.relay import Outgoing, Relay
from lab.network.routes import Listen
from lab.network.sources import Connector

_log = logging.getLogger(__name__)
TargetState = Literal["initial", "healthy", "unhealthy", "draining"]
_POLL_SECONDS = 0.3
_REPEAT_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_CHECK_SECONDS = 2.0
_THRESHOLD = 2
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n"
    b"Connection: close\r\n\r\nService Unavailable"
)


@dataclass(frozen=True)
class Backend:
    """One target and its port: `id` is an instance's, or a pod's address."""

    id: str
    port: int
    state: TargetState


@dataclass(frozen=True)
class TargetGroup:
    """What `GET /_lab/targets` says of one target group."""

    arn: str
    name: str
    protocol: str
    health_path: str | None
    health_port: int | None
    listener_ports: tuple[int, ...]
    targets: tuple[Backend, ...]


@dataclass
class Health:
    """What a target's checks have shown: its first check decides, afterwards two equal ones in a row do."""

    healthy: bool | None = None
    _streak: int = 0

    def note(self, success: bool) -> bool:
        """Counts one check. True if the verdict has changed by it."""
        self._streak = 0 if success == self.healthy else self._streak + 1
        if success == self.healthy or (self.healthy is not None and self._streak < _THRESHOLD):
            return False
        self.healthy, self._streak = success, 0
        return True


def group_from(record: dict[str, Any]) -> TargetGroup:
    """Reads one record of `GET /_lab/targets`."""
    return TargetGroup(
        arn=record["target_group"],
        name=record["name"],
        protocol=record["protocol"],
        health_path=record.get("health_path"),
        health_port=record.get("health_port"),
        listener_ports=tuple(record["listener_ports"]),
        targets=tuple(Backend(t["id"], t["port"], t["state"]) for t in record["targets"]),
    )


def candidates(targets: Sequence[Backend]) -> list[Backend]:
    """Those that new connections go to: the healthy ones, or where none is, all that are not leaving."""
    staying = [t for t in targets if t.state != "draining"]
    return [t for t in staying if t.state == "healthy"] or staying


class Balancer:
    """Follows target groups and instances, checks the targets' health, balances connections."""

    def __init__(self, check_seconds: float) -> None:
        self._check_seconds = check_seconds
        self._groups: dict[str, TargetGroup] = {}
        self._addresses: dict[str, str] = {}
        """Of running instances, by id."""
        self._turns: dict[str, itertools.count[int]] = {}
        self._health: dict[tuple[str, str, int], Health] = {}
        self._checks: dict[tuple[str, str, int], asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._relay = Relay()
        self._connector = Connector()
        self._listeners: Listeners[str] = Listeners(lambda listen: self._relay.protocol(lambda _: self._lead(listen)))

    def see_instances(self, addresses: dict[str, str]) -> None:
        """Takes in the addresses of all running instances. Connections to others break."""
        self._addresses = addresses
        self._break()

    async def run(self) -> None:
        """Serves for ever."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(session))
            tasks.create_task(self._report(session))

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        known: object = None
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{AWS_URL}/_lab/targets", timeout=_TIMEOUT) as answer:
                    answer.raise_for_status()
                    now = await answer.json()
                if now != known:
                    known = now
                    await self._see_groups([group_from(record) for record in now])
            await asyncio.sleep(_POLL_SECONDS)

    async def _see_groups(self, groups: list[TargetGroup]) -> None:
        self._groups = {group.arn: group for group in groups}
        self._break()
        checked = {
            (group.arn, target.id, target.port): group
            for group in groups
            for target in group.targets
            if target.state != "draining"
        }
        for gone in self._checks.keys() - checked.keys():
            self._checks.pop(gone).cancel()
            self._health.pop(gone, None)
        for key in checked.keys() - self._checks.keys():
            self._checks[key] = in_background(self._check(*key), f"health check of {key[1]}:{key[2]}")
        await self._listeners.follow({
            Listen(LAB_ADDRESS, port): group.arn for group in groups for port in group.listener_ports
        })  # fmt: skip

    def _break(self) -> None:
        """Ends connections to targets that are deregistered to the end, or whose instance is gone."""
        there = {
            _key(group.arn, target)
            for group in self._groups.values()
            for target in group.targets
            if self._address(target.id)
        }
        self._relay.abort(lambda key: key not in there)

    async def _lead(self, listen: Listen) -> Outgoing | bytes:
        group = self._groups.get(self._listeners.table.get(listen, ""))
        choices = candidates(group.targets) if group else []
        if group is None or not choices:
            return _UNAVAILABLE if group and group.protocol.startswith("HTTP") else b""
        turn = next(self._turns.setdefault(group.arn, itertools.count()))
        target = choices[turn % len(choices)]
        address = self._address(target.id)
        if address is None:
            raise ConnectionRefusedError(f"instance {target.id} does not run")
        async with asyncio.timeout(_CONNECT_SECONDS):
            connected = await self._connector.connect((address, target.port), LAB_ADDRESS)
        return Outgoing(connected, depends_on=_key(group.arn, target))

    def _address(self, target: str) -> str | None:
        """Where a target is: a pod's address is one, an instance has one while it runs."""
        return self._addresses.get(target) if target.startswith("i-") else target

    async def _check(self, arn: str, instance: str, port: int) -> None:
        """Checks one target's health for as long as it is registered."""
        health = self._health[arn, instance, port] = Health()
        while True:
            group = self._groups[arn]
            address = self._address(instance)
            success = address is not None and await _answers(address, group.health_port or port, group.health_path)
            if health.note(success):
                _log.info("%s: %s:%d is %s", group.name, instance, port, "healthy" if success else "unhealthy")
                self._news.set()
            await asyncio.sleep(self._check_seconds)

    async def _report(self, session: aiohttp.ClientSession) -> None:
        """Tells the AWS server every verdict, at once when one changes, and from time to time."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPEAT_SECONDS):
                    await self._news.wait()
            self._news.clear()
            verdicts = [
                {"target_group": arn, "id": instance, "port": port, "healthy": health.healthy}
                for (arn, instance, port), health in self._health.items()
                if health.healthy is not None
            ]
            try:
                async with session.post(f"{AWS_URL}/_lab/target-health", json=verdicts, timeout=_TIMEOUT) as answer:
                    answer.raise_for_status()
            except (aiohttp.ClientError, TimeoutError) as error:
                _log.warning("target health not reported: %s", error)
                await asyncio.sleep(_POLL_SECONDS)
                self._news.set()


def _key(arn: str, target: Backend) -> str:
    return f"{arn} {target.id}:{target.port}"


async def _answers(address: str, port: int, path: str | None) -> bool:
    """One health check: a TCP connection, or with a path an HTTP answer from 200 to 399."""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                if path is None:
                    return True
                host = f"{address}:{port}"
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                status = int((await reader.readline()).split(b" ", 2)[1])
                return 200 <= status < 400
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, IndexError):
        return False
