"""Events about pods and nodes, as kubectl describe shows them."""

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import Literal

from lab.kube import Json, Kube, KubeError, NotFoundError, UnreachableError
from lab.node import times

_log = logging.getLogger(__name__)
_COMPONENT = "kubelet"
_QUEUE = 1000


@dataclass(frozen=True)
class _Note:
    about: Json
    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
    host: str


class Recorder:
    """Posts events one after the other beside the work they tell of. Equal ones become one event with a count."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._queue: asyncio.Queue[_Note] = asyncio.Queue(_QUEUE)
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}

    def normal(self, about: Json, reason: str, message: str, *, host: str) -> None:
        self._put(_Note(about, "Normal", reason, message, host))

    def warning(self, about: Json, reason: str, message: str, *, host: str) -> None:
        self._put(_Note(about, "Warning", reason, message, host))

    async def run(self) -> None:
        """Posts for ever; an event that cannot be posted is dropped, as events may be."""
        while True:
            note = await self._queue.get()
            try:
                await self._post(note)
            except (KubeError, UnreachableError) as error:
                _log.info("event %s dropped: %s", note.reason, error)

    def _put(self, note: _Note) -> None:
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            _log.info("event %s dropped: %d are waiting", note.reason, _QUEUE)

    async def _post(self, note: _Note) -> None:
        metadata = note.about["metadata"]
        namespace = metadata.get("namespace", "default")
        path = f"/api/v1/namespaces/{namespace}/events"
        key = (metadata["uid"], note.reason, note.message)
        now = times.seconds(times.now())
        if key in self._known:
            name, count = self._known[key]
            self._known[key] = (name, count + 1)
            try:
                await self._kube.patch(f"{path}/{name}", {"count": count + 1, "lastTimestamp": now})
            except NotFoundError:
                del self._known[key]  # expired
            else:
                return
        name = f"{metadata['name']}.{secrets.token_hex(8)}"
        self._known[key] = (name, 1)
        if len(self._known) > _QUEUE:
            self._known.pop(next(iter(self._known)))
        involved = {
            "kind": note.about.get("kind", "Pod"),
            "apiVersion": note.about.get("apiVersion", "v1"),
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        if "namespace" in metadata:
            involved["namespace"] = metadata["namespace"]
        await self._kube.create(path, {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "type": note.kind,
            "reason": note.reason,
            "message": note.message,
            "source": {"component": _COMPONENT, "host": note.host},
            "reportingComponent": _COMPONENT,
            "reportingInstance": note.host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })  # fmt: skip
