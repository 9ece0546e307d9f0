"""Changes that set off rolls: by the synthesized definition, and their memory in any order of its reads and writes."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eks_rolling.errors import Transient
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import ChangeTask, Status, StepResult
from eks_rolling.roll.pending_change import PendingChange
from eks_rolling.settings import Settings
from eks_rolling.steps.receive_change import handler
from tests.asl import Engine, Execution, Stopped
from tests.assembly import synthesize
from tests.model.situations import outdated, shop
from tests.model.situations import settings as roll_settings
from tests.world import Killed, World

SMALL = (2, 1)
NEXT, LOCK = "kube-system/eks-rolling-next", "kube-system/eks-rolling"


def event(number: int, template: str = "lt-ng-a") -> dict[str, Any]:
    """What EventBridge starts a roll with."""
    return {
        "id": f"e-{number}",
        "detail-type": "AWS API Call via CloudTrail",
        "detail": {
            "eventName": "CreateLaunchTemplateVersion",
            "requestParameters": {"CreateLaunchTemplateVersionRequest": {"LaunchTemplateId": template}},
        },
    }


def engine_for(world: World, shuffle: int | None = None, **more: Any) -> Engine:
    asked = Settings.parse(roll_settings().model_dump(mode="json") | more)
    return Engine(synthesize(), world, world.clients(asked), shuffle)


def watch_holders(world: World) -> list[str]:
    """Everybody who held the roll's lock, in order [R4]."""
    holders: list[str] = []

    def look(current: World) -> None:
        lease = current.leases.get(LOCK)
        if lease and lease.holder and lease.holder not in holders[-1:]:
            holders.append(lease.holder)

    world.watchers.append(look)
    return holders


def end_of(execution: Execution) -> tuple[str, str]:
    return execution.status, execution.visited[-1]


@pytest.mark.parametrize("shuffle", range(5))
def test_two_changes_at_once_and_one_in_the_middle_are_two_rolls_one_after_the_other(shuffle: int) -> None:
    """R4, and no event is lost: the last version is on every node."""
    world = shop(SMALL)
    before, holders = world.snapshot(), watch_holders(world)
    engine = engine_for(world, shuffle)
    burst = [engine.start("roll", f"roll-{n}", event(n), after=n / 10) for n in (1, 2)]
    late: list[Execution] = []

    def change_again(current: World) -> None:
        if not late and any("terminate" in effect for effect in current.effects):
            current.new_template_version("ng-a")
            current.planned = set()
            late.append(engine.start("roll", "roll-3", event(3)))

    world.watchers.append(change_again)
    for execution in burst:
        engine.follow(execution)
    engine.follow(*late)
    ends = sorted(end_of(e) for e in burst)
    assert ends == [("SUCCEEDED", "Done"), ("SUCCEEDED", "Nothing to do here")]
    joined = next(e for e in burst if e.visited[-1] != "Done")
    assert "joined to roll-" in joined.output["reason"]
    assert end_of(late[0]) == ("SUCCEEDED", "Done")
    assert [h for h in holders if h != "roll-3"] == [e.name for e in burst if e is not joined]
    assert holders[-1] == "roll-3"
    assert {m.template for m in world.machines.values() if m.alive} == {"lt-ng-a:3", "lt-ng-b:2"}
    assert world.snapshot() == before


def test_a_restore_frees_what_a_cancelled_roll_held_before_it_had_the_lock() -> None:
    """R2: the roll was stopped while it waited for more changes; the next change takes over at once."""
    world = shop(SMALL)
    engine = engine_for(world)
    engine.run("roll", "before", {})
    world.new_template_version("ng-a")
    engine.kills_stop_execution, world.kill_after = True, len(world.effects) + 1
    with pytest.raises(Stopped):
        engine.run("roll", "cancelled", event(1))
    world.kill_after = None
    assert world.leases[NEXT].holder == "cancelled"
    restore = engine.run("restore", "watchdog-1", {"roll": "cancelled"})
    assert restore.status == "SUCCEEDED"
    assert world.leases[NEXT].holder == ""


