"""A queue of jobs for worker pods, each of which must be done; the protocol is described in `lab.images.worker`."""

import asyncio
import itertools
import time
from collections import deque
from dataclasses import dataclass, field

from aiohttp import web

LEASE_SECONDS = 20.0
"""A worker silent for so long has lost its job: many times what a job takes, grace periods included."""


@dataclass(slots=True)
class Job:
    """One job; times are epoch seconds."""

    id: str
    work_ms: int
    made: float
    leased_until: float = 0.0
    worker: str = ""
    done_by: list[str] = field(default_factory=list)
    finished: float = 0.0


class Broker:
    """Makes jobs at a steady rate and hands them out."""

    def __init__(self, jobs_per_second: float, work_ms: int) -> None:
        self.jobs: dict[str, Job] = {}
        self._rate = jobs_per_second
        self._work_ms = work_ms
        self._ready: deque[Job] = deque()
        self._news = asyncio.Condition()
        self._ids = itertools.count(1)

    async def make_jobs(self) -> None:
        """Until cancelled. The pace is kept: what a busy machine delays is made up for."""
        start = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, start + number / self._rate - time.monotonic()))
            job = Job(f"job-{next(self._ids)}", self._work_ms, time.time())
            self.jobs[job.id] = job
            await self._offer(job)

    async def hand_out_again(self) -> None:
        """Offers jobs whose lease ran out, until cancelled."""
        while True:
            await asyncio.sleep(0.5)
            for job in self.jobs.values():
                if job.leased_until and not job.done_by and time.time() > job.leased_until:
                    job.leased_until, job.worker = 0.0, ""
                    await self._offer(job)

    async def _offer(self, job: Job) -> None:
        # Before anything is awaited: whoever is cancelled there would leave a job behind that nobody is ever given.
        self._ready.append(job)
        async with self._news:
            self._news.notify()

    async def take(self, request: web.Request) -> web.Response:
        """POST /take."""
        asked = await request.json()
        seconds = min(5.0, float(asked.get("wait_seconds", 1)))
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: self._ready), seconds)
            except TimeoutError:
                return web.Response(status=204)
            job = self._ready.popleft()
        job.worker = str(asked["worker"])
        job.leased_until = time.time() + LEASE_SECONDS
        return web.json_response({"id": job.id, "work_ms": job.work_ms})

    async def report(self, request: web.Request) -> web.Response:
        """POST /done. A worker may say it twice; two workers saying it have both done the job."""
        told = await request.json()
        job = self.jobs.get(told["id"])
        if job is None:
            return web.Response(status=404)
        worker = str(told["worker"])
        late = job.worker != worker
        if worker not in job.done_by:
            job.done_by.append(worker)
        job.finished = job.finished or time.time()
        return web.Response(status=409 if late else 200)

    @property
    def open_jobs(self) -> int:
        return sum(1 for job in self.jobs.values() if not job.done_by)

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/take", self.take), web.post("/done", self.report)])
        return app
