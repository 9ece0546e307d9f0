"""Record what was done to a node: times and holds out of the execution's own history, for the report.

A failure is noted on the lock as well, so that the nodes of the wave that have not begun do not. What the lock proves
about a node that was replaced goes: it is gone, and with it what was to prove.
"""

from eks_rolling.clients.protocols import Clients
from eks_rolling.documents.failure import explain
from eks_rolling.documents.report import NodeEnding, NodePage
from eks_rolling.payloads import NodeOutcomeTask, StepResult
from eks_rolling.report import timeline
from eks_rolling.report.timeline import StepTime
from eks_rolling.roll import lock
from eks_rolling.roll.proofs import drop_proofs
from eks_rolling.runtime import handler_for


def record(task: NodeOutcomeTask, steps: list[StepTime]) -> NodePage:
    """The node's page in the report."""
    outputs = [answer.output for step in steps for answer in step.answers]
    ending = timeline.node_ending(task.failure, steps)
    return NodePage(
        node=task.node,
        instance=task.instance,
        group=task.group,
        replacement=task.replacement,
        replacement_node=task.replacement_node,
        outcome=ending,
        failure="" if ending is NodeEnding.REPLACED else explain(task.failure),
        started=steps[0].started if steps else None,
        ended=steps[-1].ended if steps else None,
        evicted=sum(o.get("evicted", 0) for o in outputs),
        refused=sum(o.get("refused", 0) for o in outputs),
        steps=tuple(s.summary() for s in steps),
        failovers=timeline.failovers(steps, task.node),
        refusals=timeline.refusals(steps),
        capacity=timeline.capacity(steps),
        budgets=timeline.budgets(steps),
        calls=timeline.calls(steps),
    )


def run(task: NodeOutcomeTask, clients: Clients) -> StepResult:
    if task.failure:
        lock.note_failure(clients, task.roll, task.node)
    page = record(task, timeline.steps_of(clients.aws.history(task.execution)))
    key = f"rolls/{task.roll}/nodes/{task.instance}.json"
    clients.aws.save(key, page.model_dump_json(indent=2), "application/json")
    if not task.failure:
        drop_proofs(clients, task.roll, task.instance)
    # With this sentence the node's execution ends, and by it the roll's, also where the node was replaced all the same.
    return StepResult.done(
        explain(task.failure) or f"{task.node} was replaced by {task.replacement_node}", outcome=page.outcome
    )


handler = handler_for(run, NodeOutcomeTask, locked=False)
