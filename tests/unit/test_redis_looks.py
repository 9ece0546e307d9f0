"""What one invocation of a step that migrates Redis waits for itself, on a clock that only sleeping moves."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import pytest

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Transient
from eks_rolling.migration import next_action
from eks_rolling.migration.next_action import LONG_SECONDS, SHORT_SECONDS, Next, migrate
from eks_rolling.observed.redis import ClusterNode, Endpoint, Role, Server, Silent
from eks_rolling.payloads import RedisActionTask, Status, StepResult
from eks_rolling.redis.actions import Done, RedisHold, RedisStep, Settled, Stop
from eks_rolling.redis.groups import RedisGroup, RefreshBy, declared
from eks_rolling.redis.sentinel import Action, Refresh, SentinelGroupState, SentinelPod, Switch
from eks_rolling.settings import Settings
from tests.model.situations import cache, shards
from tests.redis_world import RedisWorld

OURS, ANOTHERS = RedisStep.REFRESH_SENTINELS, RedisStep.FAIL_BACK
REFRESH = Refresh(SentinelPod("sentinel-0"), "lists what is gone", RefreshBy.RESET)
ANOTHER_REFRESH = replace(REFRESH, watcher=SentinelPod("sentinel-1"))
SWITCHED = Done(REFRESH.reason, stall=0.05, failed_over=True)
REFRESHED = Done("it was refreshed")
OWN_WAIT = RedisHold("it does not list a replica yet", OURS)

ACTION_SECONDS = 0.2

Script = Iterable[tuple[float, Action | Transient]]
"""What a look finds from which second on."""


class Tried:
    """One invocation of the step that refreshes sentinels, of a group that becomes what the script says."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        script: Script,
        *,
        waited: float = 0.0,
        done: Done = SWITCHED,
        slow: float = 0.0,
    ) -> None:
        """`slow` is how many seconds every look but the first takes."""
        world = cache(new_version=False)
        clients = world.clients(Settings(cluster="demo"))
        (group,), _ = declared(world.workloads())
        self.began = world.time
        self.sleep = clients.sleep
        self.looks: list[float] = []
        self.acted = 0
        self.done = done

        def look(group: RedisGroup, node: str, clients: Clients, waited: float = 0.0) -> Next:
            passed = clients.now() - self.began
            if self.looks:
                self.sleep(slow)
            self.looks.append(waited)
            found = [each for since, each in script if since <= passed][-1]
            if isinstance(found, Transient):
                raise found
            return Next(group, SentinelGroupState(group, (), (), node, waited), found, waited, self.act)

        monkeypatch.setattr(next_action, "look", look)
        task = RedisActionTask(
            roll="roll-1", node="node", instance="i-1", group="workers",
            since=self.began - waited if waited else None, redis_group=str(group), action=OURS,
        )  # fmt: skip
        self.answered: StepResult = migrate(task, clients)
        self.took = clients.now() - self.began

    def act(self) -> Done:
        self.acted += 1
        self.sleep(ACTION_SECONDS)
        return self.done


def test_what_comes_within_seconds_is_waited_for_and_acted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch, [(0, OWN_WAIT), (1, REFRESH)])
    assert tried.acted == 1
    assert tried.took >= 1
    assert tried.looks[1] > tried.looks[0] == 0.0, "each look knows how long was waited"


def test_what_takes_longer_is_left_to_the_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch, [(0, OWN_WAIT)])
    assert (tried.answered.status, tried.answered.reason) == (Status.WAIT, OWN_WAIT.reason)
    assert SHORT_SECONDS <= tried.took < SHORT_SECONDS + 1


@pytest.mark.parametrize(
    "hold", [RedisHold("a synchronization", OURS, SHORT_SECONDS + 1), RedisHold("another's wait", ANOTHERS)]
)
def test_only_ones_own_short_waits_are_waited_for(monkeypatch: pytest.MonkeyPatch, hold: RedisHold) -> None:
    assert Tried(monkeypatch, [(0, hold)]).took == 0.0


def test_who_has_waited_long_looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch, [(0, OWN_WAIT)], waited=LONG_SECONDS + 1)
    assert (len(tried.looks), tried.took) == (1, 0.0)


