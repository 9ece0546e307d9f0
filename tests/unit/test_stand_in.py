"""The pod that stands in for a node of a Redis Cluster, as it is made of the StatefulSet's template [C3]."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from eks_rolling.observed.redis import Role
from eks_rolling.redis.stand_in import LABEL, ZONE, manifest, marks

POD_SPEC: dict[str, Any] = {
    "containers": [{"name": "redis", "image": "redis:7", "resources": {"requests": {"memory": "1Gi"}}}],
    "volumes": [{"name": "auth", "secret": {"secretName": "redis-auth"}}],
    "tolerations": [
        {"key": "dedicated", "operator": "Equal", "value": "redis"},
        {"operator": "Exists"},
        {"key": "eks-rolling", "operator": "Exists"},
    ],
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]
        },
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["redis"]}]}]
            }
        },
    },
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname"}],
}


def made(annotations: Mapping[str, str] = MappingProxyType({}), **spec: Any) -> dict[str, Any]:
    stateful_set = {
        "metadata": {"name": "redis-a", "namespace": "shop"},
        "spec": {
            "template": {
                "metadata": {
                    "labels": {"app": "redis"},
                    "annotations": {"prometheus.io/scrape": "true", **annotations},
                },
                "spec": {**POD_SPEC, **spec},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        },
    }
    return manifest(stateful_set, "shards", "redis-a-1", "zone-a", marks("redis-a-1", "id-1", Role.MASTER))


def test_it_carries_what_network_policies_ask_for_and_its_own_label() -> None:
    template = {"template": {"spec": POD_SPEC}}
    stateful_set = {"metadata": {"name": "redis-a", "namespace": "shop"}, "spec": template}
    pod = manifest(stateful_set, "shards", "redis-a-1", "", {}, {"net": "data", LABEL: "another"})
    assert pod["metadata"]["labels"] == {"net": "data", LABEL: "shards"}


def test_it_is_configured_as_the_pod_is() -> None:
    pod = made()
    assert pod["spec"]["containers"] == POD_SPEC["containers"]
    assert pod["metadata"]["name"] == "redis-a-1-stand-in"
    assert pod["metadata"]["namespace"] == "shop"
    assert pod["metadata"]["annotations"]["prometheus.io/scrape"] == "true"


def test_it_says_for_whom_it_stands_in() -> None:
    """R1."""
    said = made()["metadata"]["annotations"]
    assert {k: v for k, v in said.items() if "stands-in" in k} == {
        "eks-rolling.io/stands-in-for": "redis-a-1",
        "eks-rolling.io/stands-in-for-id": "id-1",
        "eks-rolling.io/stands-in-for-role": "master",
    }


def test_who_removes_nodes_is_asked_to_leave_it_alone_whatever_its_template_says() -> None:
    """C1: people let cluster-autoscaler evict pods with an emptyDir; this one may be the only master of its shard."""
    evictable = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "team": "shop"}
    said = made(annotations=evictable)["metadata"]["annotations"]
    assert said["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert said["karpenter.sh/do-not-disrupt"] == "true"
    assert said["team"] == "shop"


def test_its_labels_are_its_own() -> None:
    """C3: no budget, Service, StatefulSet or spread rule selects it."""
    assert made()["metadata"]["labels"] == {LABEL: "shards"}


def test_a_claim_becomes_an_empty_directory() -> None:
    volumes = made()["spec"]["volumes"]
    assert volumes == [{"name": "auth", "secret": {"secretName": "redis-auth"}}, {"name": "data", "emptyDir": {}}]


def test_it_goes_to_the_pods_zone_and_not_onto_a_node_that_is_emptied() -> None:
    spec = made()["spec"]
    assert spec["tolerations"] == [POD_SPEC["tolerations"][0]]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [e["key"] for e in term["matchExpressions"]] == ["pool", ZONE]


def test_rules_that_look_at_the_statefulsets_labels_do_not_bind_it() -> None:
    """C3: on the pod's return neither would stand in the other's way."""
    spec = made()["spec"]
    assert "podAntiAffinity" not in spec["affinity"]
    assert "topologySpreadConstraints" not in spec


def test_without_any_affinity_it_gets_the_zone() -> None:
    affinity = made(affinity=None)["spec"]["affinity"]
    (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {
        "matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-a"]}]
    }
