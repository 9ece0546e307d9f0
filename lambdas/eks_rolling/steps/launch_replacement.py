"""Launch the replacement: one new instance, in the old node's zone, once.

`autoscaling:LaunchInstances` with a client token made of roll, node and attempt is zone-true, free of races and
idempotent. Groups it does not serve (on-demand and spot mixed) get their desired capacity raised by one, one node at a
time under a Lease, and the instance that then appears in the right zone is claimed by a tag.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied, NotBegun, NotFound, Permanent, Refused
from eks_rolling.observed.aws import COMES_OR_RUNS, SPREADING_SECONDS, Group, InstanceState, is_new
from eks_rolling.observed.kubernetes import Node, by_instance
from eks_rolling.observed.marks import (
    HARD_TAINT,
    INSTANCE_REPLACES,
    NODE_LAUNCH,
    NODE_ROLL,
    SURPLUS,
    LaunchMark,
    place_of,
    spares,
    token_of,
)
from eks_rolling.payloads import Hold, NodeTask, Status, StepResult, backoff
from eks_rolling.roll import lock
from eks_rolling.roll.arrangements import close_strays, look_again
from eks_rolling.roll.lock import Busy
from eks_rolling.roll.proofs import as_proven, prove
from eks_rolling.runtime import handler_for

MOST_AGAIN = 3
"""How often a desired capacity is raised anew that somebody set back: each time AWS ends an instance of its choice."""


@dataclass(frozen=True, slots=True)
class Found:
    """The replacement exists."""

    instance: str


@dataclass(frozen=True, slots=True)
class RecordLaunch:
    """Write down what will be asked for, before asking."""

    mark: LaunchMark


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask for it, with this client token."""

    token: str


@dataclass(frozen=True, slots=True)
class RaiseDesired:
    """Ask for it by raising the desired capacity to this, as was written down."""

    desired: int
    asked: LaunchMark


@dataclass(frozen=True, slots=True)
class Claim:
    """This instance becomes the replacement (or `value` says what else it is)."""

    instance: str
    value: str


Decision = Found | RecordLaunch | Launch | RaiseDesired | Claim | Hold


def decide(
    group: Group,
    states: dict[str, InstanceState],
    node: Node,
    old: InstanceState,
    roll: str,
    now: float,
    leaving: frozenset[str] = frozenset(),
) -> Decision:
    """The next action for one old node; `states` are the instances of its group as EC2 has them.

    `leaving` are instances that the same roll replaces: an earlier roll may have launched one of them for this node,
    but it is nobody's replacement any more.
    """
    for instance in group.instances:
        state = states.get(instance.id)
        if state and instance.alive and instance.id not in leaving and state.tags.get(INSTANCE_REPLACES) == old.id:
            return Found(instance.id)
    if "Launch" in group.suspended:
        return Hold(f"the process Launch of group {group.name} is suspended; resume it")
    mark = LaunchMark.on(node)
    if mark is not None and not mark.belongs_to(old.id):
        # A node's kubelet may write on its own Node: another node's request is no request of this one's.
        mark = None
    if mark is not None and leaving and not mark.asked_by(roll):
        # The earlier roll's request would be answered with that same instance again.
        mark = None
    if group.launches_serially:
        return _decide_serially(group, states, mark, old, now)
    if mark is None or not mark.token:
        return RecordLaunch(LaunchMark(now, token=token_of(roll, old.id, 1)))
    if group.desired >= group.maximum and not _launched(group, states, mark):
        return Hold(f"group {group.name} is at its maximum size {group.maximum}")
    return Launch(mark.token)


def _launched(group: Group, states: dict[str, InstanceState], mark: LaunchMark) -> bool:
    """Whether the request may have been granted already: asking again then only returns which instance it was."""
    return any(i.id in states and mark.may_be_answered_by(states[i.id]) for i in group.instances)


