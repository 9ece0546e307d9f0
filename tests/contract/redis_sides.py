"""The two sides of the Redis contract: servers and sentinels in memory, and real processes with the real client."""

import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from eks_rolling.clients.protocols import Redis
from eks_rolling.observed.redis import Address, Endpoint, Login, Sentinel, Server
from lab.controlplane.pki import write_pki
from lab.paths import REPOSITORY, LabPaths
from tests.redis_client import ClosingClient
from tests.redis_world import DOWN_AFTER_SECONDS, FAILOVER_TIMEOUT_SECONDS, QUORUM, RedisWorld
from tests.waiting import patience
from tests.writes import Writes

NAME = "mymaster"
PASSWORD = "correct-horse"
LOGIN = Login("default", auth="redis-auth")
GIVE_UP_SECONDS = 25

T = TypeVar("T")
_numbers = itertools.count(1)


class Side(Protocol):
    """A group of one master, two replicas and three sentinels, which know each other."""

    redis: Redis
    servers: tuple[Endpoint, ...]
    """The first is the master."""
    sentinels: tuple[Endpoint, ...]

    def write(self, endpoint: Endpoint, times: int) -> None:
        """Writes that the server acknowledges."""
        ...

    def kill(self, endpoint: Endpoint) -> None:
        """SIGKILL to a server or sentinel."""
        ...

    def blocked(self, endpoint: Endpoint) -> bool:
        """Whether a write waits now."""
        ...

    def pass_time(self) -> None: ...

    def now(self) -> float: ...


class InMemory:
    """The world that whole rolls are tried on."""

    def __init__(self) -> None:
        self.world = RedisWorld(lambda _: None)
        self.redis: Redis = self.world
        self.servers = tuple(Endpoint(Address(f"10.0.0.{n}"), LOGIN, f"default/r-{n}") for n in range(3))
        self.sentinels = tuple(Endpoint(Address(f"10.0.1.{n}", 26379), LOGIN, f"default/s-{n}") for n in range(3))
        master = self.servers[0].address.host
        self.world.start_server(master)
        for server in self.servers[1:]:
            self.world.start_server(server.address.host, lambda: master)
        for sentinel in self.sentinels:
            self.world.start_sentinel(sentinel.address.host, master)

    def write(self, endpoint: Endpoint, times: int) -> None:
        server = self.world.servers[endpoint.address.host]
        server.data |= Writes.of(range(len(server.data), len(server.data) + times))

    def kill(self, endpoint: Endpoint) -> None:
        self.world.servers.pop(endpoint.address.host, None)
        self.world.sentinels.pop(endpoint.address.host, None)

    def blocked(self, endpoint: Endpoint) -> bool:
        return self.world.now < self.world.servers[endpoint.address.host].paused_until

    def pass_time(self) -> None:
        self.world.tick(self.world.now + 0.1)

    def now(self) -> float:
        return self.world.now


SENTINEL_PASSWORD = "battery-staple"


def granted() -> tuple[str, str, str]:
    """What deploy/README.md grants the roll's user: on servers, on sentinels, on nodes of a cluster."""
    lines = (REPOSITORY / "deploy" / "README.md").read_text().splitlines()
    server, sentinel, node = (line.partition(">PASSWORD ")[2] for line in lines if line.startswith("ACL SETUSER"))
    return server, sentinel, node


def bound_to(host: str, program: str) -> list[str]:
    """Configuration lines: listen on that address, and connect from it, by which servers know each other.

    Redis 6.2 connects from the first address of `bind`, and knows no line for it.
    """
    return [f"bind {host}", *([] if " v=6." in _version(program) else [f"bind-source-addr {host}"])]


@functools.cache
def _version(program: str) -> str:
    return subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout


