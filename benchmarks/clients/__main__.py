"""Clients of several languages beside each other, on real servers, while a group is rolled and while it is drained.

    python -m benchmarks.clients [--only redis-py,go-redis] [--modes sentinel,cluster]

Each client writes with its library's default settings, redis-py also with short timeouts, and one without any library.
A roll moves pods as it does when deployed: a master under Sentinel with its two switches, the pods of a Redis Cluster's
node behind their stand-ins. A drain ends the same pods and starts them elsewhere, and leaves the rest to Redis. For
each: acknowledged writes, how many of them the servers do not hold, errors that the application sees, and the longest
gap between two acknowledged writes.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.cluster import ClusterNode, RedisCluster
from rich.console import Console
from rich.table import Table

from eks_rolling.observed.redis import Role
from tests.contract.cluster_pods import Cluster
from tests.contract.redis_pods import OLD, Pods, migrate
from tests.contract.redis_sides import NAME, PASSWORD, Processes, processes, wait_until_whole

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "bench-clients"
PYTHON = frozenset({"redis-py", "redis-py-asyncio", "redis-py-short", "none"})
"""Clients that need no other language's tools."""

KEYS = 128
BEGUN = 100
"""Acknowledged writes of each client before anything happens: a machine that compiles starts them slowly."""

START_SECONDS, AFTER_SECONDS, DRAIN_SECONDS = 60.0, 4.0, 30.0


@dataclass
class Writer:
    """A client's process, and what it said: value -> when it was acknowledged (milliseconds of its own clock)."""

    library: str
    process: subprocess.Popen[str]
    acked: dict[int, float] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    heard: float = 0.0
    ended: float = 0.0
    """When it last had a write acknowledged, and when it was told to end: seconds of our clock."""

    def listen(self) -> None:
        """Until its output ends."""
        assert self.process.stdout is not None  # noqa: S101 (Popen was asked for a pipe)
        for line in self.process.stdout:
            match line.split():
                case ["A", value, at]:
                    self.acked[int(value)], self.heard = float(at), time.monotonic()
                case ["E", *error]:
                    self.errors[" ".join(error)] += 1

    @property
    def stall(self) -> float:
        """Seconds. One that never wrote again stalls until the end."""
        times = sorted(self.acked.values())
        gaps = [(later - earlier) / 1000 for earlier, later in itertools.pairwise(times)]
        return max(*gaps, self.ended - self.heard)


def built(wanted: Collection[str] | None = None) -> Mapping[str, list[str]]:
    """Library -> the command that runs a writer with it. Fetches and builds what is not there yet, and is `wanted`."""
    npm, go, java = BUILD / "javascript", BUILD / "go", BUILD / "java"
    if wanted is None or not set(wanted) <= PYTHON:
        _build(npm, go, java)
    python = [sys.executable, "-m", "benchmarks.clients.writer"]
    node = ["node", str(npm / "writer.mjs")]
    jvm = ["java", "-Xmx128m", "-cp", f"{java / 'out'}:{java / 'lib'}/*", "Writer"]
    return {
        "redis-py": python,
        "redis-py-asyncio": python,
        "redis-py-short": python,
        "none": python,
        "ioredis": node,
        "node-redis": node,
        "go-redis": [str(go / "writer")],
        "lettuce": jvm,
        "jedis": jvm,
    }


