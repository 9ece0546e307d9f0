"""The part of the kubelet's API that the API server needs for `kubectl logs`, on port 10250 of every node."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable, Mapping

from aiohttp import web

from lab.addresses import KUBELET_PORT
from lab.node import times
from lab.node.container import Container
from lab.node.logs import LogQuery, log_file, read_log
from lab.node.pod import PodRunner
from lab.node.status import Running, Waiting
from lab.paths import LabPaths

FindPod = Callable[[str, str], PodRunner | None]


def log_query(parameters: Mapping[str, str], now: dt.datetime) -> LogQuery:
    """What a request asks for. Raises ValueError for what is no number or time."""
    since: dt.datetime | None = None
    if "sinceSeconds" in parameters:
        since = now - dt.timedelta(seconds=int(parameters["sinceSeconds"]))
    elif "sinceTime" in parameters:
        since = times.parse(parameters["sinceTime"])
    return LogQuery(
        follow=_truth(parameters, "follow"),
        timestamps=_truth(parameters, "timestamps"),
        tail_lines=int(parameters["tailLines"]) if "tailLines" in parameters else None,
        limit_bytes=int(parameters["limitBytes"]) if "limitBytes" in parameters else None,
        since=since,
    )


async def serve_kubelet_api(paths: LabPaths, find_pod: FindPod) -> None:
    """Serves until cancelled. Logs are for holders of a client certificate of the cluster's authority."""
    application = web.Application()
    application.router.add_get("/healthz", _healthz)
    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", _Logs(find_pod))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(paths.pki / "ca.crt"))
        context.load_cert_chain(paths.pki / "kubelet.crt", paths.pki / "kubelet.key")
        context.verify_mode = ssl.CERT_OPTIONAL
        # Every node's address is the lab's own: one socket serves them all, while they have them.
        await web.TCPSite(runner, "0.0.0.0", KUBELET_PORT, ssl_context=context).start()  # noqa: S104 (in the lab's own namespace)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


class _Logs:
    def __init__(self, find_pod: FindPod) -> None:
        self._find_pod = find_pod

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.transport is None or not request.transport.get_extra_info("peercert"):
            raise web.HTTPUnauthorized(text="Unauthorized")
        name = request.match_info["container"]
        pod = self._find_pod(request.match_info["namespace"], request.match_info["pod"])
        container = next((c for c in pod.containers if c.name == name), None) if pod else None
        if pod is None or container is None:
            raise web.HTTPNotFound(text=f'container "{name}" of that pod is not on this node')
        try:
            query = log_query(request.query, times.now())
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        attempt = _attempt(container, previous=_truth(request.query, "previous"))
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)

        def ended() -> bool:
            return container.attempt != attempt or not isinstance(container.view.state, Running)

        async for text in read_log(log_file(pod.logs, name, attempt), query, ended):
            await response.write(text)
        await response.write_eof()
        return response


def _attempt(container: Container, *, previous: bool) -> int:
    """Which run is meant. Raises HTTPBadRequest where there is none such."""
    if previous:
        if container.attempt < 1 and not (container.attempt == 0 and container.view.last):
            raise web.HTTPBadRequest(text=f'previous terminated container "{container.name}" not found')
        return container.attempt - 1 if isinstance(container.view.state, Running) else container.attempt
    state = container.view.state
    if container.attempt < 0:
        reason = state.reason if isinstance(state, Waiting) else "ContainerCreating"
        raise web.HTTPBadRequest(text=f'container "{container.name}" is waiting to start: {reason}')
    return container.attempt


def _truth(parameters: Mapping[str, str], name: str) -> bool:
    return parameters.get(name, "").lower() in ("true", "1")
