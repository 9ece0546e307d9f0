"""`python -m lab.traffic LAB`: clients and a job queue, from now until its standard input ends.

Writes `traffic/live.json` twice a second, for whoever watches, and `traffic/record.json` at the end, for the judge.
"""

import asyncio
import contextlib
import faulthandler
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from lab.addresses import LAB_ADDRESS
from lab.kube import Kube
from lab.paths import LabPaths
from lab.spec import LabSpec
from lab.traffic.availability import Availability
from lab.traffic.broker import Broker
from lab.traffic.cancelling import cancel_all
from lab.traffic.clients import Endpoints, Request, Route, ask
from lab.traffic.first import first, tasks
from lab.traffic.redis_process import STUCK_SECONDS, RedisProcess

BROKER_PORT = 8088
LAST_JOBS_SECONDS = 90.0
"""How long unfinished jobs are waited for at the end: longer than a lease, so that others do a lost worker's."""


class Traffic:
    """One run of all clients."""

    def __init__(self, paths: LabPaths, kube: Kube) -> None:
        spec = LabSpec.load(paths.spec)
        self._directory = paths.traffic
        self._kube = kube
        self._namespace = spec.traffic.namespace
        self._service = spec.traffic.service
        self.requests: list[Request] = []
        self.failed = 0
        self.endpoints = Endpoints()
        self.broker = Broker(spec.traffic.jobs_per_second, spec.traffic.work_ms)
        self.availability = Availability({})
        rate = spec.traffic.requests_per_second
        routes = [Route("endpoints", self.endpoints.next, rate, keep_alive=False)]
        for target in spec.target_groups:
            url = f"http://{LAB_ADDRESS}:{target.listener_port}/"
            routes.append(Route(f"load balancer {target.name}", partial(str, url), rate, keep_alive=True))
        self._routes = routes
        self._redis = [RedisProcess(paths, each.group) for each in spec.traffic.redis]

    async def run(self, ended: asyncio.Event) -> None:
        """Until `ended`; then the last jobs are waited for and the record is written."""
        self._directory.mkdir(exist_ok=True)
        async with contextlib.AsyncExitStack() as processes:
            for redis in self._redis:
                await processes.enter_async_context(redis.started())
            await self._run(ended)

    async def _run(self, ended: asyncio.Event) -> None:
        self.availability = await Availability.of(self._kube, self._namespace)
        runner = web.AppRunner(self.broker.application())
        await runner.setup()
        await web.TCPSite(runner, LAB_ADDRESS, BROKER_PORT).start()
        followers = tasks(
            self.endpoints.follow(self._kube, self._namespace, self._service),
            self.availability.follow(self._kube, self._namespace),
            self.broker.hand_out_again(),
            self._tell(),
            *(redis.follow() for redis in self._redis),
        )
        while not self.endpoints.addresses:  # noqa: ASYNC110  (the watch fills them)
            await asyncio.sleep(0.05)
        for redis in self._redis:
            await first(redis.ready.wait(), *followers)
        for redis in self._redis:
            redis.begin()
        clients = tasks(self.broker.make_jobs(), *(ask(route, self._record) for route in self._routes))
        await first(ended.wait(), *followers, *clients)
        await cancel_all(clients)
        concluded = await asyncio.gather(*(redis.conclude() for redis in self._redis))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_JOBS_SECONDS):
                while self.broker.open_jobs:  # noqa: ASYNC110  (workers report them)
                    await asyncio.sleep(0.1)
        await cancel_all(followers)
        faulthandler.cancel_dump_traceback_later()
        await runner.cleanup()
        self._write("record.json", self._everything() | {"redis": concluded})

    def _record(self, request: Request) -> None:
        self.requests.append(request)
        self.failed += bool(request.error)

    async def _tell(self) -> None:
        while True:
            faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
            done = sum(1 for job in self.broker.jobs.values() if job.done_by)
            last = self.requests[-1].at if self.requests else 0.0
            recent = sum(1 for r in self.requests[-500:] if r.at > last - 2) / 2
            live = {
                "requests": len(self.requests),
                "failed": self.failed,
                "per_second": recent,
                "jobs": {"made": len(self.broker.jobs), "done": done},
                "unavailable": {app: self._missing(app) for app in self.availability.wanted},
                "most_unavailable": self.availability.most,
                "redis": [redis.live for redis in self._redis],
            }
            self._write("live.json", live)
            await asyncio.sleep(0.5)

    def _missing(self, app: str) -> int:
        return next((n for _, name, n in reversed(self.availability.changes) if name == app), 0)

    def _everything(self) -> dict[str, Any]:
        return {
            "requests": [asdict(r) for r in self.requests],
            "jobs": [asdict(job) for job in self.broker.jobs.values()],
            "wanted": self.availability.wanted,
            "most_unavailable": self.availability.most,
            "availability": self.availability.changes,
        }

    def _write(self, name: str, document: dict[str, Any]) -> None:
        unfinished = self._directory / f".{name}"
        unfinished.write_text(json.dumps(document))
        unfinished.rename(self._directory / name)


def at_end_of(file: int, tell: Callable[[], object]) -> None:
    """Tells once when the file has ended or has something to say. It stays so: a reader that stayed would be called
    again and again from then on, and leave the clients nothing of the event loop."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        loop.remove_reader(file)
        tell()

    loop.add_reader(file, once)


async def main(lab: Path) -> None:
    """Runs until told to stop."""
    paths = LabPaths(lab)
    ended = asyncio.Event()
    # Signals would end only the command that leads into the lab's namespaces.
    at_end_of(sys.stdin.fileno(), ended.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with Kube.from_kubeconfig(paths.kubeconfig) as kube:
        await Traffic(paths, kube).run(ended)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
