"""A node and its pods' runs."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.instances import Instance
from lab.node import times, worker_node
from lab.node.worker_node import WorkerNode
from lab.spec import LabSpec

POD = {"metadata": {"uid": "u1", "name": "db-0", "namespace": "shop", "deletionTimestamp": "now"}, "status": {}}


class ShortRun:
    """A pod's run that is over at once."""

    begun = 0
    key = "shop/db-0"

    def __init__(self, *_: object) -> None:
        ShortRun.begun += 1

    async def run(self) -> None:
        pass

    def update(self, pod: object) -> None:
        pass


def test_late_news_of_a_pod_whose_run_is_over_does_not_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say once more that its volume is in use, and nobody could ever detach it."""
    monkeypatch.setattr(worker_node, "PodRunner", ShortRun)
    nothing = cast(Any, None)
    instance = Instance("i-1", "running", "workers", LabSpec().zones[0], "m6i.large", "10.0.0.9", "ami-1", 0.0)

    async def live() -> None:
        node = WorkerNode(instance, LabSpec(), nothing, nothing, nothing, nothing)
        node.see_pod(POD)
        await asyncio.sleep(0.01)
        node.see_pod(POD)
        await asyncio.sleep(0.01)

    asyncio.run(live())
    assert ShortRun.begun == 1


class ContradictingServer:
    """An API server whose node controller says NotReady once more while it is being told Ready."""

    def __init__(self) -> None:
        self.node: WorkerNode | None = None
        self.told = 0

    async def get(self, _path: str) -> dict[str, Any]:
        return {"spec": {"renewTime": times.micros(times.now())}}

    async def patch(self, _path: str, _body: object, **_: object) -> dict[str, Any]:
        self.told += 1
        await asyncio.sleep(0)
        if self.told == 1:
            assert self.node is not None
            self.node.see_node(NOT_READY)
        await asyncio.sleep(0)
        return {}


NOT_READY = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}


def test_a_contradiction_in_the_middle_of_the_answer_to_another_one_is_answered_too() -> None:
    """Nothing would come after it: the node would stay NotReady."""
    instance = Instance("i-1", "running", "workers", LabSpec().zones[0], "m6i.large", "10.0.0.9", "ami-1", 0.0)
    server = ContradictingServer()

    async def live() -> None:
        node = WorkerNode(instance, LabSpec(), cast(Any, SimpleNamespace(kube=server)), *[cast(Any, None)] * 3)
        server.node = node
        node._ready = True
        node.see_node(NOT_READY)
        assert node._reasserting is not None
        async with asyncio.timeout(30):
            await node._reasserting

    asyncio.run(live())
    assert server.told == 2
