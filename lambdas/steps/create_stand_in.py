"""Create the stand-in: a pod like the one that moves, without its volume, in its zone, with labels of its own [C3]."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.CREATE_STAND_IN, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
