"""No effect of a roll comes after its restore has looked [R6].

Stopping an execution does not stop the function that is at work for it, and neither does a time-out of Step Functions.
So before its first effect an invocation writes on the lock until when it may run, under the lock's resourceVersion: a
restore that has begun is found there, and one that begins later finds what was written, and waits for it. Before each
further effect the lock is looked at again, unless that was a moment ago.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from eks_rolling import errors
from eks_rolling.clients.protocols import Aws, Clients, Http, Kubernetes, Redis
from eks_rolling.documents.failure import error_of
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import RestoreTask, SettleTask
from eks_rolling.roll import lock

USUAL_SECONDS = 60
"""The timeout of a step's function, in seconds (`stacks/functions.py`; a test compares)."""

LONGER_SECONDS: Mapping[str, int] = {"health_gate": 150, "run_hooks": 120, "settle_redis": 150}
"""The timeouts of those steps under the lock whose functions may take longer."""

FRESH_SECONDS = 1.0
"""A look at the lock that is not older need not be repeated."""

KUBERNETES_EFFECTS = frozenset(
    {
        "annotate_pod",
        "create_budget",
        "create_stand_in",
        "delete_budget",
        "delete_pod",
        "evict",
        "update_node",
        "update_workload",
    }
)
AWS_EFFECTS = frozenset(
    {
        "deregister",
        "invoke",
        "launch",
        "protect",
        "register",
        "replace_by_group",
        "resume",
        "set_configuration",
        "set_default_version",
        "set_desired",
        "set_maximum",
        "set_template_version",
        "suspend",
        "tag_group",
        "tag_instance",
        "terminate",
        "untag_group",
        "untag_instance",
    }
)
REDIS_EFFECTS = frozenset(
    {
        "announce",
        "ask_every",
        "disconnect_clients",
        "follow",
        "forget",
        "leave_cluster",
        "meet",
        "pause_writes",
        "promote",
        "replicate",
        "reset",
        "set_electable",
        "take_over",
        "unpause",
    }
)
HTTP_EFFECTS = frozenset({"post"})
"""What changes anything outside of the roll's own documents, messages and Leases, by client."""

ANSWERED = frozenset(
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.RollError)
) | {errors.NOT_APPROVED, "Runtime.ExitError", "Sandbox.Timedout"}
"""Errors with which a function or the workflow itself ends: whoever raised one, or died, is not at work any more."""


def timeout(step: str) -> int:
    """For how many seconds one invocation of the step's function may run."""
    return LONGER_SECONDS.get(step, USUAL_SECONDS)


def fenced(clients: Clients, roll: str, step: str) -> Clients:
    """The clients, with each effect of theirs behind the fence. Effects raise LockLost then, and Conflict."""
    fence = _Fence(clients, roll, clients.now() + timeout(step))
    return replace(
        clients,
        kubernetes=cast(Kubernetes, _Fenced(clients.kubernetes, KUBERNETES_EFFECTS, fence.look)),
        aws=cast(Aws, _Fenced(clients.aws, AWS_EFFECTS, fence.look)),
        # A switch that has begun is not given up in the middle: the restore waits for it.
        redis=cast(Redis, _Fenced(clients.redis, REDIS_EFFECTS, fence.look_once)),
        http=cast(Http, _Fenced(clients.http, HTTP_EFFECTS, fence.look)),
    )


def seconds_to_wait(until: float, failure: Mapping[str, Any] | None, error: str, now: float, *, outside: bool) -> float:
    """How long a restore has to wait for invocations of the roll that may still be at work; 0 if none is.

    `until` is what they wrote on the lock. A roll that restores itself has heard of all of them, unless it was ended by
    an `error` that is no function's own: an answer was lost, or a child's execution was stopped. `outside`: the restore
    was started for the roll, which may have been stopped in the middle.
    """
    heard = not outside and (not failure or error in ANSWERED)
    return 0.0 if heard else max(0.0, until - now)


def steps_over_at(ended: Lease, task: SettleTask | RestoreTask) -> float:
    """Until when steps of the roll may be at work, which nobody can stop any more; 0 where all were heard of."""
    failure = error_of(task.failure)
    return seconds_to_wait(lock.steps_until(ended), task.failure, failure, 0.0, outside=bool(task.by))


def steps_still_at_work(ended: Lease, task: SettleTask | RestoreTask, now: float) -> float:
    """For how many seconds more they may be."""
    return max(0.0, steps_over_at(ended, task) - now)


class _Fence:
    """One invocation's way past the lock."""

    def __init__(self, clients: Clients, roll: str, ends: float) -> None:
        self._clients = clients
        self._roll = roll
        self._ends = ends
        self._looked: float | None = None

    def look_once(self) -> None:
        if self._looked is None:
            self.look()

    def look(self) -> None:
        now = self._clients.now()
        if self._looked is not None and now - self._looked < FRESH_SECONDS:
            return
        lock.announce(self._clients, self._roll, self._ends)
        self._looked = now


class _Fenced:
    """A client whose effects are preceded by a look."""

    def __init__(self, client: object, effects: frozenset[str], look: Callable[[], None]) -> None:
        self._client = client
        self._effects = effects
        self._look = look

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in self._effects:
            return method

        def act(*args: Any, **kwargs: Any) -> Any:
            self._look()
            return method(*args, **kwargs)

        return act
