"""Clusters that rolls are tried on."""

from eks_rolling.migration.next_action import look
from eks_rolling.migration.sentinel import SWITCHING
from eks_rolling.observed.kubernetes import STRATEGY_ANNOTATION, Owner, Strategy
from eks_rolling.redis.actions import Settled
from eks_rolling.redis.groups import GROUP, MASTER_NAME, PART, Part, declared
from eks_rolling.settings import Settings
from tests.assembly import DOCUMENT
from tests.world import World

WEB = Owner("Deployment", "default", "web")
AUTOSCALER = Owner("Deployment", "kube-system", "cluster-autoscaler")


def settings() -> Settings:
    """What the synthesized definition was made with."""
    return Settings.parse(DOCUMENT["settings"])


def shop(sizes: tuple[int, int] = (3, 3), *, new_version: bool = True) -> World:
    """Two groups in a zone each; web with a budget, api without, a single replica that restarts, a database."""
    world = World()
    for group, zone, size in (("ng-a", "zone-a", sizes[0]), ("ng-b", "zone-b", sizes[1])):
        world.group(group, [zone], maximum=size)
        for _ in range(size):
            world.add_node(group, zone)
    world.deployment("web", sum(sizes))
    world.budget("web", "web", 1)
    world.deployment("api", 3)
    world.deployment("single", 1, annotations={STRATEGY_ANNOTATION: Strategy.RESTART})
    world.stateful_set("db", 1, zone="zone-a")
    world.daemon_set("proxy")
    world.deployment("cluster-autoscaler", 1, namespace="kube-system")
    world.target_group("web", 30080, local=True, instances=list(world.machines))
    world.ready()
    if new_version:
        for group in ("ng-a", "ng-b"):
            world.new_template_version(group)
        world.planned = set(world.machines)
    return world


def outdated(world: World) -> list[str]:
    """Instances still alive with the old version."""
    return [m.id for m in world.machines.values() if m.alive and m.template.endswith(":1")]


def by_zone(world: World) -> dict[str, int]:
    """Alive instances per zone."""
    counts: dict[str, int] = {}
    for machine in world.machines.values():
        if machine.alive:
            counts[machine.zone] = counts.get(machine.zone, 0) + 1
    return counts


def watch_unavailable(world: World, owner: Owner = WEB) -> dict[str, int]:
    """Keeps the largest number of unavailable pods seen: answers a dict whose "most" grows."""
    seen = {"most": 0}

    def look(current: World) -> None:
        seen["most"] = max(seen["most"], current.unavailable(owner))

    world.watchers.append(look)
    return seen


MASTER_SET = Owner("StatefulSet", "default", "redis-master")


def cache(*, new_version: bool = True) -> World:
    """Two groups in a zone each, and a Redis group: master in the first, two replicas in the second, three sentinels.

    A writer is at work. The master pod's node and a sentinel are in the first zone, which has two nodes.
    """
    world = World()
    for group, zone, size in (("ng-a", "zone-a", 2), ("ng-b", "zone-b", 2)):
        world.group(group, [zone], maximum=size)
        for _ in range(size):
            world.add_node(group, zone)
    world.deployment("web", 2)
    world.deployment("cluster-autoscaler", 1, namespace="kube-system")
    for name, part, replicas, zone in (
        ("redis-master", Part.MASTER, 1, "zone-a"),
        ("redis-replica", Part.REPLICA, 2, "zone-b"),
        ("redis-sentinel", Part.SENTINEL, 3, ""),
    ):
        said = {GROUP: "cache", PART: str(part), MASTER_NAME: "mymaster"}
        world.stateful_set(name, replicas, zone=zone, annotations=said, volumes=False)
    world.ready()
    world.redis.writes_every = 0.1
    world.advance(5)
    if new_version:
        for group in ("ng-a", "ng-b"):
            world.new_template_version(group)
        world.planned = set(world.machines)
    return world


def redis_is_normal(world: World) -> bool:
    """S2, by the decision that the workflow itself goes by, and by who has what."""
    clients = world.clients(settings())
    ((group,), _) = declared(world.stateful_sets("default"))
    marked = [p.pod for p in world.pods_by_name.values() if SWITCHING in p.pod.annotations]
    return isinstance(look(group, "", clients).action, Settled) and not marked


SHARDS = {"redis-a-0": "redis-b-0", "redis-b-1": "redis-a-1", "redis-a-2": "redis-b-2"}
"""Master -> replica: masters in both zones, and each replica in the other one."""


def shards(*, new_version: bool = True, sizes: tuple[int, int] = (2, 2)) -> World:
    """Two groups in a zone each, and a Redis Cluster over both: three masters, three replicas, each with a volume.

    A writer is at work on every shard. Each node has a bus port of its own.
    """
    world = World()
    world.redis.cluster.own_bus_ports = True
    for group, zone, size in (("ng-a", "zone-a", sizes[0]), ("ng-b", "zone-b", sizes[1])):
        world.group(group, [zone], maximum=size)
        for _ in range(size):
            world.add_node(group, zone)
    world.deployment("web", 2)
    world.deployment("cluster-autoscaler", 1, namespace="kube-system")
    for name, zone in (("redis-a", "zone-a"), ("redis-b", "zone-b")):
        world.stateful_set(name, 3, zone=zone, annotations={GROUP: "shards", PART: str(Part.CLUSTER)})
        world.budget(name, name, 1)
    world.ready()
    address = {p.pod.name: p.pod.address for p in world.pods_by_name.values()}
    world.redis.cluster.form([[address[master], address[replica]] for master, replica in SHARDS.items()])
    world.redis.cluster.writes_every = 0.1
    world.advance(5)
    if new_version:
        for group in ("ng-a", "ng-b"):
            world.new_template_version(group)
        world.planned = set(world.machines)
    return world


def cluster_roles(world: World) -> dict[str, tuple[str, str, tuple[tuple[int, int], ...]]]:
    """Pod -> id, role, slots."""
    nodes = world.redis.cluster.nodes
    pods = {p.pod.name: nodes[p.pod.address] for p in world.pods_by_name.values() if p.pod.address in nodes}
    return {name: (n.id, n.itself.role.name, n.itself.slots) for name, n in sorted(pods.items())}


def cluster_is_normal(world: World) -> bool:
    """C2, by the decision that the workflow itself goes by, and by who is in whose table."""
    clients = world.clients(settings())
    ((group,), _) = declared(world.stateful_sets("default"))
    ids = {n.id for n in world.redis.cluster.nodes.values()}
    tables = all(set(n.table) == ids for n in world.redis.cluster.nodes.values())
    return isinstance(look(group, "", clients).action, Settled) and tables and len(ids) == 6