def _build(npm: Path, go: Path, java: Path) -> None:
    for source, target in ((HERE / "javascript", npm), (HERE / "go", go), (HERE / "java", java)):
        shutil.copytree(source, target, dirs_exist_ok=True)
    _run(npm, "npm", "install", "--no-audit", "--no-fund", "--silent")
    _run(go, "go", "mod", "tidy")
    _run(go, "go", "build", "-o", "writer", ".")
    if not (java / "lib").exists():
        _run(java, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib")
    _run(java, "javac", "-cp", "lib/*", "-d", "out", "Writer.java")


def _run(where: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


@contextlib.contextmanager
def writing(commands: Mapping[str, list[str]], mode: str, hosts: str) -> Iterator[list[Writer]]:
    found = []
    for number, (library, command) in enumerate(commands.items()):
        words = [*command, library, mode, hosts, NAME, PASSWORD, str(number)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=os.environ)
        found.append(Writer(library, process))
    listeners = [threading.Thread(target=writer.listen, daemon=True) for writer in found]
    for listener in listeners:
        listener.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while idle := [w.library for w in found if len(w.acked) < BEGUN]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{', '.join(idle)} did not begin to write")
            time.sleep(0.1)
        yield found
    finally:
        for writer, listener in zip(found, listeners, strict=True):
            assert writer.process.stdin is not None  # noqa: S101 (Popen was asked for a pipe)
            writer.ended = time.monotonic()
            writer.process.stdin.close()
            listener.join(30)
            writer.process.kill()
            writer.process.wait()


def rolled_sentinel(side: Processes) -> None:
    ended = migrate(Pods(side), side.client, 120)
    if ended.stopped:
        raise RuntimeError(ended.stopped)


def drained_sentinel(side: Processes) -> None:
    """The master's pod ends and comes back empty elsewhere; the sentinels elect a replica meanwhile."""
    pods = Pods(side)
    pods.delete_pod(pods.pods["redis-master-0"])
    time.sleep(DRAIN_SECONDS)


def sentinel(commands: Mapping[str, list[str]], work: Callable[[Processes], None]) -> list[tuple[Writer, int]]:
    with processes() as side:
        side.start()
        wait_until_whole(side)
        hosts = ",".join(f"{s.address.host}:{s.address.port}" for s in side.sentinels)
        with writing(commands, "sentinel", hosts) as found:
            work(side)
            time.sleep(AFTER_SECONDS)
        named = [side.client.current_master(s, NAME) for s in side.sentinels]
        master = max((a for a in named if a), key=named.count)
        with redis.Redis(host=master.host, password=PASSWORD, decode_responses=True) as client:
            return [(w, _lost(w, _held(client, n))) for n, w in enumerate(found)]


def rolled_cluster(side: Cluster) -> None:
    ended = migrate(side, side.client, 180)
    if ended.stopped:
        raise RuntimeError(ended.stopped)


def drained_cluster(side: Cluster) -> None:
    """The same pods end one after the other, as a drain has them."""
    for pod in [p for p in side.pods.values() if p.node == OLD]:
        side.delete_pod(pod)
        time.sleep(DRAIN_SECONDS / 2)


def cluster(commands: Mapping[str, list[str]], work: Callable[[Cluster], None]) -> list[tuple[Writer, int]]:
    side = Cluster()
    try:
        side.form()
        masters = [n for n in side.pods if side.view(n).itself.role is Role.MASTER]
        hosts = ",".join(f"{side.processes[n].host}:6379" for n in masters)
        with writing(commands, "cluster", hosts) as found:
            work(side)
            time.sleep(AFTER_SECONDS)
        nodes = [ClusterNode(p.host, 6379) for p in side.processes.values()]
        with contextlib.closing(RedisCluster(startup_nodes=nodes, password=PASSWORD, decode_responses=True)) as client:
            return [(w, _lost(w, _held(client, n))) for n, w in enumerate(found)]
    finally:
        side.close()


def _held(client: redis.Redis | RedisCluster, number: int) -> set[int]:
    return {int(v) for key in range(KEYS) for v in client.lrange(f"writer-{number}:{key}", 0, -1)}


def _lost(writer: Writer, held: set[int]) -> int:
    return len(writer.acked.keys() - held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="libraries, separated by commas")
    parser.add_argument("--modes", default="sentinel,cluster", help="which kinds of groups, separated by commas")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else None
    commands = {name: command for name, command in built(wanted).items() if wanted is None or name in wanted}
    console = Console()
    tried: dict[str, dict[str, Callable[[], list[tuple[Writer, int]]]]] = {
        "sentinel": {
            "roll": lambda: sentinel(commands, rolled_sentinel),
            "drain": lambda: sentinel(commands, drained_sentinel),
        },
        "cluster": {
            "roll": lambda: cluster(commands, rolled_cluster),
            "drain": lambda: cluster(commands, drained_cluster),
        },
    }
    for mode in arguments.modes.split(","):
        table = Table("client", "by", "acknowledged", "lost", "errors", "longest stall", title=mode)
        for way, run in tried[mode].items():
            for writer, lost in run():
                said = ", ".join(f"{count} {name}" for name, count in writer.errors.most_common(2))
                acked, stall = f"{len(writer.acked):,}", f"{writer.stall:.2f} s"
                table.add_row(writer.library, way, acked, str(lost), said or "0", stall)
        console.print(table)


if __name__ == "__main__":
    main()
