"""The plan's shape: `rolls/<roll>/plan.json`, which the report, the messages and the command read.

Times are epoch seconds, durations are seconds. A reader ignores fields that it does not know, and every field but the
outcome has a default: documents of other versions can be read. `None` means that it is not known.
"""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from eks_rolling.documents.finding import Finding, blockers
from eks_rolling.wording import counted, spoken

VERSION = 2


def kind_of_nodes(reasons: Iterable[str]) -> str:
    """What the nodes of a plan are called, given the `PlannedNode.reason` of each."""
    return "node" if any(reasons) else "outdated node"


class PlanPart(BaseModel):
    """A part of a plan."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Way(StrEnum):
    """How a pod leaves its node."""

    EVICT = "evict"
    RESTART = "restart"
    MIGRATE = "migrate"


class VolumeHeld(PlanPart):
    """A persistent volume that moves with its pod. `zones`: where it can be attached; empty: anywhere."""

    name: str
    zones: tuple[str, ...] = ()


class Move(PlanPart):
    """A pod that leaves a node of the plan."""

    pod: str = Field(description="NAMESPACE/NAME")
    owner: str = Field("", description="KIND NAMESPACE/NAME of its controller; empty: none")
    way: Way = Way.EVICT
    budget: str = Field("", description="the disruption budget that covers it; empty: the roll makes one")
    allowed: int | None = Field(None, description="evictions that this budget allows now")
    volumes: tuple[VolumeHeld, ...] = ()
    redis: str = Field("", description="its Redis group, NAMESPACE/NAME")
    role: str = Field("", description="its role in the group now: master, replica, sentinel")
    stays_pending: str = Field("", description="why it would fit on no node; empty: it fits")


class TemplateChange(PlanPart):
    """A difference between the version that a node runs and the one that its replacement gets: ImageId, ..."""

    what: str
    before: str = ""
    after: str = ""


class PlannedNode(PlanPart):
    """A node of the plan, in the order in which they are replaced."""

    node: str = Field(description="its name; the instance's id where it never joined")
    instance: str = ""
    group: str = ""
    zone: str = ""
    type: str = Field("", description="instance type")
    wave: int = Field(1, description="counted from 1; the first is a single node if settings.canary says so")
    age_seconds: float | None = None
    reason: str = Field("", description="why, although its version is its group's; empty: the version is another")
    place: str = Field(
        "", description="of a spare replacement: the instance that has its place; nothing is launched for this one"
    )
    before: str = Field("", alias="from", description="lt-id:number")
    to: str = Field("", description="lt-id:number")
    changes: tuple[TemplateChange, ...] = ()
    moves: tuple[Move, ...] = ()
    stays: int = Field(0, description="DaemonSet, static and finished pods: they go with the node")
    seconds: float | None = Field(None, description="estimated, from launch to termination")

    @property
    def versions(self) -> str:
        """The versions before and after, "3 → 4"; with the launch templates' ids where those differ."""
        before, after = self.before.partition(":"), self.to.partition(":")
        same = before[0] == after[0]
        return f"{before[2] if same else self.before} → {after[2] if same else self.to}"

    @property
    def spare(self) -> str:
        """That nothing is launched for it, and why; "" where its replacement is."""
        return f"a spare replacement for {self.place}: it goes, and none comes" if self.place else ""

    @property
    def what_moves(self) -> str:
        """What leaves the node, in a line: "5 pods, 1 volume, redis shop/cache (master)"."""
        parts = [counted(len(self.moves), "pod")] if self.moves else []
        volumes = sum(len(m.volumes) for m in self.moves)
        restarted = sum(m.way is Way.RESTART for m in self.moves)
        parts += [counted(volumes, "volume")] if volumes else []
        parts += [f"{restarted} by restart"] if restarted else []
        redis = Counter((m.redis, m.role) for m in self.moves if m.redis)
        parts += [
            f"redis {group} ({role}{f', {n} of them' if n > 1 else ''})" for (group, role), n in sorted(redis.items())
        ]
        return ", ".join(parts) or "nothing"


class ZoneRoom(PlanPart):
    """Replacements that one group needs in one zone."""

    group: str
    zone: str
    nodes: int = Field(description="replacements, one after another")
    at_once: int = Field(description="the most that exist beside what they replace")
    free_addresses: int | None = None


class GroupRoom(PlanPart):
    """Whether a group's maximum size leaves room. `raised_to`: what the roll raises it to meanwhile; None: not."""

    group: str
    desired: int
    maximum: int
    at_once: int
    raised_to: int | None = None


class Quota(PlanPart):
    """An account's limit that replacements count against, in vCPUs. `unknown` says why a number is missing."""

    code: str
    name: str
    limit: float | None = None
    used: float | None = None
    needed: float | None = None
    unknown: str = ""


class FormerVersion(PlanPart):
    """What a group goes back to if the roll fails: from `failed` to `former`, each "lt-id:number" or "lc:NAME"; `way`
    says how it is put back, as a phrase."""

    group: str
    former: str
    failed: str = ""
    way: str = ""

    @property
    def sentence(self) -> str:
        """What happens if the roll fails."""
        number = self.former.partition(":")[2]
        return f"{self.group} goes back to {number} ({self.way} is changed back), and its new nodes are replaced again"


class Estimate(PlanPart):
    """How long it takes if nothing holds, and what it costs. `transitions` are Step Functions' state transitions."""

    seconds: float = 0.0
    waves: int = 0
    transitions: int = 0
    assumptions: tuple[str, ...] = ()


class PlanDocument(PlanPart):
    """The whole plan. `redis` has each group as described by `eks_rolling.plan.checks.redis_sentinel.describe`."""

    version: int = VERSION
    roll: str = ""
    cluster: str = ""
    made: float | None = None
    outcome: str = Field(description="roll, nothing, blocked, dry-run")
    reason: str = ""
    request: dict[str, Any] = {}
    surge: int = 1
    nodes: tuple[PlannedNode, ...] = ()
    zones: tuple[ZoneRoom, ...] = ()
    groups: tuple[GroupRoom, ...] = ()
    quotas: tuple[Quota, ...] = ()
    former: tuple[FormerVersion, ...] = ()
    estimate: Estimate = Estimate()
    redis: tuple[dict[str, Any], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def headline(self) -> str:
        """What the plan comes to, in a sentence without its full stop. Blockers are listed by themselves."""
        if self.outcome != "blocked":
            return self.reason
        nodes, found = (
            counted(len(self.nodes), kind_of_nodes(n.reason for n in self.nodes)),
            counted(blockers(self.findings), "finding"),
        )
        return f"{nodes}; blocked by {found}"

    @property
    def in_short(self) -> str:
        """How long and in how many steps: "About 26 min in 3 waves, 2 at once, ..."; "" without an estimate."""
        if not self.estimate.seconds:
            return ""
        waves = counted(self.estimate.waves, "wave")
        return f"About {spoken(self.estimate.seconds)} in {waves}, {self.surge} at once, if nothing holds it."
