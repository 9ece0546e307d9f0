"""One execution environment of a Lambda function: a process of its own that handles one event at a time."""

import contextlib
import json
import os
import queue
import signal
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from lab.aws.nursery import Birth, Nursery
from lab.aws.runtime_api import Event, Kind, Outcome, RuntimeApi

_INIT_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1024 * 1024
_OUT_OF_MEMORY = Outcome(Kind.EXIT, b"signal: killed")


@dataclass(frozen=True)
class Function:
    """A function's configuration, as its environments need it."""

    name: str
    arn: str
    handler: str
    role: str
    memory_mib: int
    timeout_seconds: float
    code: Path
    variables: tuple[tuple[str, str], ...]
    log: Path


@dataclass(frozen=True)
class Result:
    """What an invocation gives its caller; `failed` is what Lambda calls a function error."""

    payload: bytes
    failed: bool = False


class Environment:
    """A process running awslambdaric with the function's code, variables, and its role's credentials.

    Lambda ends a function that needs more memory than it has. What counts is the resident memory, as on Lambda: a limit
    on address space or data (RLIMIT_AS, RLIMIT_DATA) would count what Python's threads and libraries merely reserve,
    and would raise a MemoryError that the function could catch.
    """

    def __init__(self, function: Function, variables: dict[str, str], nursery: Nursery) -> None:
        self.function = function
        self.idle_since = time.monotonic()
        self.dead = False
        self._api = RuntimeApi()
        function.log.parent.mkdir(parents=True, exist_ok=True)
        self._log = function.log.open("ab", buffering=0)
        variables = variables | {"AWS_LAMBDA_RUNTIME_API": self._api.address}
        self.pid = nursery.bear(Birth(function.handler, function.code, variables, function.log), self._end)

    def invoke(self, payload: bytes, kill_after: float | None = None) -> tuple[Result, bool]:
        """Handles one event. `kill_after` seconds into it the process is killed, if it still works on it, with 0 before
        it begins; the second part of the answer says whether that happened. An environment that is `dead` afterwards
        takes no more events.
        """
        request_id = str(uuid.uuid4())
        cold = not self._api.ready.is_set()
        started = time.monotonic()
        if cold and (failure := self._initialized(request_id)):
            return self._ended(failure), False
        began = time.monotonic()
        self._say(f"START RequestId: {request_id}")
        deadline = time.time() + self.function.timeout_seconds
        if kill_after == 0:
            # Before it has the event, of which it surely does nothing then.
            self.kill()
        self._api.offer(Event(request_id, payload, self.function.arn, deadline))
        result, killed = self._await(request_id, began, kill_after)
        took = f"Duration: {(time.monotonic() - began) * 1000:.0f} ms"
        init = f" Init Duration: {(began - started) * 1000:.0f} ms" if cold else ""
        self._say(f"REPORT RequestId: {request_id} {took}{init} Max Memory Used: {self._peak() // _MIB} MB")
        return result, killed

    def kill(self) -> None:
        """Ends the process and all that it started, at once."""
        ended, self.dead = self.dead, True
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def stand_still(self) -> None:
        """The process and all that it started do nothing until `go_on`; the function's timeout goes on."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends `stand_still`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if not self.dead:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _initialized(self, request_id: str) -> Result | None:
        """Waits until the function is imported; the failure's result if it can't be."""
        deadline = time.monotonic() + _INIT_SECONDS
        while not self._api.ready.is_set():
            with contextlib.suppress(queue.Empty):
                outcome = self._api.outcomes.get(timeout=_LOOK_SECONDS)
                if outcome.kind is Kind.INIT_ERROR:
                    return Result(outcome.body, failed=True)
                return _exit_error(request_id, outcome)
            if time.monotonic() > deadline:
                return _failure("Sandbox.Timedout", request_id, f"Init timed out after {_INIT_SECONDS:.2f} seconds")
        return None

    def _await(self, request_id: str, began: float, kill_after: float | None) -> tuple[Result, bool]:
        timeout, killed = self.function.timeout_seconds, False
        while True:
            elapsed = time.monotonic() - began
            if elapsed > timeout:
                text = f"Task timed out after {timeout:.2f} seconds"
                return self._ended(_failure("Sandbox.Timedout", request_id, text)), False
            if kill_after is not None and not killed and elapsed >= kill_after:
                self.kill()
                killed = True
            if self._resident() > self.function.memory_mib * _MIB:
                self.kill()
            try:
                outcome = self._api.outcomes.get(timeout=self._look(elapsed, kill_after if not killed else None))
            except queue.Empty:
                continue
            # An answer that came in together with the kill is an answer; the environment is gone all the same.
            if outcome.kind is Kind.ERROR:
                return Result(outcome.body, failed=True), False
            if outcome.kind is Kind.RESPONSE:
                if self._peak() <= self.function.memory_mib * _MIB:
                    return Result(outcome.body), False
                outcome = _OUT_OF_MEMORY
            return self._ended(_exit_error(request_id, outcome)), killed

    def _look(self, elapsed: float, kill_after: float | None) -> float:
        """How long to wait for an answer before looking at the clock and the memory again."""
        until = [_LOOK_SECONDS, self.function.timeout_seconds - elapsed]
        if kill_after is not None:
            until.append(kill_after - elapsed)
        return max(min(until), 0.001)

    def _ended(self, result: Result) -> Result:
        self.kill()
        return result

    def _end(self, status: int) -> None:
        self.dead = True
        words = (
            "signal: killed"
            if status == -signal.SIGKILL
            else f"signal: {-status}"
            if status < 0
            else f"exit status {status}"
        )
        self._api.outcomes.put(Outcome(Kind.EXIT, words.encode()))
        threading.Thread(target=self._close, name=f"close-{self.function.name}", daemon=True).start()

    def _close(self) -> None:
        self._api.close()
        self._log.close()

    def _resident(self) -> int:
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def _peak(self) -> int:
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(peaks[0]) * 1024 if peaks else 0

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._log.write(f"{line}\n".encode())


def _exit_error(request_id: str, outcome: Outcome) -> Result:
    return _failure("Runtime.ExitError", request_id, f"Runtime exited with error: {outcome.body.decode()}")


def _failure(kind: str, request_id: str, message: str) -> Result:
    error = {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {message}"}
    return Result(json.dumps(error).encode(), failed=True)
