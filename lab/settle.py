"""From processes that run to a cluster that can be used."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from lab.kube import Json, Kube, KubeError, UnreachableError
from lab.kubectl import apply_command
from lab.parts import Part
from lab.paths import REPOSITORY, LabPaths
from lab.spec import LabSpec

Run = Callable[[Sequence[str], Path], Awaitable[int]]
"""Runs a command, its output going to a file; answers the exit code."""

_STARTUP_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_POLL_SECONDS = 0.05


class SettleError(Exception):
    """The cluster did not become usable."""


async def settle(paths: LabPaths, spec: LabSpec, parts: list[Part], say: Callable[[str], None], run: Run) -> None:
    """Waits until pods can be made and every node of the spec is Ready, then applies the spec's manifests.

    Raises SettleError; how long it may take is the caller's to say.
    """
    names = {part.name for part in parts}
    async with Kube.from_kubeconfig(paths.kubeconfig) as kube:
        await _service_account(kube)
        if "node-agent" in names:
            await _nodes_ready(kube, sum(group.size for group in spec.groups), say)
    for manifest in spec.manifests:
        say(f"applying {manifest}")
        await _apply(paths, manifest, run)


async def _service_account(kube: Kube) -> None:
    """Pods are refused until their namespace's service account is there."""
    while True:
        try:
            await kube.get("/api/v1/namespaces/default/serviceaccounts/default")
        except (KubeError, UnreachableError):
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


async def _nodes_ready(kube: Kube, expected: int, say: Callable[[str], None]) -> None:
    ready: set[str] = set()
    if expected == 0:
        return
    say(f"0 of {expected} nodes ready")
    async for event in kube.watch("/api/v1/nodes"):
        if event.type == "SYNCED":
            continue
        name = event.object["metadata"]["name"]
        before = len(ready)
        if event.type != "DELETED" and _is_ready(event.object):
            ready.add(name)
        else:
            ready.discard(name)
        if len(ready) != before:
            say(f"{len(ready)} of {expected} nodes ready")
        if len(ready) >= expected:
            return


def _is_ready(node: Json) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    waiting = any(taint["key"].startswith(_STARTUP_TAINTS) for taint in node["spec"].get("taints", []))
    return ready and not waiting


async def _apply(paths: LabPaths, manifest: str, run: Run) -> None:
    log = paths.logs / "manifests.log"
    command = apply_command([str(REPOSITORY / manifest)], f"--kubeconfig={paths.kubeconfig}")
    if await run(command, log) != 0:
        raise SettleError(f"{manifest} could not be applied: {log.read_text().strip()}")
