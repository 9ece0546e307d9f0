"""Attach the master pod: back as an empty master, it follows the acting one at once, and gets its data.

Until then a restarting replica would follow it, and lose what it has: no other pod of the group moves.
"""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.ATTACH_MASTER, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