def test_several_changes_during_a_roll_are_one_roll_after_it() -> None:
    world = shop(SMALL)
    holders = watch_holders(world)
    engine = engine_for(world)
    late: list[Execution] = []

    def change_again(current: World) -> None:
        if len(late) < 3 and sum("terminate" in effect for effect in current.effects) > len(late):
            current.new_template_version("ng-b")
            current.planned = set()
            late.append(engine.start("roll", f"late-{len(late)}", event(len(late), "lt-ng-b")))

    world.watchers.append(change_again)
    engine.run("roll", "roll-1", {})
    for execution in late:
        engine.follow(execution)
    assert sorted(e.visited[-1] for e in late) == ["Done", "Nothing to do here", "Nothing to do here"]
    assert len(holders) == 2
    assert {m.template for m in world.machines.values() if m.alive} == {"lt-ng-a:2", "lt-ng-b:5"}


def test_a_change_that_only_asks_for_a_plan_changes_nothing() -> None:
    world = shop(SMALL)
    execution = engine_for(world, on_change="plan").run("roll", "roll-1", event(1))
    assert end_of(execution) == ("SUCCEEDED", "Done")
    assert len(outdated(world)) == 3
    assert not [e for e in world.effects if not e.startswith(f"lease {NEXT}")]
    assert "3 outdated nodes would be replaced" in world.messages[-1][1]


def test_a_change_is_left_alone_where_that_is_asked_for() -> None:
    world = shop(SMALL)
    execution = engine_for(world, on_change="off").run("roll", "roll-1", event(1))
    assert end_of(execution) == ("SUCCEEDED", "Nothing to do here")
    assert (world.effects, world.messages) == ([], [])


def test_a_persons_start_waits_for_nothing() -> None:
    world = shop(SMALL)
    execution = engine_for(world, on_change="off").run("roll", "roll-1", {})
    assert execution.status == "SUCCEEDED"
    assert "Wait for the change to settle" not in execution.visited


@pytest.mark.parametrize("after", range(1, 4))
def test_a_function_killed_while_the_change_settles_changes_nothing_in_the_result(after: int) -> None:
    """R3."""
    world = shop(SMALL)
    before = world.snapshot()
    world.kill_after = after
    execution = engine_for(world).run("roll", "roll-1", event(1))
    assert end_of(execution) == ("SUCCEEDED", "Done")
    assert outdated(world) == []
    assert world.snapshot() == before


# The memory alone, in every order of its reads and writes


class Crowd(World):
    """A world in which every read and write of a Lease waits for its turn, so that executions interleave there."""

    def __init__(self) -> None:
        super().__init__()
        self.pause: Callable[[], None] = lambda: None
        self.dies: Callable[[], bool] = lambda: False
        self.counted: dict[str, int] = {}

    def lease(self, name: str) -> Lease | None:
        self.pause()
        return super().lease(name)

    def put_lease(self, lease: Lease) -> Lease:
        self.pause()
        written = super().put_lease(lease)
        seen = PendingChange(written)
        self.counted[seen.seen_by] = seen.seen
        if self.dies():
            raise Killed("after a write")
        return written


@dataclass
class Caller:
    """One execution at the state that receives changes: looks, waits, and has ended one way or the other."""

    name: str
    arrived: float
    due: float
    change: int = 0
    since: float | None = None
    ended: str = ""
    stopped: bool = False
    look: "Look | None" = None

    @property
    def lives(self) -> bool:
        return not self.ended and not self.stopped


class Look:
    """One invocation of the step in a thread of its own, which goes on only when told to."""

    def __init__(self, crowd: Crowd, caller: Caller, settings_: Settings, dies: Callable[[], bool]) -> None:
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self.result: StepResult | None = None
        self.over = False
        self.abandoned = False
        self._crowd, self._dies = crowd, dies
        task = ChangeTask(roll=caller.name, since=caller.since, change=caller.change)
        clients = crowd.clients(settings_)

        def invoke() -> None:
            self._wait()
            try:
                self.result = handler.run(task, clients)
            except (Transient, Killed):
                pass
            finally:
                self.over = True
                self._stands.release()

        threading.Thread(target=invoke, daemon=True).start()

    def _wait(self) -> None:
        self._go.acquire()
        if self.abandoned:
            raise Killed("stopped")

    def step(self) -> None:
        """Lets it run to its next turn, or to its end."""

        def pause() -> None:
            self._stands.release()
            self._wait()

        self._crowd.pause, self._crowd.dies = pause, self._dies
        self._go.release()
        self._stands.acquire()

    def abandon(self) -> None:
        """The execution was stopped: it never goes on."""
        self.abandoned = True
        self._go.release()


