"""Restore: put back every original, whatever way the roll ended [R2], each object by itself [R5].

It works from the marks on the cluster and the groups alone, so it may be run at any time, by anybody, again and again.
What can wait for nothing comes first: cluster-autoscaler, then the groups' processes; but a replacement that is given
back is closed before, or its pod could keep it. An object that cannot be put back is left behind with the reason, what
is gone is done, and the rest goes on. The lock goes last, so that no other roll starts on half-restored ground.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.remedies import ended_by_hand
from eks_rolling.errors import (
    MALFORMED,
    AccessDenied,
    BadRequest,
    NotFound,
    Permanent,
    Refused,
    RollError,
    Transient,
    sentence,
)
from eks_rolling.legible import short
from eks_rolling.migration.asking import REQUESTS_SECONDS, in_turn, too_many
from eks_rolling.observed.aws import (
    SPREADING_SECONDS,
    Group,
    InstanceState,
    TargetRegistration,
    as_their_groups_say,
    is_new,
)
from eks_rolling.observed.kubernetes import (
    Lease,
    Node,
    Owner,
    Pod,
    Taint,
    Workload,
    by_instance,
    contradiction,
    ready_nodes,
    serving_daemons,
)
from eks_rolling.observed.marks import (
    AUTOSCALER_PAUSED_AT,
    AUTOSCALER_REPLICAS,
    EXCLUDE_LABEL,
    GROUP_MAXIMUM,
    GROUP_RESUME,
    INSTANCE_PROTECTED,
    INSTANCE_REPLACES,
    NODE_ANNOTATIONS,
    NODE_CORDONED,
    NODE_EXCLUDED,
    NODE_LAUNCH,
    NODE_SCALE_DOWN,
    NODE_TARGETS,
    NODE_UNFIT,
    SCALE_DOWN_DISABLED,
    SURPLUS,
    LaunchMark,
    RaisedMaximum,
    VersionPutBack,
    registrations_on,
    replicas_on,
    spares,
    strays,
    unfit,
    with_roll_taint,
)
from eks_rolling.payloads import Hold, RestoreTask, StepResult, backoff
from eks_rolling.redis.groups import BrokenGroup, RedisGroup, broken, declared
from eks_rolling.roll import lock
from eks_rolling.roll import pending_change as changes
from eks_rolling.roll.fence import steps_over_at, steps_still_at_work
from eks_rolling.roll.lock import Busy
from eks_rolling.roll.proofs import proofs_still_needed, proven
from eks_rolling.roll.restore_dry_run import rehearse
from eks_rolling.roll.service_exit import (
    LeaveServices,
    WatchEnding,
    decide_exit,
    decide_once_left,
    last_that_serve,
    successors,
)
from eks_rolling.runtime import handler_for
from eks_rolling.settings import AutoscalerMode

FAULT_PATIENCE_SECONDS = 300
"""How long a fault that may pass is waited for on one object before that object is left behind."""

WAIT_SHARE = 0.9
"""The part of the deadline after which nothing is waited for any more: the lock goes, and it is said what stays."""

ROOM = 60_000
"""Bytes of an answer for what was put back, and for what was not, each. Step Functions lets 256 KiB pass, and
the report is given both beside the plan and what is left behind."""

LONGEST_LINE = 1000
"""Characters of one such sentence."""

REPLACEMENTS_SECONDS = 60.0
"""How long one look takes up replacements that were not needed: in a region of many target groups each costs seconds,
and one whose pods serve is watched until they have ended. The function has other things to do, too."""

NAMED = 5
"""Target groups that a sentence names."""

TOKEN_SECONDS = 3600
"""How old a launch request may be to be made again with its client token, which answers with the instance of then."""

IF_NOBODYS = "if it is nobody's, drain it and terminate it by hand"
"""What only a person can do: the runbook has the commands, which leave the group as large as it is to be."""

Seen = TypeVar("Seen")


@dataclass(slots=True)
class RestoreProgress:
    """What this look put back, what it waits for, and what it has to leave, as sentences.

    `patient`: a fault that may pass is waited for; later it counts as one that stays.
    """

    patient: bool = True
    restored: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    record: Lease | None = None
    """The lock, which proves what a roll wrote on nodes."""
    over: float = 0.0
    """When the roll's last step was over at the latest, in epoch seconds."""
    owed: set[str] = field(default_factory=set)
    """Nodes whose request for a replacement stays on record."""
    once: list[str] = field(default_factory=list)
    """What no later look will find again, because its mark goes: said now, whether this look is the last or not."""

    def did(self, what: str, action: Callable[[], object]) -> bool:
        """Whether the action was done, or has nothing to be done on any more."""
        missing = len(self.waiting) + len(self.left)
        with self.piece(what):
            action()
        return len(self.waiting) + len(self.left) == missing

    @contextmanager
    def piece(self, what: str) -> Iterator[None]:
        """One object by itself [R5]: whatever is the matter with it is said, and keeps nothing else from being done."""
        try:
            yield
        except NotFound as error:
            self.restored.append(f"{what}: nothing to put back any more: {sentence(error)}")
        except Transient as error:
            (self.waiting if self.patient else self.left).append(f"{what}: {sentence(error)}")
        except (RollError, *MALFORMED) as error:
            self.left.append(f"{what}: {sentence(error)}")

    def look(self, what: str, look: Callable[[], Seen]) -> Seen | None:
        """What `look` sees; None where it cannot be seen, which is said: what hangs on it stays as it is."""
        try:
            return look()
        except Transient as error:
            (self.waiting if self.patient else self.left).append(f"{what} could not be looked at: {sentence(error)}")
        except (RollError, *MALFORMED) as error:
            self.left.append(f"{what} could not be looked at: {sentence(error)}")
        return None


