"""Taint every outdated node: new pods go elsewhere if they fit anywhere else, and cluster-autoscaler keeps off.

The taint is a soft one (PreferNoSchedule) until a node's own replacement is Ready: with a hard one on all of them,
a Deployment that scales up during the roll would find no room at all [N3].
"""

from dataclasses import dataclass, field

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.kubernetes import Node, Taint
from eks_rolling.observed.marks import NODE_ROLL, SOFT_TAINT, keep_from_scale_down, with_roll_taint
from eks_rolling.payloads import RollTask, StepResult
from eks_rolling.roll import lock
from eks_rolling.runtime import handler_for
from eks_rolling.settings import AutoscalerMode
from eks_rolling.wording import counted

TIME_BUDGET_SECONDS = 15
"""An invocation ends after so long, and the next one continues: a thousand nodes take several."""


@dataclass(frozen=True, slots=True)
class NodeUpdate:
    """What to write on a node; taints None: they are right already."""

    taints: tuple[Taint, ...] | None
    annotations: dict[str, str | None] = field(default_factory=dict)


def decide(node: Node, roll: str, mode: AutoscalerMode) -> NodeUpdate | None:
    """What the node still lacks; None if nothing. A hard taint of an earlier run stays."""
    annotations: dict[str, str | None] = {}
    if node.annotations.get(NODE_ROLL) != roll:
        annotations[NODE_ROLL] = roll
    annotations |= keep_from_scale_down(node, mode)
    taints = with_roll_taint(node, SOFT_TAINT) if node.roll_taint is None else None
    return NodeUpdate(taints, annotations) if annotations or taints is not None else None


def run(task: RollTask, clients: Clients) -> StepResult:
    started = clients.now()
    lock.note_request(clients, task.roll, keep_taints=task.keep_taints, accept=task.accept)
    planned = set(task.nodes)
    nodes = [n for n in clients.kubernetes.nodes() if n.instance in planned]
    for done, node in enumerate(nodes):
        if clients.now() - started > TIME_BUDGET_SECONDS:
            return StepResult.wait(f"{done} of {len(nodes)} nodes are tainted", 1)
        mark = decide(node, task.roll, clients.settings.autoscaler.mode)
        if mark:
            clients.kubernetes.update_node(node, taints=mark.taints, annotations=mark.annotations)
    return StepResult.done(f"{counted(len(nodes), 'node')} tainted")


handler = handler_for(run, RollTask)
