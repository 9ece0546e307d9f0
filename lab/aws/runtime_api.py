"""The Lambda Runtime API of one execution environment: hands it one event at a time and takes its answer."""

import functools
import queue
import threading
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PREFIX = "/2018-06-01/runtime/"


@dataclass(frozen=True)
class Event:
    """An event for the function. `deadline` is in epoch seconds."""

    request_id: str
    payload: bytes
    function_arn: str
    deadline: float


class Kind(StrEnum):
    """What became of an event, or of the environment."""

    RESPONSE = "response"
    ERROR = "error"
    INIT_ERROR = "init error"
    EXIT = "exit"


@dataclass(frozen=True)
class Outcome:
    """What the environment's process answered; `body` is the payload, or the exit status in words."""

    kind: Kind
    body: bytes


class RuntimeApi:
    """A server on a loopback port of its own. `outcomes` fills with what the process answers."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        # Looks that rarely whether it shall end; requests wake it at once.
        serve = functools.partial(self._server.serve_forever, poll_interval=5.0)
        threading.Thread(target=serve, name="runtime-api", daemon=True).start()

    @property
    def address(self) -> str:
        """What AWS_LAMBDA_RUNTIME_API has to say."""
        return f"127.0.0.1:{self._server.server_port}"

    def offer(self, event: Event) -> None:
        """Gives the process its next event."""
        self._events.put(event)

    def next_event(self) -> Event | None:
        """Blocks until there is an event; None once the server is closed."""
        self.ready.set()
        return self._events.get()

    def close(self) -> None:
        self._events.put(None)
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: RuntimeApi


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without both, an answer waits 40 ms for the acknowledgement of its own header.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        """`invocation/next`, the only one that is read."""
        event = self.server.api.next_event()
        if event is None:
            self.close_connection = True
            return
        self._answer(
            200,
            event.payload,
            {
                "Content-Type": "application/json",
                "Lambda-Runtime-Aws-Request-Id": event.request_id,
                "Lambda-Runtime-Deadline-Ms": str(int(event.deadline * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": event.function_arn,
                "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
            },
        )

    def do_POST(self) -> None:
        """`invocation/<id>/response`, `invocation/<id>/error` and `init/error`."""
        body = self._body()
        if body is None:
            self.close_connection = True
            return
        self._answer(202, b'{"status": "OK"}', {"Content-Type": "application/json"})
        match self.path.removeprefix(_PREFIX).split("/"):
            case ["invocation", _, "response"]:
                self.server.api.outcomes.put(Outcome(Kind.RESPONSE, body))
            case ["invocation", _, "error"]:
                self.server.api.outcomes.put(Outcome(Kind.ERROR, body))
            case ["init", "error"]:
                self.server.api.outcomes.put(Outcome(Kind.INIT_ERROR, body))

    def log_message(self, *_: Any) -> None:
        """The function's own log says what happens."""

    def _body(self) -> bytes | None:
        """None if the process was killed in the midst of it: half an answer is none."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            announced = int(self.headers.get("Content-Length") or -1)
            body = self.rfile.read(max(announced, 0))
            return body if len(body) == announced else None
        chunks = []
        while line := self.rfile.readline():
            size = int(line.split(b";")[0], 16)
            chunks.append(self.rfile.read(size))
            if len(chunks[-1]) < size or not self.rfile.readline().endswith(b"\n"):
                return None
            if size == 0:
                return b"".join(chunks)
        return None

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