@dataclass(frozen=True, slots=True)
class SizeRestore:
    """What to do about a group's maximum size; `forget` takes the record away."""

    maximum: int | None = None
    forget: bool = False
    left: str = ""
    theirs: str = ""


def decide_size(group: Group, extra: int = 0) -> SizeRestore:
    """A maximum is never put below the desired capacity: AWS would terminate instances, undrained, to obey.

    `extra` counts the instances by which the next roll leaves the group smaller than it is asked to be now. One that is
    neither the original nor what the roll raised it to was set by somebody meanwhile: it is theirs. Raises BadRequest
    for a record that no roll wrote.
    """
    record = RaisedMaximum.on(group)
    if record is None:
        return SizeRestore()
    if record.changed_by_others(group.maximum):
        theirs = (
            f"group {group.name}: the maximum size stays {group.maximum}, which somebody set during the roll "
            f"(it was {record.original} before)"
        )
        return SizeRestore(forget=True, theirs=theirs)
    if group.desired > record.original:
        # cluster-autoscaler, say, has used the room: no roll lowers what others asked for.
        falls = group.desired - extra <= record.original
        then = "the next roll finishes it" if falls else "a restore puts it back once that has fallen"
        return SizeRestore(
            left=f"group {group.name} keeps the maximum size {group.maximum} (was {record.original}) while its desired "
            f"capacity is {group.desired}; {then}"
        )
    return SizeRestore(record.original if group.maximum != record.original else None, forget=True)


@dataclass(frozen=True, slots=True)
class NodeRestore:
    """What to undo on a node that was not replaced."""

    taints: tuple[Taint, ...] | None
    annotations: dict[str, str | None]
    labels: dict[str, str | None]
    uncordon: bool


def decide_node(node: Node, *, keep_taints: bool, owed: bool = False) -> NodeRestore | None:
    """What is left of a roll on the node; None if nothing. Where it was registered: `registrations_on`. `owed`: its
    request for a replacement stays."""
    kept = {NODE_LAUNCH} if owed else set()
    marks: dict[str, str | None] = {
        key: None for key in NODE_ANNOTATIONS if key in node.annotations and key not in kept
    }
    # Another value than the roll's was written by somebody since, and is theirs.
    if NODE_SCALE_DOWN in node.annotations and node.annotations.get(SCALE_DOWN_DISABLED, "true") == "true":
        marks[SCALE_DOWN_DISABLED] = None
    if NODE_UNFIT in node.annotations and not node.unschedulable:
        # Somebody has opened the node since.
        marks[NODE_UNFIT] = None
    untaint = node.roll_taint is not None and not keep_taints
    if not marks and not untaint:
        return None
    return NodeRestore(
        taints=with_roll_taint(node, None) if untaint else None,
        annotations=marks,
        labels={EXCLUDE_LABEL: None}
        if NODE_EXCLUDED in node.annotations and node.labels.get(EXCLUDE_LABEL, "true") == "true"
        else {},
        uncordon=NODE_CORDONED in node.annotations and not unfit(node),
    )


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement whose old instance is still there: it is given back if nothing runs on it."""

    instance: InstanceState
    group: Group
    node: Node | None
    pods: tuple[Pod, ...]
    targets: tuple[TargetRegistration, ...]
    serving: tuple[Pod, ...] = ()
    """Pods of DaemonSets that a Service leads to."""
    place: str = ""
    """The instance whose place it has, if any."""
    theirs: tuple[TargetRegistration, ...] = ()
    """Where that one is registered."""
    last: tuple[Pod, ...] = ()
    """Of the pods that serve, those that no other Ready one of their DaemonSet stands in for."""


@dataclass(frozen=True, slots=True)
class AwaitOthers:
    """These serve, and nobody else of their DaemonSets: it has to stay until another one is Ready."""

    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class AwaitTargets:
    """It has to stay in this target group until others are healthy there."""

    target: str


GiveBack = (
    Literal["gone", "keep", "cordon", "uncordon", "deregister", "wait", "terminate"]
    | AwaitTargets
    | AwaitOthers
    | LeaveServices
    | WatchEnding
)


def decide_replacement(seen: Replacement, floor: int) -> GiveBack:
    """What to do with it now [N2, N3, N5]; `floor` as the step has it by which old nodes leave their load balancers."""
    if seen.instance.state in {"shutting-down", "terminated"}:
        return "gone"
    if seen.group.desired - 1 < seen.group.minimum:
        return "keep"
    ours = seen.node is not None and NODE_CORDONED in seen.node.annotations and not unfit(seen.node)
    if any(not p.stays_with_node for p in seen.pods):
        return "uncordon" if ours else "keep"
    if seen.node is not None and not seen.node.unschedulable:
        return "cordon"
    using = [t for t in seen.targets if t.receives_traffic]
    if registered := [t for t in using if t.registered]:
        return next((AwaitTargets(t.name) for t in registered if _needed(t, seen.theirs, floor)), "deregister")
    if using:
        return "wait"
    return AwaitOthers(seen.last) if seen.last else decide_exit(seen.serving) or "terminate"


def _needed(target: TargetRegistration, theirs: Collection[TargetRegistration], floor: int) -> bool:
    """Whether its target group would have too few healthy ones without it, or none at all, or that of the old instance
    has just come back and is about to be one.

    One that is not healthy takes none away. And a group in which fewer are registered than the floor asks for is not
    waited for in vain.
    """
    if target.state != "healthy":
        return not target.others
    coming = any(t.group == target.group and t.state == "initial" for t in theirs)
    return coming or not target.may_leave(min(floor, max(1, target.others)))


@dataclass(frozen=True, slots=True)
class AskAgain:
    """An instance came after the request of this token, in its zone: the same request answers whether it is the
    request's. Nothing else proves it: a person may have scaled the group out meanwhile [N4].
    """

    token: str
    zone: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The group's desired capacity was raised for the node, and this instance came of it. `value`: the node's own
    instance, or SURPLUS where it came in another zone: volumes stay in theirs."""

    instance: str
    value: str


