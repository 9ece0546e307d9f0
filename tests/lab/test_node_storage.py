"""The lab's volumes behave as EBS volumes do: one zone, one node at a time, attach and detach take time."""

import time

import pytest

from lab.kube import Items, Json
from tests.cluster import is_bound, is_ready
from tests.node_lab import ZONES, Nodes, shell, spec

pytestmark = pytest.mark.lab

CLAIM = {
    "metadata": {"name": "data"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "gp3",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
WRITER = shell(
    "date +%N >> /data/log; trap 'exit 0' TERM; sleep infinity & wait",
    volumeMounts=[{"name": "data", "mountPath": "/data"}],
)


def volume_of(nodes: Nodes, claim: str) -> Json:
    bound = nodes.kube.get(nodes.path(f"v1/persistentvolumeclaims/{claim}"))
    return nodes.kube.get(f"/api/v1/persistentvolumes/{bound['spec']['volumeName']}")


def attachments_of(nodes: Nodes, volume: str) -> Items:
    return [a for a in nodes.kube.list(ATTACHMENTS) if a["spec"]["source"]["persistentVolumeName"] == volume]


def test_a_stateful_pods_volume_is_made_in_its_zone_and_keeps_pod_and_data_there(nodes: Nodes) -> None:
    first, _, second = nodes.launch(ZONES[1]), nodes.launch(ZONES[0]), nodes.launch(ZONES[1])
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [second.node]}]},
        {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [ZONES[1]]}]},
    ]}}}  # fmt: skip
    nodes.taint(second.node, "NoSchedule")
    nodes.taint(nodes.machines[1].node, "NoSchedule")
    nodes.add_stateful_set("db", 1, claims=[CLAIM], containers=[WRITER], affinity=affinity)
    volume = volume_of(nodes, "data-db-0")
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == [ZONES[1]]
    assert nodes.pod("db-0")["spec"]["nodeName"] == first.node
    before = nodes.run_inside("db-0", "cat", "/data/log").splitlines()
    assert len(before) == 1

    # The old node takes nothing new, the only other free one is in the wrong zone: the pod waits for its own.
    nodes.taint(nodes.machines[1].node, "")
    nodes.taint(first.node, "NoSchedule")
    nodes.evict("db-0")
    waiting = nodes.wait_for_pod("db-0", "unschedulable", lambda p: not is_bound(p) and "conditions" in p["status"])
    assert "node affinity" in waiting["status"]["conditions"][0]["message"]

    nodes.taint(second.node, "")
    nodes.wait_for_pod("db-0", "ready on the other node",
                       lambda p: is_ready(p) and p["spec"]["nodeName"] == second.node, seconds=30)  # fmt: skip
    after = nodes.run_inside("db-0", "cat", "/data/log").splitlines()
    assert after[:1] == before
    assert len(after) == 2


def test_attaching_and_detaching_take_their_time(nodes: Nodes) -> None:
    nodes.launch()
    nodes.create("v1/persistentvolumeclaims", CLAIM)
    # Taken before whatever begins it: a busy machine learns late that it has begun.
    began = time.monotonic()
    nodes.add_pod("writer", containers=[WRITER],
                  volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])  # fmt: skip
    requested = nodes.kube.wait_for("an attachment", ATTACHMENTS, lambda found: mine(nodes, found))
    name = requested["metadata"]["name"]
    nodes.kube.wait_for("attached", ATTACHMENTS, lambda found: found[0]["status"].get("attached") or None,
                        fieldSelector=f"metadata.name={name}")  # fmt: skip
    delays = spec().delays
    assert time.monotonic() - began > delays.volume_attach
    nodes.wait_for_pod("writer", "ready", is_ready)

    began = time.monotonic()
    nodes.kube.delete(nodes.path("v1/pods/writer"))
    nodes.wait_until_gone("writer")
    nodes.kube.wait_for("detached", ATTACHMENTS, lambda found: None if found else True,
                        fieldSelector=f"metadata.name={name}")  # fmt: skip
    assert time.monotonic() - began > delays.volume_detach


def mine(nodes: Nodes, found: Items) -> Json | None:
    """The attachment to one of the test's nodes."""
    names = {machine.node for machine in nodes.machines}
    return next((a for a in found if a["spec"]["nodeName"] in names), None)


