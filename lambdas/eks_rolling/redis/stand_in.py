"""The pod that stands in for a node of a Redis Cluster while it moves.

It is made of the StatefulSet's own template, so that it is configured as the pod is, and differs in what would bind it:
an emptyDir for each claim, labels of its own that no budget, Service, StatefulSet or spread rule selects [C3], the
pod's zone, and no toleration that would let it onto a node that is being emptied. Whoever removes nodes is asked to
leave it alone: it may be the only master of its shard, and no controller makes it again.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from eks_rolling.observed.kubernetes import ROLL_TAINT_KEY, UNDISTURBED
from eks_rolling.observed.redis import Role

Json = dict[str, Any]

LABEL = "eks-rolling.io/stand-in"
"""Its value is the group's name."""

FOR_POD = "eks-rolling.io/stands-in-for"
FOR_ID = "eks-rolling.io/stands-in-for-id"
FOR_ROLE = "eks-rolling.io/stands-in-for-role"

ZONE = "topology.kubernetes.io/zone"


def name_for(pod: str) -> str:
    return f"{pod}-stand-in"


def marks(pod: str, node_id: str, role: Role) -> dict[str, str]:
    """The annotations that say for whom it stands in: what that pod was, before anything changes [R1]."""
    return {FOR_POD: pod, FOR_ID: node_id, FOR_ROLE: role.name.lower()}


def manifest(
    stateful_set: Json,
    group: str,
    pod: str,
    zone: str,
    annotations: Mapping[str, str],
    labels: Mapping[str, str] = MappingProxyType({}),
) -> Json:
    """The pod, as the API server takes it. `stateful_set` is the object as the API server has it; `labels` are those
    that network policies let in."""
    template, spec = stateful_set["spec"]["template"], dict(stateful_set["spec"]["template"]["spec"])
    claims = [claim["metadata"]["name"] for claim in stateful_set["spec"].get("volumeClaimTemplates") or ()]
    volumes = [v for v in spec.get("volumes") or () if v["name"] not in claims]
    spec["volumes"] = [*volumes, *({"name": claim, "emptyDir": {}} for claim in claims)]
    spec["tolerations"] = [t for t in spec.get("tolerations") or () if t.get("key") not in {None, "", ROLL_TAINT_KEY}]
    spec["affinity"] = _in_zone((spec.get("affinity") or {}).get("nodeAffinity") or {}, zone)
    # These look at the StatefulSet's labels, of which it has none; it stays for minutes.
    spec.pop("topologySpreadConstraints", None)
    kept = (template.get("metadata") or {}).get("annotations") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name_for(pod),
            "namespace": stateful_set["metadata"]["namespace"],
            "labels": {**labels, LABEL: group},
            "annotations": {**kept, **dict(UNDISTURBED), **annotations},
        },
        "spec": spec,
    }


def _in_zone(affinity: Json, zone: str) -> Json:
    """Node affinity with the zone in every term: terms are alternatives, the expressions of one all hold."""
    if not zone:
        return {"nodeAffinity": affinity} if affinity else {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {"nodeSelectorTerms": [{}]}
    there = {"key": ZONE, "operator": "In", "values": [zone]}
    terms = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), there]}
        for term in required["nodeSelectorTerms"]
    ]
    return {
        "nodeAffinity": {**affinity, "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    }
