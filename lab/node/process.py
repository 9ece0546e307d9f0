"""One run of one container: a real process in namespaces of its own."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.node.logs import write_log
from lab.node.mounts import Mount, bubblewrap, in_container, in_network

_START_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.002
_KILLED_BY_SIGNAL = 128
_NOT_EXECUTED = "bwrap: execvp "


class StartError(Exception):
    """The container's first process could not be started; the message says why."""


@dataclass(frozen=True)
class Launch:
    """All that a container's process is started with."""

    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[Mount]
    hostname: str
    working_directory: str
    network: Path | None
    """The pod's network namespace; None is the lab's own."""


@dataclass(frozen=True)
class Outcome:
    """How a command run inside a container ended; None if it took too long."""

    exit_code: int | None
    output: str


class ContainerProcess:
    """A running container. Its first process is the command itself, so it gets signals as it would in a pod."""

    def __init__(
        self, launch: Launch, monitor: asyncio.subprocess.Process, pid: int, log_file: Path, log: asyncio.Task[None]
    ) -> None:
        self._launch = launch
        self._monitor = monitor
        self.pid = pid
        """Of the container's first process, as the lab sees it."""
        self.start_error = ""
        """Known at the end only: the command could not be executed, and why."""
        self._handle = os.pidfd_open(pid)
        self._log_file = log_file
        self._log = log
        self._ended = asyncio.create_task(self._until_end())

    @classmethod
    async def start(cls, launch: Launch, log: Path) -> "ContainerProcess":
        """Starts the container; its output goes to `log`. Raises StartError."""
        info, info_write = os.pipe()
        gate, gate_write = os.pipe()
        confined = bubblewrap(
            launch.command,
            mounts=launch.mounts,
            hostname=launch.hostname,
            working_directory=launch.working_directory,
            info_fd=info_write,
            gate_fd=gate,
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            monitor = await asyncio.create_subprocess_exec(
                *in_network(launch.network, confined),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=launch.environment,
                pass_fds=(info_write, gate),
                # A kernel that shares its processors between sessions gives each container a share of its own.
                start_new_session=True,
            )
        except OSError as error:
            os.close(info)
            os.close(gate_write)
            raise StartError(str(error)) from error
        finally:
            os.close(info_write)
            os.close(gate)
        writing = asyncio.create_task(_write_logs(monitor, log))
        try:
            async with asyncio.timeout(_START_SECONDS):
                pid = json.loads(await _read_all(info))["child-pid"]
                # Only now may it go on: it could have ended before anybody had hold of it.
                process = cls(launch, monitor, pid, log, writing)
                os.write(gate_write, b"go")
                await _until_executed(pid)
        except BaseException as error:
            _kill(monitor)
            await monitor.wait()
            await writing
            if isinstance(error, (OSError, ValueError)):
                raise StartError(_last_words(log) or f"no first process: {error}") from error
            raise
        finally:
            os.close(gate_write)
        return process

    async def wait(self) -> int:
        """The exit code, once the process has ended and its output is written; 128 + n when signal n ended it."""
        return await asyncio.shield(self._ended)

    def send(self, number: signal.Signals) -> None:
        """Signals the first process; nothing if it has ended."""
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """Ends everything in the container at once: with its first process the kernel kills the rest."""
        self.send(signal.SIGKILL)

    async def run(self, command: Sequence[str], timeout_seconds: float) -> Outcome:
        """Runs a command beside the container's own, with its environment and files."""
        process = await asyncio.create_subprocess_exec(
            *in_container(self.pid, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._launch.environment,
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                output, _ = await process.communicate()
        except TimeoutError:
            return Outcome(None, "")
        finally:
            _kill(process)
            await process.wait()
        return Outcome(process.returncode, output.decode(errors="replace").strip())

    async def _until_end(self) -> int:
        code = await self._monitor.wait()
        await self._log
        os.close(self._handle)
        self._handle = -1
        if code == 1 and (words := _last_words(self._log_file)).startswith(_NOT_EXECUTED):
            self.start_error = words.removeprefix("bwrap: ")
        return code if code >= 0 else _KILLED_BY_SIGNAL - code


async def _until_executed(pid: int) -> None:
    """Waits until bubblewrap has become the command: until then the container's files are not all in place, and what
    a probe or hook ran inside would see the lab's."""
    while _program_of(pid) == "bwrap":  # noqa: ASYNC110 (/proc has no events)
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _program_of(pid: int) -> str | None:
    """The name of the program that a process runs; None if it has ended."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return None


def _kill(process: asyncio.subprocess.Process) -> None:
    """SIGKILL, unless it has ended. Not through the process object, which would look for the exit code by itself and
    take it from the event loop."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


async def _write_logs(monitor: asyncio.subprocess.Process, log: Path) -> None:
    if monitor.stdout is None or monitor.stderr is None:
        raise RuntimeError("the process was started without pipes")
    with log.open("ab") as file:
        await asyncio.gather(
            write_log(monitor.stdout, "stdout", file),
            write_log(monitor.stderr, "stderr", file),
        )


async def _read_all(descriptor: int) -> bytes:
    """Reads a pipe to its end, and closes it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return await reader.read()
    finally:
        transport.close()


def _last_words(log: Path) -> str:
    """What bubblewrap said before it gave up."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1].split(" ", 3)[-1] if lines else ""
