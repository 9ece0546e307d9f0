"""The HTTP server under the AWS server."""

from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import ThreadedWSGIServer

_WAITING_CONNECTIONS = 512


class Handler(MotoRequestHandler):  # type: ignore[misc]  # moto has no types, so its class is Any
    """Quiet, with connections that stay open, and answers that are sent in one piece at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_request(self, *_: Any) -> None:
        """`/_lab/calls` says what was asked."""


def make_server(host: str, port: int, application: Any) -> ThreadedWSGIServer:
    """A server with a thread for each connection, bound and listening."""
    server = ThreadedWSGIServer(host, port, application, Handler)
    server.daemon_threads = True
    server.socket.listen(_WAITING_CONNECTIONS)
    return server
