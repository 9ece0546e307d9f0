"""NetworkPolicies: what they let through, and those that would cut off a stand-in."""

from dataclasses import replace
from typing import Any

import pytest

from eks_rolling.clients.network_policies import read_network_policy
from eks_rolling.documents.finding import Severity
from eks_rolling.observed.kubernetes import Owner, Pod, Workload
from eks_rolling.observed.network import End, NetworkPolicy, cut_off_by
from eks_rolling.observed.redis import Address, ClusterNode, KnownNode, Role, Server
from eks_rolling.plan.checks.redis_network import ACCEPTABLE, network_findings
from eks_rolling.plan.checks.redis_sentinel import RedisView
from eks_rolling.plan.snapshot import ClusterSnapshot, Unseen
from eks_rolling.redis.cluster import ClusterPod, RedisClusterState
from eks_rolling.redis.groups import AUTH, GROUP, PART, STAND_IN_LABELS, Part, declared

SHARDS = Owner("StatefulSet", "shop", "shards")
OWN = {"app": "redis", "set": "shards"}
SERVER, CLIENT = End("shop", OWN, ("10.0.1.5",)), End("shop", {"app": "web"}, ("10.0.2.6",))
FUNCTIONS = End(outside=True)


def policy(**spec: Any) -> NetworkPolicy:
    return read_network_policy({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec})


def pods(**labels: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels}}


OF_REDIS = {"podSelector": {"matchLabels": {"app": "redis"}}}
ON_PORT = {"ports": [{"port": 6379}]}


@pytest.mark.parametrize(
    ("spec", "source", "may"),
    [
        # Nothing selects the server.
        ({"podSelector": {"matchLabels": {"app": "other"}}, "ingress": []}, CLIENT, True),
        # Everything in is denied.
        ({"podSelector": {}}, CLIENT, False),
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}, FUNCTIONS, True),
        # A rule without peers lets everybody in, on its ports.
        ({**OF_REDIS, "ingress": [{}]}, FUNCTIONS, True),
        ({**OF_REDIS, "ingress": [ON_PORT]}, CLIENT, True),
        ({**OF_REDIS, "ingress": [{"ports": [{"port": 6380}]}]}, CLIENT, False),
        ({**OF_REDIS, "ingress": [{"ports": [{"port": 6000, "endPort": 7000}]}]}, CLIENT, True),
        ({**OF_REDIS, "ingress": [{"ports": [{"port": 6379, "protocol": "UDP"}]}]}, CLIENT, False),
        ({**OF_REDIS, "ingress": [{"ports": [{"port": "redis"}]}]}, CLIENT, True),
        # By labels, in the policy's namespace or in others.
        ({**OF_REDIS, "ingress": [{"from": [pods(app="web")]}]}, CLIENT, True),
        ({**OF_REDIS, "ingress": [{"from": [pods(app="web")]}]}, FUNCTIONS, False),
        ({**OF_REDIS, "ingress": [{"from": [pods(app="web")]}]}, replace(CLIENT, namespace="other"), False),
        ({**OF_REDIS, "ingress": [{"from": [{"namespaceSelector": {}}]}]}, replace(CLIENT, namespace="other"), True),
        (
            {
                **OF_REDIS,
                "ingress": [
                    {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "blog"}}}]}
                ],
            },
            replace(CLIENT, namespace="other"),
            False,
        ),
        # What else a namespace is called is not known: it may be meant.
        (
            {**OF_REDIS, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]}]},
            replace(CLIENT, namespace="other"),
            True,
        ),
        # By addresses.
        ({**OF_REDIS, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]}]}, CLIENT, True),
        (
            {**OF_REDIS, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.2.0/24"]}}]}]},
            CLIENT,
            False,
        ),
        ({**OF_REDIS, "ingress": [{"from": [{"ipBlock": {"cidr": "fd00::/8"}}]}]}, CLIENT, False),
        ({**OF_REDIS, "ingress": [{"from": [{"ipBlock": {"cidr": "no network"}}]}]}, CLIENT, False),
        # The source's own policy counts too.
        (
            {
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Egress"],
                "egress": [{"to": [pods(app="db")]}],
            },
            CLIENT,
            False,
        ),
        (
            {
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Egress"],
                "egress": [{"to": [pods(app="redis")]}],
            },
            CLIENT,
            True,
        ),
    ],
)
def test_what_a_policy_lets_through(spec: dict[str, Any], source: End, *, may: bool) -> None:
    """networking.k8s.io/v1."""
    found = policy(**spec)
    assert cut_off_by([found], source, SERVER, 6379) == (() if may else (found,))


def test_any_policy_may_let_it_through() -> None:
    denied, let = policy(podSelector={}), policy(**OF_REDIS, ingress=[{"from": [pods(app="web")]}])
    assert cut_off_by([denied, let], CLIENT, SERVER, 6379) == ()


def view(*policies: NetworkPolicy, labels: str = "", clients: bool = True) -> ClusterSnapshot:
    annotations = {GROUP: "shards", PART: str(Part.CLUSTER), AUTH: "redis-auth"}
    workload = Workload(SHARDS, desired=6, annotations=annotations | ({STAND_IN_LABELS: labels} if labels else {}))
    ((group,), problems) = declared([workload])
    assert problems == []
    own = tuple(
        Pod("shop", f"shards-{n}", f"u{n}", "node", SHARDS, labels=dict(OWN), address=f"10.0.1.{n}") for n in range(6)
    )
    web = Pod(
        "shop", "web-0", "w", "node", Owner("Deployment", "shop", "web"), labels={"app": "web"}, address="10.0.2.6"
    )
    return ClusterSnapshot(
        pods=(*own, *([web] if clients else [])),
        workloads=(workload,),
        redis=(RedisView(group),),
        network_policies=policies,
    )


