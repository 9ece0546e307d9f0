"""A small asynchronous Kubernetes client: paths in, raw JSON out.

    async with Kube.from_kubeconfig(paths.kubeconfig) as kube:
        node = await kube.get("/api/v1/nodes/n1")
        async for event in kube.watch("/api/v1/pods"):
            ...

Errors:

    KubeError                   any answer but 2xx; `code`, `reason`, `body`, `headers` say what came
      BadRequestError      400
      UnauthorizedError    401
      ForbiddenError       403
      NotFoundError        404
      ConflictError        409
      GoneError            410
      InvalidError         422
      TooManyRequestsError 429  `retry_after` in seconds where the server gave one
      ServerError          5xx
    UnreachableError            no answer: refused, cut off, timed out
"""

import asyncio
import base64
import contextlib
import json
import random
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

import aiohttp
import yaml

Json = dict[str, Any]
Items = list[Json]
Parameters = Mapping[str, str | int | bool]
PatchKind = Literal["merge", "strategic", "json", "apply"]

_PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
_LIST_PAGE = 500
_WATCH_SECONDS = (240, 300)
_RECONNECT_SECONDS = (0.05, 2.0)


class UnreachableError(Exception):
    """The API server gave no answer."""


class KubeError(Exception):
    """The API server answered with an error."""

    status: ClassVar[int] = 0

    def __init__(self, code: int, body: Json, headers: Mapping[str, str], request: str) -> None:
        self.code = code
        self.body = body
        self.headers = headers
        self.reason: str = body.get("reason", "")
        super().__init__(f"{request}: {code} {self.reason}: {body.get('message', '')}")

    @property
    def retry_after(self) -> float | None:
        """Seconds, where the server said when to come again."""
        value = self.headers.get("Retry-After")
        return float(value) if value is not None else None


class BadRequestError(KubeError):
    status = 400


class UnauthorizedError(KubeError):
    status = 401


class ForbiddenError(KubeError):
    status = 403


class NotFoundError(KubeError):
    status = 404


class ConflictError(KubeError):
    status = 409


class GoneError(KubeError):
    status = 410


class InvalidError(KubeError):
    status = 422


class TooManyRequestsError(KubeError):
    status = 429


class ServerError(KubeError):
    status = 500


_ERRORS: dict[int, type[KubeError]] = {error.status: error for error in KubeError.__subclasses__()}


def error_from(code: int, body: Json, headers: Mapping[str, str], request: str) -> KubeError:
    """The error that stands for an answer's status code."""
    kind = ServerError if code >= ServerError.status else _ERRORS.get(code, KubeError)
    return kind(code, body, headers, request)


@dataclass(frozen=True)
class Event:
    """What a watch saw. SYNCED: every object that was there at the start (or after a gap) has been told of."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]
    object: Json


@dataclass(frozen=True)
class Access:
    """Where an API server is, and as whom to talk to it."""

    server: str
    token: str | None = None
    authority: str | None = None
    """PEM; without it, https servers are checked against the machine's authorities."""
    certificate: Path | None = None
    """A file with a client certificate and its key, in PEM."""

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Access":
        """Reads the current context; tokens and inline authorities only, which is what the lab writes."""
        document = yaml.safe_load(path.read_text())
        contexts = {entry["name"]: entry["context"] for entry in document["contexts"]}
        clusters = {entry["name"]: entry["cluster"] for entry in document["clusters"]}
        users = {entry["name"]: entry["user"] for entry in document["users"]}
        context = contexts[document["current-context"]]
        cluster = clusters[context["cluster"]]
        authority = cluster.get("certificate-authority-data")
        return cls(
            server=cluster["server"],
            token=users[context["user"]].get("token"),
            authority=base64.b64decode(authority).decode() if authority else None,
        )