class Processes:
    """redis-server and its sentinels, each on a loopback address of its own.

    `secured`: TLS only, with client certificates; the roll is an ACL user of its own; sentinels have a password.
    `network`: where the addresses are, with what separates it from the last part; "" for one of our own.
    """

    def __init__(self, program: str = "redis-server", *, secured: bool = False, network: str = "") -> None:
        number = os.getpid() % 250 * 200 + next(_numbers)
        net = self._network = network or f"127.{10 + number // 250 % 200}.{number % 250}."
        self._directory = Path(tempfile.mkdtemp(prefix="redis-side-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sent: list[subprocess.Popen[bytes]] = []
        self._program = program
        self.more_lines: list[str] = []
        """Configuration of every server that is started from now on."""
        self.services: dict[str, str] = {}
        """A server's address -> that of a Service of its pod alone, which it announces."""
        self.secured = secured
        self.login = replace(LOGIN, tls="redis-tls") if secured else LOGIN
        self.secrets = self._make_secrets()
        self.client = ClosingClient(lambda _namespace, name: self.secrets[name])
        self.redis: Redis = self.client
        self.servers = tuple(Endpoint(Address(f"{net}{n}"), self.login, f"default/r-{n}") for n in (1, 2, 3))
        self.sentinels = tuple(
            Endpoint(Address(f"{net}{n}", 26379), self.login, f"default/s-{n}") for n in (11, 12, 13)
        )

    def host(self, number: int) -> str:
        """Another address of the network."""
        return f"{self._network}{number}"

    def _make_secrets(self) -> dict[str, dict[str, str]]:
        if not self.secured:
            return {"redis-auth": {"password": PASSWORD}}
        paths = LabPaths(self._directory / "pki")
        write_pki(paths)
        client = paths.pki / "apiserver-kubelet-client"
        return {
            "redis-auth": {
                "username": "roll",
                "password": PASSWORD,
                "sentinel-username": "roll",
                "sentinel-password": SENTINEL_PASSWORD,
            },
            "redis-tls": {
                "ca.crt": (paths.pki / "ca.crt").read_text(),
                "tls.crt": client.with_suffix(".crt").read_text(),
                "tls.key": client.with_suffix(".key").read_text(),
            },
        }

    @property
    def client_options(self) -> dict[str, Any]:
        """How an application connects: as the default user."""
        if not self.secured:
            return {}
        pki = self._directory / "pki" / "pki"
        return {
            "ssl": True,
            "ssl_check_hostname": False,
            "ssl_ca_certs": str(pki / "ca.crt"),
            "ssl_certfile": str(pki / "apiserver-kubelet-client.crt"),
            "ssl_keyfile": str(pki / "apiserver-kubelet-client.key"),
        }

    def start(self) -> None:
        first = self.servers[0].address
        master = Address(self.services.get(first.host, first.host), first.port)
        for server in self.servers:
            follows = () if server.address == first else (f"replicaof {master.host} {master.port}",)
            self.start_server(server, *follows)
        for sentinel in self.sentinels:
            self.start_sentinel(sentinel, master)

    def start_server(self, endpoint: Endpoint, *lines: str) -> None:
        common = (
            'save ""',
            f"requirepass {PASSWORD}",
            f"masterauth {PASSWORD}",
            "repl-diskless-sync-delay 0",
            "repl-ping-replica-period 1",
            *((f"user roll on >{PASSWORD} resetchannels -@all {granted()[0]}",) if self.secured else ()),
        )
        host = endpoint.address.host
        announced = (
            (f"bind {host} {self.services[host]}", f"replica-announce-ip {self.services[host]}")
            if host in self.services
            else ()
        )
        self._run(endpoint, [*common, *announced, *self.more_lines, *lines])

    def start_sentinel(self, endpoint: Endpoint, master: Address, *lines: str) -> None:
        monitored = [
            f"sentinel monitor {NAME} {master.host} {master.port} {QUORUM}",
            f"sentinel auth-pass {NAME} {PASSWORD}",
            f"sentinel down-after-milliseconds {NAME} {int(DOWN_AFTER_SECONDS * 1000)}",
            f"sentinel failover-timeout {NAME} {int(FAILOVER_TIMEOUT_SECONDS * 1000)}",
        ]
        if self.secured:
            monitored += [
                f"requirepass {SENTINEL_PASSWORD}",
                f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
                f"user roll on >{SENTINEL_PASSWORD} resetchannels -@all {granted()[1]}",
            ]
        self._run(endpoint, [*monitored, *lines], "--sentinel")

    def _run(self, endpoint: Endpoint, lines: list[str], *options: str) -> None:
        host, port = endpoint.address.host, endpoint.address.port
        directory = self._directory / f"{host}-{time.monotonic_ns()}"
        directory.mkdir()
        configuration = directory / "redis.conf"
        bound = [*bound_to(host, self._program), f"dir {directory}"]
        bound += self.encrypted(port) if self.secured else [f"port {port}"]
        configuration.write_text("\n".join([*bound, *lines]) + "\n")
        with (directory / "log").open("wb") as log:
            self._processes[host] = subprocess.Popen(
                [self._program, str(configuration), *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def encrypted(self, port: int) -> list[str]:
        """Configuration lines: TLS alone, with client certificates."""
        pki = self._directory / "pki" / "pki"
        return [
            "port 0",
            f"tls-port {port}",
            f"tls-cert-file {pki / 'kubelet.crt'}",
            f"tls-key-file {pki / 'kubelet.key'}",
            f"tls-client-cert-file {pki / 'apiserver-kubelet-client.crt'}",
            f"tls-client-key-file {pki / 'apiserver-kubelet-client.key'}",
            f"tls-ca-cert-file {pki / 'ca.crt'}",
            "tls-replication yes",
        ]

    def command(self, endpoint: Endpoint, *command: str, timeout: float = 5.0) -> str:
        """What redis-cli says. Raises subprocess.TimeoutExpired."""
        address = endpoint.address
        line = ["redis-cli", "-h", address.host, "-p", str(address.port), "--no-auth-warning", "-a", PASSWORD, *command]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=timeout).stdout.strip()

    def sentinel_command(self, endpoint: Endpoint, *command: str) -> str:
        """What redis-cli says of a sentinel, which has no password."""
        address = endpoint.address
        line = ["redis-cli", "-h", address.host, "-p", str(address.port), *command]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=5).stdout.strip()

    def freeze(self, endpoint: Endpoint) -> None:
        self._processes[endpoint.address.host].send_signal(signal.SIGSTOP)

    def thaw(self, endpoint: Endpoint) -> None:
        self._processes[endpoint.address.host].send_signal(signal.SIGCONT)

    def send(self, endpoint: Endpoint, *command: str) -> None:
        """A command whose answer nobody waits for: a script, or one to a server that stands still."""
        address = endpoint.address
        line = ["redis-cli", "-h", address.host, "-p", str(address.port), "--no-auth-warning", "-a", PASSWORD, *command]
        sent = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._sent.append(sent)

    def write(self, endpoint: Endpoint, times: int) -> None:
        for _ in range(times):
            assert self.command(endpoint, "rpush", "written", "x" * 20).isdigit()

    def kill(self, endpoint: Endpoint) -> None:
        process = self._processes.pop(endpoint.address.host)
        process.kill()
        process.wait()

    def stop(self, endpoint: Endpoint) -> None:
        """SIGTERM, as a pod that is deleted gets it."""
        process = self._processes.pop(endpoint.address.host)
        process.terminate()
        process.wait()

    def blocked(self, endpoint: Endpoint) -> bool:
        try:
            self.command(endpoint, "set", "probe", "1", timeout=patience(0.3))
        except subprocess.TimeoutExpired:
            return True
        return False

    def pass_time(self) -> None:
        time.sleep(0.05)

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        for process in (*self._sent, *self._processes.values()):
            process.kill()
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


@contextlib.contextmanager
def processes(program: str = "redis-server", *, secured: bool = False, network: str = "") -> Iterator[Processes]:
    side = Processes(program, secured=secured, network=network)
    try:
        yield side
    finally:
        side.close()


def until(side: Side, look: Callable[[], T | None], what: str, seconds: float = GIVE_UP_SECONDS) -> T:
    """Lets time pass until `look()` answers something; fails as an assertion naming `what`."""
    began = side.now()
    while not (found := look()):
        waited = side.now() - began
        assert waited < seconds or waited < patience(seconds), f"not within {seconds} s: {what}"
        side.pass_time()
    return found


def server(side: Side, number: int) -> Server:
    found = side.redis.server(side.servers[number])
    assert isinstance(found, Server), found
    return found


def sentinel(side: Side, number: int) -> Sentinel:
    found = side.redis.sentinel(side.sentinels[number], NAME)
    assert isinstance(found, Sentinel), found
    return found


def wait_until_whole(side: Side) -> None:
    """Until replicas are in sync and every sentinel lists both, and both other sentinels."""

    def whole() -> bool:
        views = [side.redis.sentinel(s, NAME) for s in side.sentinels]
        servers = [side.redis.server(s) for s in side.servers]
        return all(isinstance(s, Server) for s in servers) and all(
            isinstance(v, Sentinel)
            and len([r for r in v.replicas if r.alive and r.link_ok and r.master]) == 2
            and len(v.sentinels) == 2
            for v in views
        )

    until(side, whole, "the group is whole")
