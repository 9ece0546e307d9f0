"""Delete the stand-in's pod, under its UID, once no node of the cluster lists it."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.DELETE_STAND_IN, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
