"""Proof that a roll wrote what stands on a Node: a digest of it on the cluster's lock.

A kubelet may write any annotation of its own Node, but no Lease in the namespace of the lock (Kubernetes docs, Node
authorization). So what a node's marks ask for in the account, to register or to launch, is believed only where the lock
proves it [T1].
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Conflict, LockLost
from eks_rolling.observed.kubernetes import Lease, Node
from eks_rolling.observed.marks import NODE_LAUNCH, NODE_TARGETS
from eks_rolling.roll import lock

MARKS = (NODE_LAUNCH, NODE_TARGETS)

KEPT = 3
"""Digests of one mark that count: of its text before a change and after, as a step may die between the two writes, and
the last other one, as that may not be the text any more which the step saw."""


def _key(instance: str, mark: str) -> str:
    return f"{lock.PROOF}{instance}.{mark.rpartition('/')[2]}"


def _digest(text: str) -> str:
    # Halves of characters can be written in JSON, and have no bytes.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:40]


def prove(clients: Clients, roll: str, node: Node, mark: str, text: str) -> None:
    """Writes on the roll's lock that the node is about to be given this mark. What it bears stays proven, however often
    that comes to nothing. Raises LockLost, Conflict."""
    name, key = lock.lock_name(clients.settings.namespace), _key(node.instance, mark)
    for attempt in range(lock.TRIES):
        lease = clients.kubernetes.lease(name)
        if lease is None or lease.holder != roll or lock.ENDED in lease.annotations:
            raise LockLost(f"The lock of the cluster is not held by {roll} any more: this roll has ended.")
        digests = lease.annotations.get(key, "").split()
        if _digest(text) in digests:
            return
        # What the node bears goes last.
        digests.sort(key=lambda each: each == _digest(node.annotations.get(mark, "")))
        said = " ".join([*digests, _digest(text)][-KEPT:])
        try:
            clients.kubernetes.put_lease(replace(lease, annotations=dict(lease.annotations) | {key: said}))
        except Conflict:
            if attempt == lock.TRIES - 1:
                raise
        else:
            return


def drop_proofs(clients: Clients, roll: str, instance: str) -> None:
    """Takes the proofs of an instance that is gone, with its node, off the roll's lock: an object's annotations have
    room for those of some 750 nodes. Nothing to do where the roll does not hold the lock. Raises Conflict."""
    name, keys = lock.lock_name(clients.settings.namespace), {_key(instance, mark) for mark in MARKS}
    for attempt in range(lock.TRIES):
        lease = clients.kubernetes.lease(name)
        if lease is None or lease.holder != roll or not keys & lease.annotations.keys():
            return
        kept = {key: value for key, value in lease.annotations.items() if key not in keys}
        try:
            clients.kubernetes.put_lease(replace(lease, annotations=kept))
        except Conflict:
            if attempt == lock.TRIES - 1:
                raise
        else:
            return


def proven(lease: Lease | None, node: Node, mark: str) -> bool:
    """Whether a roll wrote what the node bears as that mark; a node without it needs no proof."""
    if mark not in node.annotations:
        return True
    digests = (lease.annotations if lease else dict[str, str]()).get(_key(node.instance, mark), "").split()
    return _digest(node.annotations[mark]) in digests


def unproven(lease: Lease | None, nodes: Iterable[Node]) -> list[tuple[str, str]]:
    """The marks without proof, each with its node's name."""
    return [(n.name, mark) for n in nodes for mark in MARKS if not proven(lease, n, mark)]


def as_proven(lease: Lease | None, node: Node, mark: str) -> Node:
    """The node, without the mark where nothing proves it."""
    if proven(lease, node, mark):
        return node
    return replace(node, annotations={key: value for key, value in node.annotations.items() if key != mark})


def proofs_still_needed(lease: Lease, nodes: Iterable[Node] | None) -> dict[str, str]:
    """The proofs of nodes that still bear marks of a roll; all of them where the nodes could not be seen."""
    said = {key: value for key, value in lease.annotations.items() if key.startswith(lock.PROOF)}
    if nodes is None:
        return said
    marked = {_key(node.instance, mark) for node in nodes for mark in MARKS if mark in node.annotations}
    return {key: value for key, value in said.items() if key in marked}
