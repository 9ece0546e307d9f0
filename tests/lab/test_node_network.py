"""Pods, Services, node ports and the load balancer carry traffic as a cluster's do, on a real control plane."""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

import pytest

from lab.addresses import LAB_ADDRESS, pod_network
from lab.kube import Json
from tests.cluster import is_ready
from tests.node_lab import ZONES, Machine, NodeLab, Nodes, shell, web
from tests.waiting import until

pytestmark = pytest.mark.lab

CALLER = shell("trap 'exit 0' TERM; sleep infinity & wait")
GROUP = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"


def add_service(nodes: Nodes, name: str = "web", **spec: object) -> Json:
    """A Service on port 80 for pods labelled app=`name`, once it answers. Its spec is returned."""
    body = {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [
        {"name": "http", "port": 80, "targetPort": 8080}], **spec}}  # fmt: skip
    created: Json = nodes.create("v1/services", body)["spec"]
    wait_until_answered(nodes.node_lab, created["clusterIP"], 80)
    return created


def wait_until_answered(node_lab: NodeLab, address: str, port: int, path: str = "/") -> Json:
    def answer() -> Json | None:
        try:
            return node_lab.get(address, port, path)
        except (OSError, HTTPException, ValueError):
            return None

    return until(answer, f"something answers at {address}:{port}", within_seconds=10) or {}


def refuses(node_lab: NodeLab, address: str, port: int) -> bool:
    try:
        node_lab.get(address, port)
    except (OSError, HTTPException):
        return True
    return False


