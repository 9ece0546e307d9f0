"""Ask the hooks: users' own functions and addresses, before and after the roll and each node."""

from eks_rolling.clients.protocols import Clients, HttpAnswer
from eks_rolling.documents.failure import explain
from eks_rolling.errors import Refused, RollError, sentence
from eks_rolling.payloads import HookTask, StepResult
from eks_rolling.roll import lock, operator_requests
from eks_rolling.roll.hooks import HookFailed, HookPassed, HookWaits, meaning, question
from eks_rolling.runtime import handler_for
from eks_rolling.settings import Hook, Moment, OnFailure


def run(task: HookTask, clients: Clients) -> StepResult:
    """One after the other, as the settings have them. Raises Refused, Aborted.

    After a roll nothing holds any more; after a node its hooks run regardless of requests.
    """
    if task.when is not Moment.AFTER_ROLL:
        lease = lock.confirm(clients, task.roll)
        before = task.when in {Moment.BEFORE_ROLL, Moment.BEFORE_NODE}
        if before and (paused := operator_requests.hold_or_abort(lease, clients.now())):
            return paused
    notes: list[str] = []
    asked = 0
    for hook in (h for h in clients.settings.hooks if h.when is task.when):
        asked += 1
        match meaning(hook, _ask(task, hook, clients), task.waited(clients.now())):
            case HookPassed():
                continue
            case HookWaits(reason, seconds):
                if task.when is not Moment.AFTER_ROLL:
                    lock.outlast(clients, task.roll, seconds)
                return StepResult.wait(reason, seconds)
            case HookFailed(reason) if hook.on_failure is OnFailure.CONTINUE:
                notes.append(f"{reason}; the roll continues without it")
            case HookFailed(reason):
                raise Refused(f"The {reason}.")
    return StepResult.done("; ".join(notes) or f"{asked} called, none objects", failed=len(notes))


def _ask(task: HookTask, hook: Hook, clients: Clients) -> HttpAnswer:
    """Where there is no answer at all it is asked a second time: connections are lost, and the key is the same."""
    answer = _ask_once(task, hook, clients)
    return _ask_once(task, hook, clients) if answer.fault and not answer.uncalled else answer


def _ask_once(task: HookTask, hook: Hook, clients: Clients) -> HttpAnswer:
    failure = explain(task.failure) if task.failure else ""
    document = question(task, hook, clients.settings.cluster, failure)
    if hook.url:
        return clients.http.post(hook.url, document, document["key"], hook.timeout_seconds)
    try:
        return clients.aws.invoke(hook.function, document, hook.timeout_seconds)
    except RollError as error:
        return HttpAnswer(fault=sentence(error))


handler = handler_for(run, HookTask, locked=False)
