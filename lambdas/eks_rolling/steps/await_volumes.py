"""Wait for volumes to detach: an instance that ends with one attached keeps it from the pod's new node for minutes."""

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import OldNodeHeld
from eks_rolling.payloads import NodeTask, StepResult, backoff
from eks_rolling.runtime import handler_for


def run(task: NodeTask, clients: Clients) -> StepResult:
    node, settings = clients.kubernetes.node(task.node), clients.settings
    if node is not None and node.dead(settings.dead_nodes, clients.now()):
        return StepResult.done("the node is dead: volumes are detached when its instance is gone")
    attached = clients.kubernetes.attachments(task.node)
    if not attached:
        return StepResult.done("no volume is attached")
    return StepResult.wait(f"still attached: {', '.join(attached)}", backoff(task.waited(clients.now())))


handler = handler_for(run, NodeTask, overdue=OldNodeHeld)