@dataclass(frozen=True, slots=True)
class Unproven:
    """These may be the node's replacement, or somebody else's: they stay."""

    reason: str


@dataclass(frozen=True, slots=True)
class Owed:
    """The group's desired capacity was raised for the node, and no instance came of it, for want of capacity, say. To
    lower it would have AWS end an instance of its choice if one comes at that moment [N2]: the request stays on record,
    and the next roll takes what comes of it instead of asking for one more.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class MayCome:
    """AWS shows no such instance yet, but one may have been launched: without the mark nobody would claim it."""

    reason: str


def decide_orphan(
    node: Node, group: Group, states: Mapping[str, InstanceState], now: float, over: float, *, patient: bool
) -> AskAgain | Claim | Unproven | Owed | MayCome | None:
    """What to do about an instance that a step may have launched for the node and died; None where there is none.

    `over`: when the roll's last step was over at the latest; no request of it came later. `patient`: a group that has
    fewer instances than were asked of it is waited for.
    """
    mark, member = LaunchMark.on(node), group.instance(node.instance)
    known = [states[i.id] for i in group.instances if i.id in states]
    if mark is None or member is None or any(mark.is_answered_by(state, node.instance) for state in known):
        return None
    if not mark.belongs_to(node.instance):
        return Unproven(_forged_request(node))
    came = [i for i in group.instances if i.alive and i.id in states and mark.may_be_answered_by(states[i.id])]
    if not came:
        return _decide_unseen(node, group, now, max(over, mark.asked_at), proven=mark.raised, patient=patient)
    inside = [i.id for i in came if i.zone == member.zone]
    if mark.raised and came:
        return Claim(inside[0], node.instance) if inside else Claim(came[0].id, SURPLUS)
    if not mark.token:
        # AWS chose the zone.
        return Unproven(
            f"{', '.join(i.id for i in came)} of group {group.name} came up after a replacement of {node.name} was "
            f"asked for, and nothing proves whose it is: it stays; {IF_NOBODYS}"
        )
    if not inside:
        return None
    if now > mark.asked_at + TOKEN_SECONDS:
        return Unproven(
            f"{', '.join(inside)} of group {group.name} came up after a replacement of {node.name} was asked for, too "
            f"long ago to ask whose it is: it stays; {IF_NOBODYS}"
        )
    return AskAgain(mark.token, member.zone)


def _decide_unseen(
    node: Node, group: Group, now: float, asked_by: float, *, proven: bool, patient: bool
) -> MayCome | Unproven | Owed | None:
    """`asked_by`: when the request went out at the latest, if it did; `proven`: it did."""
    if now <= asked_by + SPREADING_SECONDS:
        return MayCome(f"if an instance was launched for {node.name}, AWS may not list it yet")
    alive = sum(1 for i in group.instances if i.alive)
    if alive >= group.desired:
        return None
    runs = (
        f"group {group.name} runs {alive} of the {group.desired} instances asked of it: one for {node.name} may still "
        "come"
    )
    if patient:
        return MayCome(runs)
    return Owed(f"{runs}; the next roll takes it") if proven else Unproven(f"{runs}; {IF_NOBODYS} then")


def _forged_request(node: Node) -> str:
    return f"node {node.name} bears a request for a replacement that no roll made: it was ignored"


@dataclass(frozen=True, slots=True)
class ScaleTo:
    replicas: int


@dataclass(frozen=True, slots=True)
class Theirs:
    """Somebody scaled it meanwhile: that count stays, and the record goes."""

    replicas: int


def decide_autoscaler(workload: Workload | None) -> ScaleTo | Theirs | None:
    """What to put back; None if there is nothing on record. A count above 0 was set by someone else.

    Raises BadRequest for a record that is no count.
    """
    if workload is None or AUTOSCALER_REPLICAS not in workload.annotations:
        return None
    return Theirs(workload.desired) if workload.desired else ScaleTo(replicas_on(workload))


def not_ours(found: Busy | None, roll: str) -> str:
    """Why there is nothing to restore."""
    if found is None:
        return f"{roll} holds nothing any more: what it had changed is put back"
    return (
        f"{found.holder} is running on this cluster, and restores at its end; nothing was changed. "
        f"If it is dead, its lock runs out in {found.seconds:.0f} s: restore again then"
    )


def run(task: RestoreTask, clients: Clients) -> StepResult:
    if task.rehearse:
        return rehearse(task, clients)
    waited = task.waited(clients.now())
    ended = lock.end(clients, task.roll, task.by)
    if not isinstance(ended, Lease):
        if task.by:
            # It may have waited for more changes, which joined it: the next one must not wait for a dead roll.
            changes.forget(clients, task.roll)
        return StepResult.done(not_ours(ended, task.roll), restored=[], left_behind=[], ours=False)
    if seconds := steps_still_at_work(ended, task, clients.now()):
        return StepResult.wait("steps that the roll had begun may still be at work", seconds, restored=[])
    over = max(clients.now() - waited, steps_over_at(ended, task))
    progress = RestoreProgress(patient=waited < FAULT_PATIENCE_SECONDS, record=ended, over=over)
    keep_taints = task.keep_taints or lock.KEEP_TAINTS in ended.annotations
    _restore_all(task, clients, progress, keep_taints=keep_taints)
    deadline = clients.settings.deadline("restore")
    if progress.waiting and deadline is not None and waited > deadline * WAIT_SHARE:
        progress.left += [f"{what} (still so after {waited / 60:.0f} minutes)" for what in progress.waiting]
        progress.waiting.clear()
    nodes = progress.look("the nodes, at the end,", clients.kubernetes.nodes)
    looked = ready_nodes(nodes or [])
    if progress.waiting:
        return StepResult.wait(
            "; ".join(progress.waiting),
            backoff(waited),
            restored=told(progress.restored),
            left_behind=told(progress.once),
            ready_nodes=looked,
        )
    proofs = proofs_still_needed(ended, nodes)
    lock.release(clients, task.by or task.roll, lock.lock_name(clients.settings.namespace), proofs)
    left = told(progress.left + progress.once)
    reason = "; ".join(left) or "everything is as it was before the roll"
    return StepResult.done(reason, restored=told(progress.restored), left_behind=left, ours=True, ready_nodes=looked)


def told(sentences: Sequence[str]) -> list[str]:
    """The first ones, as many as fit between two states, each once and at most LONGEST_LINE long."""
    room, listed, known = ROOM, list[str](), list(dict.fromkeys(sentences))
    for said in known:
        each = short(said, LONGEST_LINE)
        room -= len(json.dumps(each)) + 1
        if room < 0:
            return [*listed, f"and {len(known) - len(listed)} more"]
        listed.append(each)
    return listed


def _restore_all(task: RestoreTask, clients: Clients, progress: RestoreProgress, *, keep_taints: bool) -> None:
    if task.by:
        with progress.piece("the next change"):
            changes.forget(clients, task.roll)
    seen = _see(clients, progress)
    if clients.settings.autoscaler.mode is AutoscalerMode.PAUSE and not keep_taints:
        seen = _close_unneeded(seen, clients, progress)
    with progress.piece("cluster-autoscaler"):
        _restore_autoscaler(clients, progress)
    with progress.piece("the turn to launch"):
        # Whoever holds it was a node of the roll: no other roll is at work [R4], and its steps are over.
        lock.release(clients, None, lock.launch_name(clients.settings.namespace))
    for group in seen.groups:
        _resume_processes(group, clients, progress)
    _restore_machines(seen, clients, progress, keep_taints=keep_taints)
    _remove_budgets(clients, progress)
    _say_half_moved(task.roll, clients, progress)
    if task.by:
        _say_put_back(task.roll, seen, progress)


# Nodes and instances


@dataclass(frozen=True, slots=True)
class Machines:
    """Groups, nodes and instances; None where they could not be seen."""

    groups: Sequence[Group]
    nodes: Sequence[Node] | None
    states: dict[str, InstanceState] | None
    closed: frozenset[str] = frozenset()
    """Replacements that were closed to pods in this look."""

    @property
    def unused(self) -> dict[str, tuple[Group, str]]:
        """Replacements whose place in their group is another instance's: the group, and that instance; "" for one that
        came in a zone where none was needed."""
        states = self.states or {}
        return {new: (g, old) for g in self.groups for new, old in (spares(g, states) | strays(g, states)).items()}

    def replacements(self, clients: Clients, progress: RestoreProgress) -> Iterator[Replacement]:
        """The unused ones, each looked at when it is its turn. Without a look at the nodes none can be judged."""
        if self.nodes is None or self.states is None:
            return
        nodes, began = by_instance(self.nodes), clients.now()
        # A pod that was bound to a closed one meanwhile is seen at the next look.
        unused = [(instance, *of) for instance, of in self.unused.items() if instance not in self.closed]
        # Each look begins with another one, so that slow ones keep none from its turn.
        first = int(began) % len(unused) if unused else 0
        for instance, group, place in [*unused[first:], *unused[:first]]:
            if clients.now() > began + REPLACEMENTS_SECONDS:
                progress.waiting.append(f"{instance}, which was not needed, has yet to be looked at")
                continue
            node, state = nodes.get(instance), self.states[instance]
            found: list[Replacement] = []
            with progress.piece(f"{instance}, which was not needed, stays"):
                if two := contradiction(self.nodes, instance):
                    raise Refused(f"{two}.")
                found.append(_look_at(state, group, node, place, clients))
            yield from found


def _look_at(state: InstanceState, group: Group, node: Node | None, place: str, clients: Clients) -> Replacement:
    """Its pods last, because AWS takes seconds to answer: a DaemonSet's next pod may be Ready by then [N5]. `place`:
    whose place it has, if anybody's."""
    targets = clients.aws.targets_of([state.id, place] if place else [state.id])
    own = tuple(t for t in targets if t.instance == state.id)
    theirs = tuple(t for t in targets if t.instance != state.id)
    services = clients.kubernetes.services() if node else []
    pods = tuple(clients.kubernetes.pods_on(node.name)) if node else ()
    serving = tuple(serving_daemons(pods, services))
    return Replacement(state, group, node, pods, own, serving, place, theirs, last_that_serve(serving, clients))


