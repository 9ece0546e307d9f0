"""Wait for the pod's sync: back on a new node with its id, known at its new address, a replica in sync [C2]."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.SYNC_SHARD_POD, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
