"""Replace what never joined: outdated instances in service that have no node, and so neither pods nor capacity.

There is nothing to drain. Each is terminated through its group without lowering the desired capacity, so that the group
itself launches another, of the version that it launches now; the step is done when those have joined. An instance whose
Node was deleted looks the same, and its containers may still run: whatever its age, it is looked at for as long as a
kubelet must be silent, and nothing is terminated while a pod is bound to a Node that is not there. What a target group
takes for healthy, or somebody took out of service, is left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.aws import Group, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import Node, nameless, without_node
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
    lost_nodes: tuple[str, ...] = ()
    """Names of nodes that pods are bound to, and that are not there: any of them may have been on it."""
    targets: tuple[TargetRegistration, ...] | None = None
    """None: nobody has asked yet."""


@dataclass(frozen=True, slots=True)
class AskTargets:
    """Nothing else keeps it: whether a target group uses it decides."""


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """It stays as it is, and the roll goes on without it."""

    reason: str


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


Decision = AskTargets | Leave | LeaveAlone | Terminate | Over | Wait


def decide(seen: Unjoined, silent_seconds: float, waited: float, now: float) -> Decision:
    """What to do about one instance now [N2, N4]. `waited` counts from this step's first look: how long an instance has
    been without a node, nothing says that is older."""
    member = seen.group.instance(seen.id) if seen.group else None
    if seen.joined or member is None or seen.state is None or seen.state.gone:
        return Over()
    if member.leaving or seen.state.state == "shutting-down":
        return Wait(f"{seen.id} is shutting down")
    if member.lifecycle != "InService" or seen.group is None:
        return LeaveAlone(f"{seen.id} is left alone: it is {member.lifecycle} in its group, taken out of service")
    if seen.nameless:
        return Wait(f"node {', '.join(seen.nameless)} does not say on which instance it runs, which may be {seen.id}")
    if seen.lost_nodes:
        return Wait(
            f"pods are bound to node {', '.join(seen.lost_nodes)}, which is not there: they may be on {seen.id}"
        )
    if (left := silent_seconds - min(waited, now - seen.state.launched)) > 0:
        return Wait(f"{seen.id} may yet join, for {left:.0f} s more")
    if "Launch" in seen.group.suspended or "Terminate" in seen.group.suspended:
        return Wait(f"the process Launch or Terminate of group {seen.group.name} is suspended; resume it")
    return AskTargets() if seen.targets is None else _by_targets(seen.id, seen.targets)


def _by_targets(instance: str, targets: Sequence[TargetRegistration]) -> Decision:
    using = [t for t in targets if t.receives_traffic]
    if healthy := sorted({t.name for t in using if t.state == "healthy"}):
        return LeaveAlone(
            f"{instance} is left alone: it has no node and is healthy in target group {', '.join(healthy)}; see what "
            "serves on it"
        )
    if registered := tuple(t for t in using if t.state != "draining"):
        return Leave(registered)
    return Wait(f"{instance} leaves its target groups") if using else Terminate()


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


@dataclass(frozen=True)
class Look:
    """One look at everything that the instances depend on, their targets apart."""

    groups: Sequence[Group]
    nodes: Sequence[Node]
    states: Mapping[str, InstanceState]
    lost_nodes: tuple[str, ...]

    @classmethod
    def at(cls, task: UnjoinedTask, clients: Clients) -> "Look":
        groups = clients.aws.groups(sorted(set(task.unjoined.values())))
        states = clients.aws.instances(sorted({*task.unjoined, *(i.id for g in groups for i in g.instances)}))
        # Pods after nodes: of a node that is not listed any more, no pod is missed.
        nodes = clients.kubernetes.nodes()
        return cls(groups, nodes, states, tuple(without_node(clients.kubernetes.pods(), nodes)))

    def of(self, instance: str, targets: tuple[TargetRegistration, ...] | None) -> Unjoined:
        return Unjoined(
            instance,
            next((g for g in self.groups if g.instance(instance)), None),
            self.states.get(instance),
            any(n.instance == instance for n in self.nodes),
            tuple(nameless(self.nodes)),
            self.lost_nodes,
            targets,
        )


def _decide_all(task: UnjoinedTask, clients: Clients, now: float) -> tuple[Look, dict[str, Decision]]:
    """Targets are asked for once, of all instances that nothing else decides: that takes a request per target group of
    the region. Everything else is looked at again after it, immediately before anything is terminated."""

    def decisions(look: Look, targets: Mapping[str, tuple[TargetRegistration, ...]]) -> dict[str, Decision]:
        silent, waited = clients.settings.dead_nodes.silent_seconds, task.waited(now)
        return {i: decide(look.of(i, targets.get(i)), silent, waited, now) for i in task.unjoined}

    look = Look.at(task, clients)
    found = decisions(look, {})
    undecided = [i for i, decision in found.items() if isinstance(decision, AskTargets)]
    if not undecided:
        return look, found
    targets = clients.aws.targets_of(undecided)
    look = Look.at(task, clients)
    return look, decisions(look, {i: tuple(t for t in targets if t.instance == i) for i in undecided})


def run(task: UnjoinedTask, clients: Clients) -> StepResult:
    """`output.ended` counts what was ended at this look; `output.kept`, once done, what was left as it is."""
    if not task.unjoined:
        return StepResult.done("every instance of the plan has a node")
    now = clients.now()
    look, decisions = _decide_all(task, clients, now)
    waiting, alone, ended = [], [], 0
    for instance, decision in decisions.items():
        match decision:
            case Wait(reason):
                waiting.append(reason)
            case LeaveAlone(reason):
                alone.append(reason)
            case AskTargets():
                waiting.append(f"{instance} is looked at again")
            case Leave(targets):
                for target in targets:
                    clients.aws.deregister(target)
                waiting.append(f"{instance} leaves its target groups")
            case Terminate():
                clients.aws.replace_by_group(instance)
                ended += 1
                waiting.append(f"{instance}, which never joined, is terminated for its group to replace")
    joined = {i for i in task.unjoined if any(n.instance == i for n in look.nodes)}
    ended_in = {task.unjoined[i] for i, d in decisions.items() if isinstance(d, Over) and i not in joined}
    short = [g for g in look.groups if g.name in ended_in]
    # EC2's launch times are whole seconds.
    if not waiting and task.since is not None and (missing := lacking(short, look.nodes, look.states, task.since - 1)):
        waiting.append(missing)
    if waiting:
        seconds = 5.0 if ended else backoff(task.waited(now), first=5, longest=30)
        return StepResult.wait("; ".join([*waiting, *alone]), seconds, ended=ended)
    said = "; ".join(["what never joined was replaced", *alone])
    return StepResult.done(said, kept=len(alone) + len(joined))


handler = handler_for(run, UnjoinedTask)
