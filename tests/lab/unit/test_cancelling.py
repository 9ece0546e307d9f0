"""The end of tasks that go on until they are cancelled."""

import asyncio

from lab.traffic.cancelling import cancel_all


def test_tasks_that_lose_a_cancellation_have_ended_although_the_one_that_ends_them_is_cancelled_again() -> None:
    lost = 0

    async def losing() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost == 3:
                    raise
                lost += 1

    async def ending(inner: "asyncio.Task[None]") -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await cancel_all([inner])

    async def everything() -> bool:
        inner = asyncio.create_task(losing())
        outer = asyncio.create_task(ending(inner))
        await asyncio.sleep(0)
        await cancel_all([outer])
        ended = inner.done()
        while not inner.done():
            inner.cancel()
            await asyncio.sleep(0)
        return ended

    assert asyncio.run(everything())
    assert lost == 3
