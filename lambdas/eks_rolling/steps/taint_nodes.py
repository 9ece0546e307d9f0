"""Taint every outdated node: new pods go elsewhere if they fit anywhere else, and cluster-autoscaler keeps off.

The taint is a soft one (PreferNoSchedule) until a node's own replacement is Ready: with a hard one on all of them,
a Deployment that scales up during the roll would find no room at all [N3].
"""

from eks_rolling.clients.protocols import Clients
from eks_rolling.payloads import RollTask, StepResult
from eks_rolling.roll import lock
from eks_rolling.roll.arrangements import mark_of
from eks_rolling.runtime import handler_for
from eks_rolling.wording import counted

TIME_BUDGET_SECONDS = 15
"""An invocation ends after so long, and the next one continues: a thousand nodes take several."""


def run(task: RollTask, clients: Clients) -> StepResult:
    started = clients.now()
    lock.note_request(clients, task.roll, keep_taints=task.keep_taints, accept=task.accept)
    planned = set(task.nodes)
    nodes = [n for n in clients.kubernetes.nodes() if n.instance in planned]
    for done, node in enumerate(nodes):
        if clients.now() - started > TIME_BUDGET_SECONDS:
            return StepResult.wait(f"{done} of {len(nodes)} nodes are tainted", 1)
        mark = mark_of(node, task.roll, clients.settings.autoscaler.mode)
        if mark:
            clients.kubernetes.update_node(node, taints=mark.taints, annotations=mark.annotations)
    return StepResult.done(f"{counted(len(nodes), 'node')} tainted")


handler = handler_for(run, RollTask)
