"""One container of a pod over all its runs: start, probes, restarts with back-off, graceful stop."""

import asyncio
import contextlib
import datetime as dt
import itertools
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.images.catalogue import UnknownImageError, short_name
from lab.kube import Json
from lab.node import times
from lab.node.environment import ConfigurationError
from lab.node.exec import write_pid
from lab.node.logs import log_file
from lab.node.probes import ProbeKind, Verdict, http_get, look, period_seconds
from lab.node.process import ContainerProcess, Launch, StartError
from lab.node.status import ContainerState, ContainerView, Running, Terminated, Waiting
from lab.spec import RestartBackoff
from lab.waiting import Changes, Deadline

_log = logging.getLogger(__name__)
RestartPolicy = Literal["Always", "OnFailure", "Never"]
_SHORTEST_GRACE_SECONDS = 2.0
"""What SIGTERM is given even where the preStop hook has used up the grace period."""
_START_ERROR_CODE = 128


@dataclass(frozen=True)
class Surroundings:
    """What a container needs of its pod."""

    name: str
    """namespace/name of the pod."""
    grace_seconds: float
    directory: Path
    logs: Path
    pod_ip: Callable[[], str]
    launch: Callable[[Json], Awaitable[Launch]]
    """Raises ConfigurationError or UnknownImageError."""
    changed: Callable[[], None]
    """Called whenever the container's view is another."""
    normal: Callable[[str, str], None]
    """Posts an event: reason, message."""
    warning: Callable[[str, str], None]
    backoff: RestartBackoff


