"""Where Lambda environments' processes come from: forked, so that each need not import the layer's packages anew."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab.aws import lambda_bootstrap
from lab.paths import cache_directory


@dataclass(frozen=True)
class Birth:
    """What a process shall be: a handler, run in a directory, with these variables and no others."""

    handler: str
    directory: Path
    variables: dict[str, str]
    log: Path


class Nursery:
    """One process of `lambda_bootstrap`, started with the first request. It and all its children end with this one."""

    def __init__(self) -> None:
        # The kernel ends a process when the thread that started it ends, so one thread that lives on starts it.
        self._spawner = ThreadPoolExecutor(1, "lambda-nursery")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: list[tuple[Future[int], Callable[[int], None]]] = []
        self._ends: dict[int, Callable[[int], None]] = {}

    def bear(self, birth: Birth, on_end: Callable[[int], None]) -> int:
        """Starts a process, the leader of a group of its own, and answers its id. `on_end` is called, soon and from
        another thread, with its exit status, negative for a signal; it must not block."""
        born: Future[int] = Future()
        request = {
            "handler": birth.handler,
            "directory": str(birth.directory),
            "variables": birth.variables,
            "log": str(birth.log),
        }
        with self._lock:
            if self._process is None:
                self._process = self._spawner.submit(self._start).result()
                threading.Thread(target=self._listen, name="lambda-nursery-news", daemon=True).start()
            self._asked.append((born, on_end))
            assert self._process.stdin is not None  # noqa: S101 (`_start` asks for a pipe)
            self._process.stdin.write(f"{json.dumps(request)}\n".encode())
            self._process.stdin.flush()
        return born.result()

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", lambda_bootstrap.__file__, str(os.getpid())],
            env={
                "HOME": os.devnull,  # no configuration of whoever runs the lab
                "LANG": "en_US.UTF-8",
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPYCACHEPREFIX": str(cache_directory() / "bytecode"),
                "TZ": ":UTC",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def _listen(self) -> None:
        assert self._process is not None  # noqa: S101 (started before this thread)
        assert self._process.stdout is not None  # noqa: S101 (`_start` asks for a pipe)
        for line in self._process.stdout:
            message = json.loads(line)
            if "started" in message:
                with self._lock:
                    born, on_end = self._asked.pop(0)
                    self._ends[message["started"]] = on_end
                born.set_result(message["started"])
            else:
                with self._lock:
                    on_end = self._ends.pop(message["ended"])
                on_end(message["status"])
        with self._lock:
            asked, self._asked = self._asked, []
        for born, _ in asked:
            born.set_exception(RuntimeError("the process that Lambda environments are forked from has ended"))