def _decide_serially(
    group: Group, states: dict[str, InstanceState], mark: LaunchMark | None, old: InstanceState, now: float
) -> Decision:
    """A request that an earlier roll made, and that no instance answered, counts on: it is never made twice.

    It is counted from the group's own size, because the desired capacity falls by one whenever another node of the
    group is terminated, and that waits for nobody's turn to launch.
    """
    alive = [i for i in group.instances if i.alive]
    if unknown := next((i.id for i in alive if i.id not in states), ""):
        # It may be the one that was asked for, or another node's.
        return Hold(f"EC2 does not know {unknown} everywhere yet")
    own = group.desired - sum(1 for i in alive if _is_extra(i.id, group, states))
    due = mark is not None and mark.desired is not None and own <= mark.desired
    # Nothing tells what came of a request from what somebody asked for meanwhile: before one elsewhere counts as its
    # answer, one in the right zone does [N4].
    for instance in sorted(alive, key=lambda i: i.zone != old.zone):
        state = states[instance.id]
        if state.tags.get(INSTANCE_REPLACES) == SURPLUS and instance.zone == old.zone:
            return Claim(instance.id, old.id)
        # While the group has fewer than it was asked for, one that came may have come for something else.
        if mark and not due and len(alive) >= group.desired and mark.may_be_answered_by(state):
            return Claim(instance.id, old.id if instance.zone == old.zone else SURPLUS)
    if not due and len(alive) < group.desired:
        return Hold(f"group {group.name} is launching its instance {group.desired}")
    if group.desired >= group.maximum:
        return Hold(f"group {group.name} is at its maximum size {group.maximum}; raise it")
    if mark is not None and not due and now <= mark.asked_at + SPREADING_SECONDS:
        # What came in another zone seems the group's own until its tag is shown, and would be asked for twice.
        return Hold(f"the tags of instances of group {group.name} are not known everywhere yet")
    if mark is not None and mark.desired == own:
        if mark.again >= MOST_AGAIN:
            return Hold(
                f"somebody sets the desired capacity of group {group.name} back to {group.desired}, which was raised "
                f"{mark.again + 1} times: find out who, and raise it by one"
            )
        return RaiseDesired(group.desired + 1, mark)
    # Where somebody lowered the capacity below what was written down, one more than it is now is asked for.
    return RecordLaunch(LaunchMark(now, desired=own))


def _is_extra(instance: str, group: Group, states: dict[str, InstanceState]) -> bool:
    """Whether it is beyond the group's own size: a replacement beside its old instance, or one launched elsewhere."""
    return states[instance].tags.get(INSTANCE_REPLACES) == SURPLUS or instance in spares(group, states)


def run(task: NodeTask, clients: Clients) -> StepResult:
    node = clients.kubernetes.node(task.node)
    if node is None or node.instance != task.instance:
        raise Refused(f"Node {task.node} is no longer instance {task.instance}; start a new roll.")
    if node.annotations.get(NODE_ROLL) != task.roll:
        raise Refused(f"Node {task.node} is not in the plan of {task.roll}; start a roll that names it.")
    group = next(iter(clients.aws.groups([task.group])), None)
    if group is None or group.managed or group.instance(task.instance) is None:
        raise Refused(f"Instance {task.instance} is not in an Auto Scaling group {task.group} that may be rolled.")
    if again := look_again(task.roll, [group], [node], 0, task.waited(clients.now()), clients):
        return again
    if not group.launches_serially:
        return _launch_for(task, group, node, clients)
    serial = lock.launch_name(clients.settings.namespace)
    held = lock.acquire(clients, task.instance, serial)
    if isinstance(held, Busy):
        return StepResult.wait(f"group {group.name} launches one instance at a time, currently for {held.holder}", 5)
    try:
        result = _launch_for(task, group, node, clients)
    except Permanent:
        lock.release(clients, task.instance, serial)
        raise
    deadline = clients.settings.deadline("launch_replacement")
    if result.status is Status.DONE or (deadline is not None and task.waited(clients.now()) > deadline):
        # Done, or this was the last look: the next node need not wait until the Lease runs out.
        lock.release(clients, task.instance, serial)
    return result


