"""Look at the Redis pods: which group of this node needs what next, and which state does it.

One group at a time, and each by one node at a time, which holds the group's Lease; what another node holds is left for
later. Between two migrations of a node a roll may be paused or ended; a group that is half moved is brought back to
normal first [S2, C2].
"""

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Refused
from eks_rolling.migration.next_action import busy_with, group_called, groups_on, holder, look
from eks_rolling.payloads import RedisTask, StepResult, backoff
from eks_rolling.redis.actions import RedisHold, Settled, Stop
from eks_rolling.redis.groups import RedisGroup
from eks_rolling.roll import lock, operator_requests
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.runtime import handler_for

NOTHING = "none"
"""What the Choice after this step takes for the way on."""


def run(task: RedisTask, clients: Clients) -> StepResult:
    waited, busy = task.waited(clients.now()), ""
    for group in _groups(task, clients):
        taken = lock.acquire(clients, holder(task), group.lease)
        if isinstance(taken, lock.Busy):
            # Another group may be free: nodes of a wave then migrate different ones at the same time.
            busy = busy or busy_with(group, taken, task)
            continue
        action = look(group, task.node, clients, waited).action
        match action:
            case Settled():
                lock.release(clients, holder(task), group.lease)
            case Stop(reason):
                raise Refused(f"Redis group {group}: {reason}.")
            case _ if (paused := _asked_to_stop(group, task, clients)) is not None:
                return paused
            case RedisHold(reason, None, seconds):
                return StepResult.wait(f"Redis group {group}: {reason}", max(seconds, backoff(waited)))
            case _:
                return StepResult.done(f"Redis group {group}: {action.reason}", next=action.step, group=str(group))
    if busy:
        return StepResult.wait(busy, backoff(waited))
    return StepResult.done("no Redis pod is on the node", next=NOTHING, group="")


def _asked_to_stop(group: RedisGroup, task: RedisTask, clients: Clients) -> StepResult | None:
    """What a person asked for, unless this node's migration of the group has begun and is not ended. Raises Aborted.

    The group's Lease stays ours: what another roll left half moved is finished before the restore.
    """
    lease = lock.confirm(clients, task.roll)
    if not {lock.PAUSE, lock.ABORT} & lease.annotations.keys():
        return None
    begun = task.redis_group == str(group) and not isinstance(look(group, "", clients).action, Settled)
    return None if begun else operator_requests.hold_or_abort(lease, clients.now())


def _groups(task: RedisTask, clients: Clients) -> list[RedisGroup]:
    """The group at hand first: its pod may have left the node already, with more to do for it."""
    found = groups_on(task.node, clients)
    if not task.redis_group or any(str(g) == task.redis_group for g in found):
        return sorted(found, key=lambda g: str(g) != task.redis_group)
    return [group_called(task.redis_group, clients), *found]


handler = handler_for(run, RedisTask, honors=Honors.NOTHING)
