"""Which address leads to which endpoints."""

import pytest

from lab.kube import Json
from lab.network.routes import HealthCheck, Listen, Route, endpoints_of, routes, usable

NODES = {"n1": "10.0.0.10", "n2": "10.0.1.11"}
ONE, TWO, THREE = ("10.244.0.2", 8080), ("10.244.0.3", 8080), ("10.244.64.2", 8080)


def endpoint(
    address: str, node: str = "n1", *, ready: bool = True, serving: bool = True, leaving: bool = False
) -> Json:
    conditions = {"ready": ready and not leaving, "serving": serving, "terminating": leaving}
    return {"addresses": [address], "nodeName": node, "conditions": conditions}


def piece(*endpoints: Json) -> Json:
    return {
        "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def service(**spec: object) -> Json:
    port = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    if "nodePort" in spec:
        port["nodePort"] = spec.pop("nodePort")
    return {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ports": [port], **spec},
    }


def backends(table: dict[Listen, Route | HealthCheck], address: str, port: int) -> list[tuple[str, int]] | None:
    route = table.get(Listen(address, port))
    return list(route.backends) if isinstance(route, Route) else None


def test_a_service_address_leads_to_its_ready_endpoints() -> None:
    table = routes(
        [service()], [piece(endpoint(ONE[0]), endpoint(TWO[0], ready=False)), piece(endpoint(THREE[0]))], NODES
    )
    assert backends(table, "10.96.1.1", 80) == [ONE, THREE]
    assert list(table) == [Listen("10.96.1.1", 80)]


def test_endpoints_that_end_serve_only_when_no_other_does() -> None:
    leaving = endpoint(ONE[0], leaving=True)
    gone_quiet = endpoint(TWO[0], serving=False, leaving=True)
    assert [e.address for e in usable(endpoints_of([piece(leaving, gone_quiet)], "http"))] == [ONE[0]]
    assert [e.address for e in usable(endpoints_of([piece(leaving, endpoint(THREE[0]))], "http"))] == [THREE[0]]
    not_yet = endpoint(TWO[0], ready=False, serving=False)
    assert usable(endpoints_of([piece(not_yet)], "http")) == []


def test_a_service_without_endpoints_is_not_listened_for() -> None:
    assert routes([service(nodePort=30080)], [piece(endpoint(ONE[0], ready=False, serving=False))], NODES) == {}


@pytest.mark.parametrize(
    "address", [{"clusterIP": "None", "clusterIPs": ["None"]}, {"clusterIP": "", "clusterIPs": []}]
)
def test_a_headless_service_has_no_address(address: Json) -> None:
    assert routes([service(**address)], [piece(endpoint(ONE[0]))], NODES) == {}


def test_cluster_policy_opens_the_node_port_on_every_node_for_every_endpoint() -> None:
    table = routes([service(nodePort=30080)], [piece(endpoint(ONE[0], "n1"), endpoint(THREE[0], "n2"))], NODES)
    for address in NODES.values():
        route = table[Listen(address, 30080)]
        assert route == Route("shop/web", (ONE, THREE), "node")


def test_local_policy_opens_it_where_an_endpoint_is_and_shows_the_client() -> None:
    local = service(nodePort=30080, externalTrafficPolicy="Local", healthCheckNodePort=31000)
    table = routes([local], [piece(endpoint(ONE[0], "n1"), endpoint(TWO[0], "n1"))], NODES)
    assert table[Listen("10.0.0.10", 30080)] == Route("shop/web", (ONE, TWO), "client")
    assert Listen("10.0.1.11", 30080) not in table
    assert table[Listen("10.0.0.10", 31000)] == HealthCheck("shop/web", 2)
    assert table[Listen("10.0.1.11", 31000)] == HealthCheck("shop/web", 0)
    assert backends(table, "10.96.1.1", 80) == [ONE, TWO]


def test_under_local_policy_an_ending_endpoint_still_serves_its_node_but_fails_its_health_check() -> None:
    local = service(nodePort=30080, externalTrafficPolicy="Local", healthCheckNodePort=31000)
    table = routes([local], [piece(endpoint(ONE[0], "n1", leaving=True), endpoint(THREE[0], "n2"))], NODES)
    assert backends(table, "10.0.0.10", 30080) == [ONE]
    assert table[Listen("10.0.0.10", 31000)] == HealthCheck("shop/web", 0)


def test_only_tcp_is_served() -> None:
    udp = service()
    udp["spec"]["ports"][0]["protocol"] = "UDP"
    assert routes([udp], [piece(endpoint(ONE[0]))], NODES) == {}
