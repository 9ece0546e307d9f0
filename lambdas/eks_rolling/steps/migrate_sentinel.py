"""Migrate a group under Sentinel: one function for the seven states that do it, each an action of the group's.

Replicas and sentinels are evicted, so that budgets hold. The master pod is deleted once a replica is master in its
place (`eks_rolling.migration.handover`); it comes back empty, follows, and becomes master again. What comes next is
decided anew by every look (`eks_rolling.redis.sentinel`).
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
