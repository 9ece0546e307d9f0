"""The lab's own programs for pods, as processes: they leave the way well-made ones do."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab.images.catalogue import find_image
from tests.waiting import until

Process = subprocess.Popen[str]


@contextlib.contextmanager
def started(image: str, **environment: str) -> Iterator[Process]:
    process = subprocess.Popen(
        find_image(image).command_line([], []),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Its children too, which in a container go with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def said(process: Process) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextlib.contextmanager
def web(**environment: str) -> Iterator[tuple[Process, int]]:
    port = free_port()
    settings = {
        "PORT": str(port),
        "BIND_ADDRESS": "127.0.0.1",
        "DRAIN_SECONDS": "1",
        "POD_NAME": "web-1",
        **environment,
    }
    with started("web", **settings) as process:
        assert said(process) == f"listening on 127.0.0.1:{port}"
        yield process, port


def get(port: int, path: str = "/", connection: HTTPConnection | None = None) -> tuple[int, dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        if connection is None:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            stack.callback(connection.close)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_web_says_who_it_is_and_keeps_connections() -> None:
    with web() as (_, port), contextlib.closing(HTTPConnection("127.0.0.1", port)) as connection:
        assert get(port, connection=connection) == (200, {"pod": "web-1", "node": "", "zone": ""})
        assert get(port, "/healthz", connection)[0] == 200
        assert get(port, "/whoami", connection) == (200, {"client": "127.0.0.1"})
        assert get(port, "/none", connection)[0] == 404


def test_web_that_is_told_to_leave_serves_on_for_its_drain_period() -> None:
    with web() as (process, port):
        slow: queue.Queue[int] = queue.Queue()
        caller = threading.Thread(target=lambda: slow.put(get(port, "/slow?ms=1500")[0]))
        caller.start()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert said(process).startswith("told to leave")
        assert get(port, "/healthz")[0] == 503
        while time.monotonic() - began < 0.7:
            assert get(port)[0] == 200
        assert process.wait(5) == 0
        caller.join()
        assert slow.get() == 200, "the request in flight is answered though it outlasts the drain period"
        assert time.monotonic() - began >= 1.0


class Broker(ThreadingHTTPServer):
    """Hands out jobs as lab.images.worker describes, and notes what it is told."""

    def __init__(self, *jobs: dict[str, object]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs = list(jobs)
        self.done: list[str] = []
        self.answers_to_done = [503, 200]
        """The first report of each job gets the first of these, the second the second."""


class _Handler(BaseHTTPRequestHandler):
    server: Broker

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/take":
            if self.server.jobs:
                self._answer(200, self.server.jobs.pop(0))
            else:
                time.sleep(body["wait_seconds"])
                self._answer(204)
            return
        self.server.done.append(body["id"])
        self._answer(self.server.answers_to_done[min(self.server.done.count(body["id"]), 2) - 1])

    def _answer(self, status: int, body: dict[str, object] | None = None) -> None:
        content = json.dumps(body).encode() if body else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def worker(broker: Broker) -> Iterator[Process]:
    serving = threading.Thread(target=broker.serve_forever)
    serving.start()
    try:
        with started("worker", BROKER_URL=f"http://127.0.0.1:{broker.server_port}", POD_NAME="w") as process:
            assert said(process).startswith("taking jobs")
            yield process
    finally:
        broker.shutdown()
        broker.server_close()
        serving.join()


def test_a_worker_finishes_the_job_in_hand_and_reports_it_until_it_is_heard() -> None:
    broker = Broker({"id": "a", "work_ms": 800}, {"id": "b", "work_ms": 800})
    with worker(broker) as process:
        until(lambda: len(broker.jobs) == 1, "it has the first job in hand")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert said(process) == "left after 1 jobs"
    assert broker.done == ["a", "a"]
    assert [job["id"] for job in broker.jobs] == ["b"], "it took no job after it was told to leave"


def test_a_worker_whose_lease_has_expired_drops_the_job_and_goes_on() -> None:
    broker = Broker({"id": "a", "work_ms": 1}, {"id": "b", "work_ms": 1})
    broker.answers_to_done = [409, 409]
    with worker(broker) as process:
        until(lambda: broker.done == ["a", "b"], "both jobs are reported")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def hears(process: Process, sent: signal.Signals) -> bool:
    """Whether it has a handler for the signal (proc(5), SigCgt)."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (handled,) = [line.split()[1] for line in status if line.startswith("SigCgt:")]
    return bool(int(handled, 16) >> (sent - 1) & 1)


@pytest.mark.parametrize("image", ["pause", "cluster-autoscaler"])
def test_images_that_do_nothing_leave_when_told(image: str) -> None:
    with started(image) as process:
        until(lambda: hears(process, signal.SIGTERM), "it hears when it is told")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
