"""Servers and sentinels that stand still, are busy, load or change their password, at every stage of a migration.

On real ones, under writers. Unlike one that dies, a server that stands still comes back with what it had, and does then
what it was told meanwhile. The roll waits with a sentence, and the next look finishes; nothing acknowledged is lost but
what the same fault costs a group that nobody touches [S1, S2].
"""

import functools
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from eks_rolling.observed.redis import Endpoint
from tests.contract.breaking import (
    SENTINEL_STAGES,
    Case,
    Fault,
    lost_without_a_roll,
    played,
    somebody_else_fails_over,
    whole_group,
)
from tests.contract.private_network import faults_cost_as_much
from tests.contract.redis_pods import NEW, Ended, Pods, lost, migrate, wait_until_all_write_on, writers
from tests.contract.redis_sides import Processes
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

MASTER, TARGET, OTHER, SENTINEL = "redis-master-0", "redis-replica-0", "redis-replica-1", "redis-sentinel-0"

SHORT_SECONDS, LONG_SECONDS = 3.0, 9.0
"""Longer than a step waits for an answer; longer than the sentinels' down-after, so that another master is elected."""


def stands_still(name: str, seconds: float) -> Fault:
    def fault(case: Case) -> None:
        endpoint = case.pods.endpoint(name)
        case.happened.append(f"{name} stands still")
        case.side.freeze(endpoint)
        case.after(seconds, lambda: case.side.thaw(endpoint))

    return fault


def there(case: Case, name: str) -> Endpoint:
    """The pod's server, once it answers: it may have just been started."""
    endpoint = case.pods.endpoint(name)

    def answers() -> bool:
        with suppress(subprocess.CalledProcessError):
            return case.side.command(endpoint, "ping") == "PONG"
        return False

    until(answers, f"{name} answers")
    return endpoint


def is_busy(name: str) -> Fault:
    """With a script that runs on and on; it changes nothing, so a pause of writes does not keep it from running."""

    def fault(case: Case) -> None:
        endpoint = there(case, name)
        case.happened.append(f"{name} is busy")
        case.side.command(endpoint, "config", "set", "busy-reply-threshold", "300")
        script = f"local began = os.clock() while os.clock() - began < {SHORT_SECONDS} do end return 1"
        case.side.send(endpoint, "eval_ro", script, "0")

    return fault


def is_paused(name: str, what: str, seconds: float) -> Fault:
    """By somebody else."""

    def fault(case: Case) -> None:
        case.happened.append(f"{name} is paused")
        case.side.command(there(case, name), "client", "pause", str(int(seconds * 1000)), what)

    return fault


def elect_after_a_pause(case: Case) -> None:
    """The sentinels do so by themselves at times."""
    is_paused(MASTER, "write", LONG_SECONDS)(case)
    case.after(LONG_SECONDS, lambda: somebody_else_fails_over(case))


KEYS = 3000


def loads_for_seconds(case: Case) -> None:
    """Whatever is started from now on needs a millisecond for each key that it loads, and says so meanwhile."""
    case.happened.append("loading is slow")
    case.side.more_lines += ["key-load-delay 1000", "loading-process-events-interval-bytes 1024"]
    fill = f"for key = 1, {KEYS} do redis.call('set', 'key-' .. key, key) end"
    case.side.send(there(case, case.pods.name_of_master() or TARGET), "eval", fill, "0")


def password_is_rotated(case: Case) -> None:
    """The servers take the roll's new password only, and have closed its connections; its Secret follows later."""
    case.happened.append("the password is rotated")
    for name in (MASTER, TARGET, OTHER):
        endpoint = there(case, name)
        case.side.command(endpoint, "acl", "setuser", "roll", "resetpass", f">{NEW_PASSWORD}")
        case.side.command(endpoint, "client", "kill", "user", "roll")
    case.side.more_lines[0] = roll_user(NEW_PASSWORD)
    secret = case.side.secrets["redis-auth"]
    case.after(SHORT_SECONDS, lambda: secret.update(password=NEW_PASSWORD))


OLD_PASSWORD, NEW_PASSWORD = "correct-horse", "staple-battery"


def roll_user(password: str) -> str:
    return f"user roll on >{password} ~* &* +@all"


PAUSED = "the master pod's writes are paused"