def _launch_for(task: NodeTask, group: Group, node: Node, clients: Clients) -> StepResult:
    states = clients.aws.instances([i.id for i in group.instances])
    lease = lock.confirm(clients, task.roll)
    node = as_proven(lease, node, NODE_LAUNCH)
    failed = lease.annotations.get(lock.FAILED)
    if failed and LaunchMark.on(node) is None:
        raise NotBegun(f"not started, because {failed} was not replaced")
    old = states.get(task.instance)
    if old is None:
        raise Refused(f"EC2 knows instance {task.instance} no longer: it ended by itself; start a new roll.")
    if any(state.tags.get(INSTANCE_REPLACES) == SURPLUS for state in states.values()):
        close_strays(states, clients.kubernetes.nodes(), clients)
    family = _family(group, states, old, task.roll, clients)
    if unknown := _keep_place(family, states, clients):
        return unknown
    home = family.home(old)
    decision = Found(home) if home else decide(group, states, node, old, task.roll, clients.now(), family.leaving)
    result = _act(decision, task, node, states, clients)
    if isinstance(decision, Hold):
        return result
    # By this the report tells a node that was begun from one that was not.
    return result.model_copy(update={"output": result.output | {"requested": True}})


@dataclass(frozen=True, slots=True)
class Family:
    """The other instances that earlier rolls launched in the same place of the group as one that is replaced now.

    Rolls were aborted, and what they had launched was in use and stayed. One instance is to be left in the place. To
    launch another for each would leave the group larger than it was, for good.

    N3 is not hurt: the capacity "at the start" is what was asked of the group, and the others are more, which only
    those rolls asked for. Their pods are evicted within their budgets like any other's.
    """

    members: tuple[InstanceState, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()
    """Those that the same roll replaces."""
    spare: frozenset[str] = frozenset()
    """Those whose place is another's."""
    place: str = ""
    """Whose it is."""

    def home(self, old: InstanceState) -> str:
        """The one that takes the pods of the `old` instance; "" where a new one has to be launched.

        One that is to stay, if there is any. What is spare goes onto one that is yet to be replaced as well: that one
        has its replacement launched when it is its turn.
        """
        fit = [m for m in self.members if m.zone == old.zone and self._takes_pods(m)]
        staying = [m.id for m in fit if m.id not in self.leaving]
        waiting = [m.id for m in fit if old.id in self.spare and self._is_ready(m)]
        return next(iter((*staying, *waiting)), "")

    def _takes_pods(self, member: InstanceState) -> bool:
        if member.state not in COMES_OR_RUNS:
            return False
        node = self.nodes.get(member.id)
        if not self._is_ready(member):
            # A replacement is on its way, and is waited for.
            return member.id in self.spare and member.id not in self.leaving
        return node is not None and not node.unschedulable and HARD_TAINT not in node.taints

    def _is_ready(self, member: InstanceState) -> bool:
        node = self.nodes.get(member.id)
        return node is not None and node.ready


def _family(group: Group, states: dict[str, InstanceState], old: InstanceState, roll: str, clients: Clients) -> Family:
    spare = spares(group, states)
    place = place_of(old.id, spare)
    members = [i.id for i in group.instances if i.alive and i.id != old.id and place_of(i.id, spare) == place]
    members = [i for i in members if i in states]
    if not members:
        return Family()
    nodes = by_instance(clients.kubernetes.nodes())
    leaving = frozenset(i for i in members if i in nodes and nodes[i].annotations.get(NODE_ROLL) == roll)
    # Those whose pods need not move another time come first.
    ordered = sorted(members, key=lambda i: (i not in nodes or not nodes[i].ready, -states[i].launched, i))
    return Family(tuple(states[i] for i in ordered), nodes, leaving, frozenset(spare), place)


def _keep_place(family: Family, states: dict[str, InstanceState], clients: Clients) -> StepResult | None:
    """Writes on spare instances that the roll replaces whose place theirs is, before that one goes: its replacement is
    known as theirs, too, by that alone. A hold where AWS does not know one, or its tags, everywhere yet."""
    for member in family.members:
        lost = member.id in family.spare and member.tags.get(INSTANCE_REPLACES) != family.place
        if lost and member.id in family.leaving and (unknown := _tag(member.id, family.place, states, clients)):
            return unknown
    return None


def _act(
    decision: Decision, task: NodeTask, node: Node, states: dict[str, InstanceState], clients: Clients
) -> StepResult:
    match decision:
        case Found(instance):
            return StepResult.done(f"replacement {instance} was launched", replacement=instance)
        case RecordLaunch(mark):
            _record(mark, task, node, clients)
            return StepResult.wait("a replacement was requested", 1)
        case Launch(token):
            return _launch(token, task, node, states, clients)
        case RaiseDesired(desired, asked):
            # It is set to an absolute value, and the look at the instances took a moment. A termination meanwhile would
            # be undone by it; what somebody else raised, AWS would end again, with pods on it [N2].
            now = next(iter(clients.aws.groups([task.group])), None)
            if now is None or now.desired != desired - 1:
                if now is not None and now.desired > desired:
                    # Not even this step, run twice, did that: what comes of it is not this node's.
                    clients.kubernetes.update_node(node, annotations={NODE_LAUNCH: None})
                return StepResult.wait(f"the desired capacity of {task.group} has just changed", 1)
            clients.aws.set_desired(task.group, desired)
            # Proof, for whoever comes after a crash, that one instance more is this roll's.
            _record(replace(asked, raised=True, again=asked.again + asked.raised), task, node, clients)
            return StepResult.wait(f"the desired capacity of {task.group} was raised to {desired}", 5)
        case Claim(instance, value):
            if unknown := _tag(instance, value, states, clients):
                return unknown
            if value == SURPLUS and (request := LaunchMark.on(node)):
                # It was the answer: nobody set the capacity back, and whatever else came by now is not this node's.
                # Dying before this is harmless: the capacity is then raised anew as if somebody had set it back.
                _record(replace(request, asked_at=clients.now(), raised=False, again=0), task, node, clients)
            return StepResult.wait(f"{instance} came up for {value}", 1)
        case Hold(reason):
            return StepResult.wait(reason, backoff(task.waited(clients.now()), first=5, longest=30))
        case _:
            assert_never(decision)


def _record(mark: LaunchMark, task: NodeTask, node: Node, clients: Clients) -> None:
    """Writes the request on the node, and before that on the lock that a roll made it."""
    prove(clients, task.roll, node, NODE_LAUNCH, str(mark))
    clients.kubernetes.update_node(node, annotations={NODE_LAUNCH: str(mark)})


def _launch(token: str, task: NodeTask, node: Node, states: dict[str, InstanceState], clients: Clients) -> StepResult:
    zone = states[task.instance].zone
    launched = clients.aws.launch(task.group, zone, token)
    if launched.instance:
        if unknown := _tag(launched.instance, task.instance, states, clients):
            return unknown
        return StepResult.done(f"replacement {launched.instance} was launched in {zone}", replacement=launched.instance)
    # The same token would be answered with the same failure.
    attempt = int(token.rpartition("-")[2]) + 1
    again = LaunchMark(clients.now(), token=token_of(task.roll, task.instance, attempt))
    _record(again, task, node, clients)
    return StepResult.wait(
        f"EC2 launches no instance for {task.group} in {zone}: {launched.error}: {launched.message}",
        backoff(task.waited(clients.now()), first=10, longest=60),
    )


def _tag(instance: str, value: str, states: dict[str, InstanceState], clients: Clients) -> StepResult | None:
    """Writes on the instance whose replacement it is; a hold where AWS does not know it, or its tags, everywhere yet.

    The launch is found again by its client token, a claim by its group. Raises AccessDenied once time has passed.
    """
    try:
        clients.aws.tag_instance(instance, {INSTANCE_REPLACES: value})
    except NotFound:
        return StepResult.wait(f"EC2 does not know {instance} everywhere yet", 2)
    except AccessDenied:
        if not is_new(states.get(instance), clients.now()):
            raise
        return StepResult.wait(f"the tags of {instance} are not known everywhere yet", 5)
    return None


handler = handler_for(run, NodeTask)
