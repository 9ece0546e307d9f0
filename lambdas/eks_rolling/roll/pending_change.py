"""Changes that set off rolls: what an event says, and the memory that makes one roll of many and loses none.

**Events.** Every event starts an execution of its own. The memory is a second Lease, `eks-rolling-next`. At most one
execution holds it: the one that will plan next. It waits until changes have been quiet for a while, a window is open
and the running roll, if any, has ended; then it gives the Lease up, and plans *after* that. Any other joins it.

**Counting.** The Lease's annotations count changes: `changes` have arrived, `changes-seen` of them are the holder's
business. An execution that arrives takes the next number in one write, under the Lease's resourceVersion. Whenever
the holder looks, it writes `changes-seen` = `changes`: it will plan, and that after all of these happened. An
execution whose number has been seen by another ends.

**Why no change is lost.** All writes of the Lease are in one order, because each names the version it replaces; one
that was overtaken raises Conflict, and the step looks again. Let an execution arrive with number n, after its change.
  - There is no holder, or a silent one: it becomes the holder in the same write.
  - A holder lives. If the arrival is written before the holder gives the Lease up, that write names the arrival's
    version, so it counts n, and the plan that follows it sees the change. If it would be written after, it conflicts,
    and the next read finds no holder.
  - The holder is dead and its Lease has not expired. No living holder counts n, so the execution stays, and takes the
    Lease over once it has. This is why it may not end as soon as it has joined: ended, it could not come back.
A holder killed after it gave the Lease up and before it said so runs again, finds its own name beside a number that is
its own or higher, and plans. One that was thought dead and comes back finds another's name there: that one plans.

**What remains a person's.** Who stops the execution that waits stops the changes that have joined it as well; the next
change, or a manual start, reads everything again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.aws import Group
from eks_rolling.observed.kubernetes import Lease

NAME = "eks-rolling-next"
CHANGES = "eks-rolling.io/changes"
SEEN = "eks-rolling.io/changes-seen"
SEEN_BY = "eks-rolling.io/changes-seen-by"
FIRST = "eks-rolling.io/first-change"
LAST = "eks-rolling.io/last-change"


NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
"""A count or a time, as it is written there."""


def lease_name(namespace: str) -> str:
    """The Lease's full name."""
    return f"{namespace}/{NAME}"


@dataclass(frozen=True, slots=True)
class PendingChange:
    """The Lease, read. `first` and `last` are when the changes arrived that are not planned yet (epoch seconds)."""

    lease: Lease

    def _number(self, key: str) -> float:
        """0 for what no step writes: people may annotate the Lease."""
        said = self.lease.annotations.get(key, "")
        return float(said) if NUMBER.fullmatch(said) else 0.0

    @property
    def changes(self) -> int:
        return int(self._number(CHANGES))

    @property
    def seen(self) -> int:
        return int(self._number(SEEN))

    @property
    def seen_by(self) -> str:
        return self.lease.annotations.get(SEEN_BY, "")

    @property
    def first(self) -> float:
        return self._number(FIRST)

    @property
    def last(self) -> float:
        return self._number(LAST)

    def arrival(self, now: float) -> "PendingChange":
        """One more change; the first one where none is waiting."""
        first = self.first if self.lease.holder else now
        return self._annotated({CHANGES: str(self.changes + 1), FIRST: f"{first:.3f}", LAST: f"{now:.3f}"})

    def held(self, holder: str, change: int, now: float, duration: float) -> Lease:
        """The Lease in the hands of `holder`, which has seen every change, its own included."""
        return replace(self._all_seen(holder, change).lease, holder=holder, renewed=now, duration=duration)

    def given_up(self, holder: str, change: int) -> Lease:
        """The Lease without a holder; `holder` plans."""
        return replace(self._all_seen(holder, change).lease, holder="")

    def _all_seen(self, holder: str, change: int) -> "PendingChange":
        # A Lease that was deleted counts from one again.
        changes = str(max(self.changes, change))
        return self._annotated({CHANGES: changes, SEEN: changes, SEEN_BY: holder})

    def _annotated(self, annotations: Mapping[str, str]) -> "PendingChange":
        return PendingChange(replace(self.lease, annotations={**self.lease.annotations, **annotations}))


def forget(clients: Clients, roll: str) -> None:
    """Frees the memory of an execution that has ended, so that another execution can take it over. Raises Conflict."""
    lease = clients.kubernetes.lease(lease_name(clients.settings.namespace))
    if lease is not None and lease.holder == roll:
        clients.kubernetes.put_lease(replace(lease, holder=""))


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """What an event says was changed: a launch template, or a group; "" for what it does not say."""

    event: str
    id: str
    template: str = ""
    group: str = ""

    @classmethod
    def read(cls, event: Any) -> "ChangeEvent":
        """Reads EventBridge's event of a CloudTrail record. Whatever is missing or of another shape is left open."""
        event = _mapping(event)
        detail = _mapping(event.get("detail"))
        name = str(detail.get("eventName") or event.get("detail-type") or "a change")
        asked, answered = _mapping(detail.get("requestParameters")), _mapping(detail.get("responseElements"))
        request = _mapping(asked.get(f"{name}Request"))
        response = _mapping(answered.get(f"{name}Response"))
        made = _mapping(response.get("launchTemplateVersion") or response.get("launchTemplate"))
        return cls(
            name,
            str(event.get("id") or "no id"),
            template=str(made.get("launchTemplateId") or request.get("LaunchTemplateId") or ""),
            group=str(asked.get("autoScalingGroupName") or ""),
        )

    def concerns(self, groups: Sequence[Group]) -> bool:
        """Whether these groups may launch something else now. An event that does not say is taken seriously."""
        rollable = [g for g in groups if not g.managed]
        if self.group:
            return any(g.name == self.group for g in rollable)
        if self.template:
            used = {t.id for g in rollable for t in (g.template, *(t for _, t in g.overrides)) if t}
            return self.template in used
        return True

    def __str__(self) -> str:
        return f"{self.event} ({self.id})"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