@dataclass
class Load:
    """Clients that call an address again and again, each request on a connection of its own."""

    node_lab: NodeLab
    address: str
    port: int
    per_second: float
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(5)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_until_answered_by(self, pods: set[str], times: int = 5) -> None:
        """Until each of these pods has answered so many more requests, however fast this machine is."""
        before = self.answered.copy()
        until(lambda: all(self.answered[pod] - before[pod] >= times for pod in pods), f"{pods} answer")

    def _call(self) -> None:
        pause = len(self._threads) / self.per_second
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += pause
            try:
                self.answered[str(self.node_lab.get(self.address, self.port)["pod"])] += 1
            except (OSError, HTTPException, ValueError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")


# Services


def test_pods_see_who_calls_them_directly_and_through_a_service(nodes: Nodes) -> None:
    nodes.launch(ZONES[0])
    nodes.launch(ZONES[1])
    nodes.add_deployment("web", 2, containers=[web()])
    service = add_service(nodes)
    for number, machine in enumerate(nodes.machines):
        nodes.add_pod(f"caller-{number}", containers=[CALLER], nodeSelector={"kubernetes.io/hostname": machine.node})
    for number in (0, 1):
        caller = nodes.wait_for_pod(f"caller-{number}", "ready", is_ready)
        addresses = [pod["status"]["podIP"] + ":8080" for pod in nodes.pods("web")]
        for address in [*addresses, *[service["clusterIP"]] * 4]:
            host, _, port = address.partition(":")
            assert seen_by_pod(nodes, host, int(port or 80), caller=f"caller-{number}") == caller["status"]["podIP"]


def test_a_pod_reaches_the_api_server_as_every_cluster_has_it(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_pod("caller", containers=[CALLER])
    nodes.wait_for_pod("caller", "ready", is_ready)
    fetch = """
import os, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount"
request = urllib.request.Request(
    f"https://{os.environ['KUBERNETES_SERVICE_HOST']}/version",
    headers={"Authorization": "Bearer " + open(account + "/token").read()})
print(urllib.request.urlopen(request, context=ssl.create_default_context(cafile=account + "/ca.crt")).status)
"""
    assert nodes.run_inside("caller", "python3", "-c", fetch) == "200"


def test_a_service_without_endpoints_refuses_connections(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_deployment("web", 1, containers=[web()])
    service = add_service(nodes)
    nodes.kube.patch(nodes.path("apps/v1/deployments/web"), {"spec": {"replicas": 0}})
    until(lambda: refuses(nodes.node_lab, service["clusterIP"], 80), "the Service refuses connections")


def test_no_request_fails_while_a_served_pod_is_evicted(nodes: Nodes) -> None:
    nodes.launch(ZONES[0])
    nodes.launch(ZONES[1])
    nodes.add_deployment("web", 2, containers=[web()])
    service = add_service(nodes)
    before = {pod["metadata"]["name"] for pod in nodes.pods("web")}
    with Load(nodes.node_lab, service["clusterIP"], 80, per_second=100) as load:
        load.wait_until_answered_by(before)
        for name in sorted(before):
            nodes.evict(name)
            nodes.wait_until_gone(name)
            nodes.wait_for_ready("web", 2)
            load.wait_until_answered_by({pod["metadata"]["name"] for pod in nodes.pods("web")})
    assert load.failed == []
    assert len(set(load.answered) - before) == 2
    assert set(load.answered) >= before


def test_a_connection_outlives_its_endpoints_place_in_the_service(nodes: Nodes) -> None:
    nodes.launch()
    nodes.add_deployment("web", 1, containers=[web()])
    service = add_service(nodes)
    connection = nodes.node_lab.connect(service["clusterIP"], 80)
    first = answer(connection)
    nodes.kube.patch(nodes.path("v1/services/web"), {"spec": {"selector": {"app": "somebody-else"}}})
    until(lambda: refuses(nodes.node_lab, service["clusterIP"], 80), "the Service refuses connections")
    assert answer(connection) == first
    connection.close()


def answer(connection: HTTPConnection, path: str = "/") -> str:
    """Which pod answers one more request on this connection."""
    connection.request("GET", path)
    return str(json.loads(connection.getresponse().read())["pod"])


# Node ports


def test_cluster_policy_answers_on_every_node_and_local_policy_only_where_a_pod_is(nodes: Nodes) -> None:
    with_pod, without = nodes.launch(ZONES[0]), nodes.launch(ZONES[1])
    nodes.add_deployment("web", 1, containers=[web()], nodeSelector={"kubernetes.io/hostname": with_pod.node})
    nodes.add_pod("caller", containers=[CALLER])
    caller = nodes.wait_for_pod("caller", "ready", is_ready)["status"]["podIP"]
    open_to_all = add_service(nodes, type="NodePort")
    port = open_to_all["ports"][0]["nodePort"]
    for machine in (with_pod, without):
        wait_until_answered(nodes.node_lab, machine.address, port)
        assert seen_by_pod(nodes, machine.address, port) == machine.address, "the node stands in for the client"

    local = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    nodes.kube.patch(nodes.path("v1/services/web"), {"spec": local})
    health = nodes.kube.get(nodes.path("v1/services/web"))["spec"]["healthCheckNodePort"]
    wait_until_answered(nodes.node_lab, with_pod.address, health)
    until(lambda: refuses(nodes.node_lab, without.address, port), "the node without a pod refuses connections")
    wait_until_answered(nodes.node_lab, with_pod.address, port)
    assert seen_by_pod(nodes, with_pod.address, port) == caller
    assert nodes.node_lab.get(with_pod.address, health) == {"localEndpoints": 1}
    assert nodes.node_lab.get(without.address, health) == {"localEndpoints": 0}


def seen_by_pod(nodes: Nodes, address: str, port: int, caller: str = "caller") -> str:
    """The client's address as the answering pod sees it, when the pod `caller` calls."""
    fetch = f"import urllib.request as r; print(r.urlopen('http://{address}:{port}/whoami').read().decode())"
    return str(json.loads(nodes.run_inside(caller, "python3", "-c", fetch))["client"])


# The load balancer


def target_group(port: int, targets: list[tuple[Machine, str]], listener: int) -> Json:
    return {
        "target_group": GROUP, "name": "web", "protocol": "TCP", "port": port, "health_path": None,
        "health_port": None, "listener_ports": [listener],
        "targets": [{"id": m.id, "port": port, "state": state, "draining_until": None} for m, state in targets],
    }  # fmt: skip


def states(node_lab: NodeLab) -> dict[str, str]:
    return {target["id"]: target["state"] for group in node_lab.targets() for target in group["targets"]}


def wait_for_states(node_lab: NodeLab, expected: dict[str, str]) -> None:
    until(lambda: states(node_lab) == expected, f"the targets are {expected}")


def clients_of(node_lab: NodeLab, port: int) -> set[str]:
    """Whom the pods see, over a few new connections through the balancer."""
    return {str(node_lab.get(LAB_ADDRESS, port, "/whoami")["client"]) for _ in range(6)}


def refusals(node_lab: NodeLab, port: int) -> list[bool]:
    """Whether each of a few new connections through the balancer is refused."""
    return [refuses(node_lab, LAB_ADDRESS, port) for _ in range(6)]


def breaks(connection: HTTPConnection) -> bool:
    """Whether a kept connection answers no more; then it is closed."""
    connection.auto_open = 0
    try:
        answer(connection)
    except (OSError, HTTPException):
        connection.close()
        return True
    return False


def test_a_draining_target_gets_no_new_connections_and_keeps_those_it_has(nodes: Nodes) -> None:
    node_lab = nodes.node_lab
    leaving, staying = nodes.launch(ZONES[0]), nodes.launch(ZONES[1])
    nodes.add_deployment("web", 1, containers=[web()])
    port = add_service(nodes, type="NodePort")["ports"][0]["nodePort"]
    node_lab.set_targets([target_group(port, [(leaving, "initial")], 8081)])
    wait_for_states(node_lab, {leaving.id: "healthy"})
    wait_until_answered(node_lab, LAB_ADDRESS, 8081)
    connection = node_lab.connect(LAB_ADDRESS, 8081)
    first = answer(connection)

    node_lab.set_targets([target_group(port, [(leaving, "draining"), (staying, "initial")], 8081)])
    wait_for_states(node_lab, {leaving.id: "draining", staying.id: "healthy"})
    # The balancer hears of the states a poll later; from then on it stays so.
    until(lambda: clients_of(node_lab, 8081) == {staying.address}, "new connections go to the node that stays")
    assert clients_of(node_lab, 8081) == {staying.address}
    assert answer(connection) == first

    node_lab.set_targets([target_group(port, [(staying, "healthy")], 8081)])
    until(lambda: breaks(connection), "the connection to the node that has left breaks")
    node_lab.set_targets([])


def test_a_target_whose_node_port_is_closed_becomes_unhealthy_and_without_any_healthy_one_all_are_tried(
    nodes: Nodes,
) -> None:
    node_lab = nodes.node_lab
    with_pod, without = nodes.launch(ZONES[0]), nodes.launch(ZONES[1])
    nodes.add_deployment("web", 1, containers=[web()], nodeSelector={"kubernetes.io/hostname": with_pod.node})
    port = add_service(nodes, type="NodePort", externalTrafficPolicy="Local")["ports"][0]["nodePort"]
    node_lab.set_targets([target_group(port, [(with_pod, "initial"), (without, "initial")], 8082)])
    wait_for_states(node_lab, {with_pod.id: "healthy", without.id: "unhealthy"})
    until(lambda: not any(refusals(node_lab, 8082)), "only the healthy one is asked")

    node_lab.set_targets([{**target_group(port, [(with_pod, "initial"), (without, "initial")], 8082),
                           "health_port": 1, "health_path": "/healthz"}])  # fmt: skip
    wait_for_states(node_lab, {with_pod.id: "unhealthy", without.id: "unhealthy"})
    until(lambda: set(refusals(node_lab, 8082)) == {True, False}, "both are asked in turn")
    node_lab.set_targets([])


def test_an_instance_that_goes_breaks_its_connections(nodes: Nodes) -> None:
    node_lab = nodes.node_lab
    doomed, other = nodes.launch(ZONES[0]), nodes.launch(ZONES[1])
    nodes.add_deployment("web", 1, containers=[web()], nodeSelector={"kubernetes.io/hostname": other.node})
    port = add_service(nodes, type="NodePort")["ports"][0]["nodePort"]
    wait_until_answered(node_lab, doomed.address, port)
    connection = node_lab.connect(doomed.address, port)
    answer(connection)
    node_lab.set_state(doomed, "shutting-down")
    until(lambda: breaks(connection), "the connection breaks")
    until(lambda: refuses(node_lab, doomed.address, port), "the address refuses connections")


# Pods in the host's network


def test_a_pod_in_the_hosts_network_has_its_nodes_address(nodes: Nodes) -> None:
    machine = nodes.launch()
    bind = {"name": "BIND_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    container = web(
        env=[bind, {"name": "POD_NAME", "value": "ingress"}], ports=[{"name": "http", "containerPort": 8080}]
    )
    nodes.add_pod("ingress", hostNetwork=True, containers=[container])
    pod = nodes.wait_for_pod("ingress", "ready", is_ready)
    assert pod["status"]["podIP"] == machine.address
    assert nodes.node_lab.get(machine.address, 8080)["pod"] == "ingress"


def test_two_zones_can_be_cut_off_from_each_other_services_included(nodes: Nodes) -> None:
    near, far = nodes.launch(ZONES[0]), nodes.launch(ZONES[1])
    nodes.add_deployment("web", 1, containers=[web()], nodeSelector={"kubernetes.io/hostname": far.node})
    service = add_service(nodes)
    pod = nodes.pods("web")[0]["status"]["podIP"]
    nodes.add_pod("caller", containers=[CALLER], nodeSelector={"kubernetes.io/hostname": near.node})
    nodes.wait_for_pod("caller", "ready", is_ready)
    fetch = f"import socket; socket.create_connection(('{pod}', 8080), 1).close()"
    direct = ("python3", "-c", fetch)
    nodes.run_inside("caller", *direct)

    rule = ["from", pod_network(0), "to", pod_network(1), "blackhole"]
    assert nodes.node_lab.lab.run(["ip", "rule", "add", *rule]).returncode == 0
    try:
        with pytest.raises(AssertionError, match="timed out"):
            nodes.run_inside("caller", *direct)
        # A Service's address takes the connection, but nothing comes through it.
        assert seen_or_nothing(nodes, service["clusterIP"]) == ""
    finally:
        nodes.node_lab.lab.run(["ip", "rule", "del", *rule])
    nodes.run_inside("caller", *direct)
    assert seen_or_nothing(nodes, service["clusterIP"]) != ""


def seen_or_nothing(nodes: Nodes, address: str) -> str:
    """What "caller" is answered within two seconds, if anything."""
    fetch = f"""
import urllib.request
try:
    print(urllib.request.urlopen("http://{address}/whoami", timeout=2).read().decode())
except OSError:
    pass
"""
    return nodes.run_inside("caller", "python3", "-c", fetch)
