"""What a roll writes on the things it changes: the original before the change [R1], and whose they are.

A later run finds these and continues from them; a roll's unfinished work is recorded nowhere else. `steps/restore.py`
removes every one of them [R2], but for NODE_UNFIT, and NODE_LAUNCH where a replacement is still to come.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eks_rolling.errors import BadRequest
from eks_rolling.observed.aws import BY_ATTRIBUTES, Group, GroupInstance, InstanceState, TargetRegistration
from eks_rolling.observed.kubernetes import ROLL_TAINT_KEY, Effect, Node, Taint, Workload
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

NODE_ASKED = "eks-rolling.io/asked"
"""Which pods were asked to leave this node: see `roll/returns.py`."""

NODE_TARGETS = "eks-rolling.io/targets"
"""Where this node was registered before it left its load balancers: JSON list of [target group, port, classic]."""

NODE_SERVING = "eks-rolling.io/serving"
"""Addresses of DaemonSet pods that were evicted from this node because they serve; "," between them."""

NODE_CORDONED = "eks-rolling.io/cordoned"
"""The cordon on this node is ours."""

NODE_UNFIT = "eks-rolling.io/unfit"
"""Nothing must run on this replacement. It stays through a restore, with its cordon, until the node goes or somebody
uncordons it: a restore says what to do about it."""

NODE_EXCLUDED = "eks-rolling.io/excluded"
"""The exclusion label below is ours."""

EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Load balancer controllers deregister a node that carries it (kubernetes.io, well-known labels)."""

SCALE_DOWN_DISABLED = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
"""Keeps cluster-autoscaler, if it keeps running, from removing the node."""

NODE_SCALE_DOWN = "eks-rolling.io/scale-down-disabled"
"""The annotation above is ours."""

NODE_ANNOTATIONS = (
    NODE_ROLL,
    NODE_LAUNCH,
    NODE_MOVING,
    NODE_ASKED,
    NODE_TARGETS,
    NODE_SERVING,
    NODE_CORDONED,
    NODE_EXCLUDED,
    NODE_SCALE_DOWN,
)
"""What a restore takes away; a NODE_LAUNCH that is owed stays."""

# On Auto Scaling groups and instances: tags. Their values may not hold commas or braces.

GROUP_MAXIMUM = "eks-rolling/original-max-size"
"""The maximum size before the roll, and what the roll raised it to: see RaisedMaximum."""

GROUP_RESUME = "eks-rolling/resume"
"""The processes that the roll suspended, separated by spaces; "-" for none."""

GROUP_PUT_BACK = "eks-rolling/version-put-back"
"""Which version a failed roll put back, and in which one's stead: see VersionPutBack. It stays after the roll, so that
a roll back to that version is never rolled back itself, however it was started."""

INSTANCE_REPLACES = "eks-rolling/replaces"
"""On a replacement: the instance it was launched for, or SURPLUS."""

SURPLUS = "surplus"
"""For an instance that was launched in a zone where none was requested; a node there may take it. It is closed to pods
until then, so that it can be given back."""

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


LAUNCH = re.compile(
    r"(?:(?P<token>[0-9a-f]{20}-[0-9a-f]{20}-[0-9]{1,6})"
    r"|desired:(?P<desired>[0-9]{1,6})(?P<raised>:raised(?:-(?P<again>[1-9]))?)?)"
    r"@(?P<at>[0-9]{1,10})"
)

PUT_BACK = re.compile(r"(?P<failed>\S+) to (?P<former>\S+) by (?P<roll>\S{1,80})")
"""No execution's name has a space (API reference of StartExecution)."""

LONGEST_TAG = 256
"""Characters of a tag's value."""

MOST_TAGS = 50
"""Tags that a group or an instance may have, AWS's own not counted (Auto Scaling and EC2 user guides, tag
restrictions)."""

RAISED = re.compile(r"(?P<original>[0-9]{1,6})(?: to (?P<raised>[0-9]{1,6}))?")

TARGET_GROUP = re.compile(
    r"arn:[a-z-]+:elasticloadbalancing:[a-z0-9-]+:[0-9]+:targetgroup/[A-Za-z0-9-]{1,32}/[0-9a-z]+"
)

