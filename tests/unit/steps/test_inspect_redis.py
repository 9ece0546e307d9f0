"""Which of a node's Redis groups is looked at, while other nodes of the same wave migrate one."""

from dataclasses import replace

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.migration.next_action import Next, groups_on
from eks_rolling.payloads import RedisTask, Status, StepResult
from eks_rolling.redis.actions import Done, Settled
from eks_rolling.redis.groups import RedisGroup, RefreshBy, declared
from eks_rolling.redis.sentinel import Refresh, SentinelGroupState, SentinelPod
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.roll import lock
from eks_rolling.settings import Settings
from eks_rolling.steps import inspect_redis
from tests.model.situations import cache, shards

SETTINGS = Settings(cluster="demo")
REFRESH = Refresh(SentinelPod("sentinel-0"), "sentinel-0 lists what is gone", RefreshBy.RESET)


class Node:
    """The second node of a wave, with pods of two groups; the first one holds those that are `busy`."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, busy: tuple[str, ...], settled: tuple[str, ...] = ()
    ) -> None:
        world = cache(new_version=False)
        self.clients = world.clients(SETTINGS)
        (first,), _ = declared(world.workloads())
        self.groups = {each.name: each for each in (first, replace(first, name="other"))}
        self.looked: list[str] = []
        lock.acquire(self.clients, "roll-1", lock.lock_name(SETTINGS.namespace))
        for name in busy:
            lock.acquire(self.clients, "roll-1/first-node", self.groups[name].lease)

        def look(group: RedisGroup, node: str, clients: Clients, waited: float = 0.0) -> Next:
            self.looked.append(group.name)
            action = Settled("all is well") if group.name in settled else REFRESH
            return Next(group, SentinelGroupState(group, (), (), node, waited), action, waited, lambda: Done(""))

        monkeypatch.setattr(inspect_redis, "groups_on", lambda _node, _clients: list(self.groups.values()))
        monkeypatch.setattr(inspect_redis, "look", look)

    def run(self, at_hand: str = "") -> StepResult:
        group = str(self.groups[at_hand]) if at_hand else ""
        task = RedisTask(roll="roll-1", node="node", instance="i-1", group="workers", redis_group=group)
        return inspect_redis.run(task, self.clients)

    def holder(self, name: str) -> str:
        lease = self.clients.kubernetes.lease(self.groups[name].lease)
        return lease.holder if lease else ""


def test_while_one_group_is_migrated_for_another_node_the_next_one_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, busy=("cache",))
    answered = node.run()
    assert (answered.status, answered.output["group"]) == (Status.DONE, str(node.groups["other"]))
    assert node.looked == ["other"], "what another node holds is not looked at"
    assert (node.holder("cache"), node.holder("other")) == ("roll-1/first-node", "roll-1/node")


@pytest.mark.parametrize("busy", [("cache",), ("cache", "other")])
def test_with_nothing_else_to_do_it_waits_for_that_group(
    monkeypatch: pytest.MonkeyPatch, busy: tuple[str, ...]
) -> None:
    """And never takes the node for emptied."""
    node = Node(monkeypatch, busy=busy, settled=("other",))
    answered = node.run()
    assert answered.status is Status.WAIT
    assert answered.reason == f"Redis group {node.groups['cache']} is being migrated for first-node"
    assert node.holder("other") == ("roll-1/first-node" if "other" in busy else "")


def test_a_node_with_nothing_of_a_group_but_a_stand_in_waits_for_its_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: the stand-in may be the only master of its shard, and a node without one would be emptied of it."""
    world = shards(new_version=False)
    clients = world.clients(SETTINGS)
    (group,), _ = declared(world.workloads())
    pods = {p.pod.name: p.pod for p in world.pods_by_name.values()}
    free = world.add_node("ng-a", "zone-a")
    assert groups_on(free, clients) == []
    monkeypatch.setattr(world, "_place", lambda _pod: free)
    owner = pods["redis-a-0"].owner
    assert owner is not None
    clients.kubernetes.create_stand_in(world.workloads_by_owner[owner].workload, pods["redis-a-0"], "zone-a", {})
    world.advance(5)
    assert [p.pod.node for p in world.pods_by_name.values() if LABEL in p.pod.labels] == [free]
    assert groups_on(free, clients) == [group]
    assert groups_on(pods["redis-a-0"].node, clients) == [group]


def test_the_group_at_hand_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2, C2: what is half moved is brought back to normal before another one is begun."""
    node = Node(monkeypatch, busy=())
    assert node.run("other").output["group"] == str(node.groups["other"])
    assert node.looked == ["other"]
