"""Tasks beside each other, of which none may fail unseen."""

import asyncio
from collections.abc import Coroutine
from typing import Any


def tasks(*work: Coroutine[Any, Any, None]) -> list["asyncio.Task[None]"]:
    """Starts all of it."""
    return [asyncio.create_task(each) for each in work]


async def first(ended: Coroutine[Any, Any, Any], *work: "asyncio.Task[None]") -> None:
    """Waits for the end, or for the failure of anything that should go on."""
    waiting = asyncio.create_task(ended)
    done, _ = await asyncio.wait([waiting, *work], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