CLASSIC = re.compile(r"[A-Za-z0-9-]{1,32}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def token_of(roll: str, instance: str, attempt: int) -> str:
    """A client token: 64 characters at most, of letters, digits, - _ / (API reference of LaunchInstances)."""
    return f"{_digest(roll)}-{_digest(instance)}-{attempt}"


@dataclass(frozen=True, slots=True)
class LaunchMark:
    """One request for a replacement: by client `token`, or by raising the desired capacity of a group whose own size,
    without the replacements beside their old instances, is `desired`.

    `raised`: that was done, so one instance of the group is the roll's; `again`: how often it had to be done anew, as
    somebody had set the capacity back.
    """

    asked_at: float
    token: str = ""
    desired: int | None = None
    raised: bool = False
    again: int = 0

    def __str__(self) -> str:
        raised = f":raised{f'-{self.again}' if self.again else ''}" if self.raised else ""
        what = self.token if self.desired is None else f"desired:{self.desired}{raised}"
        return f"{what}@{self.asked_at:.0f}"

    @classmethod
    def on(cls, node: Node) -> "LaunchMark | None":
        """The request that is on record on the node, if any. What no roll writes is no record: see `malformed`."""
        read = LAUNCH.fullmatch(node.annotations.get(NODE_LAUNCH, ""))
        if read is None:
            return None
        desired = None if read["desired"] is None else int(read["desired"])
        return cls(
            float(read["at"]), read["token"] or "", desired, raised=bool(read["raised"]), again=int(read["again"] or 0)
        )

    def belongs_to(self, instance: str) -> bool:
        """Whether a roll, whichever, asks so for that instance; a request to raise a capacity bears no name."""
        return not self.token or self.token.split("-")[1] == _digest(instance)

    def asked_by(self, roll: str) -> bool:
        """Whether that roll made the request; one to raise a capacity bears no name."""
        return not self.token or self.token.split("-")[0] == _digest(roll)

    def may_be_answered_by(self, state: InstanceState) -> bool:
        """Whether the instance came after the request and is no other node's."""
        return INSTANCE_REPLACES not in state.tags and self.precedes(state)

    def is_answered_by(self, state: InstanceState, instance: str) -> bool:
        """Whether it came after the request as the replacement of that `instance`: an earlier roll's may be in use."""
        return state.tags.get(INSTANCE_REPLACES) == instance and self.precedes(state)

    def precedes(self, state: InstanceState) -> bool:
        """Whether the instance came after the request. EC2's launch times are whole seconds."""
        return state.launched >= self.asked_at - 1


def registered_as(node: Node | None, instance: str) -> list[str]:
    """What target groups may know the node by: its instance, and addresses of pods that served on it."""
    addresses = node.annotations.get(NODE_SERVING, "") if node else ""
    return [instance, *(a for a in addresses.split(",") if a)]


@dataclass(frozen=True, slots=True)
class RaisedMaximum:
    """A group's maximum size before the roll, and what the roll set; None where the record does not say."""

    original: int
    raised: int | None = None

    def __str__(self) -> str:
        return f"{self.original}" if self.raised is None else f"{self.original} to {self.raised}"

    @classmethod
    def on(cls, group: Group) -> "RaisedMaximum | None":
        """The group's record, None if there is none. Raises BadRequest for one that no roll wrote."""
        if GROUP_MAXIMUM not in group.tags:
            return None
        read = RAISED.fullmatch(group.tags[GROUP_MAXIMUM])
        if read is None:
            raise BadRequest(
                f"The tag {GROUP_MAXIMUM} of group {group.name} is {group.tags[GROUP_MAXIMUM]!r}, which no roll wrote: "
                "set the maximum size by hand and remove the tag."
            )
        return cls(int(read["original"]), None if read["raised"] is None else int(read["raised"]))

    def changed_by_others(self, maximum: int) -> bool:
        """Whether somebody else has set the maximum since."""
        return self.raised is not None and maximum not in {self.original, self.raised}


@dataclass(frozen=True, slots=True)
class VersionPutBack:
    """What a group was to launch (`failed`) and what it launches again (`former`), as "lt-id:number" or "lc:NAME"."""

    failed: str
    former: str
    roll: str

    def __str__(self) -> str:
        return f"{self.failed} to {self.former} by {self.roll}"

    @property
    def is_legible(self) -> bool:
        """Whether a tag takes the record, and it can be read again: names of launch configurations may be long, and may
        have spaces."""
        return len(str(self)) <= LONGEST_TAG and PUT_BACK.fullmatch(str(self)) is not None

    @classmethod
    def on(cls, group: Group) -> "VersionPutBack | None":
        """The group's record, None if there is none; what no roll wrote is none."""
        read = PUT_BACK.fullmatch(group.tags.get(GROUP_PUT_BACK, ""))
        return None if read is None else cls(read["failed"], read["former"], read["roll"])


def moment(said: str) -> float | None:
    """A time as a roll writes it, in epoch seconds; None for what no roll writes: a date's year has four digits."""
    return float(said) if re.fullmatch("[0-9]{1,10}", said) else None


def replicas_on(workload: Workload) -> int:
    """How many replicas cluster-autoscaler had before the roll. Raises BadRequest where that is no count."""
    said = workload.annotations[AUTOSCALER_REPLICAS]
    if not re.fullmatch("[0-9]{1,4}", said):
        raise BadRequest(
            f"The annotation {AUTOSCALER_REPLICAS} of {workload.owner} is {said!r}, which no roll wrote: scale it by "
            "hand and remove the annotation."
        )
    return int(said)


def registrations_text(targets: Iterable[TargetRegistration]) -> str:
    """What is written on a node that leaves these."""
    return json.dumps([[t.group, t.port, t.classic] for t in targets])


def unfit(node: Node) -> bool:
    """Whether a roll closed the node because nothing must run on it, and it is closed still."""
    return node.unschedulable and NODE_UNFIT in node.annotations


def registrations_on(node: Node) -> tuple[TargetRegistration, ...]:
    """Where the node was registered before it left its load balancers. Raises BadRequest for what no roll wrote."""
    said = node.annotations.get(NODE_TARGETS, "[]")
    try:
        read = json.loads(said)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, list) or len(read) > 1000 or not all(_is_registration(item) for item in read):
        raise BadRequest(
            f"The annotation {NODE_TARGETS} of node {node.name} is not what a roll writes: it was ignored; look "
            "whether the node is in its target groups."
        )
    return tuple(
        TargetRegistration(group, node.instance, port, "unused", classic=classic) for group, port, classic in read
    )


