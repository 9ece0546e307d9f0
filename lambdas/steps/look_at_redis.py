"""Look at the Redis pods: which group of this node needs what next, and which state does it.

One group at a time, and each by one node at a time: whoever holds the group's Lease.
"""

from lambdas import lock
from lambdas.clients import Clients
from lambdas.entry import handler_for
from lambdas.errors import Refused
from lambdas.migration import group_called, groups_on, holder, look
from lambdas.model import RedisTask, StepResult, backoff
from lambdas.redis_actions import Hold, Settled, Stop
from lambdas.redis_groups import RedisGroup

NOTHING = "none"
"""What the Choice after this step takes for the way on."""


def run(task: RedisTask, clients: Clients) -> StepResult:
    waited = clients.now() - (task.since or clients.now())
    for group in _groups(task, clients):
        taken = lock.acquire(clients, holder(task), group.lease)
        if isinstance(taken, lock.Busy):
            return StepResult.wait(f"Redis group {group} is being migrated for {taken.holder}", backoff(waited))
        action = look(group, task.node, clients, waited).action
        match action:
            case Settled():
                lock.release(clients, holder(task), group.lease)
            case Stop(reason):
                raise Refused(f"Redis group {group}: {reason}.")
            case Hold(reason, None, seconds):
                return StepResult.wait(f"Redis group {group}: {reason}", max(seconds, backoff(waited)))
            case _:
                return StepResult.done(f"Redis group {group}: {action.reason}", next=action.step, group=str(group))
    return StepResult.done("no Redis pod is on the node", next=NOTHING, group="")


def _groups(task: RedisTask, clients: Clients) -> list[RedisGroup]:
    """The group at hand first: its pod may have left the node already, with more to do for it."""
    found = groups_on(task.node, clients)
    if not task.redis_group or any(str(g) == task.redis_group for g in found):
        return sorted(found, key=lambda g: str(g) != task.redis_group)
    return [group_called(task.redis_group, clients), *found]


handler = handler_for(run, RedisTask)