@pytest.mark.parametrize("then", [Settled("all is well"), RedisHold("another's wait", ANOTHERS)])
def test_a_step_whose_action_had_its_effect_is_done_at_once(monkeypatch: pytest.MonkeyPatch, then: Action) -> None:
    script: Script = [(0, REFRESH), (0.1, OWN_WAIT), (1, then)]
    tried = Tried(monkeypatch, script)
    assert (tried.answered.status, tried.answered.reason) == (Status.DONE, REFRESH.reason)
    assert tried.answered.output["stall_seconds"] == 0.05, "what was measured is told"
    assert tried.answered.output["switches"]


@pytest.mark.parametrize("then", [Stop("two masters"), REFRESH, OWN_WAIT, Transient("nobody answers")])
def test_else_the_next_look_decides_and_what_was_done_is_told(
    monkeypatch: pytest.MonkeyPatch, then: Action | Transient
) -> None:
    tried = Tried(monkeypatch, [(0, REFRESH), (0.1, then)])
    assert (tried.answered.status, tried.answered.reason) == (Status.WAIT, REFRESH.reason)
    assert tried.acted == 1
    assert tried.answered.output["switches"]


class Busy:
    """Servers that all take 5 MB between two looks, and whose replicas have every byte at once."""

    def __init__(self, redis: RedisWorld) -> None:
        self._redis = redis
        self._written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    def server(self, endpoint: Endpoint) -> Server | Silent:
        seen = self._redis.server(endpoint)
        self._written += 5_000_000
        return replace(seen, offset=self._written) if isinstance(seen, Server) else seen

    def cluster_node(self, endpoint: Endpoint) -> ClusterNode | Silent:
        seen = self._redis.cluster_node(endpoint)
        self._written += 5_000_000
        return (
            replace(seen, server=replace(seen.server, offset=self._written)) if isinstance(seen, ClusterNode) else seen
        )

    def offset(self, endpoint: Endpoint) -> tuple[Role, int]:
        return self._redis.offset(endpoint)[0], self._written


def test_a_busy_group_is_well_in_whatever_order_its_servers_are_looked_at() -> None:
    """S2: the replica that is master now is looked at last."""
    world = cache(new_version=False)
    world.redis.elect(max(world.redis.sentinels))
    world.advance(40)
    clients = replace(world.clients(Settings(cluster="demo")), redis=cast(Any, Busy(world.redis)))
    (group,), _ = declared(world.workloads())
    action = next_action.look(group, "", clients).action
    assert isinstance(action, Switch), action


def test_a_busy_cluster_is_well_in_whatever_order_its_nodes_are_looked_at() -> None:
    """C1."""
    world = shards(new_version=False)
    clients = replace(world.clients(Settings(cluster="demo")), redis=cast(Any, Busy(world.redis)))
    (group,), _ = declared(world.workloads())
    action = next_action.look(group, "", clients).action
    assert isinstance(action, Settled), action


def test_what_was_done_for_the_first_time_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each after a look of its own; all that was done is told."""
    script: Script = [(0, REFRESH), (0.1, ANOTHER_REFRESH), (0.3, Settled("all is well"))]
    tried = Tried(monkeypatch, script, done=REFRESHED)
    assert tried.acted == len(tried.looks) - 1 == 2
    assert (tried.answered.status, tried.answered.reason) == (
        Status.DONE,
        f"{REFRESHED.said}; {REFRESHED.said}",
    )


def test_a_repetition_waits_and_what_was_done_before_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried later and later; the deadline begins anew with what was done for the first time."""
    tried = Tried(monkeypatch, [(0, REFRESH)], done=REFRESHED, waited=5)
    assert tried.acted == 2
    assert (tried.answered.status, tried.answered.wait_seconds) == (Status.WAIT, 2)
    assert tried.answered.since == tried.began + ACTION_SECONDS


def test_what_changed_nothing_is_not_done_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch, [(0, REFRESH)], done=replace(REFRESHED, acted=False))
    assert tried.acted == 1
    assert tried.answered.status is Status.WAIT


def test_after_a_look_that_took_long_nothing_more_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: an action, a switch perhaps, would be cut off with the function."""
    tried = Tried(monkeypatch, [(0, REFRESH), (0.1, ANOTHER_REFRESH)], done=REFRESHED, slow=25)
    assert (tried.acted, len(tried.looks)) == (1, 2)
    assert (tried.answered.status, tried.answered.reason) == (Status.WAIT, REFRESHED.said)


def test_a_switch_is_the_last_that_an_invocation_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it cost is told of it alone."""
    tried = Tried(monkeypatch, [(0, REFRESH), (0.1, ANOTHER_REFRESH)])
    assert (tried.acted, len(tried.answered.output["switches"])) == (1, 1)
