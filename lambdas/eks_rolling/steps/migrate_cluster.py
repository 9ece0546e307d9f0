"""Migrate a Redis Cluster: one function for the eight states that do it, each an action of the cluster's.

Every pod moves behind a stand-in, which joins, takes over where the pod is a master, and is removed once the pod is
back in its role (`eks_rolling.redis.stand_in`). What comes next is decided anew by every look
(`eks_rolling.redis.cluster`).
"""

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import OldNodeHeld
from eks_rolling.migration.next_action import migrate
from eks_rolling.payloads import RedisActionTask, StepResult
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.runtime import handler_for


def run(task: RedisActionTask, clients: Clients) -> StepResult:
    return migrate(task, clients)


handler = handler_for(run, RedisActionTask, honors=Honors.NOTHING, overdue=OldNodeHeld)