def test_a_volume_is_not_detached_while_a_pod_still_writes_to_it(nodes: Nodes) -> None:
    nodes.launch()
    nodes.create("v1/persistentvolumeclaims", CLAIM)
    slow = shell("trap 'sleep 2; exit 0' TERM; while :; do sleep 0.05; done",
                 volumeMounts=[{"name": "data", "mountPath": "/data"}])  # fmt: skip
    nodes.add_pod("writer", containers=[slow], terminationGracePeriodSeconds=10,
                  volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])  # fmt: skip
    nodes.wait_for_pod("writer", "ready", is_ready)
    (attachment,) = attachments_of(nodes, volume_of(nodes, "data")["metadata"]["name"])
    nodes.kube.delete(nodes.path("v1/pods/writer"))
    name = attachment["metadata"]["name"]
    nodes.kube.delete(f"{ATTACHMENTS}/{name}")
    began = time.monotonic()
    nodes.kube.wait_for("detached", ATTACHMENTS, lambda found: None if found else True,
                        fieldSelector=f"metadata.name={name}")  # fmt: skip
    assert time.monotonic() - began >= 2.0


def test_a_volume_that_is_attached_to_one_node_is_refused_to_another(nodes: Nodes) -> None:
    first, second = nodes.launch(), nodes.launch()
    nodes.create("v1/persistentvolumeclaims", CLAIM)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    nodes.add_pod("holder", containers=[WRITER], volumes=volumes,
                  nodeSelector={"kubernetes.io/hostname": first.node})  # fmt: skip
    nodes.wait_for_pod("holder", "ready", is_ready)

    nodes.add_pod("rival", containers=[WRITER], volumes=volumes,
                  nodeSelector={"kubernetes.io/hostname": second.node})  # fmt: skip
    assert "already used by pod(s) holder" in nodes.wait_for_event("FailedAttachVolume")
    nodes.kube.create(ATTACHMENTS, {
        "metadata": {"name": f"{nodes.name}-by-hand"},
        "spec": {"attacher": "ebs.csi.aws.com", "nodeName": second.node,
                 "source": {"persistentVolumeName": volume_of(nodes, "data")["metadata"]["name"]}},
    })  # fmt: skip
    refused = nodes.kube.wait_for(
        "refused", ATTACHMENTS,
        lambda found: next((a for a in found if "attachError" in a.get("status", {})), None),
        fieldSelector=f"metadata.name={nodes.name}-by-hand",
    )  # fmt: skip
    assert f"already attached to node {first.node}" in refused["status"]["attachError"]["message"]
    assert not is_ready(nodes.pod("rival"))

    nodes.kube.delete(f"{ATTACHMENTS}/{nodes.name}-by-hand")
    nodes.kube.delete(nodes.path("v1/pods/holder"))
    nodes.wait_for_pod("rival", "ready once the holder is gone", is_ready, seconds=30)


def test_a_volume_goes_with_its_claim(nodes: Nodes) -> None:
    machine = nodes.launch()
    nodes.create("v1/persistentvolumeclaims", CLAIM)
    nodes.add_pod("writer", containers=[WRITER],
                  volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])  # fmt: skip
    nodes.wait_for_pod("writer", "ready", is_ready)
    volume = volume_of(nodes, "data")
    place = nodes.node_lab.lab.paths.volumes / machine.zone / volume["spec"]["csi"]["volumeHandle"]
    assert (place / "log").exists()

    nodes.kube.delete(nodes.path("v1/pods/writer"))
    nodes.kube.delete(nodes.path("v1/persistentvolumeclaims/data"))
    nodes.kube.wait_for("the volume gone", "/api/v1/persistentvolumes", lambda found: None if found else True,
                        fieldSelector=f"metadata.name={volume['metadata']['name']}")  # fmt: skip
    assert not place.exists()


@pytest.mark.slow
def test_a_volume_outlives_its_node(nodes: Nodes) -> None:
    lost = nodes.launch()
    nodes.add_stateful_set("db", 1, claims=[CLAIM], containers=[WRITER])
    nodes.run_inside("db-0", "sh", "-c", "echo kept > /data/note")
    nodes.node_lab.set_state(lost, "shutting-down")
    nodes.node_lab.set_state(lost, "terminated")
    saved = nodes.launch()
    began = time.monotonic()
    # The pods of a Node that is gone are collected within a minute or so, as in any cluster.
    nodes.wait_for_pod("db-0", "ready on the new node",
                       lambda p: is_ready(p) and p["spec"].get("nodeName") == saved.node, seconds=120)  # fmt: skip
    assert nodes.run_inside("db-0", "cat", "/data/note") == "kept"
    assert time.monotonic() - began > 10, "faster than a real cluster could"
