"""The clients of one Redis group, in a process of their own, as an application's are.

`python -m lab.traffic.redis_process LAB GROUP` says in JSON lines on its standard output that it is ready, and twice a
second how it goes. A line on its standard input has the clients begin; the input's end has them end, and the record is
written. In one event loop with the clients of everything else they would wait for those, and what they saw would be put
down to the servers.
"""

import asyncio
import contextlib
import faulthandler
import gc
import json
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from lab.kube import Json, Kube
from lab.paths import LabPaths
from lab.spec import LabSpec, RedisTraffic
from lab.traffic.cancelling import cancel_all
from lab.traffic.cluster_clients import ClusterClients
from lab.traffic.first import first, tasks
from lab.traffic.lag import Lag
from lab.traffic.redis_clients import RedisClients, SentinelClients

TELL_SECONDS = 0.5

STUCK_SECONDS = 30.0
"""Clients that stand still for so long see nothing: the process says on standard error where it is stuck, and ends."""

KINDS: dict[str, type[SentinelClients] | type[ClusterClients]] = {
    "sentinel": SentinelClients,
    "cluster": ClusterClients,
}


class RedisProcess:
    """Such a process, from outside."""

    def __init__(self, paths: LabPaths, group: str) -> None:
        self.ready = asyncio.Event()
        self.live: Json = {"group": group, "acked": 0}
        """For whoever watches."""
        self._paths, self._group = paths, group
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """For the time of the block it is there."""
        _record_of(self._paths, self._group).unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            str(self._paths.root),
            self._group,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A kernel that shares its processors between sessions gives it a share of its own.
            start_new_session=True,
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def follow(self) -> None:
        """Keeps up with what it says, until it has ended. Raises RuntimeError if nobody told it to end."""
        process = self._started()
        assert process.stdout is not None  # noqa: S101 (a pipe)
        async for line in process.stdout:
            said = json.loads(line)
            self.live = said.get("live", self.live)
            if said.get("ready"):
                self.ready.set()
        if not self._ending:
            code = await process.wait()
            raise RuntimeError(f"the clients of the Redis group {self._group} ended with exit code {code}")

    def begin(self) -> None:
        """Has the clients begin."""
        self._input().write(b"begin\n")

    async def conclude(self) -> Json:
        """Ends the clients. Answers their record. Raises RuntimeError if they failed."""
        self._ending = True
        self._input().close()
        if code := await self._started().wait():
            raise RuntimeError(f"the clients of the Redis group {self._group} ended with exit code {code}")
        record: Json = json.loads(_record_of(self._paths, self._group).read_text())
        return record

    def _started(self) -> asyncio.subprocess.Process:
        assert self._process is not None  # noqa: S101 (within `started`)
        return self._process

    def _input(self) -> asyncio.StreamWriter:
        pipe = self._started().stdin
        assert pipe is not None  # noqa: S101 (a pipe)
        return pipe


def _record_of(paths: LabPaths, group: str) -> Path:
    return paths.traffic / f"redis-{group}.json"


async def run(clients: RedisClients, told: asyncio.StreamReader) -> Json:
    """All clients of a group until `told` ends. Answers the record."""
    lag = Lag()
    followers = tasks(clients.follow(), lag.watch(), _tell(clients))
    try:
        await first(clients.prepare(), *followers)
        # What is there by now stays: looking through it for what may go would let the clients stand still.
        gc.collect()
        gc.freeze()
        _say(ready=True)
        await first(told.readline(), *followers)
        work: list[Coroutine[Any, Any, None]] = [clients.write(writer) for writer in clients.writers]
        work += [clients.read(), clients.watch(), *([clients.load.run()] if clients.load else [])]
        running = tasks(*work)
        await first(told.read(), *followers, *running)
        await cancel_all(running)
        return await clients.conclude() | {"lag": lag.seen}
    finally:
        await cancel_all(followers)
        faulthandler.cancel_dump_traceback_later()
        gc.unfreeze()


async def _tell(clients: RedisClients) -> None:
    while True:
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
        _say(live=clients.live())
        await asyncio.sleep(TELL_SECONDS)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def main(lab: Path, group: str) -> None:
    """Runs until told to stop."""
    paths = LabPaths(lab)
    spec = LabSpec.load(paths.spec)
    mine: RedisTraffic = next(each for each in spec.traffic.redis if each.group == group)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin.buffer)
    async with Kube.from_kubeconfig(paths.kubeconfig) as kube:
        record = await run(KINDS[mine.kind](mine, kube, spec.traffic.namespace), told)
    paths.traffic.mkdir(exist_ok=True)
    _record_of(paths, group).write_text(json.dumps(record))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
