"""Wait until no load balancer uses the node: its last connections have ended, or their time is up [N2]."""

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import BadRequest
from eks_rolling.observed.aws import TargetRegistration
from eks_rolling.observed.kubernetes import Node
from eks_rolling.observed.marks import registered_as, registrations_on
from eks_rolling.payloads import NodeTask, Status, StepResult
from eks_rolling.runtime import handler_for


def decide(targets: list[TargetRegistration], waited: float) -> StepResult:
    """Done when every registration is gone; the wait is what is left of the longest deregistration delay."""
    using = [t for t in targets if t.receives_traffic]
    if not using:
        return StepResult.done("no load balancer uses the node")
    left = max(t.delay_seconds for t in using) - waited
    names = ", ".join(sorted({f"{t.name} ({t.state})" for t in using}))
    return StepResult.wait(f"connections may still come from {names}", min(15.0, max(1.0, left)))


def run(task: NodeTask, clients: Clients) -> StepResult:
    node, waited = clients.kubernetes.node(task.node), task.waited(clients.now())
    known_as = registered_as(node, task.instance)
    if recorded := _groups_left(node):
        waiting = decide(clients.aws.targets_of(known_as, recorded), waited)
        if waiting.status is Status.WAIT:
            return waiting
    # Whether it is registered anywhere else by now.
    return decide(clients.aws.targets_of(known_as), waited)


def _groups_left(node: Node | None) -> set[str]:
    """Which ones it left, as its own mark says: to ask only these while they drain, whoever wrote it, harms nobody."""
    try:
        return {t.group for t in registrations_on(node)} if node else set()
    except BadRequest:
        return set()


handler = handler_for(run, NodeTask)
