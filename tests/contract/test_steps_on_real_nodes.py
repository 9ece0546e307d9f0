"""What steps make of a node's age and of the taints that it keeps, with nodes, pods and dates of a real API server.

It dates nodes itself, so the steps' clock is turned instead. The account is in memory.
"""

import json
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from eks_rolling.clients.kubernetes import KubernetesClient
from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.kubernetes import TEMPLATE_TAINT
from eks_rolling.observed.marks import INSTANCE_REPLACES
from eks_rolling.payloads import NodeTask, PlanTask, Status
from eks_rolling.settings import Settings
from eks_rolling.steps import await_ready, plan
from tests.cluster import Cluster, is_ready
from tests.world import CLUSTER, MachineState, World

pytestmark = pytest.mark.lab

DAY = 86400.0
GROUP, ZONE = "ng", "zone-a"
TAINT = "dedicated"


@dataclass(frozen=True)
class RealNode:
    """A node of the cluster, and its instance in the account."""

    name: str
    instance: str


def account(version: int) -> World:
    """A group that launches from that version of its template."""
    world = World()
    world.group(GROUP, [ZONE], maximum=9, version=version)
    return world


def node_of(cluster: Cluster, world: World, version: int, **tags: str) -> RealNode:
    """A node that is up, of that version."""
    number = len(world.machines)
    instance = f"i-{int(cluster.name.partition('-')[2]):08x}{number:09x}"
    world.machines[instance] = MachineState(instance, GROUP, ZONE, f"lt-{GROUP}:{version}", state="running", tags=tags)
    group = world.groups_by_name[GROUP]
    world.groups_by_name[GROUP] = replace(group, desired=group.desired + 1)
    return RealNode(cluster.add_node(ZONE, instance=instance), instance)


def clients(cluster: Cluster, world: World, later: float, **settings: Any) -> Clients:
    """As steps have them, so many seconds after now."""
    access = cluster.kube.access
    kubernetes = KubernetesClient(access.server, access.authority or "", lambda: access.token or "")
    chosen = Settings(cluster=CLUSTER, **settings)
    return Clients(kubernetes, world, world.redis, chosen, lambda: time.time() + later, time.sleep, world)


def test_a_node_is_replaced_for_its_age_once_it_is_older_than_the_setting(cluster: Cluster) -> None:
    world = account(version=1)
    node = node_of(cluster, world, version=1)

    def planned(later: float) -> list[tuple[str, str]]:
        given = clients(cluster, world, later, max_age_days=5)
        plan.run(PlanTask(roll="roll-1", input={"dry_run": True}), given)
        nodes = json.loads(world.documents["rolls/roll-1/plan.json"])["nodes"]
        return [(each["node"], each["reason"]) for each in nodes]

    assert planned(5 * DAY - 600) == []
    assert planned(5 * DAY + 600) == [(node.name, "it is 5 days old (max_age_days 5)")]


def test_a_taint_that_a_settled_node_keeps_and_a_pod_works_with_is_not_waited_for(cluster: Cluster) -> None:
    """N3: it is waited for as long as one of the two is missing."""
    world = account(version=2)
    old, peer = node_of(cluster, world, version=1), node_of(cluster, world, version=2)
    new = node_of(cluster, world, version=2, **{INSTANCE_REPLACES: old.instance})
    for node in (peer, new):
        cluster.taint(node.name, "NoSchedule", key=TAINT)
    task = NodeTask(roll="roll-1", instance=old.instance, node=old.name, group=GROUP, replacement=new.instance)

    def waits(later: float) -> bool:
        result = await_ready.run(task, clients(cluster, world, later))
        assert (result.status is Status.DONE) or TAINT in result.reason, result.reason
        return result.status is Status.WAIT

    settled = await_ready.SETTLED_SECONDS + 60
    assert waits(settled)
    meant = [{"key": TAINT, "operator": "Exists"}]
    cluster.add_pod("works", nodeSelector={"kubernetes.io/hostname": peer.name}, tolerations=meant)
    cluster.wait_for_pod("works", "ready", is_ready)
    assert waits(0)
    assert not waits(settled)


def test_a_taint_that_the_groups_tags_announce_is_not_waited_for(cluster: Cluster) -> None:
    world = account(version=2)
    old = node_of(cluster, world, version=1)
    new = node_of(cluster, world, version=2, **{INSTANCE_REPLACES: old.instance})
    cluster.taint(new.name, "NoSchedule", key=TAINT)
    task = NodeTask(roll="roll-1", instance=old.instance, node=old.name, group=GROUP, replacement=new.instance)
    assert await_ready.run(task, clients(cluster, world, 0)).status is Status.WAIT
    group = world.groups_by_name[GROUP]
    world.groups_by_name[GROUP] = replace(group, tags=group.tags | {f"{TEMPLATE_TAINT}{TAINT}": ":NoSchedule"})
    assert await_ready.run(task, clients(cluster, world, 0)).status is Status.DONE