def _see(clients: Clients, progress: RestoreProgress) -> Machines:
    groups = progress.look("the Auto Scaling groups", clients.aws.groups) or []
    nodes = progress.look("the nodes", clients.kubernetes.nodes)
    ids = sorted({i.id for g in groups for i in g.instances} | {n.instance for n in nodes or () if n.instance})
    states = progress.look("the instances", lambda: as_their_groups_say(groups, clients.aws.instances(ids)))
    return Machines(groups, nodes, states)


def _close_unneeded(seen: Machines, clients: Clients, progress: RestoreProgress) -> Machines:
    """Closes replacements that are to be given back, before cluster-autoscaler is scaled up: its pod would go to the
    emptiest node, and keep it. The node that each was launched for is opened first [N3].

    Answers what was seen, as it is then; those that were closed wait for the next look.
    """
    if seen.nodes is None or seen.states is None:
        return seen
    by_id, changed, closed = by_instance(seen.nodes), dict[str, Node](), set[str]()
    for instance, (group, place) in seen.unused.items():
        node, old = by_id.get(instance), by_id.get(place)
        if node is None or node.unschedulable or old is None or not old.ready or group.desired - 1 < group.minimum:
            continue
        # Whatever is the matter with one of them is said when it is its turn.
        with suppress(RollError, *MALFORMED):
            if all(p.stays_with_node for p in clients.kubernetes.pods_on(node.name)):
                changed[old.name] = _open(old, clients)
                changed[node.name] = clients.kubernetes.update_node(
                    node, unschedulable=True, annotations={NODE_CORDONED: "true"}
                )
                closed.add(instance)
                progress.waiting.append(f"{node.name} was not needed and is given back")
    return replace(seen, nodes=[changed.get(n.name, n) for n in seen.nodes], closed=frozenset(closed))


