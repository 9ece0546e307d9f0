"""The lab's first process: `python -m lab.supervisor LAB`, as PID 1 of the lab's namespaces.

It makes the network, starts the parts, tells in `status.jsonl` how that goes, and ends everything when it is told to,
when a part ends, or when whoever started it is gone. The latter shows at its standard input, a pipe: that is open for
as long as the starter lives. A starter that writes `stay` into it lets the lab outlive it.
"""

import asyncio
import functools
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import addresses
from lab.children import Child, Children
from lab.controlplane import start as control_plane
from lab.environment import part_environment
from lab.gate import serve_gate
from lab.parts import Part
from lab.paths import REPOSITORY, LabPaths
from lab.process_table import process_table
from lab.readiness import wait_until_ready
from lab.spec import LabSpec
from lab.status import STAY, StatusFile

_READY_SECONDS = 180
_SETTLE_SECONDS = 600
_LOG_TAIL_LINES = 15


class LabFailedError(Exception):
    """Why a lab ended that nobody asked to end."""

    def __init__(self, message: str, *, part: str | None = None, details: str | None = None) -> None:
        super().__init__(message)
        self.part = part
        self.details = details


class Supervisor:
    """One lab, from its processes' start to their end."""

    def __init__(self, paths: LabPaths, spec: LabSpec) -> None:
        self._paths = paths
        self._spec = spec
        self._parts = process_table(paths, spec)
        self._status = StatusFile(paths.status)
        self._environment = part_environment(paths, spec)
        self._children = Children()
        self._running: dict[str, Child] = {}
        self._ready = {part.name: asyncio.Event() for part in self._parts}
        self._over: asyncio.Future[LabFailedError | None] = asyncio.get_running_loop().create_future()

    async def run(self) -> LabFailedError | None:
        """Starts everything, stays until the lab is to end, ends everything. Answers why, unless it was asked to."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._finish, None)
        await loop.connect_read_pipe(functools.partial(_Starter, on_gone=lambda: self._finish(None)), sys.stdin.buffer)
        gate = await serve_gate(self._paths.gate)
        start = asyncio.create_task(self._start())
        start.add_done_callback(self._started)
        failure = await self._over
        start.cancel()
        await asyncio.wait([start])
        gate.close()
        await self._stop()
        return failure

    def _finish(self, failure: LabFailedError | None) -> None:
        """The first reason to end counts: what follows is the ending's doing."""
        if not self._over.done():
            self._over.set_result(failure)

    async def _start(self) -> None:
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(self._start_part(part))
        await self._settle()
        self._status.write("running", "the lab is ready")

    def _started(self, start: "asyncio.Task[None]") -> None:
        if start.cancelled() or (error := start.exception()) is None:
            return
        first = _first(error)
        if not isinstance(first, LabFailedError):
            traceback.print_exception(first)
            first = LabFailedError(f"the lab could not start: {first}")
        self._finish(first)

    async def _start_part(self, part: Part) -> None:
        for name in part.after:
            if name in self._ready:
                await self._ready[name].wait()
        began = time.monotonic()
        log = self._paths.logs / f"{part.name}.log"
        try:
            child = self._children.spawn(
                part.command, log=log, environment={**self._environment, **part.environment}, directory=REPOSITORY
            )
        except OSError as error:
            raise LabFailedError(f"{part.name} could not be started: {error}", part=part.name) from error
        self._running[part.name] = child
        child.exited.add_done_callback(lambda exited: self._finish(_death(part, exited.result(), log)))
        self._status.write("starting", f"{part.name} is starting", part=part.name, pid=child.pid)
        if part.ready_url is not None:
            try:
                async with asyncio.timeout(_READY_SECONDS):
                    await wait_until_ready(part.ready_url)
            except TimeoutError as error:
                message = f"{part.name} was not ready within {_READY_SECONDS} s"
                raise LabFailedError(message, part=part.name, details=_tail(log)) from error
        self._ready[part.name].set()
        self._status.write("starting", f"{part.name} is ready ({time.monotonic() - began:.1f} s)", part=part.name)

    async def _settle(self) -> None:
        # Imported late: its HTTP client takes a while to import, which the processes' start hides.
        from lab.settle import SettleError, settle

        if "kube-apiserver" not in self._ready:
            return
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                await settle(
                    self._paths, self._spec, self._parts, lambda text: self._status.write("starting", text), self._run
                )
        except TimeoutError as error:
            raise LabFailedError(f"the cluster did not become usable within {_SETTLE_SECONDS} s") from error
        except SettleError as error:
            raise LabFailedError(str(error)) from error

    async def _run(self, command: Sequence[str], log: Path) -> int:
        return await self._children.spawn(command, log=log, environment=self._environment).exited

    async def _stop(self) -> None:
        """Ends what builds on others first; what is on one level ends at once."""
        self._status.write("stopping", "the lab is ending")
        by_part = levels(self._parts)
        for level in sorted(set(by_part.values()), reverse=True):
            members = [part for part in self._parts if by_part[part.name] == level and part.name in self._running]
            await asyncio.gather(*(self._running[part.name].stop(part.stop_seconds) for part in members))


class _Starter(asyncio.Protocol):
    """The pipe whose other end the starter holds."""

    def __init__(self, on_gone: Callable[[], None]) -> None:
        self._on_gone = on_gone
        self._said = b""

    def data_received(self, data: bytes) -> None:
        self._said += data

    def eof_received(self) -> None:
        if self._said != STAY:
            self._on_gone()


def levels(parts: Sequence[Part]) -> dict[str, int]:
    """How many parts deep each part builds on others."""
    by_name = {part.name: part for part in parts}

    def level(part: Part) -> int:
        return 1 + max((level(by_name[name]) for name in part.after if name in by_name), default=-1)

    return {part.name: level(part) for part in parts}


def _death(part: Part, code: int, log: Path) -> LabFailedError:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return LabFailedError(f"{part.name} {how}", part=part.name, details=_tail(log))


def _tail(log: Path) -> str:
    with log.open(errors="replace") as file:
        return "".join(deque(file, maxlen=_LOG_TAIL_LINES)).rstrip()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _set_up_network(spec: LabSpec) -> None:
    result = subprocess.run(
        ["ip", "-batch", "-"], input=addresses.set_up_commands(spec), capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise LabFailedError("the lab's network could not be made", details=result.stderr.strip())
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


async def _supervise(paths: LabPaths, spec: LabSpec) -> LabFailedError | None:
    return await Supervisor(paths, spec).run()


def main(root: Path) -> int:
    """Runs the lab in directory `root`; returns the exit code."""
    paths = LabPaths(root)
    status = StatusFile(paths.status)
    status.write("starting", "making the network")
    try:
        spec = LabSpec.load(paths.spec)
        _set_up_network(spec)
        control_plane.prepare(paths)
        failure = asyncio.run(_supervise(paths, spec))
    except LabFailedError as error:
        failure = error
    # A hundred megabytes that nobody can use any more.
    shutil.rmtree(paths.etcd, ignore_errors=True)
    if failure is None:
        status.write("stopped", "the lab has ended")
        return 0
    status.write("failed", str(failure), part=failure.part, details=failure.details)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
