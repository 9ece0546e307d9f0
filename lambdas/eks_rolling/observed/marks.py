"""What a roll writes on the things it changes: the original before the change [R1], and whose they are.

A later run finds these and goes on from them; nothing else remembers a roll's half-done work. `steps/restore.py` takes
every one of them away again [R2].
"""

from dataclasses import dataclass

from eks_rolling.observed.aws import GroupInstance, InstanceState
from eks_rolling.observed.kubernetes import ROLL_TAINT_KEY, Effect, Node, Taint
from eks_rolling.settings import AutoscalerMode

# On nodes: annotations and a label.

NODE_ROLL = "eks-rolling.io/roll"
"""The roll whose plan names this node. Nothing else is ever drained or terminated [N4]."""

NODE_LAUNCH = "eks-rolling.io/launch"
"""What was asked of EC2 for this node, and when: see LaunchMark. Written before the request, so that whoever comes
after a crash asks for the same instance, not for another.
"""

NODE_MOVING = "eks-rolling.io/moving"
"""Workloads whose pods were evicted from this node and are awaited Ready elsewhere; " | " between them."""

NODE_TARGETS = "eks-rolling.io/targets"
"""Where this node was registered before it left its load balancers: JSON list of [target group, port, classic]."""

NODE_SERVING = "eks-rolling.io/serving"
"""Addresses of DaemonSet pods that were evicted from this node because they serve; "," between them."""

NODE_CORDONED = "eks-rolling.io/cordoned"
"""The cordon on this node is ours."""

NODE_EXCLUDED = "eks-rolling.io/excluded"
"""The exclusion label below is ours."""

EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Load balancer controllers deregister a node that carries it (kubernetes.io, well-known labels)."""

SCALE_DOWN_DISABLED = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
"""Keeps cluster-autoscaler, where it goes on running, from removing the node."""

NODE_SCALE_DOWN = "eks-rolling.io/scale-down-disabled"
"""The annotation above is ours."""

NODE_ANNOTATIONS = (
    NODE_ROLL,
    NODE_LAUNCH,
    NODE_MOVING,
    NODE_TARGETS,
    NODE_SERVING,
    NODE_CORDONED,
    NODE_EXCLUDED,
    NODE_SCALE_DOWN,
)
"""All of them."""

# On Auto Scaling groups and instances: tags. Their values may not hold commas or braces.

GROUP_MAXIMUM = "eks-rolling/original-max-size"
GROUP_RESUME = "eks-rolling/resume"
"""The processes that the roll suspended, separated by spaces; "-" for none."""

INSTANCE_REPLACES = "eks-rolling/replaces"
"""On a replacement: the instance it was launched for."""

INSTANCE_PROTECTED = "eks-rolling/protected"
"""The scale-in protection of this instance is ours."""

# On the cluster-autoscaler Deployment: annotations.

AUTOSCALER_REPLICAS = "eks-rolling.io/original-replicas"

AUTOSCALER_PAUSED_AT = "eks-rolling.io/paused-at"
"""When it was scaled to 0 (epoch seconds)."""

INTERFERING_PROCESSES = frozenset({"AZRebalance", "AlarmNotification", "ReplaceUnhealthy", "ScheduledActions"})
"""Suspended during a roll: each can terminate or launch instances behind its back.

AZRebalance kills undrained nodes elsewhere after a terminate with decrement; ReplaceUnhealthy would terminate a node
that was taken out of its target group on purpose. Launch, Terminate and AddToLoadBalancer are needed and stay.
"""

SOFT_TAINT = Taint(ROLL_TAINT_KEY, Effect.PREFER_NO_SCHEDULE)
"""On every node of the plan: new pods go elsewhere if they fit anywhere else [N3]."""

HARD_TAINT = Taint(ROLL_TAINT_KEY, Effect.NO_SCHEDULE)
"""On a node whose replacement is Ready: no new pods."""


@dataclass(frozen=True, slots=True)
class LaunchMark:
    """One request for a replacement: by client `token`, or by raising the desired capacity from `desired`."""

    asked_at: float
    token: str = ""
    desired: int | None = None

    def __str__(self) -> str:
        what = self.token if self.desired is None else f"desired:{self.desired}"
        return f"{what}@{self.asked_at:.0f}"

    @classmethod
    def on(cls, node: Node) -> "LaunchMark | None":
        """The request that is on record on the node, if any."""
        what, _, when = node.annotations.get(NODE_LAUNCH, "").rpartition("@")
        if not what:
            return None
        if what.startswith("desired:"):
            return cls(float(when), desired=int(what.removeprefix("desired:")))
        return cls(float(when), token=what)

    def may_be_answered_by(self, state: InstanceState) -> bool:
        """Whether the instance came after the request and belongs to nobody. EC2's launch times are whole seconds."""
        return INSTANCE_REPLACES not in state.tags and state.launched >= self.asked_at - 1


def registered_as(node: Node | None, instance: str) -> list[str]:
    """What target groups may know the node by: its instance, and addresses of pods that served on it."""
    addresses = node.annotations.get(NODE_SERVING, "") if node else ""
    return [instance, *(a for a in addresses.split(",") if a)]


def with_roll_taint(node: Node, taint: Taint | None) -> tuple[Taint, ...]:
    """The node's taints with ours set to `taint` (None: taken away), every other one untouched and in its place."""
    others = tuple(t for t in node.taints if t.key != ROLL_TAINT_KEY)
    return others if taint is None else (*others, taint)


def keep_from_scale_down(node: Node, mode: AutoscalerMode) -> dict[str, str | None]:
    """Annotations that keep a running cluster-autoscaler from removing the node; what others set is left alone."""
    if mode is not AutoscalerMode.ANNOTATE or SCALE_DOWN_DISABLED in node.annotations:
        return {}
    return {SCALE_DOWN_DISABLED: "true", NODE_SCALE_DOWN: "true"}


def outdated(instance: GroupInstance, targets: dict[str, str]) -> bool:
    """Whether the group would launch something else now; `targets` maps instance type to "lt-id:number"."""
    return instance.template != targets.get(instance.type, targets.get("", ""))
