"""Wait until no load balancer uses the node: its last connections have ended, or their time is up [N2]."""

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.aws import TargetRegistration
from eks_rolling.observed.marks import registered_as
from eks_rolling.payloads import NodeTask, StepResult
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
    known_as = registered_as(clients.kubernetes.node(task.node), task.instance)
    return decide(clients.aws.targets_of(known_as), task.waited(clients.now()))


handler = handler_for(run, NodeTask)
