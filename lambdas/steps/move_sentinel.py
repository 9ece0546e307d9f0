"""Move the sentinel: one at a time, and only while the master pod is master, because a sentinel that starts resolves
that pod's name."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.MOVE_SENTINEL, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
