"""Join the stand-in: it is introduced to the cluster, becomes a replica of the pod's shard, and gets its data [C1]."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.JOIN_STAND_IN, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
