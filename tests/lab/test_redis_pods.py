"""Redis in pods: real servers that find each other by true addresses, as replication and Sentinel need."""

import pytest

from lab.kube import Json
from tests import waiting
from tests.cluster import is_ready
from tests.node_lab import ZONES, Nodes

pytestmark = pytest.mark.lab

REDIS: Json = {
    "name": "main",
    "image": "docker.io/library/redis:7.2",
    "args": ["--save", "", "--appendonly", "yes"],
    "readinessProbe": {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 1},
}


def redis(nodes: Nodes, pod: str, *command: str, port: int = 6379) -> str:
    return nodes.run_inside(pod, "redis-cli", "-p", str(port), *command)


def until(nodes: Nodes, pod: str, text: str, *command: str, port: int = 6379) -> str:
    """What a command answers, once `text` is in it."""
    said: str = waiting.until(
        lambda: told if text in (told := redis(nodes, pod, *command, port=port)) else "", f"{pod} says {text}"
    )
    return said


def test_a_replica_behind_a_service_and_a_sentinel_know_the_true_addresses(nodes: Nodes) -> None:
    nodes.launch(ZONES[0])
    nodes.launch(ZONES[1])
    nodes.add_pod("master", {"app": "master"}, containers=[REDIS])
    service = nodes.create("v1/services", {
        "metadata": {"name": "master"}, "spec": {"selector": {"app": "master"}, "ports": [{"port": 6379}]},
    })["spec"]["clusterIP"]  # fmt: skip
    master = nodes.wait_for_pod("master", "ready", is_ready)["status"]["podIP"]
    nodes.add_pod("replica", containers=[{**REDIS, "args": [*REDIS["args"], "--replicaof", service, "6379"]}])
    replica = nodes.wait_for_pod("replica", "ready", is_ready)["status"]["podIP"]
    until(nodes, "replica", "master_link_status:up", "info", "replication")
    assert f"ip={replica},port=6379,state=online" in until(nodes, "master", "state=online", "info", "replication")

    script = f"printf 'sentinel monitor main {master} 6379 1\\n' > /tmp/s.conf; exec redis-sentinel /tmp/s.conf"
    nodes.add_pod("sentinel", containers=[{"name": "main", "image": "redis", "command": ["sh", "-c", script]}])
    sentinel = nodes.wait_for_pod("sentinel", "ready", is_ready)["status"]["podIP"]
    until(nodes, "sentinel", replica, "sentinel", "replicas", "main", port=26379)
    assert sentinel in redis(nodes, "master", "client", "list")


LOOK_UP = """
import socket, sys
try:
    print(*sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)}))
except socket.gaierror as error:
    print(error.strerror)
"""


def test_pods_find_each_other_by_name(nodes: Nodes) -> None:
    nodes.launch(ZONES[0])
    nodes.create("v1/services", {
        "metadata": {"name": "peers"},
        "spec": {"clusterIP": "None", "selector": {"app": "peer"}, "ports": [{"port": 80}]},
    })  # fmt: skip
    pause = {"name": "main", "image": "pause"}
    nodes.add_pod("peer-0", {"app": "peer"}, containers=[pause], hostname="peer-0", subdomain="peers")
    address = nodes.wait_for_pod("peer-0", "ready", is_ready)["status"]["podIP"]
    nodes.add_pod("caller", containers=[pause])
    nodes.wait_for_pod("caller", "ready", is_ready)

    def look_up(name: str) -> str:
        return nodes.run_inside("caller", "python3", "-c", LOOK_UP, name).strip()

    waiting.until(lambda: look_up("peer-0.peers") == address, "the pod has its name")
    assert look_up(f"peers.{nodes.name}.svc.cluster.local") == address
    assert "not known" in look_up("nobody.peers")
