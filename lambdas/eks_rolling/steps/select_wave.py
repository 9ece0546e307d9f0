"""Pick the next nodes: those of the plan that are still to be replaced. The first wave is one node."""

from collections.abc import Collection, Mapping

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Refused
from eks_rolling.observed.aws import Group
from eks_rolling.observed.kubernetes import Node, by_instance, contradiction, ready_nodes
from eks_rolling.observed.marks import outdated
from eks_rolling.payloads import RollTask, StepResult, Targets
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.runtime import handler_for


def decide(
    groups: list[Group],
    nodes: list[Node],
    planned: tuple[str, ...],
    targets: Targets,
    size: int,
    although_current: Collection[str] = (),
    dead: Collection[str] = (),
    places: Mapping[str, str] | None = None,
) -> tuple[list[dict[str, str]], int]:
    """The next wave as tasks for RollNode, in the plan's order, and how many nodes are left before it [N4].

    Those on `dead` nodes come first: what is lost on them keeps budgets from letting any other pod go. Of an instance
    and those in its place (`places`) one goes at a time, as each needs another of them to stay.

    An instance that has left its group, is shutting down, or lost its node needs nothing any more. Raises Refused where
    two nodes claim one.
    """
    node_of = by_instance(nodes)
    if said := next((two for i in planned if (two := contradiction(nodes, i))), ""):
        raise Refused(f"{said}.")
    left = {
        instance.id: {"instance": instance.id, "node": node_of[instance.id].name, "group": group.name}
        for group in groups
        for instance in group.instances
        if instance.lifecycle == "InService"
        and instance.id in node_of
        and (instance.id in although_current or outdated(instance, targets.get(group.name, {})))
    }
    ordered = [i for i in sorted(planned, key=lambda i: i not in dead) if i in left]
    first = {(places or {}).get(i, i): i for i in reversed(ordered)}
    wave = [left[i] for i in ordered if i in first.values()]
    return wave[:size], len(ordered)


def run(task: RollTask, clients: Clients) -> StepResult:
    settings = clients.settings
    groups = clients.aws.groups(task.groups) if task.groups else []
    size = 1 if settings.canary and task.waves == 0 else settings.wave
    nodes = clients.kubernetes.nodes()
    dead = {n.instance for n in nodes if n.dead(settings.dead_nodes, clients.now())}
    wave, left = decide(groups, nodes, task.nodes, task.targets, size, set(task.although_current), dead, task.places)
    if not wave:
        return StepResult.done("every node of the plan is replaced", wave=[], left=0, ready_nodes=ready_nodes(nodes))
    names = ", ".join(n["node"] for n in wave[:3]) + (" and others" if len(wave) > 3 else "")
    return StepResult.done(
        f"wave {task.waves + 1}: {names}; {left - len(wave)} nodes after it",
        wave=wave,
        left=left,
        ready_nodes=ready_nodes(nodes),
    )


handler = handler_for(run, RollTask, honors=Honors.ABORT)
