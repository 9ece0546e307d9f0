"""Steps that run on after their roll was stopped [R6]: no effect of theirs comes after the restore has looked."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache as cache_of_tests
from typing import Any, get_type_hints

import pytest

from eks_rolling.clients import protocols
from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Conflict, LockLost
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.roll import fence, lock
from eks_rolling.roll.fence import AWS_EFFECTS, HTTP_EFFECTS, KUBERNETES_EFFECTS, REDIS_EFFECTS, fenced
from eks_rolling.runtime import run_step
from tests import scope
from tests.hostile.worlds import Call, Frozen, clients_of, engine_for
from tests.model.situations import AUTOSCALER, cache, cluster_is_normal, redis_is_normal, settings, shards, shop
from tests.scope import at_kill_points
from tests.world import World

EFFECTS = KUBERNETES_EFFECTS | AWS_EFFECTS
LOCK = "kube-system/eks-rolling"

LOOKS = {
    "Kubernetes": {
        "attachments", "budgets", "cron_jobs", "csi_drivers", "group_may", "judges_of_evictions", "lease", "may",
        "network_policies", "node", "nodes", "pods", "pods_of", "pods_on", "secret", "server_version", "services",
        "stand_ins", "stateful_sets", "volume_limits", "volumes", "workload", "workloads",
        # The lock itself, and Leases beside it.
        "put_lease",
    },
    "Aws": {
        "alarms_firing", "alarms_missing", "free_addresses", "groups", "history", "images_gone", "images_now",
        "instance_types", "instances", "lifecycle_hooks", "targets_of", "template_data", "template_tags",
        "template_versions", "vcpu_quota",
        # A roll's own documents and messages; and calls that are made so that nothing changes.
        "load", "notify", "rehearse_restore", "save",
    },
    "Redis": {"cluster_node", "current_master", "offset", "sentinel", "server", "stranger"},
    "Http": {"get"},
}  # fmt: skip
"""Every method of a client that changes nothing which a restore would have to know of."""


def whole(world: World, before: dict[str, Any]) -> dict[str, Any]:
    """What is not as before, where it must be so whatever came of replacements [R2]."""
    after = world.snapshot()
    parts = ("workloads", "budgets", "lock", "taints", "cordons", "labels", "marks", "protected")
    found = {part: after[part] for part in parts if after[part] != before[part]}
    if suspended := {g.name: g.suspended for g in world.groups_by_name.values() if g.suspended}:
        found["suspended"] = suspended
    return found


def is_effect(call: Call) -> bool:
    return call[0] in EFFECTS


def is_look(call: Call) -> bool:
    return call[0] not in EFFECTS


@cache_of_tests
def late(counts: Callable[[Call], bool], strides: tuple[tuple[float, int], ...]) -> list[tuple[float, int]]:
    """Seconds to stand still for, and before which of a roll's counted calls: for so many seconds every `stride`th."""
    untouched = Frozen(shop((2, 1)), NEVER, 0, counts)
    assert untouched.run() is None
    calls = NEVER - untouched.calls_to_come
    assert calls > 10
    return [(seconds, at) for seconds, stride in strides for at in range(1, calls + 1, stride)]


NEVER = 1_000_000
"""No roll makes so many calls."""


def left_by_a_late(seconds: float, at: int, counts: Callable[[Call], bool]) -> dict[str, Any]:
    """What is wrong in the end, if a roll stands still before the call."""
    world = shop((2, 1))
    before = world.snapshot()
    frozen = Frozen(world, at, seconds, counts)
    restore = frozen.run()
    print("frozen for", seconds, "s before", frozen.call)
    assert restore is not None
    assert (restore.status, restore.cause) == ("SUCCEEDED", "")
    return whole(world, before)


def late_effects() -> list[tuple[float, int]]:
    """Let go at once, before the restore is through, and when the function's time is up."""
    return late(is_effect, ((0, 5), (20, 1), (90, 3)))


@at_kill_points(lambda: range(len(late_effects())))
def test_an_effect_that_comes_late_is_seen_by_the_restore_or_does_not_come(point: int) -> None:
    """R6, R1, R2, N2 (the world checks): frozen right before each effect, behind its look at the lock."""
    assert left_by_a_late(*late_effects()[point], is_effect) == {}


def late_looks() -> list[tuple[float, int]]:
    return late(is_look, ((2, 29), (90, 29)))


@at_kill_points(lambda: range(len(late_looks())))
def test_a_step_that_stands_still_at_a_look_does_no_harm_afterwards(point: int) -> None:
    """R6: its next look at the lock turns it away."""
    assert left_by_a_late(*late_looks()[point], is_look) == {}


REDIS: dict[str, tuple[Callable[[], World], Callable[[World], bool]]] = {
    "sentinel": (cache, redis_is_normal),
    "cluster": (shards, cluster_is_normal),
}
"""A group of each kind, and whether it is normal again."""

AFTER_A_SWITCH_SECONDS = 240
"""Twice as long as sentinels need to find a master down, to elect nobody, and to try once more."""

FEW = {scope.QUICK: 1, scope.TEST: 2}
"""Points of a run that is not all of it."""


