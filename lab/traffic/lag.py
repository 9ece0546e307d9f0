"""When the clients' own process stood still, which a client cannot tell from a server that does not answer."""

import asyncio
import time
from dataclasses import dataclass, field

LOOK_SECONDS = 0.005
WORTH_SECONDS = 0.02
"""Less is what an event loop that is busy with its clients does anyway."""


@dataclass(slots=True)
class Lag:
    """How late this process's event loop woke, wherever that was worth a word."""

    seen: list[tuple[float, float]] = field(default_factory=list)
    """When it should have woken (epoch seconds), and how late it did (seconds)."""

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            due = time.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            if (late := time.time() - due) > WORTH_SECONDS:
                self.seen.append((due, late))
