"""The end of tasks that go on until they are cancelled."""

import asyncio

CANCEL_AGAIN_SECONDS = 0.1


async def cancel_all(tasks: "list[asyncio.Task[None]]") -> None:
    """Ends the tasks and waits until they have ended, also where it is cancelled meanwhile; raises that then."""
    # Once is not enough: up to Python 3.11 `asyncio.wait_for`, which the Redis client sends with, loses a cancellation
    # that comes while its work ends (python/cpython#86296).
    open_tasks = set(tasks)
    interruption: asyncio.CancelledError | None = None
    while open_tasks:
        for task in open_tasks:
            task.cancel()
        try:
            await asyncio.wait(open_tasks, timeout=CANCEL_AGAIN_SECONDS)
        except asyncio.CancelledError as error:
            # Whoever ends the task that ends these does so again and again, too.
            interruption = error
        open_tasks = {task for task in open_tasks if not task.done()}
    if interruption is not None:
        raise interruption