def restarts(policy: RestartPolicy, exit_code: int) -> bool:
    """Whether a container that ended so is started again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def backoff_seconds(failures: int, backoff: RestartBackoff) -> float:
    """How long to wait before the next start, after so many ends in a row: not at all after the first."""
    return 0.0 if failures <= 1 else min(backoff.first * 2.0 ** (failures - 2), backoff.longest)


class Container:
    """Runs as long as `supervise` does; `stop` and `kill` end it for good."""

    def __init__(self, declared: Json, surroundings: Surroundings) -> None:
        self.declared = declared
        self.name: str = declared["name"]
        self._pod = surroundings
        self._state: ContainerState = Waiting("ContainerCreating")
        self._last: Terminated | None = None
        self._attempt = -1
        self._container_id = ""
        self._process: ContainerProcess | None = None
        self._verdicts: dict[ProbeKind, Verdict] = {}
        self._stopping = False
        self._changes = Changes()

    @property
    def view(self) -> ContainerView:
        image = self.declared["image"]
        started = isinstance(self._state, Running) and self._passed("startup")
        return ContainerView(
            name=self.name,
            image=image,
            image_id=f"lab.local/{short_name(image)}" if self._container_id else "",
            state=self._state,
            last=self._last,
            restarts=max(self._attempt, 0),
            started=started,
            ready=started and self._passed("readiness"),
            container_id=self._container_id,
        )

    @property
    def process(self) -> ContainerProcess | None:
        """The present run."""
        return self._process

    @property
    def attempt(self) -> int:
        """The number of the present or latest run, from 0; -1 before the first."""
        return self._attempt

    async def until_started(self) -> None:
        """Waits until it runs and has passed its startup probe, or is told to stop."""
        await self._changes.until(lambda: self.view.started or self._stopping)

    async def supervise(self, policy: RestartPolicy) -> None:
        """Runs the container until it has ended for good."""
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            if await self._run_once():
                ended = self._state
                if not isinstance(ended, Terminated) or not restarts(policy, ended.exit_code) or self._stopping:
                    return
                failures = 1 if time.monotonic() - began > 2 * self._pod.backoff.longest else failures + 1
                pause = backoff_seconds(failures, self._pod.backoff)
                message = f"back-off {pause:g}s restarting failed container={self.name} pod={self._pod.name}"
                if pause:
                    self._pod.warning("BackOff", message)
                    self._set(Waiting("CrashLoopBackOff", message), last=ended)
            else:
                failures += 1
                pause = backoff_seconds(failures + 1, self._pod.backoff)
            await self._pause(pause)

    async def stop(self, deadline: Deadline) -> None:
        """preStop, SIGTERM, and SIGKILL at the deadline. Returns when the container has ended."""
        self._stopping = True
        self._changes.tell()
        if self._process is not None:
            await self._terminate(self._process, deadline)

    def kill(self) -> None:
        """SIGKILL, now, and never again."""
        self._stopping = True
        self._changes.tell()
        if self._process is not None:
            self._process.kill()

    async def _run_once(self) -> bool:
        """One run, from start to end. False if it could not even be tried."""
        try:
            launch = await self._pod.launch(self.declared)
        except UnknownImageError as error:
            again = isinstance(self._state, Waiting) and self._state.reason in ("ErrImagePull", "ImagePullBackOff")
            message = f'failed to pull image "{self.declared["image"]}": {error}'
            self._pod.warning("Failed", message)
            if again:
                message = f'Back-off pulling image "{self.declared["image"]}": {error}'
            self._set(Waiting("ImagePullBackOff" if again else "ErrImagePull", message))
            return False
        except ConfigurationError as error:
            self._pod.warning("Failed", f"Error: {error}")
            self._set(Waiting("CreateContainerConfigError", str(error)))
            return False
        began = times.now()
        self._attempt += 1
        previous = self._state if isinstance(self._state, Terminated) else self._last
        try:
            process = await ContainerProcess.start(launch, log_file(self._pod.logs, self.name, self._attempt))
        except StartError as error:
            self._set(self._not_started(str(error), began), last=previous)
            return True
        await self._run(process, previous)
        return True

    async def _run(self, process: ContainerProcess, previous: Terminated | None) -> None:
        self._process = process
        write_pid(self._pod.directory, self.name, process.pid)
        self._container_id = f"lab://{self._pod.name.replace('/', '_')}_{self.name}_{self._attempt}"
        self._verdicts = {
            kind: Verdict.of(self.declared[f"{kind}Probe"])
            for kind in ("startup", "readiness", "liveness")
            if f"{kind}Probe" in self.declared
        }
        if self._stopping:
            process.kill()
        began = times.now()
        self._set(Running(began), last=previous)
        self._pod.normal("Started", f"Started container {self.name}")
        watching = asyncio.create_task(self._attend(process))
        try:
            code = await process.wait()
        finally:
            watching.cancel()
            self._process = None
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        if process.start_error:
            self._set(self._not_started(process.start_error, began), last=previous)
        else:
            reason = "Completed" if code == 0 else "Error"
            self._set(Terminated(code, reason, began, times.now()), last=previous)

    def _not_started(self, why: str, began: dt.datetime) -> Terminated:
        self._pod.warning("Failed", f"Error: {why}")
        return Terminated(_START_ERROR_CODE, "StartError", began, times.now(), why)

    async def _attend(self, process: ContainerProcess) -> None:
        """postStart, then the probes, as long as the process runs."""
        hook = self.declared.get("lifecycle", {}).get("postStart")
        if hook and (problem := await self._hook(hook, process)):
            self._pod.warning("FailedPostStartHook", problem)
            await self._terminate(process, Deadline(self._pod.grace_seconds))
            return
        async with asyncio.TaskGroup() as tasks:
            if "startup" in self._verdicts:
                await self._probe("startup", process)
            for kind in ("readiness", "liveness"):
                if kind in self._verdicts:
                    tasks.create_task(self._probe(kind, process))

    async def _probe(self, kind: ProbeKind, process: ContainerProcess) -> None:
        """Looks again and again; a startup probe until it has passed. A failed liveness probe ends the run."""
        probe: Json = self.declared[f"{kind}Probe"]
        verdict = self._verdicts[kind]
        await asyncio.sleep(float(probe.get("initialDelaySeconds", 0)))
        for due in itertools.count(time.monotonic(), period_seconds(probe)):
            await asyncio.sleep(due - time.monotonic())
            if self._stopping and kind != "readiness":
                return
            seen = await look(probe, self.declared, self._pod.pod_ip(), process)
            if not seen.success:
                self._pod.warning("Unhealthy", f"{kind.capitalize()} probe failed: {seen.message}")
            if not verdict.note(seen.success):
                continue
            self._changes.tell()
            self._pod.changed()
            if kind == "startup" and seen.success:
                return
            if kind != "readiness" and not seen.success:
                self._pod.normal("Killing", f"Container {self.name} failed {kind} probe, will be restarted")
                grace = probe.get("terminationGracePeriodSeconds", self._pod.grace_seconds)
                await self._terminate(process, Deadline(float(grace)))
                return

    async def _terminate(self, process: ContainerProcess, deadline: Deadline) -> None:
        """preStop and SIGTERM, then SIGKILL at the deadline."""
        ended = asyncio.create_task(process.wait())
        hook = self.declared.get("lifecycle", {}).get("preStop")
        if hook and deadline.seconds_left > 0:
            running = asyncio.create_task(self._hook(hook, process))
            late = asyncio.create_task(deadline.passed())
            await asyncio.wait((running, late, ended), return_when=asyncio.FIRST_COMPLETED)
            if running.done() and (problem := running.result()):
                self._pod.warning("FailedPreStopHook", problem)
            for task in (running, late):
                await _cancelled(task)
        process.send(signal.SIGTERM)
        late = asyncio.create_task(_passed(deadline, at_least=_SHORTEST_GRACE_SECONDS if hook else 0.0))
        await asyncio.wait((ended, late), return_when=asyncio.FIRST_COMPLETED)
        await _cancelled(late)
        process.kill()
        await ended

    async def _hook(self, hook: Json, process: ContainerProcess) -> str:
        """Runs a lifecycle hook. What went wrong, or nothing."""
        try:
            if "exec" in hook:
                outcome = await process.run(hook["exec"]["command"], self._pod.grace_seconds)
                return "" if outcome.exit_code == 0 else f"exit code {outcome.exit_code}: {outcome.output}"
            if "httpGet" in hook:
                async with asyncio.timeout(self._pod.grace_seconds):
                    code = await http_get(hook["httpGet"], self.declared, self._pod.pod_ip())
                return "" if 200 <= code < 400 else f"status code {code}"
            if "sleep" in hook:
                await asyncio.sleep(float(hook["sleep"]["seconds"]))
                return ""
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
            return f"{type(error).__name__}: {error}"
        return f"the lab has no such hook: {', '.join(hook)}"

    def _passed(self, kind: ProbeKind) -> bool:
        """Whether a probe lets the container count; one that is not declared always does."""
        return kind not in self._verdicts or self._verdicts[kind].passing is True

    def _set(self, state: ContainerState, last: Terminated | None = None) -> None:
        self._state = state
        self._last = last or self._last
        self._changes.tell()
        self._pod.changed()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changes.until(lambda: self._stopping)


async def _passed(deadline: Deadline, at_least: float) -> None:
    await asyncio.gather(deadline.passed(), asyncio.sleep(at_least))


async def _cancelled(task: asyncio.Task[str] | asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
