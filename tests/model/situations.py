"""Clusters that rolls are tried on."""

from lambdas.observed import STRATEGY_ANNOTATION, Owner, Strategy
from lambdas.settings import Settings
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
