"""Marks of a node are believed where the lock proves them [T1]."""

from dataclasses import replace

import pytest

from eks_rolling.errors import LockLost
from eks_rolling.observed.kubernetes import Lease, Node
from eks_rolling.observed.marks import NODE_LAUNCH, NODE_TARGETS
from eks_rolling.payloads import NodeOutcomeTask
from eks_rolling.roll import lock, proofs
from eks_rolling.steps import record_node
from tests.model.situations import settings
from tests.world import World

NAME = lock.lock_name("kube-system")
NODE = Node("node-1", instance="i-1")


class TestProofs:
    def setup_method(self) -> None:
        self.world = World()
        self.clients = self.world.clients(settings())
        self.world.put_lease(Lease(NAME, "roll-1", self.world.time, 180.0))

    @property
    def lease(self) -> Lease:
        return self.world.leases[NAME]

    def bearing(self, text: str, mark: str = NODE_TARGETS) -> Node:
        return replace(NODE, annotations={mark: text})

    def test_what_a_roll_writes_is_proven_and_nothing_else(self) -> None:
        proofs.prove(self.clients, "roll-1", NODE, NODE_TARGETS, "[]")
        assert proofs.proven(self.lease, self.bearing("[]"), NODE_TARGETS)
        assert not proofs.proven(self.lease, self.bearing("[1]"), NODE_TARGETS)
        assert not proofs.proven(self.lease, self.bearing("[]", NODE_LAUNCH), NODE_LAUNCH)
        assert not proofs.proven(self.lease, replace(self.bearing("[]"), instance="i-2"), NODE_TARGETS)
        assert not proofs.proven(None, self.bearing("[]"), NODE_TARGETS)
        assert proofs.proven(None, NODE, NODE_TARGETS)
        assert proofs.as_proven(self.lease, self.bearing("[1]"), NODE_TARGETS) == NODE

    def believed(self, *texts: str) -> list[str]:
        return [t for t in texts if proofs.proven(self.lease, self.bearing(t, NODE_LAUNCH), NODE_LAUNCH)]

    def test_of_what_a_node_does_not_bear_the_last_texts_are_proven(self) -> None:
        texts = ("first", "second", "third", "fourth")
        for text in texts:
            proofs.prove(self.clients, "roll-1", NODE, NODE_LAUNCH, text)
        assert self.believed(*texts) == ["second", "third", "fourth"]

    def test_a_step_that_dies_between_its_two_writes_again_and_again_leaves_what_the_node_bears_proven(self) -> None:
        """R3: else the node's request counts as none, and is made once more."""
        proofs.prove(self.clients, "roll-1", NODE, NODE_LAUNCH, "borne")
        texts = ("second", "third", "fourth", "fifth")
        for text in texts:
            proofs.prove(self.clients, "roll-1", self.bearing("borne", NODE_LAUNCH), NODE_LAUNCH, text)
        assert self.believed("borne", *texts) == ["borne", "fourth", "fifth"]

    def test_what_a_kubelet_wrote_is_not_proven_by_what_a_roll_writes_over_it(self) -> None:
        """T1."""
        forged = self.bearing("forged", NODE_LAUNCH)
        proofs.prove(self.clients, "roll-1", forged, NODE_LAUNCH, "first")
        proofs.prove(self.clients, "roll-1", forged, NODE_LAUNCH, "second")
        assert self.believed("forged", "first", "second") == ["first", "second"]

    def recorded(self, instance: str, failure: dict[str, str] | None = None) -> None:
        task = NodeOutcomeTask(
            roll="roll-1", instance=instance, node="n", group="g", execution=f"execution:node:{instance}-roll-1",
            failure=failure,
        )  # fmt: skip
        record_node.run(task, self.clients)

    def test_a_thousand_nodes_are_replaced_one_after_the_other(self) -> None:
        """The API server takes 256 KiB of annotations; those of nodes that are gone stand in nobody's way."""
        for number in range(1000):
            instance = f"i-{number:017x}"
            for mark in (NODE_LAUNCH, NODE_TARGETS):
                for text in ("first", "second", "third"):
                    proofs.prove(self.clients, "roll-1", replace(NODE, instance=instance), mark, text)
            self.recorded(instance)
        assert self.lease.annotations == {}

    def test_what_was_not_replaced_stays_proven_for_the_restore(self) -> None:
        """R2."""
        proofs.prove(self.clients, "roll-1", NODE, NODE_TARGETS, "[]")
        self.recorded("i-1", {"Error": "Refused", "Cause": "No."})
        self.recorded("i-11")
        assert proofs.proven(self.lease, self.bearing("[]"), NODE_TARGETS)

    def test_a_lock_that_another_roll_has_taken_over_is_left_as_it_is(self) -> None:
        proofs.prove(self.clients, "roll-1", NODE, NODE_TARGETS, "[]")
        self.world.time += 1000
        lock.acquire(self.clients, "roll-2", NAME)
        before = self.lease
        self.recorded("i-1")
        assert self.lease == before

    def test_proofs_are_dropped_although_others_write_the_lock_at_the_same_moment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proofs.prove(self.clients, "roll-1", NODE, NODE_TARGETS, "[]")
        put, refused = self.world.put_lease, list[str]()

        def meanwhile(lease: Lease) -> Lease:
            if not refused:
                refused.append(lease.name)
                put(replace(self.lease, annotations={**self.lease.annotations, lock.PAUSE: "lunch"}))
            return put(lease)

        monkeypatch.setattr(self.world, "put_lease", meanwhile)
        self.recorded("i-1")
        assert (refused, self.lease.annotations) == ([NAME], {lock.PAUSE: "lunch"})

    def test_a_roll_that_lost_its_lock_proves_nothing(self) -> None:
        with pytest.raises(LockLost):
            proofs.prove(self.clients, "roll-0", NODE, NODE_TARGETS, "[]")
        lock.end(self.clients, "roll-1", "watchdog-1")
        with pytest.raises(LockLost):
            proofs.prove(self.clients, "watchdog-1", NODE, NODE_TARGETS, "[]")

    def test_proofs_outlast_a_take_over_and_go_with_the_marks(self) -> None:
        """R1: the next roll's restore puts back what the dead one left."""
        proofs.prove(self.clients, "roll-1", NODE, NODE_TARGETS, "[]")
        self.world.time += 1000
        assert isinstance(lock.acquire(self.clients, "roll-2", NAME), lock.Take)
        assert (self.lease.holder, proofs.proven(self.lease, self.bearing("[]"), NODE_TARGETS)) == ("roll-2", True)
        assert proofs.proofs_still_needed(self.lease, [self.bearing("[]")]) == self.lease.annotations
        assert proofs.proofs_still_needed(self.lease, None) == self.lease.annotations
        assert proofs.proofs_still_needed(self.lease, [NODE]) == {}