@cache_of_tests
def redis_effects_of_a_roll(kind: str) -> tuple[str, ...]:
    """The Redis commands by which a roll changes something, from the first to the last."""
    calls: list[str] = []
    world = REDIS[kind][0]()

    def note(call: Call) -> None:
        if call[0] in REDIS_EFFECTS:
            calls.append(call[0])

    assert engine_for(world, note).run("roll", "roll-1", {}).status == "SUCCEEDED"
    return tuple(calls)


@pytest.mark.drawn
@pytest.mark.parametrize("seconds", [0, 2, 20, 90], ids=["at once", "2 s", "20 s", "too late"])
@pytest.mark.parametrize("kind", REDIS)
def test_a_redis_command_that_comes_late_loses_no_write_and_the_restore_waits_for_it(
    kind: str, seconds: float, request: pytest.FixtureRequest
) -> None:
    """S1, S2, C1, C2, R6: frozen right before the command, in the middle of a switch; R1, R2 for all else."""
    make, is_normal = REDIS[kind]
    points = list(range(1, 1 + len(redis_effects_of_a_roll(kind))))
    if few := FEW.get(request.config.option.scope):
        points = sorted(scope.dice(request.config, f"late {kind} {seconds}").sample(points, few))
    for at in points:
        world = make()
        before = world.snapshot()
        frozen = Frozen(world, at, seconds, lambda call: call[0] in REDIS_EFFECTS)
        restore = frozen.run(AFTER_A_SWITCH_SECONDS)
        print("frozen before", at, frozen.call)
        assert restore is not None
        assert (restore.status, restore.cause) == ("SUCCEEDED", "")
        assert whole(world, before) == {}
        assert is_normal(world)
        assert world.redis.lost() == set()
        assert world.redis.cluster.lost() == set()


def test_every_redis_command_that_changes_something_is_among_those_that_come_late() -> None:
    """What only finishes what somebody else left half done is among none of a roll's own."""
    done = {*redis_effects_of_a_roll("sentinel"), *redis_effects_of_a_roll("cluster")}
    assert REDIS_EFFECTS - done <= {"ask_every"}


def test_the_restore_waits_until_what_may_run_is_over_and_not_longer() -> None:
    """R6."""
    world = shop((2, 1))
    frozen = Frozen(world, 20, 90, is_effect)
    began: list[float] = []

    def first_change(current: World) -> None:
        if not began and current.workloads_by_owner[AUTOSCALER].workload.desired and frozen.restore:
            began.append(current.time)

    stopped = world.time
    world.watchers.append(first_change)
    assert frozen.run() is not None
    assert began
    assert frozen._ends <= began[0] <= frozen._ends + lock.AHEAD_SECONDS + 2
    assert stopped < began[0]


def test_a_roll_that_ends_by_itself_is_restored_at_once() -> None:
    """Its functions have all answered."""
    world = shop((2, 1))
    world.new_nodes_never_join = True
    ended: dict[str, float] = {}

    def note(current: World) -> None:
        lease = current.leases.get(LOCK)
        if lease and lock.ENDED in lease.annotations:
            ended.setdefault("at", current.time)
        if ended and current.workloads_by_owner[AUTOSCALER].workload.desired:
            ended.setdefault("restored", current.time)

    world.watchers.append(note)
    engine = Frozen(world, NEVER, 0, is_effect).engine
    assert engine.run("roll", "roll-1", {}).status == "FAILED"
    assert ended["restored"] - ended["at"] < 3


@pytest.mark.parametrize("error", ["Lambda.Unknown", "States.Timeout", "Lambda.SdkClientException"])
def test_an_answer_that_was_lost_is_waited_for(error: str) -> None:
    """R6: a roll that restores itself after one cannot know whether that invocation is over."""
    failure = {"Error": error, "Cause": ""}
    assert fence.seconds_to_wait(1060, failure, error, 1000, outside=False) == 60
    assert fence.seconds_to_wait(1060, {"Error": "Refused"}, "Refused", 1000, outside=False) == 0
    assert fence.seconds_to_wait(1060, None, "", 1000, outside=False) == 0
    assert fence.seconds_to_wait(1060, None, "", 1000, outside=True) == 60
    assert fence.seconds_to_wait(900, None, "", 1000, outside=True) == 0


def test_a_node_whose_execution_was_stopped_is_waited_for_at_the_gate() -> None:
    """R6: its function may still be at work when the other nodes are done."""
    world = shop((2, 1))
    clients = clients_of(world, lambda _: None)
    lock.acquire(clients, "roll-1", LOCK)
    lock.announce(clients, "roll-1", world.time + 60)
    stopped = {"Error": "States.TaskFailed", "Cause": '{"Status": "ABORTED"}'}
    given = {"roll": "roll-1", "failures": [{"node": "node-1", "failure": stopped}]}
    answer = run_step("health_gate", given, clients)
    assert (answer["status"], answer["reason"]) == ("wait", "steps for node-1 may still be at work")


