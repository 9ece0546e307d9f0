"""The client that is deployed, for tests: a function keeps its connections as long as it lives, a test does not."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from eks_rolling.clients.redis import RedisClient


class ClosingClient(RedisClient):
    """Closes its connections when nobody holds it any more.

    Errors that a test looks at keep frames alive, and with them clients, until garbage is collected. That finalizes
    sockets in any order; one that comes before its connection is a warning, which is an error in the test that
    happens to run.
    """

    def __init__(self, secrets: Callable[[str, str], Mapping[str, str]]) -> None:
        super().__init__(secrets)
        # What waits for the end of an object is called before anything that goes with it is finalized.
        weakref.finalize(self, _close, self._connections)


def _close(connections: dict[Any, Any]) -> None:
    for connection in connections.values():
        connection.disconnect()
