"""Move the replica: its pod goes to another node, and is in sync again before anything else moves.

It is evicted, so that budgets hold, once the rest of the group is in sync.
"""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.MOVE_REPLICA, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
