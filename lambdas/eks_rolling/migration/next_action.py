"""What the steps that migrate Redis share: which groups there are, who holds them, and one invocation of a step.

Every such step observes the whole group again. What is its own to do it does; what is another's it leaves to it: it is
done then, and "Look at the Redis pods" leads on. What takes a moment is waited for within the invocation, before the
action and after it. As long as each action is a first try, and none a switch of masters, the invocation goes on to the
next one, after another look.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import MALFORMED, NotFound, Refused, RollError, Transient, sentence
from eks_rolling.migration import cluster as cluster_migration
from eks_rolling.migration import sentinel as sentinel_migration
from eks_rolling.migration.asking import NOT_ASKED, in_turn
from eks_rolling.migration.repetition import failed, key_of, pause_after, tried
from eks_rolling.observed.kubernetes import Owner
from eks_rolling.payloads import NodeTask, RedisActionTask, Status, StepResult, backoff
from eks_rolling.redis import cluster, sentinel
from eks_rolling.redis.actions import Done, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import RedisGroup, declared
from eks_rolling.redis.stand_in import LABEL
from eks_rolling.roll import lock

SHORT_SECONDS = 3.0
"""What takes no longer is waited for in the same invocation: on the way through the workflow a look comes every two
seconds, and most of what Redis needs takes less than one."""

LOOK_SECONDS = 0.25

QUICK_SECONDS = 20.0
"""An invocation that has taken longer begins nothing more: it ends within its minute, and what it did is told."""

LONG_SECONDS = 10.0
"""Who has waited for longer than that waits for something else: the workflow's wait is cheaper."""


@dataclass(frozen=True, slots=True)
class Next:
    """What a group needs next. `perform` does it, and answers what was done."""

    group: RedisGroup
    seen: sentinel.SentinelGroupState | cluster.RedisClusterState
    action: sentinel.Action | cluster.Action
    waited: float
    perform: Callable[[], Done]


def look(group: RedisGroup, node: str, clients: Clients, waited: float = 0.0) -> Next:
    """Looks at the group and decides. `node` is the one being emptied; "" asks for nothing but a normal group.

    `waited` is seconds since the step at hand began to wait. Raises AccessDenied, NotFound, Transient.
    """
    if group.is_cluster:
        members = cluster_migration.observe(group, node, clients, waited)
        change = cluster.decide(members)
        return Next(group, members, change, waited, lambda: cluster_migration.perform(change, clients))
    seen = sentinel_migration.observe(group, node, clients, waited)
    action = sentinel.decide(seen)
    return Next(group, seen, action, waited, lambda: sentinel_migration.perform(action, seen, clients))


def look_at_all(names: Iterable[str], clients: Clients) -> tuple[list[Next], list[str]]:
    """What each of these groups needs next to be normal; and of those that cannot be looked at why, as sentences.

    A tenant may take a group's annotations, Role or Secret away at any time: that fails no step that is about others.
    """
    groups, faults, found = [], [], []
    for name in names:
        try:
            groups.append(group_called(name, clients))
        except (RollError, *MALFORMED) as error:
            faults.append(f"{name} ({sentence(error)})")
    for group, in_time in in_turn(groups, clients.now):
        try:
            if not in_time:
                raise Transient(NOT_ASKED)
            found.append(look(group, "", clients))
        except (RollError, *MALFORMED) as error:
            faults.append(f"{group} ({sentence(error)})")
    return found, faults


def groups_on(node: str, clients: Clients) -> list[RedisGroup]:
    """The declared groups that have pods on the node, stand-ins too. Raises Refused for a declaration that cannot be
    followed."""
    pods = clients.kubernetes.pods_on(node)
    owners = {p.owner for p in pods if p.owner and p.owner.kind == "StatefulSet"}
    found = [g for g in _groups_of(owners, clients) if any(g.part_set(owner) for owner in owners)]
    standing_in = {(p.namespace, p.labels[LABEL]) for p in pods if LABEL in p.labels and not p.stays_with_node}
    for namespace in sorted({namespace for namespace, _ in standing_in}):
        groups, _ = declared(clients.kubernetes.stateful_sets(namespace))
        found += [g for g in groups if (namespace, g.name) in standing_in and g not in found]
    return found


def _groups_of(owners: set[Owner], clients: Clients) -> list[RedisGroup]:
    found = []
    for namespace in sorted({owner.namespace for owner in owners}):
        workloads = clients.kubernetes.stateful_sets(namespace)
        groups, problems = declared(workloads)
        for problem in problems:
            if not problem.owners & owners:
                continue
            raise Refused(f"{problem.object}: {problem.reason}; {problem.remedy}.")
        found += groups
    return found


def group_called(name: str, clients: Clients) -> RedisGroup:
    """The group NAMESPACE/NAME. Raises NotFound when nothing declares it any more."""
    namespace = name.partition("/")[0]
    groups, _ = declared(clients.kubernetes.stateful_sets(namespace))
    for group in groups:
        if str(group) == name:
            return group
    raise NotFound(f"No StatefulSet declares the Redis group {name} any more: put its annotations back.")


