"""Which pods were asked to leave a node, by controller: pods that come back under other UIDs are no progress.

The record is on the node: "KIND NAMESPACE/NAME=FIRST:UID,UID" for each controller, where FIRST is how many of its pods
were there when the first was asked, and a UID is the beginning of a digest. A kubelet may write it too; that can only
hold the emptying of its own node. Pods are counted by namespace as well: a tenant may bind pods to a node by its name,
without a controller or each with another one.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eks_rolling.observed.kubernetes import Owner, Pod

MOST_RETURNS = 3
"""More pods than were there at first that are asked to leave; then the rest is left alone, and said."""

MOST_OF_A_NAMESPACE = 20
"""The same of all pods of a namespace."""

NOBODYS = "nobody"
"""Stands for the controller of pods that have none."""

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

    def knows(self, pod: Pod) -> bool:
        return _short(pod) in self.uids


def owner_of(pod: Pod) -> Owner:
    """By whom the pod is counted: its controller, or all pods of its namespace that have none."""
    return pod.owner or Owner("Pod", pod.namespace, NOBODYS)


def _namespace_of(pod: Pod) -> Owner:
    return Owner("Namespace", pod.namespace, pod.namespace)


def came_back(known: Mapping[Owner, Asked], pod: Pod) -> str:
    """Whose pods came back too often for this one to be asked as well, and how many; "" if it may be."""
    named = f"pods of {pod.owner}" if pod.owner else f"pods without a controller in namespace {pod.namespace}"
    for key, most, whose in (
        (owner_of(pod), MOST_RETURNS, named),
        (_namespace_of(pod), MOST_OF_A_NAMESPACE, f"pods of namespace {pod.namespace}"),
    ):
        asked = known.get(key)
        if asked is not None and asked.returned >= most and not asked.knows(pod):
            return f"{whose} come back to the node, {asked.returned} so far"
    return ""


def _short(pod: Pod) -> str:
    return hashlib.sha256(pod.uid.encode()).hexdigest()[:8]


def read(text: str) -> dict[Owner, Asked]:
    """What is on record; what makes no sense is passed over."""
    found = {}
    for part in text.split(SEPARATOR):
        match = ENTRY.fullmatch(part)
        if match and (owner := Owner.parse(match["owner"])):
            uids = frozenset(match["uids"].split(",")) - {""}
            found[owner] = Asked(int(match["first"]), uids, bool(match["restarted"]))
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
        for key_of in (owner_of, _namespace_of):
            before = asked.get(key_of(pod)) or Asked()
            first = before.first if before.uids else sum(key_of(p) == key_of(pod) for p in here)
            asked[key_of(pod)] = Asked(first, before.uids | {_short(pod)}, before.restarted)
    return asked


def with_restart(known: Mapping[Owner, Asked], owner: Owner) -> dict[Owner, Asked]:
    """The record once the Deployment was restarted for the node."""
    before = known.get(owner) or Asked()
    return dict(known) | {owner: Asked(before.first, before.uids, restarted=True)}
