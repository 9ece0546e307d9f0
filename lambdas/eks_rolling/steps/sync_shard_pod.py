"""Wait for the pod's sync: back on a new node with its id, known at its new address, a replica in sync [C2]."""

from eks_rolling.clients.protocols import Clients
from eks_rolling.migration.next_action import run_step
from eks_rolling.payloads import RedisTask, StepResult
from eks_rolling.redis.actions import RedisStep
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.runtime import handler_for


def run(task: RedisTask, clients: Clients) -> StepResult:
    return run_step(RedisStep.SYNC_SHARD_POD, task, clients)


handler = handler_for(run, RedisTask, honors=Honors.NOTHING)
