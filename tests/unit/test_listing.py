"""Long lists: page by page, the next one asked for while one is read, and right whatever the head of an answer says."""

import gc
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import KubernetesClient, parsed, token_at_head
from eks_rolling.errors import AccessDenied, Transient

Json = dict[str, Any]


class Answer:
    """urllib3's response, as far as the client reads it."""

    def __init__(self, status: int, content: bytes) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {}
        self._content = content

    def read(self) -> bytes:
        return self._content


class Server:
    """Serves nodes in pages of two; `tokens` are what it was asked to continue with."""

    def __init__(self, names: list[str], *, metadata_first: bool = True) -> None:
        self.names = names
        self.metadata_first = metadata_first
        self.tokens: list[str] = []
        self.fails_at = ""

    def call_api(self, method: str, url: str, **_: Any) -> Answer:
        assert method == "GET"
        token = url.partition("continue=")[2].partition("&")[0]
        self.tokens.append(token)
        if token and token == self.fails_at:
            return Answer(410, json.dumps({"message": "The provided continue parameter is too old"}).encode())
        start = int(token or 0)
        rest = len(self.names) - start - 2
        metadata = {"resourceVersion": "1"} | ({"continue": str(start + 2)} if rest > 0 else {})
        items = [
            {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}} for name in self.names[start : start + 2]
        ]
        parts: Json = {"kind": "NodeList", "metadata": metadata, "items": items}
        if not self.metadata_first:
            parts = {"kind": "NodeList", "items": items, "metadata": metadata}
        return Answer(200, json.dumps(parts).encode())


def client_of(server: Server) -> KubernetesClient:
    client = KubernetesClient("https://127.0.0.1:9", "", lambda: "token")
    client._api = server  # stands in for the SDK
    return client


@pytest.fixture(autouse=True)
def _gc_stays_as_it_was() -> Iterator[None]:
    assert gc.isenabled()
    yield
    assert gc.isenabled()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("metadata_first", [True, False])
def test_every_object_comes_once_and_each_page_is_asked_for_once(count: int, metadata_first: bool) -> None:
    names = [f"node-{i}" for i in range(count)]
    server = Server(names, metadata_first=metadata_first)
    assert [n.name for n in client_of(server).nodes()] == names
    assert server.tokens == [str(i) if i else "" for i in range(0, max(1, count), 2)]


def test_a_token_that_an_object_bears_leads_nowhere() -> None:
    """T1: what stands in items is no list's metadata."""
    server = Server(['x","continue":"6', "b", "c"], metadata_first=False)
    assert len(client_of(server).nodes()) == 3
    assert server.tokens == ["", "2"]


def test_a_page_that_is_refused_is_a_fault_and_no_shorter_list() -> None:
    server = Server([f"node-{i}" for i in range(7)])
    server.fails_at = "4"
    with pytest.raises(Exception, match="continue parameter is too old"):
        client_of(server).nodes()


@pytest.mark.parametrize(("status", "fault"), [(403, AccessDenied), (503, Transient)])
def test_a_first_page_that_is_refused_is_a_fault(status: int, fault: type[Exception]) -> None:
    client = client_of(Server([]))
    client._api.call_api = lambda *_, **__: Answer(status, b'{"message": "no"}')
    with pytest.raises(fault):
        client.nodes()


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (b'{"kind":"PodList","metadata":{"continue":"eyJ2Ijoi=","remainingItemCount":3},"items":[', "eyJ2Ijoi="),
        (b'{"metadata":{"resourceVersion":"7"},"items":[{"continue":"x"}]}', ""),
        (b'{"items":[],"metadata":{"continue":"x"}}', ""),
        (b'{"metadata":{"continue":""},"items":[]}', ""),
        (b'{"metadata":{"continue":"a\\"b"},"items":[]}', ""),
        (b"", ""),
    ],
)  # fmt: skip
def test_the_next_pages_token_is_read_before_the_first_item(content: bytes, token: str) -> None:
    assert token_at_head(content) == token


def test_what_is_no_json_is_passed_on_as_words() -> None:
    assert parsed(b"Bad Gateway") == {"message": "Bad Gateway"}
    assert parsed(b"") == {}


@pytest.mark.parametrize("path", ["cron_jobs", "judges_of_evictions", "network_policies"])
def test_an_api_that_the_server_does_not_have_has_no_objects(path: str) -> None:
    """ValidatingAdmissionPolicy is v1 from Kubernetes 1.30 on; the others are read as before."""
    client = client_of(Server([]))
    client._api.call_api = lambda *_, **__: Answer(404, b"404 page not found\n")
    assert getattr(client, path)() == []
    client._api.call_api = lambda *_, **__: Answer(403, b'{"message": "forbidden"}')
    with pytest.raises(AccessDenied):
        getattr(client, path)()


def test_the_kinds_that_the_server_has_are_read_beside_one_that_it_lacks() -> None:
    rule = {"apiGroups": [""], "operations": ["CREATE"], "resources": ["pods/eviction"]}
    hook = {"metadata": {"name": "guard"}, "webhooks": [{"rules": [rule]}]}

    def call_api(_: str, url: str, **__: Any) -> Answer:
        if "validatingadmissionpolicies" in url:
            return Answer(404, b"404 page not found\n")
        items = [hook] if "validatingwebhookconfigurations" in url else []
        return Answer(200, json.dumps({"metadata": {}, "items": items}).encode())

    client = client_of(Server([]))
    client._api.call_api = call_api
    assert client.judges_of_evictions() == ["ValidatingWebhookConfiguration guard"]


class Expired(Server):
    """Refuses the first token. What it says of that to a list of pods arrives once the nodes have been listed."""

    def __init__(self) -> None:
        super().__init__([])
        self.pods_asked, self.nodes_listed = Event(), Event()

    def call_api(self, method: str, url: str, **more: Any) -> Answer:
        refused = more["header_params"]["Authorization"] == "Bearer token-1"
        if refused and "/pods" in url:
            self.pods_asked.set()
            assert self.nodes_listed.wait(30)
        elif refused:
            assert self.pods_asked.wait(30)
        return Answer(401, b"{}") if refused else super().call_api(method, url)


def test_a_refused_token_is_dropped_once_however_many_threads_sent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh token stays: each that is dropped costs a list one of its tries."""
    made: list[bool] = []

    def token() -> str:
        made.append(client._signing_in.locked())
        return f"token-{len(made)}"

    monkeypatch.setattr(time, "sleep", lambda _: None)
    server = Expired()
    client = KubernetesClient("https://127.0.0.1:9", "", token)
    client._api = server
    with ThreadPoolExecutor(1) as threads:
        pods = threads.submit(client.pods)
        try:
            assert client.nodes() == []
        finally:
            server.nodes_listed.set()
        assert pods.result() == []
    assert made == [True, True], "one token for all, made by one thread at a time"
