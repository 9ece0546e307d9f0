"""Finishing Redis migrations that were begun: how long each group is waited for."""

from dataclasses import replace

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import AccessDenied, Conflict, LockLost, NotFound, Refused, RollError, Transient
from eks_rolling.migration.next_action import Next
from eks_rolling.migration.repetition import MOST_TRIES, TRIES, WAITS_SINCE, pause_after, waited
from eks_rolling.observed.kubernetes import Lease, Owner
from eks_rolling.payloads import SettleTask, Status, StepResult
from eks_rolling.plan.permissions import Verb
from eks_rolling.redis.actions import Done, RedisHold, Settled, Stop
from eks_rolling.redis.groups import PART, RedisGroup, RefreshBy, declared
from eks_rolling.redis.sentinel import Refresh, SentinelGroupState, SentinelPod
from eks_rolling.roll import lock
from eks_rolling.settings import Settings
from eks_rolling.steps import settle_redis
from tests.model.situations import cache
from tests.world import World

SETTINGS = Settings(cluster="demo")
LOOKS, SECONDS = 5, 10.0


def test_what_one_group_waits_for_is_not_hidden_by_the_progress_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: else a group that a person has to decide about waits for as long as any other one is busy."""
    world = cache(new_version=False)
    clients = world.clients(SETTINGS)
    (busy,), _ = declared(world.workloads())
    stuck = replace(busy, name="stuck")
    lock.acquire(clients, "roll-2", lock.lock_name(SETTINGS.namespace))
    for group in (busy, stuck):
        lock.acquire(clients, "roll-1/node", group.lease)
    patience: dict[str, list[float]] = {busy.name: [], stuck.name: []}

    def look(group: RedisGroup, node: str, _: Clients, waits: float) -> Next:
        patience[group.name].append(waits)
        seen = SentinelGroupState(group, (), (), node, waits)
        if group.name == stuck.name:
            return Next(group, seen, RedisHold("nothing happens"), waits, lambda: Done(""))
        # Another sentinel every time: a first try each.
        watcher = SentinelPod(f"sentinel-{len(patience[busy.name])}")
        action = Refresh(watcher, "lists what is gone", RefreshBy.RESET)
        return Next(group, seen, action, waits, lambda: Done(action.reason))

    monkeypatch.setattr(settle_redis, "declared", lambda _: ([busy, stuck], []))
    monkeypatch.setattr(settle_redis, "look", look)
    for _ in range(LOOKS):
        settle_redis.run(SettleTask(roll="roll-2", ending=False), clients)
        world.time += SECONDS
    assert patience[stuck.name] == [SECONDS * n for n in range(LOOKS)]
    assert patience[busy.name] == [0.0, *[SECONDS] * (LOOKS - 1)]


def begun(clients: Clients, *groups: RedisGroup, roll: str = "roll-2") -> None:
    """The roll holds the lock, and nodes of it the groups' Leases."""
    lock.acquire(clients, roll, lock.lock_name(SETTINGS.namespace))
    for group in groups:
        lock.acquire(clients, f"{roll}/node", group.lease)


class Groups:
    """Two groups, of which the first needs a person, or raises; the other one needs `looks` looks more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception | None, looks: int = 3) -> None:
        self.world = cache(new_version=False)
        self.clients = self.world.clients(SETTINGS)
        (self.good,), _ = declared(self.world.workloads())
        self.bad = replace(self.good, name="bad")
        self.done: list[str] = []
        self._fault, self._left = fault, looks
        monkeypatch.setattr(settle_redis, "declared", lambda _: ([self.bad, self.good], []))
        monkeypatch.setattr(settle_redis, "look", self._look)
        begun(self.clients, self.bad, self.good)

    def _look(self, group: RedisGroup, node: str, _: Clients, waits: float) -> Next:
        seen = SentinelGroupState(group, (), (), node, waits)
        if group is self.bad:
            if self._fault:
                raise self._fault
            return Next(group, seen, Stop("two are masters"), waits, lambda: Done(""))
        if not self._left:
            return Next(group, seen, Settled("normal"), waits, lambda: Done(""))
        self._left -= 1
        action = Refresh(SentinelPod(f"sentinel-{self._left}"), "lists what is gone", RefreshBy.RESET)

        def perform() -> Done:
            self.done.append(group.name)
            return Done(action.reason)

        return Next(group, seen, action, waits, perform)

    def settle(self, *, ending: bool) -> StepResult:
        """To its end, or until it raises."""
        since = None
        while True:
            task = SettleTask(roll="roll-2", ending=ending, since=since)
            answer = settle_redis.run(task, self.clients)
            if answer.status is Status.DONE:
                return answer
            since = answer.since or since or self.world.time
            self.world.time += answer.wait_seconds


FAULTS = [
    None,
    NotFound("StatefulSet shop/redis is gone."),
    AccessDenied("The Secret may not be read."),
    Transient("It is away."),
]


@pytest.mark.parametrize("ending", [True, False])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_group_that_needs_a_person_keeps_no_other_from_being_finished(
    fault: Exception | None, monkeypatch: pytest.MonkeyPatch, *, ending: bool
) -> None:
    """R5, S2. What was the matter with it is said at the end, and its Lease stays for the next roll."""
    groups = Groups(monkeypatch, fault)
    with pytest.raises(RollError, match=str(fault) if fault else "two are masters"):
        groups.settle(ending=ending)
    assert groups.done == [groups.good.name] * 3
    assert not groups.world.leases[groups.good.lease].holder
    assert groups.world.leases[groups.bad.lease].holder


def test_a_lost_lock_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """R4."""
    groups = Groups(monkeypatch, LockLost("This roll has ended."))
    with pytest.raises(LockLost):
        groups.settle(ending=False)


@pytest.mark.parametrize(("ending", "renewed"), [(True, False), (False, True)])
def test_progress_does_not_put_off_the_deadline_of_an_ending(
    monkeypatch: pytest.MonkeyPatch, *, ending: bool, renewed: bool
) -> None:
    """R5: whoever may write a group's Lease could make each try the first one, and everything else waits meanwhile."""
    groups = Groups(monkeypatch, Refused("a person decides"))
    answer = settle_redis.run(SettleTask(roll="roll-2", ending=ending, since=1.0), groups.clients)
    assert answer.status is Status.WAIT
    assert (answer.since is not None) is renewed


