"""Real servers and sentinels, started one by one as a test needs them, and the client that is deployed."""

import contextlib
import itertools
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from eks_rolling.observed.redis import Address, Endpoint, Login, Sentinel, Server
from tests import waiting
from tests.redis_client import ClosingClient

NAME = "main"
SERVER_PORT, SENTINEL_PORT = 16379, 26379

GIVE_UP_SECONDS = 30.0


class Real:
    """redis-server processes on loopback addresses, each with its own, reached by the client that is deployed."""

    def __init__(self, folder: Path, secrets: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._folder = folder
        self._processes: dict[Address, subprocess.Popen[bytes]] = {}
        self._network = _free_network()
        self._hosts = itertools.count(1)
        self._keys = itertools.count(1)
        known = secrets or {}
        self.redis = ClosingClient(lambda _, name: known[name])

    def add_server(self, follows: Address | None = None, *options: str, port: str = "port") -> Address:
        address = Address(f"{self._network}.{next(self._hosts)}", SERVER_PORT)
        self._start(address, follows, *options, port=port)
        return address

    def restart_server(self, address: Address, follows: Address | None = None) -> None:
        self.kill(address)
        self._start(address, follows)

    def _start(self, address: Address, follows: Address | None, *options: str, port: str = "port") -> None:
        lines = [
            f"{port} {address.port}",
            f"bind {address.host}",
            f"bind-source-addr {address.host}",
            f"dir {self._folder}",
            f"dbfilename {address.host}.rdb",
            'save ""',
            "protected-mode no",
            # Without it a full synchronization waits five seconds for more replicas.
            "repl-diskless-sync-delay 0",
            *([f"replicaof {follows.host} {follows.port}"] if follows else []),
            *options,
        ]
        self._run(address, lines)

    def add_sentinel(
        self,
        master: Address,
        *options: str,
        quorum: int = 2,
        down_after: float = 1.0,
        failover_timeout: float = 180.0,
        port: str = "port",
    ) -> Address:
        address = Address(f"{self._network}.{next(self._hosts)}", SENTINEL_PORT)
        lines = [
            f"{port} {address.port}",
            f"bind {address.host}",
            f"bind-source-addr {address.host}",
            f"dir {self._folder}",
            "protected-mode no",
            f"sentinel monitor {NAME} {master.host} {master.port} {quorum}",
            f"sentinel down-after-milliseconds {NAME} {round(down_after * 1000)}",
            f"sentinel failover-timeout {NAME} {round(failover_timeout * 1000)}",
            *options,
        ]
        self._run(address, lines, "--sentinel")
        return address

    def _run(self, address: Address, lines: list[str], *arguments: str) -> None:
        file = self._folder / f"{address.host}.conf"
        file.write_text("\n".join(lines) + "\n")
        with (self._folder / f"{address.host}.log").open("ab") as log:
            self._processes[address] = subprocess.Popen(
                ["redis-server", str(file), *arguments], stdout=log, stderr=subprocess.STDOUT
            )

        def listens() -> bool:
            assert self._processes[address].poll() is None, (self._folder / f"{address.host}.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), 1):
                return True
            return False

        waiting.until(listens, f"the server at {address} listens", within_seconds=GIVE_UP_SECONDS, pause=0.02)

    def kill(self, address: Address) -> None:
        process = self._processes.pop(address)
        process.kill()
        process.wait()

    def freeze(self, address: Address) -> None:
        self._processes[address].send_signal(signal.SIGSTOP)

    def thaw(self, address: Address) -> None:
        self._processes[address].send_signal(signal.SIGCONT)

    def write(self, address: Address, keys: int = 1) -> None:
        pairs = [word for _ in range(keys) for word in (f"key-{next(self._keys)}", "x" * 20)]
        assert self.cli(address, "MSET", *pairs) == "OK"

    def cli(self, address: Address, *words: str) -> str:
        """What a command answers, by redis-cli."""
        command = ["redis-cli", "-h", address.host, "-p", str(address.port), *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=GIVE_UP_SECONDS)
        return done.stdout.strip()

    def pass_time(self, seconds: float = 0.02) -> None:
        time.sleep(seconds)

    def now(self) -> float:
        return time.monotonic()

    def end(self) -> None:
        for address in list(self._processes):
            self.kill(address)
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_network() -> str:
    """Three bytes of a loopback network that nobody listens on."""
    while True:
        network = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind((f"{network}.1", SERVER_PORT))
            other.bind((f"{network}.1", SENTINEL_PORT))
            return network


def at(address: Address, login: Login | None = None) -> Endpoint:
    return Endpoint(address, login or Login(""))


def server(side: Real, address: Address) -> Server:
    seen = side.redis.server(at(address))
    assert isinstance(seen, Server), seen
    return seen


def sentinel(side: Real, address: Address, name: str = NAME) -> Sentinel:
    seen = side.redis.sentinel(at(address), name)
    assert isinstance(seen, Sentinel), seen
    return seen


def until(side: Real, condition: Callable[[], object], what: str, within: float = GIVE_UP_SECONDS) -> float:
    """Lets time pass until `condition()` holds; answers how long that took, in seconds."""
    begun = side.now()
    while not condition():
        assert side.now() - begun < within, f"not within {within} s: {what}"
        side.pass_time()
    return side.now() - begun


def _is_linked(side: Real, replica: Address) -> bool:
    return server(side, replica).link_up


def group(side: Real, replicas: int = 2, keys: int = 10) -> list[Address]:
    """A master and its replicas, in sync."""
    master = side.add_server()
    side.write(master, keys)
    addresses = [master, *(side.add_server(master) for _ in range(replicas))]
    for replica in addresses[1:]:
        until(side, partial(_is_linked, side, replica), "the replica is in sync")
    until(side, lambda: len([f for f in server(side, master).followers if f.online]) == replicas, "all are online")
    return addresses


def sentinels(side: Real, master: Address, replicas: int, *, count: int = 3) -> list[Address]:
    """Sentinels that know each other, and have asked every replica."""
    addresses = [side.add_sentinel(master, quorum=count // 2 + 1) for _ in range(count)]

    def settled() -> bool:
        seen = [sentinel(side, address) for address in addresses]
        return all(
            len([r for r in s.replicas if r.alive and r.link_ok and r.master]) == replicas
            and len([other for other in s.sentinels if other.alive]) == count - 1
            and s.quorum_ok
            for s in seen
        )

    until(side, settled, "the sentinels know each other")
    return addresses
