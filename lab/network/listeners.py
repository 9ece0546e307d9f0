"""Listening at what a table says, and at nothing else."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from lab.network.routes import Listen
from lab.network.sources import listening_socket

_log = logging.getLogger(__name__)
Entry = TypeVar("Entry")


class Listeners(Generic[Entry]):
    """One listening socket per entry of a table. Connections look their entry up when they come in, so a change of
    the table concerns new connections only."""

    def __init__(self, protocol: Callable[[Listen], asyncio.Protocol]) -> None:
        self._protocol = protocol
        self._servers: dict[Listen, asyncio.Server] = {}
        self.table: dict[Listen, Entry] = {}

    async def follow(self, table: dict[Listen, Entry]) -> None:
        """Makes it so. An address that cannot be listened at is said, and tried again at the next change."""
        self.table = table
        for gone in self._servers.keys() - table.keys():
            self._servers.pop(gone).close()
        for fresh in _in_order(table.keys() - self._servers.keys()):
            try:
                self._servers[fresh] = await self._open(fresh)
            except OSError as error:
                _log.error("cannot listen at %s:%d: %s", fresh.address, fresh.port, error)

    async def _open(self, listen: Listen) -> asyncio.Server:
        listener = listening_socket(listen.address, listen.port)
        return await asyncio.get_running_loop().create_server(lambda: self._protocol(listen), sock=listener)


def _in_order(listens: Iterable[Listen]) -> list[Listen]:
    return sorted(listens, key=lambda listen: (listen.address, listen.port))