def _open(node: Node, clients: Clients) -> Node:
    """The node, open to pods as far as the roll closed it. Its marks stay for when it is its turn."""
    ours = NODE_CORDONED in node.annotations and not unfit(node)
    if node.roll_taint is None and not ours:
        return node
    taints, uncordon = with_roll_taint(node, None), False if ours else None
    return clients.kubernetes.update_node(node, taints=taints, unschedulable=uncordon)


def _restore_machines(seen: Machines, clients: Clients, progress: RestoreProgress, *, keep_taints: bool) -> None:
    """Nodes that were not replaced, replacements that were not needed, and what instances bear."""
    seen, unclear = _claim_orphans(seen, clients, progress)
    _restore_sizes(seen, unclear, clients, progress)
    unused, states = seen.unused, seen.states
    standing_by = {i.id for g in seen.groups for i in g.instances if not i.alive}
    shut = {n.instance for n in seen.nodes or () if n.name in unclear}
    for node in seen.nodes or ():
        state = states.get(node.instance) if states is not None else None
        # One that is stopped, or starts again, comes back with what the roll left on its node.
        runs = states is None or (state is not None and state.state not in {"shutting-down", "terminated"})
        if runs and node.instance not in unused and node.name not in unclear:
            # An instance that somebody took out of service goes back to its balancers when they put it back.
            in_service = node.instance not in standing_by
            if unfit(node):
                with progress.piece(f"node {node.name}"):
                    _say_unfit(node, clients.kubernetes.pods_on(node.name), progress)
            opening = partial(_restore_node, node, clients, progress, keep_taints=keep_taints, in_service=in_service)
            if not progress.did(f"node {node.name}", opening):
                shut.add(node.instance)
    for replacement in seen.replacements(clients, progress):
        if unused[replacement.instance.id][1] in shut:
            # Pods need one of the two [N3]. Why the other one is not open yet is said with it.
            progress.left.append(
                f"{replacement.instance.id}, which was not needed, stays: the node that it is for is not open yet"
            )
            continue
        # Without the permission, which cannot be rehearsed, it stays.
        with progress.piece(f"{replacement.instance.id}, which was not needed, stays"):
            _give_back(replacement, clients, progress)
        kept = replacement.node
        in_use = decide_replacement(replacement, clients.settings.healthy_target_floor) == "keep"
        if kept and kept.name not in unclear and in_use:
            # It may be one that a later roll was about to replace: with its taint and without its balancers.
            with progress.piece(f"node {kept.name}"):
                _restore_node(kept, clients, progress, keep_taints=keep_taints, in_service=True)
    needed = _name_heirs(seen, clients, progress)
    for group in seen.groups:
        for member in group.instances:
            state = (states or {}).get(member.id)
            if state is not None and state.state == "running":
                _restore_instance(group, state, needed, clients, progress)


