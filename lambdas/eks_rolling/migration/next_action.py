"""What the steps that migrate Redis share: which groups there are, who holds them, and one invocation of a step.

Every such step observes the whole group again. What is its own to do it does, one action an invocation; what is
another's it leaves to it: it is done then, and "Look at the Redis pods" leads on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import NotFound, Refused
from eks_rolling.migration import cluster as cluster_migration
from eks_rolling.migration import sentinel as sentinel_migration
from eks_rolling.migration.repetition import pause_after, tried
from eks_rolling.observed.kubernetes import Owner
from eks_rolling.payloads import NodeTask, RedisActionTask, StepResult, backoff
from eks_rolling.redis import cluster, sentinel
from eks_rolling.redis.actions import Done, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import RedisGroup, declared
from eks_rolling.roll import lock


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


def groups_on(node: str, clients: Clients) -> list[RedisGroup]:
    """The declared groups that have pods on the node. Raises Refused for a declaration that cannot be followed."""
    owners = {p.owner for p in clients.kubernetes.pods_on(node) if p.owner and p.owner.kind == "StatefulSet"}
    return [g for g in _groups_of(owners, clients) if any(g.part_set(owner) for owner in owners)]


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
    now = clients.now()
    return answer(RedisStep(task.action), look(group, task.node, clients, task.waited(now)), clients)


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
            done = due.perform()
            stall = {} if done.stall is None else {"stall_seconds": round(done.stall, 3)}
            tries = tried(action, done, due.group, clients)
            seconds = pause_after(tries) if done.acted else backoff(due.waited, longest=5)
            waiting = StepResult.wait(done.said, seconds, redis=group, switches=done.switches(group), **stall)
            # After a first try another thing is waited for than before. A repetition is no progress.
            return waiting.model_copy(update={"since": clients.now()}) if tries == 1 else waiting