@dataclass
class Play:
    """Changes, executions and plans in one order; `moment` numbers what happened."""

    seed: int
    kills: bool
    stops: int
    crowd: Crowd = field(default_factory=Crowd)
    callers: list[Caller] = field(default_factory=list)
    changed: dict[str, int] = field(default_factory=dict)
    plans: list[tuple[str, int]] = field(default_factory=list)
    moment: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.settings = Settings(cluster="demo", debounce_seconds=5, lease_seconds=15)

    def run(self, arrivals: list[float]) -> None:
        """Every change's execution to its end."""
        began = self.crowd.time
        coming = [(began + at, f"e{number}") for number, at in enumerate(arrivals)]
        self.crowd.effects.clear()
        while coming or any(c.lives for c in self.callers):
            self.moment += 1
            assert self.moment < 5000, [c for c in self.callers if c.lives]
            for at, name in [c for c in coming if c[0] <= self.crowd.time]:
                self.changed[name] = self.moment
                self.callers.append(Caller(name, at, due=at))
                coming.remove((at, name))
            ready = [c for c in self.callers if c.lives and (c.look or c.due <= self.crowd.time)]
            if ready:
                self._go_on(self.random.choice(ready))
            else:
                self.crowd.time = min([c.due for c in self.callers if c.lives] + [at for at, _ in coming])

    def _go_on(self, caller: Caller) -> None:
        if self.stops and self.random.random() < 0.1:
            self.stops -= 1
            caller.stopped = True
            if caller.look:
                caller.look.abandon()
            return
        if caller.look is None:
            dies = (lambda: self.random.random() < 0.2) if self.kills else (lambda: False)
            caller.look = Look(self.crowd, caller, self.settings, dies)
        caller.look.step()
        if caller.look.over:
            result, caller.look = caller.look.result, None
            self._answered(caller, result)

    def _answered(self, caller: Caller, result: StepResult | None) -> None:
        if result is None:
            caller.due = self.crowd.time + 1
        elif result.status is Status.WAIT:
            caller.due = self.crowd.time + result.wait_seconds
            caller.since, caller.change = result.since, result.output["change"]
        else:
            caller.ended = result.output["next"]
            if caller.ended == "plan":
                self.plans.append((caller.name, self.moment))

    def lost(self) -> list[str]:
        """Changes that no plan came after, though neither their own execution was stopped nor the one that counted
        them as its own."""
        last_plan = max((moment for _, moment in self.plans), default=-1)
        counted = max((self.crowd.counted.get(c.name, 0) for c in self.callers if c.stopped), default=0)
        return [
            c.name
            for c in self.callers
            if not c.stopped and last_plan <= self.changed[c.name] and not (c.ended == "end" and c.change <= counted)
        ]


ARRIVALS = st.lists(st.floats(0, 12), min_size=2, max_size=3).map(sorted)
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(seed=st.integers(0, 2**32), arrivals=ARRIVALS)
def test_every_change_is_planned_in_any_order_of_reads_and_writes(seed: int, arrivals: list[float]) -> None:
    play = Play(seed, kills=False, stops=0)
    play.run(arrivals)
    assert play.lost() == []


@MANY
@given(seed=st.integers(0, 2**32), arrivals=st.lists(st.floats(0, 3), min_size=2, max_size=3).map(sorted))
def test_a_burst_is_planned_once_in_any_order_of_reads_and_writes(seed: int, arrivals: list[float]) -> None:
    play = Play(seed, kills=False, stops=0)
    play.run(arrivals)
    assert len(play.plans) == 1


@MANY
@given(seed=st.integers(0, 2**32), arrivals=ARRIVALS)
def test_functions_killed_after_any_write_lose_no_change(seed: int, arrivals: list[float]) -> None:
    """R3."""
    play = Play(seed, kills=True, stops=0)
    play.run(arrivals)
    assert play.lost() == []


@MANY
@given(seed=st.integers(0, 2**32), arrivals=ARRIVALS, stops=st.integers(1, 2))
def test_an_execution_that_dies_anywhere_takes_no_other_change_with_it_unseen(
    seed: int, arrivals: list[float], stops: int
) -> None:
    """R4: a dead holder's memory runs out, and who waits takes it over."""
    play = Play(seed, kills=True, stops=stops)
    play.run(arrivals)
    assert play.lost() == []
