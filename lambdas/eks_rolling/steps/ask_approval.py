"""Wait for approval: sends the plan and how to approve or refuse it. The workflow waits for the answer."""

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.plan import PlanDocument
from eks_rolling.payloads import ApprovalTask, StepResult
from eks_rolling.report import messages
from eks_rolling.runtime import handler_for


def run(task: ApprovalTask, clients: Clients) -> StepResult:
    plans = [PlanDocument.model_validate_json(text) for text in clients.aws.load(f"rolls/{task.roll}/plan.json")]
    message = messages.approval(clients.settings, task.roll, task.plan, task.token, plans)
    # Unlike other messages this one must arrive: without it there would be no answer.
    clients.aws.notify(message)
    return StepResult.done("approval was requested")


handler = handler_for(run, ApprovalTask, locked=False)
