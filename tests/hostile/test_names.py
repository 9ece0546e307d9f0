"""Names and structures from outside [T1]: read once, at the edge, and never a way to something else."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client.configuration import Configuration

from eks_rolling.clients.kubernetes import KubernetesClient, instance_of, path_of
from eks_rolling.errors import BadRequest, RollError
from eks_rolling.names import is_label_value, is_object_name
from eks_rolling.observed.aws import Group
from eks_rolling.observed.kubernetes import Budget, Lease, Node, Owner, Pod, Selector, Workload
from eks_rolling.observed.marks import (
    AUTOSCALER_REPLICAS,
    GROUP_MAXIMUM,
    NODE_LAUNCH,
    NODE_TARGETS,
    LaunchMark,
    RaisedMaximum,
    registrations_on,
    replicas_on,
)
from eks_rolling.redis.groups import AUTH, GROUP, MASTER_NAME, PART, PORT, REFRESH, TLS, declared

SPICE = ["..", "/", "%2e%2e", "%2F", "?", "#", "&", "=", "\\", ":", "@", "\n", "\0", "\x1b[31m", "<script>", "²", "٣"]
HOSTILE = st.lists(st.one_of(st.sampled_from(SPICE), st.text(max_size=8)), max_size=8).map("".join) | st.text()

SEEN: list[str] = []


class _Server(http.server.BaseHTTPRequestHandler):
    """An API server that answers everything with an object, and notes what was asked for."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        SEEN.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        metadata = {"name": "x", "namespace": "y", "resourceVersion": "1", "uid": "u"}
        body = json.dumps({"metadata": metadata, "spec": {}, "items": [], "data": {}}).encode()
        self.send_response(201 if self.command == "POST" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(_Server, f"do_{verb}", _Server._answer)


@pytest.fixture(scope="module")
def client() -> Iterator[KubernetesClient]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    yield KubernetesClient(address, "", lambda: "token", configuration=Configuration(host=address))
    server.shutdown()
    server.server_close()
    thread.join()


WORKLOAD = Workload(Owner("StatefulSet", "tenant", "web"), uid="u", selector=Selector((("app", "web"),)))

METHODS: dict[str, Any] = {
    "annotate_pod": lambda c, n: c.annotate_pod(Pod(n, n), {"a": n}),
    "attachments": lambda c, n: c.attachments(n),
    "create_budget": lambda c, n: c.create_budget(replace(WORKLOAD, owner=Owner("Deployment", n, n)), n, {}),
    "create_stand_in": lambda c, n: c.create_stand_in(
        replace(WORKLOAD, owner=Owner("StatefulSet", n, n), annotations={GROUP: n}), Pod(n, n), n, {}
    ),
    "csi_drivers": lambda c, n: c.csi_drivers(n),
    "delete_budget": lambda c, n: c.delete_budget(Budget(n, n, n, Selector())),
    "delete_pod": lambda c, n: c.delete_pod(Pod(n, n)),
    "evict": lambda c, n: c.evict(Pod(n, n)),
    "lease": lambda c, n: c.lease(f"tenant/{n}"),
    "lease namespace": lambda c, n: c.lease(f"{n}/eks-rolling"),
    "node": lambda c, n: c.node(n),
    "pods_of": lambda c, n: c.pods_of(replace(WORKLOAD, owner=Owner("Deployment", n, n))),
    "pods_on": lambda c, n: c.pods_on(n),
    "put_lease": lambda c, n: c.put_lease(Lease(f"tenant/{n}", resource_version="1")),
    "put_lease new": lambda c, n: c.put_lease(Lease(f"tenant/{n}")),
    "secret": lambda c, n: c.secret("tenant", n),
    "secret namespace": lambda c, n: c.secret(n, "auth"),
    "stand_ins": lambda c, n: c.stand_ins("tenant", n),
    "stateful_sets": lambda c, n: c.stateful_sets(n),
    "update_node": lambda c, n: c.update_node(Node(n)),
    "update_workload": lambda c, n: c.update_workload(replace(WORKLOAD, owner=Owner("Deployment", n, n)), replicas=1),
    "workload": lambda c, n: c.workload(Owner("Deployment", n, n)),
}
"""Every method of the client that takes a name, called with it."""


@pytest.mark.parametrize("method", sorted(METHODS))
@settings(deadline=None)
@given(name=HOSTILE)
def test_no_name_leads_to_another_path(client: KubernetesClient, method: str, name: str) -> None:
    """T1: through every method. A path has the segments that it was made of, and no more."""
    SEEN.clear()
    # What counts is what was asked; the answer is no such object.
    with suppress(RollError, KeyError):
        METHODS[method](client, name)
    for asked in SEEN:
        address = urlsplit(asked)
        segments = address.path.split("/")
        assert ".." not in [unquote(segment) for segment in segments]
        assert "%" not in address.path
        if method in {"secret", "lease", "put_lease"}:
            group = ["api", "v1"] if method == "secret" else ["apis", "coordination.k8s.io", "v1"]
            assert segments[1:-2] == [*group, "namespaces", "tenant"]
            assert segments[-1] == name
            assert is_object_name(name)


def test_another_tenants_secret_is_not_reached(client: KubernetesClient) -> None:
    """T1."""
    SEEN.clear()
    for name in ("../../shop/secrets/redis-auth", "..%2f..%2fshop%2fsecrets%2fredis-auth", "x/../../y", "..", ".", ""):
        with pytest.raises(BadRequest):
            client.secret("tenant", name)
        with pytest.raises(BadRequest):
            client.lease(f"tenant/eks-rolling-redis-{name}/../../../shop/leases/x" if name else "tenant/")
    assert SEEN == []


def test_a_secret_with_a_value_that_is_no_text_is_read_but_for_that_one(
    client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1."""
    answer: tuple[int, Any, Any] = (200, {"data": {"keystore": "/////w==", "password": "aHVudGVyMg==", "odd": "&"}}, {})
    monkeypatch.setattr(client, "_request", lambda *_: answer)
    assert client.secret("tenant", "auth")["password"] == "hunter2"
    assert "keystore" not in client.secret("tenant", "auth")


@settings(deadline=None)
@given(HOSTILE)
def test_a_path_is_made_of_names_or_not_at_all(name: str) -> None:
    """T1."""
    try:
        made = path_of("api/v1", "pods", name, namespace="tenant", part="eviction")
    except BadRequest:
        assert not is_object_name(name)
    else:
        assert made == f"/api/v1/namespaces/tenant/pods/{name}/eviction"


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from([GROUP, PART, MASTER_NAME, AUTH, TLS, PORT, REFRESH]), HOSTILE), st.integers(0, 3)
)
def test_a_declaration_is_followed_or_a_sentence_and_spoils_no_other(said: dict[str, str], replicas: int) -> None:
    """T1: one bad declaration never fails the plan of others."""
    good = replace(WORKLOAD, desired=1, annotations={GROUP: "good", PART: "cluster"})
    bad = replace(WORKLOAD, owner=Owner("StatefulSet", "tenant-b", "bad"), desired=replicas, annotations=said)
    groups, problems = declared([good, bad])
    assert "good" in {group.name for group in groups}
    assert all(problem.object and problem.reason for problem in problems)
    for group in groups:
        assert is_label_value(group.name)
        assert is_object_name(group.lease.partition("/")[2])
        assert all(not s.login.auth or is_object_name(s.login.auth) for s in group.sets)
        assert all(not s.login.tls or is_object_name(s.login.tls) for s in group.sets)
        assert all(0 < s.port < 65536 for s in group.sets)


@settings(deadline=None)
@given(HOSTILE | st.recursive(st.none() | st.integers() | HOSTILE, lambda x: st.lists(x, max_size=4)).map(json.dumps))
def test_marks_are_read_or_a_sentence(text: str) -> None:
    """T1: on nodes, groups and cluster-autoscaler's Deployment."""
    node = Node("n", instance="i-1", annotations={NODE_LAUNCH: text, NODE_TARGETS: text})
    mark = LaunchMark.on(node)
    assert mark is None or str(mark) == text
    readers = (
        lambda: registrations_on(node),
        lambda: RaisedMaximum.on(Group("g", tags={GROUP_MAXIMUM: text})),
        lambda: replicas_on(replace(WORKLOAD, annotations={AUTOSCALER_REPLICAS: text})),
    )
    for read in readers:
        with suppress(BadRequest):
            read()


@settings(deadline=None)
@given(HOSTILE)
def test_an_instance_id_is_one_or_none(text: str) -> None:
    """T1: a node says itself who it is."""
    found = instance_of(f"aws:///zone/{text}")
    assert found == "" or (found.startswith("i-") and found[2:].isalnum() and found.isascii())
