"""The image `web`: a small HTTP server that leaves the way a well-made one does.

    GET /            who answers: pod, node, zone
    GET /healthz     200 while it wants traffic, 503 from SIGTERM on
    GET /slow?ms=N   the same as /, after N milliseconds
    GET /whoami      the caller's address

On SIGTERM it turns unready but goes on serving, new connections too, for $DRAIN_SECONDS: by then no Service,
node port or load balancer sends it anything. It closes idle connections, finishes those in flight, exits 0.
Environment: PORT (8080), BIND_ADDRESS (0.0.0.0), DRAIN_SECONDS (3), START_SECONDS (0: before it listens),
POD_NAME, NODE_NAME, ZONE (from the downward API).
"""

import asyncio
import json
import os
import signal
import sys
import urllib.parse

_KEEP_ALIVE_SECONDS = 60.0


class Server:
    """One process's state: whether it is leaving, and the connections it has."""

    def __init__(self) -> None:
        self.leaving = False
        self.idle: set[asyncio.StreamWriter] = set()
        self.busy = 0
        self.identity = {
            "pod": os.environ.get("POD_NAME", os.environ.get("HOSTNAME", "")),
            "node": os.environ.get("NODE_NAME", ""),
            "zone": os.environ.get("ZONE", ""),
        }

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, one after the other, until either side has had enough."""
        try:
            while True:
                self.idle.add(writer)
                async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                self.busy += 1
                try:
                    close = await self._answer(head, reader, writer)
                finally:
                    self.busy -= 1
                if close:
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            return
        finally:
            self.idle.discard(writer)
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request. True if the connection is to be closed."""
        request, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = request.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        await reader.readexactly(int(headers.get("content-length", "0")))
        peer = writer.get_extra_info("peername")[0]
        status, body = await self._respond(urllib.parse.urlsplit(target), peer)
        wish = headers.get("connection", "").lower()
        # A leaving server ends each connection after the answer in hand, so that clients move on by themselves.
        close = self.leaving or wish == "close" or (version == "HTTP/1.0" and wish != "keep-alive")
        content = json.dumps(body).encode() + b"\n"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n".encode()
            + (b"" if method == "HEAD" else content)
        )
        await writer.drain()
        return close

    async def _respond(self, url: urllib.parse.SplitResult, peer: str) -> tuple[str, dict[str, object]]:
        match url.path:
            case "/":
                return "200 OK", dict(self.identity)
            case "/slow":
                await asyncio.sleep(float(urllib.parse.parse_qs(url.query).get("ms", ["100"])[0]) / 1000)
                return "200 OK", dict(self.identity)
            case "/whoami":
                return "200 OK", {"client": peer}
            case "/healthz":
                return ("503 Service Unavailable" if self.leaving else "200 OK"), {"leaving": self.leaving}
            case _:
                return "404 Not Found", {"error": "no such page"}


async def main() -> None:
    server = Server()
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await asyncio.sleep(float(os.environ.get("START_SECONDS", "0")))
    address, port = os.environ.get("BIND_ADDRESS", "0.0.0.0"), int(os.environ.get("PORT", "8080"))  # noqa: S104 (in the pod's own namespace)
    listener = await asyncio.start_server(server.serve_connection, address, port, backlog=1024)
    print(f"listening on {address}:{port}")
    await told.wait()
    server.leaving = True
    drain = float(os.environ.get("DRAIN_SECONDS", "3"))
    print(f"told to leave; serving {drain:g} seconds more")
    await asyncio.sleep(drain)
    listener.close()
    for writer in list(server.idle):
        writer.close()
    while server.busy:  # noqa: ASYNC110 (for seconds, at the end)
        await asyncio.sleep(0.01)
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