def _name_heirs(seen: Machines, clients: Clients, progress: RestoreProgress) -> set[str]:
    """Writes on spare replacements who has their place, where the one that they were launched for is gone, or where
    they came for none: the next roll knows by that what to do with them. Answers whose own tags are needed still."""
    needed = set(seen.unused)
    for new, (_, heir) in seen.unused.items():
        state = (seen.states or {})[new]
        if state.state == "running" and heir and state.tags[INSTANCE_REPLACES] != heir:
            tag = partial(clients.aws.tag_instance, new, {INSTANCE_REPLACES: heir})
            if not progress.did(f"instance {new}", tag):
                needed.add(heir)
    return needed


def _restore_sizes(seen: Machines, unclear: set[str], clients: Clients, progress: RestoreProgress) -> None:
    """A group may be described with the desired capacity that it had before a launch, and AWS terminates instances,
    undrained, to obey a maximum below the true one [N2]. So its size waits until every launch is seen or was none.
    """
    instances = {n.instance for n in seen.nodes or () if n.name in unclear}
    blind = seen.nodes is None or seen.states is None
    for group in seen.groups:
        if GROUP_MAXIMUM in group.tags and blind and clients.now() <= progress.over + SPREADING_SECONDS:
            progress.waiting.append(f"group {group.name}: its desired capacity may not be described as it is yet")
        elif not any(i.id in instances for i in group.instances):
            owed = {n.instance for n in seen.nodes or () if n.name in progress.owed}
            extra = sum(i.alive and (i.id in owed or i.id in seen.unused) for i in group.instances)
            _restore_size(group, extra, clients, progress)


def _restore_node(
    node: Node, clients: Clients, progress: RestoreProgress, *, keep_taints: bool, in_service: bool
) -> None:
    undo = decide_node(node, keep_taints=keep_taints, owed=node.name in progress.owed)
    if undo is None:
        return
    if not proven(progress.record, node, NODE_TARGETS):
        progress.once.append(
            f"The annotation {NODE_TARGETS} of node {node.name} was written by no roll: it was ignored; find out who "
            f"wrote it, and look whether the node is in its target groups{_named_there(node)}"
        )
        in_service = False
    try:
        registrations = registrations_on(node) if in_service else ()
    except BadRequest as error:
        progress.once.append(sentence(error))
        registrations = ()
    failed = [
        t for t in registrations if not progress.did(f"node {node.name} in {t.name}", partial(clients.aws.register, t))
    ]
    # What could not be registered stays on record, for the next look or the next restore.
    rest: dict[str, str | None] = {NODE_TARGETS: node.annotations[NODE_TARGETS]} if failed else {}
    clients.kubernetes.update_node(
        node,
        taints=undo.taints,
        annotations=undo.annotations | rest,
        labels=undo.labels,
        unschedulable=False if undo.uncordon else None,
    )
    progress.restored.append(f"node {node.name}: taint and marks removed")


def _named_there(node: Node) -> str:
    """Which target groups an ignored record names, as far as it is one: where the lock, with its proofs, was deleted it
    is the only word of them."""
    try:
        names = sorted({t.name for t in registrations_on(node)})
    except BadRequest:
        return ""
    return f" (it names {', '.join(names[:NAMED])})" if names else ""


def _claim_orphans(seen: Machines, clients: Clients, progress: RestoreProgress) -> tuple[Machines, set[str]]:
    """What was seen, with those instances claimed that killed steps provably launched for nodes of the roll.

    Second the nodes for which it cannot be told yet: their marks are needed for the next look.
    """
    if seen.nodes is None or seen.states is None:
        return seen, set()
    states, unclear = seen.states, set()
    for group in seen.groups:
        for node in seen.nodes:
            if NODE_LAUNCH in node.annotations and group.instance(node.instance):
                if not proven(progress.record, node, NODE_LAUNCH):
                    progress.once.append(_forged_request(node))
                    continue
                waiting = len(progress.waiting)
                with progress.piece(f"what was launched for node {node.name}"):
                    states = states | _claim_orphan(group, node, states, clients, progress)
                if len(progress.waiting) > waiting:
                    unclear.add(node.name)
    return replace(seen, states=states), unclear


def _claim_orphan(
    group: Group, node: Node, states: dict[str, InstanceState], clients: Clients, progress: RestoreProgress
) -> dict[str, InstanceState]:
    match decide_orphan(node, group, states, clients.now(), progress.over, patient=progress.patient):
        case Unproven(reason):
            progress.once.append(reason)
            return {}
        case MayCome(reason):
            progress.waiting.append(reason)
            return {}
        case Owed(reason):
            progress.left.append(reason)
            progress.owed.add(node.name)
            return {}
        case Claim(instance, value):
            found, replaces = instance, value
        case AskAgain(token, zone):
            answer = clients.aws.launch(group.name, zone, token)
            if not answer.instance:
                progress.once.append(
                    f"whether a replacement of {node.name} was launched cannot be told: "
                    f"{answer.error}: {answer.message}"
                )
                return {}
            found, replaces = answer.instance, node.instance
        case _:
            return {}
    try:
        clients.aws.tag_instance(found, {INSTANCE_REPLACES: replaces})
    except (AccessDenied, NotFound) as error:
        # EC2 is eventually consistent (EC2 API guide): a new instance and its tags are not known everywhere at once.
        if isinstance(error, AccessDenied) and not is_new(states.get(found), clients.now()):
            raise
        raise Transient(sentence(error)) from error
    if found not in states:
        progress.waiting.append(f"{found}, launched for {node.name}, comes up")
        return {}
    return {found: replace(states[found], tags=states[found].tags | {INSTANCE_REPLACES: replaces})}


