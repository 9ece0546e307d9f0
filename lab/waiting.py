"""Waiting for changes and deadlines."""

import asyncio
from collections.abc import Callable
from functools import partial


class Changes:
    """Wakes everybody who waits for something to have changed."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def tell(self) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once the condition holds; it is looked at after every change."""
        while not condition():
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next)


class Deadline:
    """A moment that can be brought forward while others wait for it."""

    def __init__(self, seconds: float) -> None:
        self._when = asyncio.get_running_loop().time() + seconds
        self._changes = Changes()

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._when - asyncio.get_running_loop().time())

    def bring_forward(self, seconds: float) -> None:
        """Not later than `seconds` from now."""
        self._when = min(self._when, asyncio.get_running_loop().time() + seconds)
        self._changes.tell()

    def _differs_from(self, before: float) -> bool:
        return self._when != before

    async def passed(self) -> None:
        while self.seconds_left > 0:
            try:
                async with asyncio.timeout(self.seconds_left):
                    await self._changes.until(partial(self._differs_from, self._when))
            except TimeoutError:
                continue
