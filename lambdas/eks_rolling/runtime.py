"""The way into every function: parse, hold the lock, run the step, answer JSON.

Importing a step has no effect; clients are made at the first invocation and kept for the environment's life.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from aws_lambda_powertools import Logger
from pydantic import ValidationError

from eks_rolling.clients.call_log import CALLS
from eks_rolling.clients.protocols import Aws, Clients, Http, Kubernetes, Redis
from eks_rolling.errors import (
    BadRequest,
    ChecksFailed,
    DeadlineExceeded,
    Interfered,
    Permanent,
    RollError,
    Transient,
    sentence,
)
from eks_rolling.payloads import NodeTask, RedisActionTask, Status, StepResult, Task
from eks_rolling.report import messages, metrics
from eks_rolling.roll import lock, operator_requests
from eks_rolling.roll.fence import fenced
from eks_rolling.roll.operator_requests import Honors
from eks_rolling.settings import Settings, problems

logger = Logger(service="eks-rolling")

INITIALIZING = "AWS_LAMBDA_INITIALIZATION_TYPE"
"""Set where Lambda itself imports the step."""

AnyTask = TypeVar("AnyTask", bound=Task)
StepFunction = Callable[[AnyTask, Clients], StepResult]


class _WhenNeeded:
    """A client that is made when it is first asked for anything.

    Signing in to the cluster takes rights that not every step has, and redis-py a second to import.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def _client(self) -> Any:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _import_clients() -> None:
    """While Lambda starts a function it lends it more CPU than the function's memory buys later, so what nearly every
    step needs is imported then. Elsewhere SDKs are imported once they are needed: tests and stacks need none.
    """
    import eks_rolling.clients.aws
    import eks_rolling.clients.eks  # noqa: F401 (for its import alone)


@cache
def connected_clients() -> Clients:
    """The clients of this execution environment, from its settings.

    The first use of one raises NotFound or AccessDenied where there is no such cluster, or no way into it.
    """
    from eks_rolling.clients.aws import AwsClient

    settings = Settings.from_environment()
    kubernetes = cast(Kubernetes, _WhenNeeded(lambda: _connect(settings.cluster)))
    aws = AwsClient(settings.cluster, settings.bucket, settings.topic)
    return assembled(kubernetes, aws, settings)


def assembled(kubernetes: Kubernetes, aws: Aws, settings: Settings) -> Clients:
    """Clients on the real clock; Redis and HTTP come in when a step first asks for them."""
    redis = cast(Redis, _WhenNeeded(lambda: _redis(kubernetes)))
    return Clients(kubernetes, aws, redis, settings, time.time, time.sleep, cast(Http, _WhenNeeded(_http)))


def _connect(cluster: str) -> Kubernetes:
    from eks_rolling.clients.eks import connect

    return connect(cluster)


def _redis(kubernetes: Kubernetes) -> Redis:
    from eks_rolling.clients.redis import RedisClient

    return RedisClient(kubernetes.secret)


def _http() -> Http:
    from eks_rolling.clients.http import HttpClient

    return HttpClient()


