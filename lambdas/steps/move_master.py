"""Move the master pod: deleted under its UID, now that a replica is master and every sentinel names it [N1]."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.MOVE_MASTER, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
