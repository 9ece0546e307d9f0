"""Which pods were asked to leave a node, by controller: pods that come back under other UIDs are no progress.

The record is on the node: "KIND NAMESPACE/NAME=FIRST:UID,UID" for each controller, where FIRST is how many of its pods
were there when the first was asked, and a UID is the beginning of a digest. A kubelet may write it too; that can only
hold the emptying of its own node.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eks_rolling.observed.kubernetes import Owner, Pod

MOST_RETURNS = 3
"""More pods than were there at first that are asked to leave; then the rest is left alone, and said."""

ENTRY = re.compile(r"(?P<owner>\S+ \S+/\S+)=(?P<first>[0-9]{1,4})(?P<restarted>R?):(?P<uids>(?:[0-9a-f]{8},?)*)")

SEPARATOR = " | "


@dataclass(frozen=True, slots=True)
class Asked:
    """Pods of one controller. `first`: how many there were; `uids` of all that were asked; `restarted`: for this
    node."""

    first: int = 0
    uids: frozenset[str] = frozenset()
    restarted: bool = False

    @property
    def returned(self) -> int:
        """How many came after the first ones, and were asked too."""
        return max(0, len(self.uids) - self.first)

    @property
    def exhausted(self) -> bool:
        return self.returned >= MOST_RETURNS

    def knows(self, pod: Pod) -> bool:
        return _short(pod) in self.uids


def _short(pod: Pod) -> str:
    return hashlib.sha256(pod.uid.encode()).hexdigest()[:8]


def read(text: str) -> dict[Owner, Asked]:
    """What is on record; what makes no sense is passed over."""
    found = {}
    for part in text.split(SEPARATOR):
        if match := ENTRY.fullmatch(part):
            uids = frozenset(match["uids"].split(",")) - {""}
            found[Owner.parse(match["owner"])] = Asked(int(match["first"]), uids, bool(match["restarted"]))
    return found


def written(asked: Mapping[Owner, Asked]) -> str:
    """The record, as `read` reads it."""
    return SEPARATOR.join(
        f"{owner}={min(each.first, 9999)}{'R' if each.restarted else ''}:{','.join(sorted(each.uids))}"
        for owner, each in sorted(asked.items(), key=lambda item: str(item[0]))
    )


def noted(known: Mapping[Owner, Asked], pods: Iterable[Pod], there: Iterable[Pod]) -> dict[Owner, Asked]:
    """The record once `pods` are asked too; `there` are all that are on the node."""
    asked, here = dict(known), list(there)
    for pod in pods:
        if pod.owner is None:
            continue
        before = asked.get(pod.owner) or Asked()
        first = before.first if before.uids else sum(p.owner == pod.owner for p in here)
        asked[pod.owner] = Asked(first, before.uids | {_short(pod)}, before.restarted)
    return asked


def with_restart(known: Mapping[Owner, Asked], owner: Owner) -> dict[Owner, Asked]:
    """The record once the Deployment was restarted for the node."""
    before = known.get(owner) or Asked()
    return dict(known) | {owner: Asked(before.first, before.uids, restarted=True)}
