"""Attach the master pod: back as an empty master, it follows the acting one at once, and gets its data.

Until then a restarting replica would follow it, and lose what it has: no other pod of the group moves.
"""

from eks_rolling.clients.protocols import Clients
from eks_rolling.migration.next_action import run_step
from eks_rolling.payloads import RedisTask, StepResult
from eks_rolling.redis.actions import RedisStep
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.runtime import handler_for


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(RedisStep.ATTACH_MASTER, task, clients)


handler = handler_for(run, RedisTask, honors=Honors.NOTHING)
