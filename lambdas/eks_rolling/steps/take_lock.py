"""Take the lock: one roll at a time on one cluster [R4]."""

from eks_rolling.clients.protocols import Clients
from eks_rolling.payloads import StepResult, Task, backoff
from eks_rolling.roll import lock
from eks_rolling.roll.lock import Busy
from eks_rolling.runtime import handler_for


def run(task: Task, clients: Clients) -> StepResult:
    """With `output.waited` the workflow plans again, because the plan is as old as the wait."""
    waited = task.waited(clients.now())
    decision = lock.acquire(clients, task.roll, lock.lock_name(clients.settings.namespace))
    if isinstance(decision, Busy):
        return StepResult.wait(
            f"the roll {decision.holder} is running on this cluster (its lock expires in {decision.seconds:.0f} s "
            "unless renewed)",
            backoff(waited, first=5, longest=60),
        )
    return StepResult.done(decision.reason, waited=waited >= 1)


handler = handler_for(run, Task, locked=False)