@pytest.mark.parametrize("said", ['{"KEY": 21}', '{"KEY": 20}'])
def test_what_was_tried_too_often_is_not_tried_at_each_look_again(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: writes may stand still at each try. What other groups wait for makes many looks."""
    groups = Groups(monkeypatch, Refused("a person decides"), looks=1)
    lease = groups.world.leases[groups.good.lease]
    written = said.replace("KEY", "refresh_sentinels Refresh sentinel-0")
    groups.world.leases[groups.good.lease] = replace(lease, annotations={TRIES: written})
    with pytest.raises(Refused, match="without lasting effect"):
        groups.settle(ending=True)
    assert len(groups.done) == (0 if "21" in said else 1)


@pytest.mark.parametrize("holder", ["roll-1/settle", "roll-1/node-1"])
def test_what_an_earlier_roll_tried_too_often_is_tried_again_by_the_next(
    holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3, S2: somebody has removed the cause since. Else no roll could ever begin again."""
    groups = Groups(monkeypatch, Refused("a person decides"), looks=1)
    lease = groups.world.leases[groups.good.lease]
    written = f'{{"refresh_sentinels Refresh sentinel-0": {MOST_TRIES + 1}}}'
    groups.world.leases[groups.good.lease] = replace(lease, holder=holder, annotations={TRIES: written})
    with pytest.raises(Refused, match="a person decides"):
        groups.settle(ending=False)
    assert groups.done == [groups.good.name]
    assert not groups.world.leases[groups.good.lease].holder


def acting(groups: Groups, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> list[str]:
    """The bad group waits for something; the good one's action is the same each time, and raises. Answers its tries."""
    performed: list[str] = []

    def look(group: RedisGroup, node: str, _: Clients, waits: float) -> Next:
        seen = SentinelGroupState(group, (), (), node, waits)
        if group is groups.bad:
            return Next(group, seen, RedisHold("nothing happens"), waits, lambda: Done(""))

        def perform() -> Done:
            performed.append(group.name)
            raise fault

        return Next(
            group, seen, Refresh(SentinelPod("sentinel-0"), "lists what is gone", RefreshBy.RESET), waits, perform
        )

    monkeypatch.setattr(settle_redis, "look", look)
    return performed


@pytest.mark.parametrize("ending", [True, False])
@pytest.mark.parametrize(
    "fault", [Refused("It may not."), Transient("It is away."), ValueError("malformed")], ids=lambda f: type(f).__name__
)
def test_an_action_that_raises_is_tried_no_oftener_than_one_without_effect(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, *, ending: bool
) -> None:
    """S1: writes may stand still at each try, and what another group waits for makes many looks."""
    groups = Groups(monkeypatch, None)
    performed = acting(groups, monkeypatch, fault)
    said = []
    for _ in range(MOST_TRIES + 10):
        answer = settle_redis.run(SettleTask(roll="roll-2", ending=ending), groups.clients)
        said.append(answer.reason)
        if 1 < len(said) < MOST_TRIES:
            assert answer.wait_seconds >= pause_after(len(said)), "each later than the one before"
    assert MOST_TRIES <= len(performed) <= MOST_TRIES + 1
    assert "without lasting effect" not in said[0]
    assert str(fault).rstrip(".") in said[0]
    assert "without lasting effect" in said[-1]


def test_a_roll_that_may_not_act_any_more_has_tried_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: whose lock it is now counts its own."""
    groups = Groups(monkeypatch, None)
    acting(groups, monkeypatch, LockLost("This roll has ended."))
    with pytest.raises(LockLost):
        settle_redis.run(SettleTask(roll="roll-2", ending=False), groups.clients)
    assert TRIES not in groups.world.leases[groups.good.lease].annotations


@pytest.mark.parametrize(
    ("faults", "raised"),
    [
        ((Transient("It is away."), Conflict("It changed.")), Transient),
        ((Transient("It is away."), Refused("It may not.")), Refused),
        ((Transient("It is away."), ValueError("malformed")), Refused),
    ],
    ids=["both may pass", "one stays", "one is malformed"],
)
def test_faults_of_two_groups_that_may_pass_are_one_that_may(
    faults: tuple[Exception, Exception], raised: type[RollError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: as with a single group, the workflow runs the step again. Of any other kind a person is told."""
    groups = Groups(monkeypatch, None)
    fault_of = {groups.bad.name: faults[0], groups.good.name: faults[1]}

    def look(group: RedisGroup, *_: object) -> Next:
        raise fault_of[group.name]

    monkeypatch.setattr(settle_redis, "look", look)
    since = groups.world.time - settle_redis.FAULT_PATIENCE_SECONDS
    with pytest.raises(RollError) as told:
        settle_redis.run(SettleTask(roll="roll-2", ending=False, since=since), groups.clients)
    assert type(told.value) is raised
    assert all(str(fault) in str(told.value) for fault in faults)


def spoiled(holder: str = "roll-2/node") -> tuple[World, Clients]:
    """The group's replicas are declared wrongly, and somebody has its Lease, or nobody."""
    world = cache(new_version=False)
    clients = world.clients(SETTINGS)
    (group,), _ = declared(world.workloads())
    lock.acquire(clients, "roll-2", lock.lock_name(SETTINGS.namespace))
    if holder:
        lock.acquire(clients, holder, group.lease)
    replicas = world.workloads_by_owner[Owner("StatefulSet", "default", "redis-replica")]
    replicas.workload.annotations[PART] = "replica"
    return world, clients


@pytest.mark.parametrize("ending", [True, False])
def test_a_half_moved_group_that_is_declared_wrongly_by_now_is_not_settled(*, ending: bool) -> None:
    """S2: the wrong word is named. Its Lease stays for the next roll."""
    world, clients = spoiled()
    with pytest.raises(Refused, match=r"default/cache may be half moved, .* says 'replica'; it must be one of"):
        settle_redis.run(SettleTask(roll="roll-2", ending=ending), clients)
    assert world.leases["default/eks-rolling-redis-cache"].holder == "roll-2/node"


@pytest.mark.parametrize(("holder", "ending"), [("", True), ("", False), ("roll-3/node", True)])
def test_a_wrong_declaration_alone_ends_no_roll(holder: str, *, ending: bool) -> None:
    """R5: nobody moves the group, or another roll does, which lives."""
    _, clients = spoiled(holder)
    answer = settle_redis.run(SettleTask(roll="roll-2", ending=ending), clients)
    assert (answer.status, answer.reason) == (Status.DONE, "no Redis group is half moved")


def test_a_wrong_declaration_where_the_functions_have_no_role_ends_no_roll() -> None:
    """R5."""
    world, clients = spoiled("")
    world.forbidden = {Verb("", "get", "coordination.k8s.io", "leases", "default", "eks-rolling-redis-cache")}
    answer = settle_redis.run(SettleTask(roll="roll-2", ending=False), clients)
    assert (answer.status, "default/cache was not looked at" in answer.reason) == (Status.DONE, True)


@pytest.mark.parametrize("number", ["-5", "9" * 4299, "0", "1e3", "true"])
def test_a_count_that_no_roll_wrote_is_none(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T1: a tenant may write its group's Lease."""
    groups = Groups(monkeypatch, Refused("a person decides"), looks=1)
    lease = groups.world.leases[groups.good.lease]
    written = f'{{"refresh_sentinels Refresh sentinel-0": {number}}}'
    groups.world.leases[groups.good.lease] = replace(lease, annotations={TRIES: written})
    with pytest.raises(Refused, match="a person decides"):
        groups.settle(ending=True)
    assert groups.done == [groups.good.name]


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 10.0), ("", 0.0), ("soon", 0.0), ("nan", 0.0), ("-inf", 0.0), ("200", 0.0)]
)
def test_patience_counts_from_a_time_that_somebody_wrote_only_if_it_is_one(written: str, seconds: float) -> None:
    assert waited(Lease("shop/eks-rolling-redis-cache", annotations={WAITS_SINCE: written}), 100.0) == seconds


def test_a_group_that_nothing_is_written_of_has_not_waited() -> None:
    assert waited(Lease("shop/eks-rolling-redis-cache"), 100.0) == 0.0