class Kube:
    """One API server, as one identity. Use as an asynchronous context manager, within one event loop."""

    def __init__(self, access: Access, *, timeout_seconds: float = 30.0) -> None:
        self.access = access
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path, *, timeout_seconds: float = 30.0) -> Self:
        return cls(Access.from_kubeconfig(path), timeout_seconds=timeout_seconds)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self) -> None:
        """Begins the session, for whoever cannot use `async with`."""
        headers = {"Authorization": f"Bearer {self.access.token}"} if self.access.token else {}
        context = ssl.create_default_context(cadata=self.access.authority)
        if self.access.certificate is not None:
            context.load_cert_chain(self.access.certificate)
        self._session = aiohttp.ClientSession(
            self.access.server,
            headers=headers,
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **parameters: str | int | bool) -> Json:
        return await self.request("GET", path, parameters=parameters)

    async def list(self, path: str, **parameters: str | int | bool) -> Items:
        """Every item, read page by page. Items of a list carry no kind: this puts it back."""
        items, _ = await self._list(path, parameters)
        return items

    async def create(self, path: str, body: Json, **parameters: str | int | bool) -> Json:
        return await self.request("POST", path, body=body, parameters=parameters)

    async def replace(self, path: str, body: Json, **parameters: str | int | bool) -> Json:
        """PUT: with a resourceVersion in the body, a ConflictError if the object has changed since."""
        return await self.request("PUT", path, body=body, parameters=parameters)

    async def patch(
        self, path: str, patch: Json | Items, *, kind: PatchKind = "merge", **parameters: str | int | bool
    ) -> Json:
        """`kind="apply"` is server-side apply; it wants the parameter fieldManager."""
        return await self.request("PATCH", path, body=patch, parameters=parameters, content_type=_PATCH_TYPES[kind])

    async def delete(self, path: str, body: Json | None = None, **parameters: str | int | bool) -> Json:
        """`body`: DeleteOptions, e.g. gracePeriodSeconds and preconditions."""
        return await self.request("DELETE", path, body=body, parameters=parameters)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        parameters: Parameters | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """One request, one JSON answer. Raises KubeError or UnreachableError."""
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._open.request(
                method,
                path,
                data=data,
                params=_texts(parameters or {}),
                headers={"Content-Type": content_type, "Accept": "application/json"},
            ) as response:
                content = await response.read()
                if response.status >= 300:
                    raise error_from(response.status, _status_of(content), response.headers, f"{method} {path}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachableError(f"{method} {path}: {_said(error)}") from error
        answer: Json = json.loads(content)
        return answer

    async def watch(self, path: str, **parameters: str | int | bool) -> AsyncGenerator[Event]:
        """Tells of every object below `path`, then of every change, for ever.

        Lists first, then watches from there. Survives disconnects and expired versions: what went by meanwhile is
        told as if it had been seen (one event per object that differs). Ends with UnauthorizedError, ForbiddenError,
        NotFoundError or BadRequestError, which waiting does not cure.
        """
        known: dict[str, Json] = {}
        version: str | None = None
        backoff = _RECONNECT_SECONDS[0]
        while True:
            try:
                if version is None:
                    items, version = await self._list(path, parameters)
                    for event in _differences(known, items):
                        yield event
                    known = {_key(item): item for item in items}
                    yield Event("SYNCED", {"resourceVersion": version})
                async with contextlib.aclosing(self._stream(path, parameters, version)) as changes:
                    async for kind, item in changes:
                        backoff = _RECONNECT_SECONDS[0]
                        version = item["metadata"]["resourceVersion"]
                        if (change := _event(kind, item, known)) is not None:
                            yield change
            except (UnauthorizedError, ForbiddenError, NotFoundError, BadRequestError):
                raise
            except GoneError:
                version = None
            except (KubeError, UnreachableError):
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
                backoff = min(backoff * 2, _RECONNECT_SECONDS[1])

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use `async with Kube(...)`")
        return self._session

    async def _list(self, path: str, parameters: Parameters) -> tuple[Items, str]:
        items: Items = []
        page: Parameters = {"limit": _LIST_PAGE, **parameters}
        while True:
            answer = await self.request("GET", path, parameters=page)
            kind = answer["kind"].removesuffix("List")
            items += [{"apiVersion": answer["apiVersion"], "kind": kind, **item} for item in answer["items"]]
            metadata = answer["metadata"]
            if not metadata.get("continue"):
                return items, metadata["resourceVersion"]
            page = {"limit": _LIST_PAGE, **parameters, "continue": metadata["continue"]}

    async def _stream(self, path: str, parameters: Parameters, version: str) -> AsyncGenerator[tuple[str, Json]]:
        """One watch connection, until the server ends it."""
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 (jitter)
        watching = {
            **parameters,
            "watch": True,
            "allowWatchBookmarks": True,
            "resourceVersion": version,
            "timeoutSeconds": seconds,
        }
        # A server that hangs is noticed by the read timeout: bookmarks come about once a minute.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total, sock_read=seconds + 30)
        try:
            async with self._open.get(path, params=_texts(watching), timeout=timeout) as response:
                if response.status >= 300:
                    body = _status_of(await response.read())
                    raise error_from(response.status, body, response.headers, f"WATCH {path}")
                try:
                    async for line in _lines(response.content):
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise error_from(status.get("code", 500), status, {}, f"WATCH {path}")
                        yield event["type"], event["object"]
                finally:
                    # Whoever leaves a watch cuts it: TLS's goodbyes could outlast the event loop.
                    if response.connection is not None and response.connection.transport is not None:
                        response.connection.transport.abort()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachableError(f"WATCH {path}: {_said(error)}") from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    """Lines of any length: the stream's own readline refuses those that outgrow its buffer."""
    rest: list[bytes] = []
    async for chunk in stream.iter_any():
        head, *tail = chunk.split(b"\n")
        rest.append(head)
        for piece in tail:
            line = b"".join(rest)
            if line:
                yield line
            rest = [piece]


def _event(kind: str, item: Json, known: dict[str, Json]) -> Event | None:
    """What a line of a watch means to whoever knows of the objects in `known`, which it brings up to date."""
    if kind == "BOOKMARK":
        return None
    if kind == "DELETED":
        known.pop(_key(item), None)
        return Event("DELETED", item)
    fresh = _key(item) not in known
    known[_key(item)] = item
    return Event("ADDED" if fresh else "MODIFIED", item)


def _differences(known: dict[str, Json], items: Items) -> list[Event]:
    events: list[Event] = []
    now = {_key(item): item for item in items}
    events += [Event("DELETED", item) for key, item in known.items() if key not in now]
    for key, item in now.items():
        before = known.get(key)
        if before is None:
            events.append(Event("ADDED", item))
        elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            events.append(Event("MODIFIED", item))
    return events


def _key(item: Json) -> str:
    uid: str = item["metadata"]["uid"]
    return uid


def _status_of(content: bytes) -> Json:
    """An error's Status; proxies and webhooks answer in other forms, which become its message."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"message": content.decode(errors="replace")[:1000]}


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _texts(parameters: Parameters) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in parameters.items()}
