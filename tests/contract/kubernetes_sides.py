"""The two sides of the Kubernetes contract: the world in memory, and the real client on a real control plane."""

import time
from collections.abc import Mapping
from typing import Protocol

import pytest

from eks_rolling.clients.kubernetes import KubernetesClient
from eks_rolling.clients.protocols import Kubernetes
from eks_rolling.observed.kubernetes import Node, Owner, Pod
from tests.cluster import Cluster
from tests.waiting import patience
from tests.world import CLUSTER as WORLD_CLUSTER
from tests.world import World

GIVE_UP_SECONDS = 20


class Side(Protocol):
    """A small cluster that one test has for itself."""

    namespace: str
    kubernetes: Kubernetes

    def add_node(self) -> str: ...

    def add_deployment(self, name: str, replicas: int) -> Owner: ...

    def add_stateful_set(self, name: str, replicas: int) -> Owner: ...

    def add_budget(self, name: str, app: str, max_unavailable: int) -> None: ...

    def add_secret(self, name: str, keys: Mapping[str, str]) -> None: ...

    def pass_time(self) -> None:
        """Lets controllers and kubelets get on with it."""
        ...


class InMemory:
    """The world that whole rolls are tried on."""

    namespace = "default"

    def __init__(self) -> None:
        self.world = World()
        self.world.group("ng", ["zone-a"], maximum=9, tags={f"kubernetes.io/cluster/{WORLD_CLUSTER}": "owned"})
        self.kubernetes: Kubernetes = self.world

    def add_node(self) -> str:
        return self.world.add_node("ng", "zone-a")

    def add_deployment(self, name: str, replicas: int) -> Owner:
        owner = self.world.deployment(name, replicas)
        self.world.advance(60)
        return owner

    def add_stateful_set(self, name: str, replicas: int) -> Owner:
        owner = self.world.stateful_set(name, replicas, zone="zone-a")
        self.world.advance(60)
        return owner

    def add_budget(self, name: str, app: str, max_unavailable: int) -> None:
        self.world.budget(name, app, max_unavailable)

    def add_secret(self, name: str, keys: Mapping[str, str]) -> None:
        self.world.secrets[self.namespace, name] = dict(keys)

    def pass_time(self) -> None:
        self.world.advance(1)


class Real:
    """A namespace of the shared control plane, reached by the client that is deployed."""

    def __init__(self, cluster: Cluster) -> None:
        access = cluster.kube.access
        self._cluster = cluster
        self.namespace = cluster.name
        self.kubernetes: Kubernetes = KubernetesClient(
            access.server, access.authority or "", lambda: access.token or ""
        )

    def add_node(self) -> str:
        return self._cluster.add_node()

    def add_deployment(self, name: str, replicas: int) -> Owner:
        self._cluster.add_deployment(name, replicas)
        return Owner("Deployment", self.namespace, name)

    def add_stateful_set(self, name: str, replicas: int) -> Owner:
        self._cluster.add_stateful_set(name, replicas)
        return Owner("StatefulSet", self.namespace, name)

    def add_budget(self, name: str, app: str, max_unavailable: int) -> None:
        self._cluster.add_budget(name, app, maxUnavailable=max_unavailable)

    def add_secret(self, name: str, keys: Mapping[str, str]) -> None:
        self._cluster.create("v1/secrets", {"metadata": {"name": name}, "stringData": dict(keys)})

    def pass_time(self) -> None:
        time.sleep(0.1)


def until(side: Side, condition: object, what: str) -> None:
    """Lets time pass until `condition()` holds; fails as an assertion naming `what`."""
    assert callable(condition)
    deadline = time.monotonic() + patience(GIVE_UP_SECONDS)
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {GIVE_UP_SECONDS} s of a quiet machine: {what}")
        side.pass_time()


def pods_of(side: Side, owner: Owner) -> list[Pod]:
    return sorted((p for p in side.kubernetes.pods() if p.owner == owner), key=lambda p: p.name)


def node_called(side: Side, name: str) -> Node:
    node = side.kubernetes.node(name)
    assert node is not None
    return node
