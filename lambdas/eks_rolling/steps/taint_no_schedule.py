"""Close the old node to new pods, once its replacement stands in for it [N3]."""

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Refused
from eks_rolling.observed.kubernetes import replacement_not_ready
from eks_rolling.observed.marks import HARD_TAINT, NODE_ROLL, with_roll_taint
from eks_rolling.payloads import NodeTask, StepResult
from eks_rolling.runtime import handler_for


def run(task: NodeTask, clients: Clients) -> StepResult:
    node = clients.kubernetes.node(task.node)
    if node is None or node.instance != task.instance or node.annotations.get(NODE_ROLL) != task.roll:
        raise Refused(f"Node {task.node} is not in the plan of {task.roll} any more; start a new roll.")
    if reason := replacement_not_ready(clients.kubernetes.node(task.replacement_node)):
        return StepResult.wait(reason, 5)
    if node.roll_taint != HARD_TAINT:
        clients.kubernetes.update_node(node, taints=with_roll_taint(node, HARD_TAINT))
    return StepResult.done(f"node {node.name} takes no new pods")


handler = handler_for(run, NodeTask)