FAULTS: dict[str, Fault] = {
    "the master pod stands still for a moment": stands_still(MASTER, SHORT_SECONDS),
    "the master pod stands still": stands_still(MASTER, LONG_SECONDS),
    "the target stands still for a moment": stands_still(TARGET, SHORT_SECONDS),
    "the target stands still": stands_still(TARGET, LONG_SECONDS),
    "the other replica stands still": stands_still(OTHER, LONG_SECONDS),
    "a sentinel stands still": stands_still(SENTINEL, LONG_SECONDS),
    "the master pod is busy": is_busy(MASTER),
    "the target is busy": is_busy(TARGET),
    PAUSED: is_paused(MASTER, "write", LONG_SECONDS),
    "the master pod is paused": is_paused(MASTER, "all", SHORT_SECONDS),
    "the target is paused": is_paused(TARGET, "all", LONG_SECONDS),
    "whoever starts loads for seconds": loads_for_seconds,
    "the password is rotated": password_is_rotated,
}


@pytest.fixture
def side() -> Iterator[Processes]:
    with whole_group() as found:
        yield found


def with_a_user_of_its_own(side: Processes) -> None:
    """The roll signs in as a user whose password may change while clients keep theirs."""
    for server in side.servers:
        side.command(server, "acl", "setuser", *roll_user(OLD_PASSWORD).split()[1:])
    side.more_lines[:] = [roll_user(OLD_PASSWORD)]
    side.secrets["redis-auth"] = {"username": "roll", "password": OLD_PASSWORD}


@pytest.mark.drawn(keep=8)
@pytest.mark.parametrize("stage", SENTINEL_STAGES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_not_answer_for_a_while(side: Processes, fault: str, stage: str) -> None:
    """S1, S2, R3."""
    with_a_user_of_its_own(side)
    case, ended, written = played(side, SENTINEL_STAGES[stage], FAULTS[fault])
    print(fault, stage, *ended.held, *ended.done, sep="\n  ")
    assert case.happened, "the fault did not happen"
    assert ended.stopped == ""
    assert_sentences(ended)
    assert not ended.refused or fault == "the password is rotated"
    moved = case.pods.pods[MASTER]
    assert moved.node == NEW
    assert not any(pod.annotations for pod in case.pods.pods.values())
    master = case.pods.name_of_master()
    # Messages that wait behind the pause keep the sentinels' pings waiting: they may elect another one, then or later.
    assert master == MASTER or fault == PAUSED
    missing = lost(side, case.pods.endpoint(master).address.host, written)
    instead = FAULTS[fault] if master == MASTER else elect_after_a_pause
    assert missing == 0 or faults_cost_as_much(missing, functools.partial(lost_without_a_roll, instead))
    assert min(len(w.acked) for w in written) > 100


def limit(side: Processes, number: int) -> None:
    """A replica that takes what its master has, and as a master would evict it."""
    for setting in (("maxmemory", "2mb"), ("maxmemory-policy", "allkeys-lru")):
        side.command(side.servers[number], "config", "set", *setting)


@pytest.mark.parametrize("limited", [(1,), (1, 2)])
def test_a_replica_that_would_evict_keys_does_not_take_over(side: Processes, limited: tuple[int, ...]) -> None:
    """S1."""
    for number in range(60):
        side.command(side.servers[0], "set", f"large-{number}", "x" * 100_000)
    for number in limited:
        limit(side, number)
    pods = Pods(side)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(pods, side.client, 120)
        wait_until_all_write_on(written)
    assert ended.refused == []
    everybody_small = len(limited) == 2
    assert ("would refuse writes or evict keys" in ended.stopped) == everybody_small
    assert (pods.pods[MASTER].node == NEW) == (not everybody_small)
    assert pods.name_of_master() == MASTER
    home = pods.endpoint(MASTER)
    assert lost(side, home.address.host, written) == 0
    assert all(side.command(home, "strlen", f"large-{n}") == "100000" for n in range(60))


def assert_sentences(ended: Ended) -> None:
    """What people read of each wait is one line, and none of it is Python's. Only credentials are a person's work."""
    for reason in ended.held:
        assert "\n" not in reason
        assert not any(word in reason for word in ("Traceback", "Error(", "object at 0x", "None")), reason
    for reason in ended.refused:
        assert "does not accept the credentials in Secret default/redis-auth" in reason
