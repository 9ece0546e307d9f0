"""Fail over to the stand-in: master in place of the pod, with every slot and every acknowledged write [C1]."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.FAIL_OVER_TO_STAND_IN, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