def _give_back(seen: Replacement, clients: Clients, progress: RestoreProgress) -> None:
    name, node = (seen.node.name if seen.node else seen.instance.id), seen.node
    match decide_replacement(seen, clients.settings.healthy_target_floor):
        case "keep" if node and unfit(node):
            _say_unfit(node, seen.pods, progress)
        case "keep":
            on = f"node {node.name}, instance {seen.instance.id}" if node else f"instance {seen.instance.id}"
            progress.left.append(f"{on}, launched for a node that was not replaced, stays: it is in use")
        case "uncordon" if node:
            _register_again(seen, name, clients, progress)
            clients.kubernetes.update_node(node, unschedulable=False, annotations={NODE_CORDONED: None})
            progress.waiting.append(f"{name} is in use and stays")
        case "cordon" if node:
            clients.kubernetes.update_node(node, unschedulable=True, annotations={NODE_CORDONED: "true"})
            progress.waiting.append(f"{name} was not needed and is given back")
        case "deregister":
            for target in seen.targets:
                with progress.piece(f"{name} in {target.name}"):
                    clients.aws.deregister(target)
            progress.waiting.append(f"{name} leaves its load balancers")
        case AwaitTargets(target):
            progress.waiting.append(f"{name}, which was not needed, stays in {target} until other targets are healthy")
        case AwaitOthers(pods):
            progress.waiting.append(_stays_for(name, pods))
        case "wait":
            progress.waiting.append(f"{name} leaves its load balancers")
        case LeaveServices() | WatchEnding() if node:
            _leave_and_terminate(seen, node, clients, progress)
        case "terminate":
            _terminate(seen, name, clients, progress)
        case _:
            pass


def _say_unfit(node: Node, pods: Sequence[Pod], progress: RestoreProgress) -> None:
    count = sum(1 for p in pods if not p.stays_with_node)
    on_it = f"{count} {'pod runs' if count == 1 else 'pods run'} on it" if count else "no pod runs on it"
    progress.left.append(
        f"node {node.name} ({node.instance}) is marked unfit, as its kubelet does not fit the control plane, and "
        f"{on_it}; it stays cordoned: drain it and terminate its instance: "
        f"{ended_by_hand(node.name, node.instance)}"
    )


def _leave_and_terminate(seen: Replacement, node: Node, clients: Clients, progress: RestoreProgress) -> None:
    """Has pods that serve leave, and terminates the instance in the moment before the next one would serve [N5]."""
    last = seen

    def decide() -> GiveBack:
        nonlocal last
        last = _look_again(seen, node, clients)
        return decide_replacement(last, clients.settings.healthy_target_floor)

    decision = decide_once_left(decide, node.name, clients)
    if decision == "terminate":
        _terminate(last, node.name, clients, progress)
    elif isinstance(decision, Hold):
        progress.waiting.append(f"{node.name}, which was not needed: {decision.reason}")
    elif isinstance(decision, AwaitOthers):
        progress.waiting.append(_stays_for(node.name, decision.pods))
    else:
        progress.waiting.append(f"pods on {node.name} leave their Services")


def _stays_for(name: str, pods: Iterable[Pod]) -> str:
    alone = ", ".join(sorted(str(p) for p in pods))
    return f"{name}, which was not needed, stays until another pod serves beside {alone}"


def _look_again(seen: Replacement, node: Node, clients: Clients) -> Replacement:
    state = clients.aws.instances([seen.instance.id]).get(seen.instance.id, seen.instance)
    group = next(iter(clients.aws.groups([seen.group.name])), seen.group)
    return _look_at(state, group, clients.kubernetes.node(node.name) or node, seen.place, clients)


def _terminate(seen: Replacement, name: str, clients: Clients, progress: RestoreProgress) -> None:
    for pod in successors(seen.serving):
        clients.kubernetes.evict(pod)
    try:
        clients.aws.terminate(seen.instance.id)
    except Permanent as error:
        if not isinstance(error, NotFound):
            _register_again(seen, name, clients, progress)
        raise
    progress.restored.append(f"{name} was not needed and is terminated")
    progress.waiting.append(f"{name} is being terminated")


def _register_again(seen: Replacement, name: str, clients: Clients, progress: RestoreProgress) -> None:
    """Where the instance that it was launched for is registered. What stays takes its part of the traffic, and the next
    roll waits for that before it empties a node for it."""
    instance = seen.instance.id
    member = seen.group.instance(instance)
    if member is None or member.lifecycle != "InService":
        return
    with progress.piece(f"{name} in its target groups"):
        old = seen.instance.tags.get(INSTANCE_REPLACES, "")
        takes = [t for t in clients.aws.targets_of([old, instance]) if t.registered]
        has = {t.group for t in takes if t.instance == instance}
        for target in takes:
            if target.instance == old and target.group not in has:
                clients.aws.register(replace(target, instance=instance))
                progress.restored.append(f"{name} registered in {target.name} again")


