"""Replace what never joined: outdated instances in service that have no node, and so neither pods nor capacity.

There is nothing to drain. Each is terminated through its group without lowering the desired capacity, so that the group
itself launches another, of the version that it launches now; the step is done when those have joined. Whatever takes
one for healthy, as a target, keeps it: then something serves on it that the cluster does not know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.aws import Group, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import Node, nameless
from eks_rolling.payloads import StepResult, UnjoinedTask, backoff
from eks_rolling.runtime import handler_for
from eks_rolling.wording import counted


@dataclass(frozen=True, slots=True)
class Unjoined:
    """One of them, and what it depends on. `group` is None once it is in none."""

    id: str
    group: Group | None
    state: InstanceState | None
    joined: bool
    nameless: tuple[str, ...] = ()
    """Nodes that do not say on which instance they run: any of them may be on it."""
    targets: tuple[TargetRegistration, ...] = ()


@dataclass(frozen=True, slots=True)
class Leave:
    """It is to leave these targets first, which do not take it for healthy."""

    targets: tuple[TargetRegistration, ...]


@dataclass(frozen=True, slots=True)
class Terminate:
    pass


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing is to be done about it any more."""


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str


def decide(seen: Unjoined, silent_seconds: float, now: float) -> Leave | Terminate | Over | Wait:
    """What to do about one instance now [N2, N4]."""
    member = seen.group.instance(seen.id) if seen.group else None
    if seen.joined or member is None or seen.state is None or seen.state.gone:
        return Over()
    if member.leaving or seen.state.state == "shutting-down":
        return Wait(f"{seen.id} is shutting down")
    if member.lifecycle != "InService" or seen.group is None:
        return Wait(f"{seen.id} is {member.lifecycle} in its group: it was taken out; put it back into service")
    if seen.nameless:
        return Wait(f"node {', '.join(seen.nameless)} does not say on which instance it runs, which may be {seen.id}")
    if (left := seen.state.launched + silent_seconds - now) > 0:
        return Wait(f"{seen.id} may yet join, for {left:.0f} s more")
    if "Launch" in seen.group.suspended or "Terminate" in seen.group.suspended:
        return Wait(f"the process Launch or Terminate of group {seen.group.name} is suspended; resume it")
    using = [t for t in seen.targets if t.receives_traffic]
    if healthy := sorted({t.name for t in using if t.state == "healthy"}):
        return Wait(f"{seen.id} has no node and is healthy in target group {', '.join(healthy)}: see what serves on it")
    if registered := tuple(t for t in using if t.state != "draining"):
        return Leave(registered)
    return Wait(f"{seen.id} leaves its target groups") if using else Terminate()


def lacking(groups: Sequence[Group], nodes: Sequence[Node], states: Mapping[str, InstanceState], since: float) -> str:
    """What is still missing of the groups in which instances were ended; "" if nothing is. What came after `since` has
    to be Ready; what was not well before is not what is waited for."""
    ready = {n.instance for n in nodes if n.ready}
    said = []
    for group in groups:
        alive = [i for i in group.instances if i.alive]
        late = [i.id for i in alive if i.id in states and states[i.id].launched >= since and i.id not in ready]
        if len(alive) < group.desired:
            said.append(f"group {group.name} has {len(alive)} of {counted(group.desired, 'instance')}")
        elif late:
            said.append(f"{', '.join(late)} of group {group.name}: no Ready node yet")
    return "; ".join(said)


def run(task: UnjoinedTask, clients: Clients) -> StepResult:
    """`output.ended` counts what was ended at this look."""
    if not task.unjoined:
        return StepResult.done("every instance of the plan has a node")
    now = clients.now()
    groups = clients.aws.groups(sorted(set(task.unjoined.values())))
    nodes = clients.kubernetes.nodes()
    states = clients.aws.instances(sorted({*task.unjoined, *(i.id for g in groups for i in g.instances)}))
    waiting, ended = [], 0
    for instance in task.unjoined:
        seen = _look_at(instance, groups, nodes, states, clients)
        match decide(seen, clients.settings.dead_nodes.silent_seconds, now):
            case Wait(reason):
                waiting.append(reason)
            case Leave(targets):
                for target in targets:
                    clients.aws.deregister(target)
                waiting.append(f"{instance} leaves its target groups")
            case Terminate():
                clients.aws.exchange(instance)
                ended += 1
                waiting.append(f"{instance}, which never joined, is exchanged")
    # EC2's launch times are whole seconds.
    if not waiting and task.since is not None and (missing := lacking(groups, nodes, states, task.since - 1)):
        waiting.append(missing)
    if waiting:
        seconds = 5.0 if ended else backoff(task.waited(now), first=5, longest=30)
        return StepResult.wait("; ".join(waiting), seconds, ended=ended)
    return StepResult.done("what never joined was replaced")


def _look_at(
    instance: str,
    groups: Sequence[Group],
    nodes: Sequence[Node],
    states: Mapping[str, InstanceState],
    clients: Clients,
) -> Unjoined:
    group = next((g for g in groups if g.instance(instance)), None)
    joined = any(n.instance == instance for n in nodes)
    targets = tuple(clients.aws.targets_of([instance])) if group and not joined else ()
    return Unjoined(instance, group, states.get(instance), joined, tuple(nameless(nodes)), targets)


handler = handler_for(run, UnjoinedTask)
