"""Child processes of the lab's first process, which also inherits every orphan of the lab."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class Child:
    """A process that was started."""

    def __init__(self, pid: int, exited: "asyncio.Future[int]") -> None:
        self.pid = pid
        self.exited = exited
        """Its exit code; minus the signal's number if a signal ended it."""

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL if it is still there `grace_seconds` later; to it and to the processes of its group."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.exited), grace_seconds)
        self._signal(signal.SIGKILL)
        await self.exited

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Children:
    """Starts processes and reaps whatever ends, its own and others' orphans."""

    def __init__(self) -> None:
        self._running: dict[int, Child] = {}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str], directory: Path | None = None
    ) -> Child:
        """Starts a process, in a session of its own; its output is appended to `log`. Raises OSError."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )
        # From here on `_reap` alone waits for it: Popen is told that there is nothing left to wait for.
        process.returncode = 0
        child = Child(process.pid, asyncio.get_running_loop().create_future())
        self._running[process.pid] = child
        return child

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._running.pop(pid, None)
            if child is not None and not child.exited.done():
                child.exited.set_result(os.waitstatus_to_exitcode(status))
