"""Wait for approval: tells people what is planned and how to say yes or no. The workflow waits for the answer."""

from lambdas.clients import Clients
from lambdas.entry import handler_for
from lambdas.model import ApprovalTask, StepResult
from lambdas.plan_document import PlanDocument
from lambdas.plan_text import plan_text


def run(task: ApprovalTask, clients: Clients) -> StepResult:
    plans = [PlanDocument.model_validate_json(text) for text in clients.aws.load(f"rolls/{task.roll}/plan.json")]
    hours = clients.settings.deadlines.approval / 3600
    clients.aws.notify(
        f"{clients.settings.cluster}: a roll waits for approval",
        f"{task.plan}.\n\n"
        f"Nothing has been changed. Without an answer the roll ends in {hours:.0f} hours.\n\n"
        f"Approve:\n  aws stepfunctions send-task-success --task-output '{{}}' --task-token '{task.token}'\n\n"
        f"Refuse:\n  aws stepfunctions send-task-failure --error Refused --cause 'your reason' "
        f"--task-token '{task.token}'\n" + "".join(f"\n{plan_text(plan)}\n" for plan in plans),
    )
    return StepResult.done("people were asked")


handler = handler_for(run, ApprovalTask, locked=False)
