"""Move the shard's pod: deleted under its UID, now that the stand-in holds all it holds [N1]; its volume follows it."""

from lambdas.clients import Clients
from lambdas.control import Heeds
from lambdas.entry import handler_for
from lambdas.migration import run_step
from lambdas.model import RedisTask, StepResult
from lambdas.redis_actions import Step


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(Step.MOVE_SHARD_POD, task, clients)


handler = handler_for(run, RedisTask, heeds=Heeds.NOTHING)