class TestFence:
    def setup_method(self) -> None:
        self.world = shop((1, 0), new_version=False)
        self.calls: list[Call] = []
        self.clients = clients_of(self.world, self.calls.append)
        lock.acquire(self.clients, "roll-1", LOCK)
        self.calls.clear()

    def fenced(self) -> Clients:
        return fenced(self.clients, "roll-1", "evict")

    def test_before_its_first_effect_a_step_says_until_when_it_may_run(self) -> None:
        self.fenced().aws.resume("ng-a", [])
        assert [name for name, _ in self.calls] == ["lease", "put_lease", "resume"]
        until = lock.steps_until(self.world.leases[LOCK])
        assert until >= self.world.time + fence.USUAL_SECONDS

    def test_a_step_that_only_looks_writes_nothing(self) -> None:
        self.fenced().kubernetes.nodes()
        assert [name for name, _ in self.calls] == ["nodes"]

    def test_a_moment_later_it_need_not_look_again_and_then_it_must(self) -> None:
        clients = self.fenced()
        clients.aws.resume("ng-a", [])
        clients.aws.resume("ng-a", [])
        assert [name for name, _ in self.calls].count("lease") == 1
        self.world.time += fence.FRESH_SECONDS
        clients.aws.resume("ng-a", [])
        assert [name for name, _ in self.calls].count("lease") == 2
        assert [name for name, _ in self.calls].count("put_lease") == 1

    def test_it_stops_where_a_restore_has_begun(self) -> None:
        clients = self.fenced()
        clients.aws.resume("ng-a", [])
        lock.end(self.clients, "roll-1", "watchdog-1")
        self.world.time += fence.FRESH_SECONDS
        with pytest.raises(LockLost):
            clients.aws.resume("ng-a", [])
        assert [name for name, _ in self.calls].count("resume") == 1

    def test_a_restore_that_comes_between_look_and_word_wins(self) -> None:
        """R6: the word is written under the Lease's resourceVersion."""

        def interfere(call: Call) -> None:
            if call[0] == "put_lease" and lock.ENDED not in self.world.leases[LOCK].annotations:
                lock.end(self.world.clients(settings()), "roll-1", "watchdog-1")

        clients = fenced(clients_of(self.world, interfere), "roll-1", "evict")
        with pytest.raises(LockLost):
            clients.aws.resume("ng-a", [])
        assert not any(effect.startswith("resume") for effect in self.world.effects)

    def test_parallel_steps_may_write_at_the_same_moment(self) -> None:
        left = [3]

        def interfere(call: Call) -> None:
            if call[0] == "put_lease" and left[0]:
                left[0] -= 1
                raise Conflict("somebody was quicker")

        fenced(clients_of(self.world, interfere), "roll-1", "evict").aws.resume("ng-a", [])
        assert any(effect.startswith("resume") for effect in self.world.effects)

    def test_a_lock_is_not_taken_over_from_a_roll_whose_steps_may_be_at_work(self) -> None:
        """R4, R6: however short its lease is."""
        held = Lease(LOCK, "roll-1", 1000.0, 15.0, "1", {lock.STEPS_UNTIL: "1060"})
        assert lock.decide(held, "roll-2", 1030, LOCK, 15) == lock.Busy("roll-1", 30)
        assert isinstance(lock.decide(held, "roll-2", 1060, LOCK, 15), lock.Take)

    def test_a_word_that_reaches_further_than_any_function_is_believed_no_further(self) -> None:
        """T1, R5: whatever stands on the lock, a restore waits a quarter of an hour at most."""
        held = Lease(LOCK, "roll-1", 1000.0, 15.0, "1", {lock.STEPS_UNTIL: "999000000"})
        longest = lock.LONGEST_INVOCATION + lock.AHEAD_SECONDS
        assert lock.steps_until(held) == 1000 + longest
        lease = self.world.leases[LOCK]
        self.world.leases[LOCK] = replace(lease, annotations={lock.STEPS_UNTIL: "999000000"})
        began = lease.renewed
        for _ in range(5):
            ended = lock.end(self.clients, "roll-1", "watchdog-1")
            assert isinstance(ended, Lease)
            assert lock.steps_until(ended) == began + longest
            self.world.time += 100

    @pytest.mark.parametrize("said", ["", "soon", "-1", "1e9", "9" * 40, "¹"])
    def test_a_word_that_no_step_wrote_is_none(self, said: str) -> None:
        """T1."""
        assert lock.steps_until(Lease(LOCK, annotations={lock.STEPS_UNTIL: said})) == 0


@pytest.mark.parametrize(
    ("protocol", "effects"),
    [
        (protocols.Kubernetes, KUBERNETES_EFFECTS),
        (protocols.Aws, AWS_EFFECTS),
        (protocols.Redis, REDIS_EFFECTS),
        (protocols.Http, HTTP_EFFECTS),
    ],
)
def test_every_method_of_a_client_is_known_as_an_effect_or_a_look(protocol: type, effects: frozenset[str]) -> None:
    """R6: a new one must not get past the fence unnoticed."""
    methods = {name for name in vars(protocol) if not name.startswith("_")}
    looks = LOOKS[protocol.__name__]
    assert methods == looks | effects
    assert not looks & effects
    assert get_type_hints(Clients)