def holder(task: NodeTask) -> str:
    """Who holds a group's Lease: one node of one roll."""
    return f"{task.roll}/{task.node}"


def busy_with(group: RedisGroup, taken: lock.Busy, task: NodeTask) -> str:
    """Who has the group, as a sentence: the node, if it is of the same roll."""
    return f"Redis group {group} is being migrated for {taken.holder.removeprefix(f'{task.roll}/')}"


def migrate(task: RedisActionTask, clients: Clients) -> StepResult:
    """One invocation of a state. Its output names the group, for the report. Raises Refused where a person decides."""
    group = group_called(task.redis_group, clients)
    taken = lock.acquire(clients, holder(task), group.lease)
    if isinstance(taken, lock.Busy):
        said = busy_with(group, taken, task)
        return StepResult.wait(said, min(taken.seconds + 1, 10), redis=str(group))
    began, step = clients.now(), RedisStep(task.action)
    last = _look_until(step, group, task, clients)
    answered, done = answer(step, last, clients), set[str]()
    # After a first try of anything the wait begins anew.
    while answered.since is not None and clients.now() - began < QUICK_SECONDS:
        done.add(key_of(last.action))
        due = _next(step, group, task, clients)
        if due is None or isinstance(due.action, Stop):
            return answered
        if _is_anothers(step, due.action):
            return answered.model_copy(update={"status": Status.DONE, "wait_seconds": 0, "since": None})
        # The look itself may have taken long: whatever is begun now ends within the function's minute.
        late = clients.now() - began >= QUICK_SECONDS
        if late or isinstance(due.action, RedisHold) or answered.output.get("switches"):
            return answered
        further = answer(step, due, clients)
        told = further.model_copy(update={"reason": f"{answered.reason}; {further.reason}"})
        if further.since is None or key_of(due.action) in done:
            # A repetition is no progress; what was done before it is. A tenant may take the count from the Lease.
            return told.model_copy(update={"since": answered.since})
        answered, last = told, due
    return answered


def _next(step: RedisStep, group: RedisGroup, task: RedisActionTask, clients: Clients) -> Next | None:
    """What the group needs after what was just done; None where that cannot be told now: the next look tells.

    Whatever this one meets, what was done is told, and how long clients could not write.
    """
    try:
        return _look_until(step, group, task.model_copy(update={"since": None}), clients)
    except (RollError, *MALFORMED):
        return None


def _look_until(step: RedisStep, group: RedisGroup, task: RedisActionTask, clients: Clients) -> Next:
    """What the group needs once what the step waits for is there, if that is so within SHORT_SECONDS."""
    began = clients.now()
    waited = task.waited(began)
    while True:
        due = look(group, task.node, clients, waited + clients.now() - began)
        hold = due.action
        short = isinstance(hold, RedisHold) and hold.step in {None, step} and hold.seconds <= SHORT_SECONDS
        if not short or waited > LONG_SECONDS or clients.now() - began >= SHORT_SECONDS:
            return due
        clients.sleep(LOOK_SECONDS)


def _is_anothers(step: RedisStep, action: sentinel.Action | cluster.Action) -> bool:
    """Whether another step's turn comes, or nobody's."""
    match action:
        case Stop():
            return False
        case Settled():
            return True
        case RedisHold(_, own):
            return own not in {None, step}
        case _:
            return action.step is not step


def answer(step: RedisStep, due: Next, clients: Clients) -> StepResult:
    """Does the action if it is this step's own, and says what the workflow is to do next."""
    action, group = due.action, str(due.group)
    match action:
        case Stop(reason):
            raise Refused(f"Redis group {due.group}: {reason}.")
        case Settled(reason):
            return StepResult.done(reason, redis=group)
        case RedisHold(reason, own, seconds) if own in {None, step}:
            told = {"bytes_left": action.bytes_left, "bytes_per_second": action.bytes_per_second}
            known = {name: value for name, value in told.items() if value is not None}
            return StepResult.wait(reason, max(seconds, backoff(due.waited, longest=5)), redis=group, **known)
        case _ if action.step is not step:
            return StepResult.done(action.reason, redis=group)
        case _:
            done = _performed(due, clients)
            stall = {} if done.stall is None else {"stall_seconds": round(done.stall, 3)}
            tries = tried(action, done, due.group, clients)
            seconds = pause_after(tries) if done.acted else backoff(due.waited, longest=5)
            waiting = StepResult.wait(done.said, seconds, redis=group, switches=done.switches(group), **stall)
            # After a first try another thing is waited for than before. A repetition is no progress.
            return waiting.model_copy(update={"since": clients.now()}) if tries == 1 else waiting


def _performed(due: Next, clients: Clients) -> Done:
    """What was done. Raises what the action raises, which is counted as a try, and Refused where that was one too many:
    the workflow runs a step again after faults that pass."""
    try:
        return due.perform()
    except (RollError, *MALFORMED) as error:
        failed(due.action, error, due.group, clients)
        raise
