"""Fail back to the pod: it is master again of the slots that it had [C2]."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.FAIL_BACK_TO_SHARD_POD, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
