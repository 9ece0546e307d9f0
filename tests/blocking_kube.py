"""`lab.kube` for tests, which are not asynchronous; and waiting for what a cluster does in its own time."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from lab.kube import Access, Items, Json, Kube, PatchKind
from lab.loop_thread import LoopThread
from tests.waiting import patience

T = TypeVar("T")


class BlockingKube:
    """One identity at one API server."""

    def __init__(self, access: Access, loop: LoopThread) -> None:
        self.access = access
        self._loop = loop
        self._kube = Kube(access)
        loop.run(self._kube.__aenter__())

    def close(self) -> None:
        self._loop.run(self._kube.__aexit__(None, None, None))

    def get(self, path: str, **parameters: str | int | bool) -> Json:
        return self._loop.run(self._kube.get(path, **parameters))

    def list(self, path: str, **parameters: str | int | bool) -> Items:
        return self._loop.run(self._kube.list(path, **parameters))

    def create(self, path: str, body: Json, **parameters: str | int | bool) -> Json:
        return self._loop.run(self._kube.create(path, body, **parameters))

    def replace(self, path: str, body: Json) -> Json:
        return self._loop.run(self._kube.replace(path, body))

    def patch(self, path: str, patch: Json | Items, *, kind: PatchKind = "merge") -> Json:
        return self._loop.run(self._kube.patch(path, patch, kind=kind))

    def delete(self, path: str, body: Json | None = None) -> Json:
        return self._loop.run(self._kube.delete(path, body))

    def wait_for(
        self, what: str, path: str, condition: Callable[[Items], T | None], *, seconds: float = 15, **selectors: str
    ) -> T:
        """What `condition` first answers, but None, for all objects at `path`; looked at whenever one changes.

        Fails as an assertion naming `what` after so many seconds of a quiet machine.
        """

        async def follow(seen: dict[str, Json]) -> T:
            synced = False
            async with contextlib.aclosing(self._kube.watch(path, **selectors)) as events:
                async for event in events:
                    if event.type == "SYNCED":
                        synced = True
                    elif event.type == "DELETED":
                        seen.pop(event.object["metadata"]["uid"], None)
                    else:
                        seen[event.object["metadata"]["uid"]] = event.object
                    if synced and (answer := condition(list(seen.values()))) is not None:
                        return answer
            raise AssertionError("a watch ended")

        seen: dict[str, Json] = {}
        try:
            return self._loop.run(asyncio.wait_for(follow(seen), patience(seconds)))
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {what}; there is {_brief(seen)}") from None


def _brief(objects: dict[str, Json]) -> Items:
    return [
        {"name": item["metadata"]["name"], "spec": item.get("spec"), "status": item.get("status")}
        for item in objects.values()
    ]
