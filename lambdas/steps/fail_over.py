"""Fail over to a replica: it becomes master in place of the master pod, which has to move.

The target is steered by its priority, seen by every sentinel, then switched to (`lambdas.switch`).
"""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.FAIL_OVER, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