def _is_registration(item: Any) -> bool:
    """[target group's ARN, port, false] or [classic load balancer's name, null, true]."""
    if not isinstance(item, list) or len(item) != 3:
        return False
    group, port, classic = item
    a_port = port is None or (isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536)
    named = isinstance(group, str) and isinstance(classic, bool)
    return named and a_port and bool((CLASSIC if classic else TARGET_GROUP).fullmatch(group))


def with_roll_taint(node: Node, taint: Taint | None) -> tuple[Taint, ...]:
    """The node's taints with ours set to `taint` (None: taken away), every other one untouched and in its place."""
    others = tuple(t for t in node.taints if t.key != ROLL_TAINT_KEY)
    return others if taint is None else (*others, taint)


def keep_from_scale_down(node: Node, mode: AutoscalerMode) -> dict[str, str | None]:
    """Annotations that keep a running cluster-autoscaler from removing the node; what others set is left alone."""
    if mode is not AutoscalerMode.ANNOTATE or SCALE_DOWN_DISABLED in node.annotations:
        return {}
    return {SCALE_DOWN_DISABLED: "true", NODE_SCALE_DOWN: "true"}


def spares(group: Group, states: Mapping[str, InstanceState]) -> dict[str, str]:
    """Instances by which the group is larger than its own size, each with the one in whose place it was launched.

    That is a replacement whose old instance is still there. Where the old one is gone and left several, the newest has
    its place, and the others are spare: rolls that ended early launched them, for versions that are outdated since.
    `states` as EC2 has them.
    """
    placed = {i.id: states[i.id].tags.get(INSTANCE_REPLACES, "") for i in group.instances if i.id in states}
    alive = {i.id for i in group.instances if i.alive}
    found = {new: old for new, old in placed.items() if old in alive and old != new}
    heirs: defaultdict[str, list[str]] = defaultdict(list)
    for new, old in placed.items():
        if new in alive and old not in {"", SURPLUS, *alive}:
            heirs[old].append(new)
    for several in heirs.values():
        *earlier, newest = sorted(several, key=lambda i: (states[i].launched, i))
        found |= dict.fromkeys(earlier, newest)
    return found


def strays(group: Group, states: Mapping[str, InstanceState]) -> dict[str, str]:
    """Instances that came in a zone where none was requested, and that no node has taken: each with the oldest instance
    of its zone, whose replacement it can be; "" where the zone has no other."""
    placed = {i.id: states[i.id].tags.get(INSTANCE_REPLACES, "") for i in group.instances if i.alive and i.id in states}
    spare = spares(group, states)
    taken, found = set(spare.values()), dict[str, str]()
    own = sorted((i for i in placed if placed[i] != SURPLUS and i not in spare), key=lambda i: (states[i].launched, i))
    for stray in sorted(i for i in placed if placed[i] == SURPLUS):
        found[stray] = next((i for i in own if states[i].zone == states[stray].zone and i not in taken), "")
        taken.add(found[stray])
    return found


def place_of(instance: str, spare: Mapping[str, str]) -> str:
    """The instance of the group's own size in whose place this one is, by way of others that were replaced in vain;
    itself if it is no spare."""
    passed = {instance}
    while (before := spare.get(instance, "")) and before not in passed:
        passed.add(before)
        instance = before
    return instance


def target_of(instance: GroupInstance, targets: dict[str, str]) -> str:
    """What the group would launch in the instance's stead, as "lt-id:number"; `targets` as `payloads.Targets` has them.

    Which types an override by attributes stands for only EC2 knows: an instance of one has its launch template.
    """
    if instance.type in targets:
        return targets[instance.type]
    template = instance.template.partition(":")[0]
    by_attributes = (t for kind, t in targets.items() if kind.startswith(BY_ATTRIBUTES))
    own = targets.get("", "")
    return next((t for t in (own, *by_attributes) if t.partition(":")[0] == template), own)


def outdated(instance: GroupInstance, targets: dict[str, str]) -> bool:
    """Whether the group would launch something else now."""
    return instance.template != target_of(instance, targets)
