"""A data set that is in a Redis group before its clients begin, so that synchronizing it takes real time."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

MEGABYTE = 1_000_000
CHUNK_BYTES = 100_000
CHUNKS_PER_MEGABYTE = MEGABYTE // CHUNK_BYTES

AT_ONCE = 16
"""Commands under way at the same time."""


class Strings(Protocol):
    """What is asked of a client, of one server or of a cluster."""

    def set(self, name: str, value: bytes) -> Awaitable[Any]: ...

    def strlen(self, name: str) -> Awaitable[Any]: ...


async def fill(client: Strings, megabytes: int) -> None:
    """Writes so many megabytes (10^6 bytes) in chunks, over all slots of a cluster. Random: dumps are compressed."""

    async def write(number: int) -> None:
        await client.set(_key(number), os.urandom(CHUNK_BYTES))

    await _all(write, megabytes)


async def missing(client: Strings, megabytes: int) -> int:
    """How many chunks of the data set are not there, or not whole."""
    absent = 0

    async def look(number: int) -> None:
        nonlocal absent
        absent += await client.strlen(_key(number)) != CHUNK_BYTES

    await _all(look, megabytes)
    return absent


async def _all(work: Callable[[int], Awaitable[None]], megabytes: int) -> None:
    chunks = range(megabytes * CHUNKS_PER_MEGABYTE)
    for first in range(0, len(chunks), AT_ONCE):
        await asyncio.gather(*(work(number) for number in chunks[first : first + AT_ONCE]))


def _key(number: int) -> str:
    return f"dataset:{number}"
