"""Ways to switch the master of a group under Sentinel, side by side on real servers under writers.

    python -m benchmarks.switches [--times N] [--ways hello,failover,monitor] [--server PROGRAM]

`hello` is what the roll does: pause, equal offsets, REPLICAOF on both, and a hello to every sentinel. `failover` asks
the sentinels to elect: FAILOVER, then SENTINEL FAILOVER. `monitor` has each of them forget and learn: SENTINEL REMOVE,
then MONITOR of the new master. Each is run to its end, for the stall, and is then cut off after every single command
with nobody coming to finish it, for what is lost and how long clients stall.
"""

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from rich.console import Console
from rich.table import Table

from eks_rolling.observed.redis import Endpoint, Role
from eks_rolling.observed.redis import Sentinel as View
from tests.contract.redis_sides import NAME, PASSWORD, Processes, processes, wait_until_whole
from tests.redis_world import DOWN_AFTER_SECONDS, FAILOVER_TIMEOUT_SECONDS, QUORUM

NOWHERE = "192.0.2.1"
"""An address that is nobody's (RFC 5737)."""
PAUSE_MS = 2500
LEFT_ALONE_SECONDS = 45.0
WRITERS = 3


@dataclass
class Writer:
    acked: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)


@contextmanager
def writers(side: Processes) -> Iterator[list[Writer]]:
    """Clients that ask the sentinels for the master, write, and ask again when that fails."""
    stop, found = threading.Event(), [Writer() for _ in range(WRITERS)]

    def write(number: int, writer: Writer) -> None:
        options: dict[str, Any] = {"socket_timeout": 1.0, "retry": Retry(NoBackoff(), 0)}
        asked = Sentinel([(s.address.host, s.address.port) for s in side.sentinels], sentinel_kwargs=options)
        master = asked.master_for(NAME, password=PASSWORD, **options)
        for value in itertools.count(1):
            while not stop.is_set():
                try:
                    master.rpush(f"writer-{number}", value)
                except redis.RedisError:
                    time.sleep(0.01)
                    continue
                writer.acked.append(value)
                writer.at.append(time.monotonic())
                time.sleep(0.005)
                break
            if stop.is_set():
                return

    threads = [threading.Thread(target=write, args=each, daemon=True) for each in enumerate(found)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


class CutOffError(Exception):
    """The one who switches dies here."""


@dataclass
class Switching:
    """The group's first server hands over to its second; `cut_after` is the number of commands it lives for."""

    side: Processes
    cut_after: int | None = None
    sent: list[str] = field(default_factory=list)

    def _client(self, host: str, port: int = 6379) -> redis.Redis:
        return redis.Redis(host=host, port=port, password=PASSWORD if port == 6379 else None, socket_timeout=2)

    def send(self, host: str, *command: object, port: int = 6379) -> None:
        self._client(host, port).execute_command(*command)
        self.sent.append(" ".join(str(c) for c in command if str(c) not in {PASSWORD, host}))
        if len(self.sent) == self.cut_after:
            raise CutOffError(self.sent[-1])

    def hand_over(self) -> None:
        """What both ways have in common: from its end on nothing acknowledged can be lost by the servers alone."""
        old, new = (s.address.host for s in self.side.servers[:2])
        self.send(old, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
        _, offset = self.side.client.offset(self.side.servers[0])
        self._until(lambda: self.side.client.offset(self.side.servers[1])[1] >= offset)
        self.send(old, "FAILOVER", "TO", new, 6379, "FORCE", "TIMEOUT", 1)
        self._until(lambda: self.side.client.offset(self.side.servers[1])[0] is Role.MASTER)
        state = self._client(old).info
        self._until(lambda: state("replication")["master_failover_state"] == "no-failover")

    def release(self) -> None:
        old = self.side.servers[0].address.host
        self.send(old, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self.send(old, "CLIENT", "UNPAUSE")

    def by_failover(self) -> None:
        self.hand_over()
        self.send(self.side.sentinels[-1].address.host, "SENTINEL", "FAILOVER", NAME, port=26379)
        new = self.side.servers[1].address
        self._until(lambda: all(self.side.client.current_master(s, NAME) == new for s in self.side.sentinels))
        self.release()

    def by_monitor(self) -> None:
        self.hand_over()
        new = self.side.servers[1].address.host
        for sentinel in self.side.sentinels:
            host = sentinel.address.host
            self.send(host, "SENTINEL", "REMOVE", NAME, port=26379)
            self.send(host, "SENTINEL", "MONITOR", NAME, new, 6379, QUORUM, port=26379)
            settings = ("auth-pass", PASSWORD, "down-after-milliseconds", int(DOWN_AFTER_SECONDS * 1000))
            timeout = ("failover-timeout", int(FAILOVER_TIMEOUT_SECONDS * 1000))
            self.send(host, "SENTINEL", "SET", NAME, *settings, *timeout, port=26379)
        self.send(self.side.servers[2].address.host, "REPLICAOF", new, 6379)
        self.release()

    def by_hello(self) -> None:
        """The order of `handover`, with nothing of its code: what is measured is the servers'."""
        old, new, third = (s.address.host for s in self.side.servers)
        views = [self._view(s) for s in self.side.sentinels]
        epoch = 1 + max(v.epoch for v in views)
        self.send(old, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
        _, offset = self.side.client.offset(self.side.servers[0])
        self._until(lambda: self.side.client.offset(self.side.servers[1])[1] >= offset)
        self.send(old, "REPLICAOF", NOWHERE, 6379)
        _, offset = self.side.client.offset(self.side.servers[0])
        self._until(lambda: self.side.client.offset(self.side.servers[1])[1] >= offset)
        self.send(new, "REPLICAOF", "NO", "ONE")
        self.send(old, "REPLICAOF", new, 6379)
        for sentinel, view in zip(self.side.sentinels, views, strict=True):
            peer = view.sentinels[0]
            hello = f"{peer.address.host},{peer.address.port},{peer.run_id},{epoch},{NAME},{new},6379,{epoch}"
            self.send(sentinel.address.host, "PUBLISH", "__sentinel__:hello", hello, port=26379)
        self.release()
        self.send(third, "REPLICAOF", new, 6379)

    def _view(self, sentinel: Endpoint) -> View:
        found = self.side.client.sentinel(sentinel, NAME)
        if not isinstance(found, View):
            raise TypeError(f"{sentinel} does not answer: {found.reason}")
        return found

    @staticmethod
    def _until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("not within 5 s")
            time.sleep(0.005)


WAYS: dict[str, Callable[[Switching], None]] = {
    "hello": Switching.by_hello,
    "failover": Switching.by_failover,
    "monitor": Switching.by_monitor,
}


@dataclass(frozen=True)
class Tried:
    """One switch: what it lost of so many acknowledged writes, and the longest stall of a writer (seconds)."""

    sent: tuple[str, ...]
    acked: int
    lost: int
    stall: float


def run(way: str, cut_after: int | None, program: str = "redis-server") -> Tried:
    with processes(program) as side:
        side.start()
        wait_until_whole(side)
        switching = Switching(side, cut_after)
        if way == "failover":
            # Who shall be elected: by its priority, which every sentinel has to see first, once in 10 s.
            side.command(side.servers[1], "config", "set", "replica-priority", "1")
        with writers(side) as written:
            time.sleep(11 if way == "failover" else 3)
            try:
                WAYS[way](switching)
                time.sleep(15)
            except CutOffError:
                time.sleep(LEFT_ALONE_SECONDS)
        held = _held(side)
    lost = sum(len(set(w.acked) - held[n]) for n, w in enumerate(written))
    stalls = [later - earlier for w in written for earlier, later in itertools.pairwise(w.at)]
    # One that never wrote again stalls still.
    stalls += [time.monotonic() - w.at[-1] for w in written if time.monotonic() - w.at[-1] > 10]
    return Tried(tuple(switching.sent), sum(len(w.acked) for w in written), lost, max(stalls))


def _held(side: Processes) -> dict[int, set[int]]:
    """What the master holds that most sentinels name."""
    named = [side.client.current_master(s, NAME) for s in side.sentinels]
    master = max((a for a in named if a), key=named.count)
    client = redis.Redis(host=master.host, password=PASSWORD, decode_responses=True)
    return {n: {int(v) for v in client.lrange(f"writer-{n}", 0, -1)} for n in range(WRITERS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="whole switches of each way, in turn")
    parser.add_argument("--ways", default=",".join(WAYS), help="which of them, separated by commas")
    parser.add_argument("--server", default="redis-server", help="the program: redis-server or one that is like it")
    parser.add_argument("--uncut", action="store_true", help="only to the end")
    arguments = parser.parse_args()
    times: int = arguments.times
    ways = [way for way in WAYS if way in arguments.ways.split(",")]
    console = Console()
    whole: dict[str, list[Tried]] = {way: [] for way in ways}
    for _ in range(times):
        for way in ways:
            whole[way].append(run(way, None, arguments.server))
    table = Table("way", "switches", "lost", "of", "median stall", "worst", title="to the end")
    for way, tried in whole.items():
        stalls = [t.stall for t in tried]
        lost, acked = sum(t.lost for t in tried), sum(t.acked for t in tried)
        table.add_row(way, str(times), str(lost), f"{acked:,}", f"{median(stalls):.3f} s", f"{max(stalls):.3f} s")
    console.print(table)
    if arguments.uncut:
        return
    points = [(way, n) for way, tried in whole.items() for n in range(1, len(tried[0].sent) + 1)]
    with ThreadPoolExecutor(4) as pool:
        cut_off = list(pool.map(lambda each: run(each[0], each[1], arguments.server), points))
    table = Table("way", "cut off after", "lost", "of", "longest stall", title=f"left alone {LEFT_ALONE_SECONDS:.0f} s")
    for (way, number), one in zip(points, cut_off, strict=True):
        table.add_row(way, f"{number}. {one.sent[-1]}", str(one.lost), f"{one.acked:,}", f"{one.stall:.1f} s")
    console.print(table)


if __name__ == "__main__":
    main()
