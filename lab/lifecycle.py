"""Labs seen from outside: starting, finding, entering and ending them."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from lab.controlplane.build import programs
from lab.controlplane.start import link_programs
from lab.environment import command_environment, inside, python_path
from lab.gate import Forwarder
from lab.loop_thread import LoopThread
from lab.namespace import create_command, enter_command
from lab.paths import REPOSITORY, LabPaths, labs_directory
from lab.prerequisites import search_path
from lab.spec import LabSpec
from lab.status import STAY, State, StatusLine, StatusReader, read_status

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_POLL_SECONDS = 0.02
_LOCK_SECONDS = 1.0
_STOP_SECONDS = 30.0
_KEPT_FILES = ("logs", "lock", "spec.json", "status.jsonl")

OnStatus = Callable[[StatusLine], None]


class LabError(Exception):
    """A lab could not be started, has failed, or is not there; the message is for people."""

    def __init__(self, message: str, *, details: str | None = None) -> None:
        super().__init__(message)
        self.details = details


class Lab:
    """A lab that runs."""

    def __init__(self, paths: LabPaths) -> None:
        self.paths = paths
        self.spec = LabSpec.load(paths.spec)
        self.pid = 1 if inside(paths) else int(paths.pid.read_text())
        """Its first process, as seen from here."""

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of commands inside: KUBECONFIG, the AWS endpoint, kubectl on PATH."""
        return command_environment(self.paths, self.spec)

    def command(self, command: Sequence[str], *, directory: Path | None = None) -> list[str]:
        """The command line that runs `command` inside; to be run with `environment`."""
        if inside(self.paths):
            return list(command)
        return enter_command(self.pid, command, directory=directory)

    def run(self, command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        """`subprocess.run` inside the lab, in text mode; `options` are passed on to it."""
        return subprocess.run(
            self.command(command), **{"env": self.environment, "text": True, "check": False, **options}
        )

    def popen(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        """`subprocess.Popen` inside the lab, in text mode. Killing what it answers kills the command."""
        return subprocess.Popen(self.command(command), **{"env": self.environment, "text": True, **options})

    def signal(self, part: str, number: signal.Signals) -> None:
        """Sends a signal to a part's process. Raises LabError if the lab has no such part."""
        pids = {line.part: line.pid for line in read_status(self.paths.status) if line.pid is not None}
        if part not in pids:
            raise LabError(f"lab {self.name} has no part called {part}; it has {', '.join(filter(None, pids))}")
        self.run(["kill", f"-{number.value}", str(pids[part])], check=True)

    def stop(self, on_status: OnStatus | None = None) -> None:
        """Ends it, and returns when nothing is left of it but its records. Raises LabError if it does not end."""
        reader = StatusReader(self.paths.status)
        reader.skip()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline:
                ended = not is_running(self.paths)
                _tell(reader, on_status)
                if ended:
                    discard(self.paths)
                    return
                time.sleep(_POLL_SECONDS)
        raise LabError(f"lab {self.name} does not end; its first process is {self.pid}")


class BoundLab:
    """A lab bound to the life of this process until `let_go`: when this process ends, however it ends, so does it."""

    def __init__(self, paths: LabPaths, process: "subprocess.Popen[bytes]") -> None:
        self.paths = paths
        self._process = process
        self._reader = StatusReader(paths.status)

    def wait_until_running(self, on_status: OnStatus | None = None) -> Lab:
        """Returns once the cluster is usable. Raises LabError, with the end of the log that tells why it isn't."""
        for line in self._lines(on_status):
            if line.state == "running":
                return Lab(self.paths)
        raise LabError(f"lab {self.paths.name} was ended while it was starting")

    def wait_until_over(self, on_status: OnStatus | None = None) -> None:
        """Returns when the lab has ended as it was asked to. Raises LabError if it failed or was killed."""
        for _ in self._lines(on_status):
            pass

    def let_go(self) -> None:
        """Lets the lab outlive this process."""
        self._tell_supervisor(STAY)

    def end(self, on_status: OnStatus | None = None) -> None:
        """Ends the lab; returns when it has ended."""
        self._tell_supervisor(b"")
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _tell(self._reader, on_status)

    def _tell_supervisor(self, message: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 (started with a pipe)
        if pipe.closed:
            return
        with contextlib.suppress(BrokenPipeError), pipe:
            pipe.write(message)

    def _lines(self, on_status: OnStatus | None) -> Iterator[StatusLine]:
        """The supervisor's words until its end; a failure is raised once everything has ended."""
        last: StatusLine | None = None
        over = False
        while not over:
            time.sleep(_POLL_SECONDS)
            over = self._process.poll() is not None
            for line in self._reader.new_lines():
                # A lab that failed at once is gone before its first words are read; they say why.
                if not self.paths.pid.exists() and (child := _only_child(self._process.pid)) is not None:
                    self.paths.pid.write_text(str(child))
                last = line
                if line.state == "failed":
                    continue
                if on_status is not None:
                    on_status(line)
                yield line
        self._tell_supervisor(b"")
        if last is not None and last.state == "failed":
            raise LabError(last.message, details=last.details)
        if last is None or last.state != "stopped":
            raise LabError(f"lab {self.paths.name} was killed", details=_supervisor_said(self.paths))


def begin(spec: LabSpec, name: str) -> BoundLab:
    """Begins to start a lab. The control plane's binary has to be there (`lab.controlplane.build`).

    Raises LabError if the name is taken or no name, NamespaceError if this machine makes no namespaces.
    """
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} is no name for a lab: lower-case letters, digits and dashes, at most 40")
    paths = LabPaths.of(name)
    command = create_command([sys.executable, "-m", "lab.supervisor", str(paths.root)])
    ready_programs = programs()
    with _locked(paths) as lock:
        _clear(paths, keep=("lock",))
        paths.logs.mkdir()
        spec.save(paths.spec)
        link_programs(paths, ready_programs)
        with (paths.logs / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": python_path(), "PATH": search_path()},
                # The lab inherits the lock and so holds it for as long as it lives.
                pass_fds=[lock.fileno()],
                # Ctrl-C at the terminal is for this process alone: it ends the lab in good order.
                start_new_session=True,
            )
    return BoundLab(paths, process)


@contextlib.contextmanager
def running_lab(spec: LabSpec, name: str, on_status: OnStatus | None = None) -> Iterator[Lab]:
    """A lab for the time of a `with` block; it ends with this process even if that is killed."""
    bound = begin(spec, name)
    try:
        yield bound.wait_until_running(on_status)
    finally:
        bound.end(on_status)
    discard(bound.paths)


@contextlib.contextmanager
def outside_ports(lab: Lab) -> Iterator[Callable[[str, int], int]]:
    """A function from an address inside to a port of this machine's loopback address that leads there."""
    with LoopThread() as loop:
        forwarder = Forwarder(lab.paths.gate, loop)
        try:
            yield forwarder.port_for
        finally:
            forwarder.close()


def find(name: str) -> Lab:
    """The running lab of that name. Raises LabError if there is none."""
    paths = LabPaths.of(name)
    if not is_running(paths):
        raise LabError(f"no lab called {name} is running; `python -m lab up --name {name}` starts one")
    if not paths.pid.exists():
        raise LabError(f"lab {name} is only just starting")
    return Lab(paths)


def known_labs() -> list[LabPaths]:
    """Every lab there are files of, running or not, by name."""
    return sorted((LabPaths(spec.parent) for spec in labs_directory().glob("*/spec.json")), key=lambda lab: lab.name)


def is_running(paths: LabPaths) -> bool:
    """Whether any process of the lab lives, be it starting or ending."""
    try:
        with paths.lock.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def current_state(paths: LabPaths) -> State | Literal["killed"]:
    """What the lab last said of itself; "killed" if it lives no more without having said so."""
    lines = read_status(paths.status)
    said: State = lines[-1].state if lines else "starting"
    if said in ("stopped", "failed") or is_running(paths):
        return said
    return "killed"


def discard(paths: LabPaths) -> None:
    """Deletes what an ended lab has no more use for; its logs and records stay until the next start."""
    _clear(paths, keep=_KEPT_FILES)


def _clear(paths: LabPaths, keep: Sequence[str]) -> None:
    for entry in paths.root.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextlib.contextmanager
def _locked(paths: LabPaths) -> Iterator[IO[bytes]]:
    paths.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with paths.lock.open("ab") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                # Somebody who only looks whether it runs holds the lock for an instant.
                if time.monotonic() > deadline:
                    raise LabError(
                        f"a lab called {paths.name} is running; "
                        f"`python -m lab down --name {paths.name}` ends it, another --name starts one beside it"
                    ) from error
                time.sleep(_POLL_SECONDS)
        yield lock


def _only_child(pid: int) -> int | None:
    """The process id of the one child of `pid`; None if it has ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The command's name is in brackets and may itself hold brackets and spaces.
            _, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid:
                return int(stat.parent.name)
    return None


def _supervisor_said(paths: LabPaths) -> str:
    return (paths.logs / "supervisor.log").read_text(errors="replace").strip()


def _tell(reader: StatusReader, on_status: OnStatus | None) -> None:
    for line in reader.new_lines():
        if on_status is not None:
            on_status(line)
