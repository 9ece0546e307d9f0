"""The end of tasks that go on until they are cancelled."""

import asyncio

CANCEL_AGAIN_SECONDS = 0.1


async def cancel_all(tasks: "list[asyncio.Task[None]]") -> None:
    """Ends the tasks and waits until they have ended."""
    # Once is not enough: up to Python 3.11 `asyncio.wait_for`, which the Redis client sends with, loses a cancellation
    # that comes while its work ends (python/cpython#86296).
    open_tasks = set(tasks)
    while open_tasks:
        for task in open_tasks:
            task.cancel()
        _, open_tasks = await asyncio.wait(open_tasks, timeout=CANCEL_AGAIN_SECONDS)
