"""Record what was done to a node: times and holds out of the execution's own history, for the report.

A failure is noted on the lock as well, so that the nodes of the wave that have not begun do not.
"""

import json
from typing import Any

from lambdas import lock
from lambdas.clients import Clients
from lambdas.entry import handler_for
from lambdas.model import NodeOutcomeTask, StepResult
from lambdas.timeline import StepTime, explain, steps_of


def record(task: NodeOutcomeTask, steps: list[StepTime]) -> dict[str, Any]:
    """The node's page in the report."""
    outputs = [o for s in steps for o in s.outputs]
    return {
        "node": task.node,
        "instance": task.instance,
        "group": task.group,
        "replacement": task.replacement,
        "replacement_node": task.replacement_node,
        "outcome": "failed" if task.failure else "replaced",
        "failure": explain(task.failure),
        "started": steps[0].started if steps else None,
        "ended": steps[-1].ended if steps else None,
        "evicted": sum(o.get("evicted", 0) for o in outputs),
        "refused": sum(o.get("refused", 0) for o in outputs),
        "steps": [s.summary() for s in steps],
    }


def run(task: NodeOutcomeTask, clients: Clients) -> StepResult:
    if task.failure:
        lock.note_failure(clients, task.roll, task.node)
    page = record(task, steps_of(clients.aws.history(task.execution)))
    key = f"rolls/{task.roll}/nodes/{task.instance}.json"
    clients.aws.save(key, json.dumps(page, indent=2), "application/json")
    return StepResult.done(page["failure"] or f"{task.node} was replaced by {task.replacement_node}")


handler = handler_for(run, NodeOutcomeTask, locked=False)
