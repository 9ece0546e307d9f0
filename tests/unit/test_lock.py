"""Who holds the cluster [R4]."""

from dataclasses import replace

import pytest

from eks_rolling.errors import LockLost
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.roll import lock
from eks_rolling.settings import Settings
from tests.world import World

NAME = "kube-system/eks-rolling"
HELD = Lease(NAME, "roll-1", renewed=1000.0, duration=180.0, resource_version="1")


def decide(lease: Lease | None, now: float, roll: str = "roll-2") -> lock.Take | lock.Held | lock.Busy:
    return lock.decide(lease, roll, now, NAME, 180.0)


@pytest.mark.parametrize("lease", [None, replace(HELD, holder="")])
def test_a_free_lock_is_taken(lease: Lease | None) -> None:
    decision = decide(lease, 1100)
    assert isinstance(decision, lock.Take)
    assert decision.lease.holder == "roll-2"


def test_a_living_holder_keeps_it_and_is_named_with_the_time_left() -> None:
    assert decide(HELD, 1100) == lock.Busy("roll-1", 80.0)


def test_a_silent_holder_loses_it_and_what_was_asked_of_it_goes() -> None:
    decision = decide(replace(HELD, annotations={lock.PAUSE: "x"}), 1181)
    assert isinstance(decision, lock.Take)
    assert (decision.lease.holder, decision.lease.annotations) == ("roll-2", {})
    assert decision.lease.resource_version == "1"


def test_ones_own_lock_is_renewed_only_when_a_quarter_of_it_has_passed() -> None:
    assert isinstance(decide(HELD, 1044, "roll-1"), lock.Held)
    renewed = decide(HELD, 1046, "roll-1")
    assert isinstance(renewed, lock.Take)
    assert renewed.lease.renewed == 1046


class TestInTheCluster:
    def setup_method(self) -> None:
        self.world = World()
        self.clients = self.world.clients(Settings(cluster="demo"))

    def test_a_step_of_another_roll_is_turned_away(self) -> None:
        lock.acquire(self.clients, "roll-1", NAME)
        with pytest.raises(LockLost, match="held by roll-1, not by roll-2"):
            lock.confirm(self.clients, "roll-2")

    def test_a_step_that_comes_after_the_restore_began_is_turned_away(self) -> None:
        lock.acquire(self.clients, "roll-1", NAME)
        assert isinstance(lock.end(self.clients, "roll-1"), Lease)
        with pytest.raises(LockLost, match="is being restored"):
            lock.confirm(self.clients, "roll-1")

    def test_a_restore_leaves_the_cluster_to_another_living_roll(self) -> None:
        lock.acquire(self.clients, "roll-2", NAME)
        assert lock.end(self.clients, "roll-1", "restore-1") == lock.Busy("roll-2", 180.0)

    def test_a_restore_takes_the_lock_of_the_roll_that_it_is_for(self) -> None:
        lock.acquire(self.clients, "roll-1", NAME)
        ended = lock.end(self.clients, "roll-1", "restore-1")
        assert isinstance(ended, Lease)
        assert (ended.holder, lock.ENDED in ended.annotations) == ("restore-1", True)
        with pytest.raises(LockLost, match="held by restore-1, not by roll-1"):
            lock.confirm(self.clients, "roll-1")
        assert lock.end(self.clients, "roll-1", "restore-1") == ended

    def test_a_second_restore_for_the_same_roll_finds_the_first_at_work(self) -> None:
        """EventBridge may deliver twice; two at once would undo what the next roll does."""
        lock.acquire(self.clients, "roll-1", NAME)
        lock.end(self.clients, "roll-1", "restore-1")
        assert lock.end(self.clients, "roll-1", "restore-2") == lock.Busy("restore-1", 180.0)

    def test_a_restore_for_a_roll_that_put_everything_back_itself_has_nothing_to_do(self) -> None:
        lock.acquire(self.clients, "roll-1", NAME)
        lock.release(self.clients, "roll-1", NAME)
        assert lock.end(self.clients, "roll-1", "restore-1") is None

    def test_a_restore_by_hand_takes_a_lock_that_is_free_or_has_run_out(self) -> None:
        assert isinstance(lock.end(self.clients, "by-hand", "by-hand"), Lease)
        lock.release(self.clients, "by-hand", NAME)
        assert isinstance(lock.end(self.clients, "by-hand", "by-hand"), Lease)
        self.world.time += 181
        assert isinstance(lock.end(self.clients, "again", "again"), Lease)

    def test_that_taints_are_to_stay_is_remembered_for_the_restore(self) -> None:
        lock.acquire(self.clients, "roll-1", NAME)
        lock.note_request(self.clients, "roll-1", keep_taints=True, accept=())
        ended = lock.end(self.clients, "roll-1", "restore-1")
        assert isinstance(ended, Lease)
        assert lock.KEEP_TAINTS in ended.annotations

    def test_release_is_for_the_holder_only(self) -> None:
        lock.acquire(self.clients, "roll-2", NAME)
        lock.release(self.clients, "roll-1", NAME)
        assert self.world.leases[NAME].holder == "roll-2"
        lock.release(self.clients, "roll-2", NAME)
        assert self.world.leases[NAME].holder == ""