def _restore_instance(
    group: Group, state: InstanceState, needed: Collection[str], clients: Clients, progress: RestoreProgress
) -> None:
    with progress.piece(f"instance {state.id}"):
        if INSTANCE_PROTECTED in state.tags:
            clients.aws.protect(group.name, state.id, protected=False)
            clients.aws.untag_instance(state.id, [INSTANCE_PROTECTED])
            progress.restored.append(f"{state.id}: scale-in protection lifted")
    with progress.piece(f"instance {state.id}"):
        if INSTANCE_REPLACES in state.tags and state.id not in needed:
            clients.aws.untag_instance(state.id, [INSTANCE_REPLACES])


# Groups, cluster-autoscaler, Redis


def _resume_processes(group: Group, clients: Clients, progress: RestoreProgress) -> None:
    """The record goes only once that is done: what fails is found again."""
    name, aws = group.name, clients.aws
    if GROUP_RESUME in group.tags:
        suspended = frozenset(group.tags[GROUP_RESUME].split()) - {"-"}
        if not suspended or progress.did(f"group {name}", partial(aws.resume, name, suspended)):
            progress.did(f"group {name}", partial(aws.untag_group, name, [GROUP_RESUME]))
            if suspended:
                progress.restored.append(f"group {name}: {', '.join(sorted(suspended))} resumed")


def _restore_size(group: Group, extra: int, clients: Clients, progress: RestoreProgress) -> None:
    name, aws = group.name, clients.aws
    with progress.piece(f"group {name}"):
        undo = decide_size(group, extra)
        if undo.maximum is not None:
            aws.set_maximum(name, undo.maximum)
            progress.restored.append(f"group {name}: maximum size back to {undo.maximum}")
        if undo.forget:
            aws.untag_group(name, [GROUP_MAXIMUM])
        if undo.theirs:
            progress.restored.append(undo.theirs)
        if undo.left:
            progress.left.append(undo.left)


def _restore_autoscaler(clients: Clients, progress: RestoreProgress) -> None:
    setting = clients.settings.autoscaler
    workload = clients.kubernetes.workload(Owner("Deployment", setting.namespace, setting.deployment))
    if workload is None:
        return
    records = {AUTOSCALER_REPLICAS: None, AUTOSCALER_PAUSED_AT: None}
    match decide_autoscaler(workload):
        case ScaleTo(replicas):
            clients.kubernetes.update_workload(workload, replicas=replicas, annotations=records)
            progress.restored.append(f"cluster-autoscaler: back at {replicas}")
        case Theirs(replicas):
            clients.kubernetes.update_workload(workload, annotations=records)
            progress.restored.append(f"cluster-autoscaler: stays at {replicas}, set by somebody during the roll")


def _remove_budgets(clients: Clients, progress: RestoreProgress) -> None:
    """Those that bear our label: a tenant may make thousands, and what this look has no time for the next one finds."""
    found = progress.look("the disruption budgets", clients.kubernetes.budgets) or []
    late = []
    for budget, in_time in in_turn((b for b in found if b.ours), clients.now, REQUESTS_SECONDS):
        if not in_time:
            late.append(budget)
            continue
        with progress.piece(f"temporary budget {budget}"):
            clients.kubernetes.delete_budget(budget)
            progress.restored.append(f"temporary budget {budget} removed")
    progress.waiting += too_many(late, "temporary budget", "removed yet")


def _say_half_moved(roll: str, clients: Clients, progress: RestoreProgress) -> None:
    """Redis groups that the step before could not bring back to normal; their Leases are still held."""
    workloads = progress.look("the workloads", clients.kubernetes.workloads) or []
    groups, problems = declared(workloads)
    meant: list[RedisGroup | BrokenGroup] = [*groups, *broken(problems)]
    late = []
    for group, in_time in in_turn(meant, clients.now, REQUESTS_SECONDS):
        if not in_time:
            late.append(group)
            continue
        with progress.piece(f"Redis group {group}"):
            if lock.begun_by(clients.kubernetes.lease(group.lease), roll, clients.now()):
                progress.left.append(
                    f"{group.half_moved}; then start a roll"
                    if isinstance(group, BrokenGroup)
                    else f"Redis group {group} is half moved; the next roll finishes its migration"
                )
    progress.left += too_many(late, "Redis group")


def _say_put_back(roll: str, seen: Machines, progress: RestoreProgress) -> None:
    """Groups whose former version a roll put back that was stopped before it started the one that goes back to it."""
    for group in seen.groups:
        record = VersionPutBack.on(group)
        if record and record.roll == roll and any(i.alive and i.template == record.failed for i in group.instances):
            progress.once.append(
                f"group {group.name}: {roll} put {record.former} back, or was about to, and started no roll that "
                f"replaces the nodes of {record.failed} again: check which version the group launches, then start a "
                "roll"
            )


handler = handler_for(run, RestoreTask, locked=False)