def reasons(seen: ClusterSnapshot) -> list[str]:
    found = list(network_findings(seen, {SHARDS}))
    assert all((f.code, f.severity, f.object) == ("redis-network-policy", Severity.BLOCKS, str(SHARDS)) for f in found)
    return [f"{f.reason}; {f.remedy}" for f in found]


def test_policies_that_the_plan_may_not_list_may_cut_it_off() -> None:
    """C3. Only where a pod of the cluster moves; a person who knows better may accept it."""
    blind = replace(view(), unseen=frozenset({Unseen.NETWORK_POLICIES}))
    (found,) = network_findings(blind, {SHARDS})
    assert (found.code, found.severity, found.object) == ("redis-network-unseen", Severity.BLOCKS, str(SHARDS))
    assert "apply deploy/rbac.yaml again" in found.remedy
    assert found.code in ACCEPTABLE
    assert list(network_findings(blind, set())) == []


AMONG_THEMSELVES = policy(**OF_REDIS, ingress=[{"from": [pods(app="redis")]}, {"from": [pods(app="web")], **ON_PORT}])
OPEN_TO_ALL = policy(**OF_REDIS, ingress=[{**ON_PORT}, {"from": [pods(app="redis")]}])


def test_without_policies_nothing_is_cut_off() -> None:
    assert reasons(view()) == []


def test_a_policy_by_labels_that_the_stand_in_lacks_is_named_with_the_label_to_give_it() -> None:
    (said,) = reasons(view(AMONG_THEMSELVES))
    assert "its stand-in could not connect to the pods of its cluster: shop/p lets pods through by labels" in said
    assert f"{STAND_IN_LABELS}: app=redis, or accept it" in said


def test_with_these_labels_it_is_let_in() -> None:
    assert reasons(view(AMONG_THEMSELVES, labels="app=redis")) == []


def test_the_bus_is_asked_after_too() -> None:
    """The port alone is open to all, and the bus to those with the label."""
    (said,) = reasons(view(OPEN_TO_ALL))
    assert "could not connect to the pods" in said


def test_a_bus_on_another_port_is_the_one_that_is_asked_after() -> None:
    """`cluster-port`: 10,000 above the port nobody listens."""
    seen = view(policy(**OF_REDIS, ingress=[{**ON_PORT}, {"from": [pods(app="redis")], "ports": [{"port": 7000}]}]))
    (group,) = (r.group for r in seen.redis)
    server = Server(Address("10.0.1.0"), (7, 0, 15), "redis", "run", Role.MASTER, 0)
    itself = KnownNode("id", server.address, frozenset({"myself", "master"}))
    node = ClusterNode(server, "id", ok=True, slots_ok=16384, table=(itself,), bus_port=7000)
    state = RedisClusterState(group, (ClusterPod("shards-0", node=node),))
    assert reasons(replace(seen, redis=(RedisView(group, state),))), "7000 is open to those with the label alone"
    open_bus = policy(**OF_REDIS, ingress=[{**ON_PORT}, {"ports": [{"port": 7000}]}])
    told = replace(view(open_bus), redis=(RedisView(group, state),))
    assert reasons(told) == []
    assert reasons(view(open_bus)), "by default it is 16379"


def test_a_namespace_that_denies_all_in_shuts_the_stand_in() -> None:
    (said,) = reasons(view(policy(podSelector={}), policy(**OF_REDIS, ingress=[{}])))
    assert "its stand-in could not be reached by the pods of its cluster: shop/p lets" in said


def test_policies_of_what_pods_may_call_count() -> None:
    outward = policy(**OF_REDIS, policyTypes=["Egress"], egress=[{"to": [pods(app="redis")]}])
    (said,) = reasons(view(outward))
    assert "could not be reached" in said
    assert reasons(view(outward, labels="app=redis")) == []


def test_clients_that_reach_the_pods_have_to_reach_it_too() -> None:
    """The stand-in serves the slots meanwhile."""
    for_set = policy(podSelector={"matchLabels": {"set": "shards"}}, ingress=[{"from": [pods(app="web")]}])
    among = policy(**OF_REDIS, ingress=[{"from": [pods(app="redis")]}])
    (said,) = reasons(view(for_set, among, labels="app=redis"))
    assert "its stand-in could not be reached by pod shop/web-0, as the pods can" in said


def test_the_functions_have_to_reach_it_where_they_reach_the_pods() -> None:
    from_afar = policy(
        podSelector={"matchLabels": {"set": "shards"}}, ingress=[{"from": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}]
    )
    among = policy(**OF_REDIS, ingress=[{"from": [pods(app="redis")]}])
    (said,) = reasons(view(from_afar, among, labels="app=redis", clients=False))
    assert "could not be reached by the functions of a roll" in said


def test_who_cannot_reach_the_pods_need_not_reach_it() -> None:
    among = policy(**OF_REDIS, ingress=[{"from": [pods(app="redis")]}])
    assert reasons(view(among, labels="app=redis")) == []


def test_a_cluster_that_does_not_move_is_not_asked_about() -> None:
    assert list(network_findings(view(AMONG_THEMSELVES), {Owner("StatefulSet", "shop", "other")})) == []
