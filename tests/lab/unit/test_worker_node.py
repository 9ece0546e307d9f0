"""A node and its pods' runs."""

import asyncio
from typing import Any, cast

import pytest

from lab.instances import Instance
from lab.node import worker_node
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
        node = WorkerNode(instance, LabSpec(), nothing, nothing, nothing)
        node.see_pod(POD)
        await asyncio.sleep(0.01)
        node.see_pod(POD)
        await asyncio.sleep(0.01)

    asyncio.run(live())
    assert ShortRun.begun == 1
