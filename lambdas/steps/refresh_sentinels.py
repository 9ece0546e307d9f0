"""Refresh sentinels: one after the other forgets addresses where nothing is any more.

The next one is not touched before the former knows master, replicas and the other sentinels again [S1].
"""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.REFRESH_SENTINELS, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