@dataclass(frozen=True)
class Handler(Generic[AnyTask]):
    """A step as Lambda calls it. `locked` steps act only while their roll holds the cluster's lock [R4], and not
    while a person whom it `honors` wants the roll paused or ended."""

    step: StepFunction[AnyTask]
    task_type: type[AnyTask]
    locked: bool
    honors: Honors
    overdue: type[DeadlineExceeded] = DeadlineExceeded
    """As what its deadline ends it."""

    @property
    def name(self) -> str:
        """The step's module name: what the function and the handler string are called."""
        return self.step.__module__.rpartition(".")[2]

    def work(self, task: AnyTask) -> str:
        """What deadline, logs and metrics are named after: the step, or which action of it the state stands for."""
        return task.action if isinstance(task, RedisActionTask) else self.name

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG002  (Lambda passes two)
        task = parse(event, self.task_type)
        logger.structure_logs(append=False, **self._about(task))
        CALLS.taken()
        try:
            result = self._counted(task, connected_clients())
        except Transient as error:
            logger.warning(sentence(error), error=type(error).__name__)
            # The workflow retries by class name, and a subclass's name is not its parent's.
            raise Transient(sentence(error)) from error
        except Permanent as error:
            logger.exception("the step failed", error=type(error).__name__)
            raise type(error)(sentence(error)) from error
        logger.info(result.reason, status=result.status, wait_seconds=result.wait_seconds)
        return result.model_copy(update={"calls": CALLS.taken()}).model_dump(mode="json")

    def _about(self, task: AnyTask) -> dict[str, Any]:
        """What logs and metrics are found by."""
        return {"step": self.work(task), "roll": task.roll, "node": getattr(task, "node", None)}

    def _counted(self, task: AnyTask, clients: Clients) -> StepResult:
        cluster, about = clients.settings.cluster, self._about(task)
        try:
            result = self.run(task, clients)
        except RollError as error:
            metrics.emit(metrics.of_fault(error), cluster, **about)
            raise
        metrics.emit(metrics.of_result(self.work(task), task, result), cluster, **about)
        return result

    def run(self, task: AnyTask, clients: Clients) -> StepResult:
        """One invocation: under the lock, with `since` carried on while it waits (a step may reset it).

        Raises DeadlineExceeded once it has waited longer than its deadline, with the reason of the hold, and Aborted.
        """
        if self.locked:
            lease = lock.confirm(clients, task.roll)
            if paused := operator_requests.hold_or_abort(lease, clients.now(), self.honors):
                return paused
            clients = fenced(clients, task.roll, self.name)
        since = task.since if task.since is not None else clients.now()
        result = self.step(task, clients)
        if result.status is Status.DONE:
            return result
        deadline = clients.settings.deadline(self.work(task))
        waited = clients.now() - since
        if deadline is not None and waited > deadline:
            subject = f"Node {task.node}" if isinstance(task, NodeTask) else "The roll"
            raise self._overdue(result)(f"{subject} waited {waited:.0f} s (deadline {deadline} s): {result.reason}")
        since = since if result.since is None else result.since
        return result.model_copy(
            update={"since": since, "notified_at": self._notify_of_hold(task, result.reason, since, clients)}
        )

    def _overdue(self, result: StepResult) -> type[DeadlineExceeded]:
        """As what the hold that it answers ends the step, once that has lasted too long."""
        if result.output.get("interfered"):
            return Interfered
        return ChecksFailed if result.output.get("checks_failed") else self.overdue

    def _notify_of_hold(self, task: AnyTask, reason: str, since: float, clients: Clients) -> float | None:
        """When people were notified of the hold that began at `since`. Notifies them now if it is time, once."""
        if task.notified_at is not None and task.notified_at >= since:
            return task.notified_at
        settings, now = clients.settings, clients.now()
        enough = settings.notify_hold_minutes * 60
        if not enough or now - since < enough or self.work(task) not in messages.HOLDING:
            return None
        node = task.node if isinstance(task, NodeTask) else ""
        notify(clients, messages.hold(settings, task.roll, self.work(task), node, reason, since, now))
        return now


def notify(clients: Clients, message: messages.Message) -> None:
    """Sends people a message. One that cannot be sent must not keep a step from its work, so that is only logged."""
    try:
        clients.aws.notify(message)
    except RollError as error:
        logger.warning("people could not be notified: %s", sentence(error), subject=message.subject)


def handler_for(
    step: StepFunction[AnyTask],
    task_type: type[AnyTask],
    *,
    locked: bool = True,
    honors: Honors = Honors.BOTH,
    overdue: type[DeadlineExceeded] = DeadlineExceeded,
) -> Handler[AnyTask]:
    """The Lambda handler of a step. Without the lock there is nothing to honor."""
    if INITIALIZING in os.environ:
        _import_clients()
    return Handler(step, task_type, locked, honors if locked else Honors.NOTHING, overdue)


def run_step(name: str, event: dict[str, Any], clients: Clients) -> dict[str, Any]:
    """Runs the step of that name here, with clients of the caller's own: JSON in, JSON out, as Lambda has it.

    Raises RollError.
    """
    handler: Handler[Task] = import_module(f"eks_rolling.steps.{name}").handler
    return handler.run(parse(event, handler.task_type), clients).model_dump(mode="json")


def parse(event: dict[str, Any], task_type: type[AnyTask]) -> AnyTask:
    """The event as the step's task. Raises BadRequest naming every problem at once."""
    try:
        return task_type.model_validate(event)
    except ValidationError as error:
        raise BadRequest(f"The step's input has {problems(error, task_type)}.") from error
