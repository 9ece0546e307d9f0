"""`lab.kube` against a server that says what the test wants it to say."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from lab.kube import Access, Event, Json, Kube, NotFoundError, ServerError, UnreachableError

Script = Callable[[web.Request], Any]


def pod(name: str, version: int) -> Json:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


def pods(version: int, *items: Json) -> web.Response:
    return web.json_response(
        {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}, "items": list(items)}
    )


async def stream(request: web.Request, *events: tuple[str, Json], cut: bool = False) -> web.StreamResponse:
    """A watch that tells of these events and ends; `cut`: in the middle of a line."""
    response = web.StreamResponse()
    await response.prepare(request)
    for kind, item in events:
        await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
    if cut:
        await response.write(b'{"type": "ADD')
        assert request.transport is not None
        request.transport.abort()
    return response


@asynccontextmanager
async def server(answers: list[Any]) -> AsyncIterator[Kube]:
    """A client of a server that gives these answers, one a request."""

    async def answer(request: web.Request) -> web.StreamResponse:
        following = answers.pop(0)
        made = following(request) if callable(following) else following
        response: web.StreamResponse = await made if asyncio.iscoroutine(made) else made
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with Kube(Access(f"http://127.0.0.1:{port}")) as kube:
            yield kube
    finally:
        await runner.cleanup()


async def watched(answers: list[Any], count: int) -> list[tuple[str, str]]:
    """Type and name (or version) of the first events of a watch."""
    seen: list[Event] = []
    async with server(answers) as kube, asyncio.timeout(10):
        async for event in kube.watch("/api/v1/pods"):
            seen.append(event)
            if len(seen) == count:
                break
    return [(event.type, event.object.get("metadata", event.object).get("name", "")) for event in seen]


def test_a_watch_lists_then_follows() -> None:
    answers = [
        pods(5, pod("a", 3)),
        lambda request: stream(
            request,
            ("MODIFIED", pod("a", 6)),
            ("ADDED", pod("b", 7)),
            ("BOOKMARK", pod("", 8)),
            ("DELETED", pod("a", 9)),
        ),
        lambda request: stream(request, ("ADDED", pod("c", 10))),
    ]
    assert asyncio.run(watched(answers, 6)) == [
        ("ADDED", "a"),
        ("SYNCED", ""),
        ("MODIFIED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
        ("ADDED", "c"),
    ]


def test_a_watch_goes_on_from_where_it_was_cut_off() -> None:
    versions: list[str] = []

    def follow(*events: tuple[str, Json], cut: bool) -> Script:
        def answer(request: web.Request) -> Any:
            versions.append(request.query["resourceVersion"])
            return stream(request, *events, cut=cut)

        return answer

    answers = [
        pods(5),
        follow(("ADDED", pod("a", 6)), cut=True),
        follow(("ADDED", pod("b", 7)), cut=False),
    ]
    assert asyncio.run(watched(answers, 3)) == [("SYNCED", ""), ("ADDED", "a"), ("ADDED", "b")]
    assert versions == ["5", "6"]


@pytest.mark.parametrize("as_event", [True, False])
def test_after_an_expired_version_a_watch_tells_what_it_missed(as_event: bool) -> None:
    expired = {"code": 410, "reason": "Expired", "message": "too old resource version"}
    gone: Any = web.json_response(expired, status=410)
    answers = [
        pods(5, pod("kept", 1), pod("changed", 2), pod("deleted", 3)),
        (lambda request: stream(request, ("ERROR", expired))) if as_event else gone,
        pods(9, pod("kept", 1), pod("changed", 8), pod("new", 9)),
        stream,
    ]
    assert asyncio.run(watched(answers, 8))[4:] == [
        ("DELETED", "deleted"),
        ("MODIFIED", "changed"),
        ("ADDED", "new"),
        ("SYNCED", ""),
    ]


def test_a_watch_outlasts_a_server_that_fails_for_a_while() -> None:
    answers = [
        web.Response(status=503, text="not now"),
        pods(5),
        web.Response(status=500),
        lambda request: stream(request, ("ADDED", pod("a", 6))),
    ]
    assert asyncio.run(watched(answers, 2)) == [("SYNCED", ""), ("ADDED", "a")]


def test_a_watch_of_what_there_is_not_ends() -> None:
    with pytest.raises(NotFoundError):
        asyncio.run(watched([web.json_response({"reason": "NotFound"}, status=404)], 1))


def test_a_list_is_read_page_by_page_and_its_items_get_their_kind_back() -> None:
    async def run() -> list[Json]:
        first = {"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": "next"}, "items": [pod("a", 1)]}
        async with server([web.json_response(first), pods(2, pod("b", 2))]) as kube:
            return await kube.list("/api/v1/pods")

    assert [(item["kind"], item["metadata"]["name"]) for item in asyncio.run(run())] == [("Pod", "a"), ("Pod", "b")]


def test_an_error_that_is_no_status_is_still_an_error() -> None:
    async def run() -> None:
        async with server([web.Response(status=502, text="<html>bad gateway</html>")]) as kube:
            await kube.get("/api/v1/pods")

    with pytest.raises(ServerError, match=r"GET /api/v1/pods: 502 : <html>bad gateway</html>"):
        asyncio.run(run())


def test_no_answer_is_an_error_of_its_own() -> None:
    async def run() -> None:
        async with Kube(Access("http://127.0.0.1:1")) as kube:
            await kube.get("/version")

    with pytest.raises(UnreachableError, match="GET /version"):
        asyncio.run(run())
