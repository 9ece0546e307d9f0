"""What a sentinel that was reset is told, in its order."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Transient
from eks_rolling.migration.learning import LEARN_SECONDS, learn
from eks_rolling.observed.redis import Address, Endpoint, KnownSentinel, Login, Sentinel
from eks_rolling.redis.groups import RedisGroup, RefreshBy
from eks_rolling.redis.sentinel import HURRIED_SECONDS, INFO_SECONDS, Refresh, SentinelGroupState, SentinelPod
from eks_rolling.settings import Settings

LOGIN = Login("shop")
MASTER = Address("10.0.0.1", 6379)
NAMES = ("s-0", "s-1", "s-2")


def listed(name: str) -> KnownSentinel:
    """As it announces itself, which need not be where a roll reaches it."""
    return KnownSentinel(Address(f"announced-{name}", 26379), f"id-{name}", frozenset({"sentinel"}))


def sentinel(name: str, *others: str) -> Sentinel:
    return Sentinel(
        Address(name, 26379), f"id-{name}", current=MASTER, master=MASTER, epoch=7, info_period=INFO_SECONDS,
        sentinels=tuple(listed(other) for other in others),
    )  # fmt: skip


@dataclass
class Redis:
    """Three sentinels, of which the first was never told of anybody but by hellos."""

    sent: list[str] = field(default_factory=list)
    mute: bool = False
    now: float = 0.0
    knows: list[str] = field(default_factory=list)

    def ask_every(self, endpoint: Endpoint, seconds: float) -> None:
        self.sent.append(f"{endpoint} asks every {seconds} s")

    def reset(self, endpoint: Endpoint, name: str) -> None:
        self.sent.append(f"reset {name} on {endpoint}")

    def announce(self, endpoint: Endpoint, name: str, master: Address, epoch: int, by: KnownSentinel) -> None:
        self.sent.append(f"{by.run_id} at {by.address} says {name} is {master} in {epoch} to {endpoint}")
        if self.mute:
            raise Transient("no answer")
        self.knows.append(by.run_id.removeprefix("id-"))

    def sentinel(self, endpoint: Endpoint, _name: str) -> Sentinel:
        return sentinel(endpoint.name, *self.knows)


def refreshed(redis: Redis) -> None:
    first = sentinel("s-0", "s-1", "s-2", "gone")
    views = (first, sentinel("s-1", "s-0", "s-2"), sentinel("s-2", "s-0", "s-1"))
    watchers = tuple(
        SentinelPod(name, None, Endpoint(Address(name, 26379), LOGIN, name), view)
        for name, view in zip(NAMES, views, strict=True)
    )
    seen = SentinelGroupState(RedisGroup("shop", "cache", "main", ()), (), watchers)

    def sleep(seconds: float) -> None:
        redis.now += seconds

    nothing = cast(Any, None)
    clients = Clients(nothing, nothing, cast(Any, redis), Settings(cluster="demo"), lambda: redis.now, sleep, nothing)
    learn(Refresh(watchers[0], "s-0 lists a sentinel, which is gone", RefreshBy.RESET), seen, clients)


def test_it_is_told_of_those_that_live_and_of_no_other_master_or_epoch() -> None:
    """S1: without them it would have nobody to elect a master with."""
    redis = Redis()
    refreshed(redis)
    assert redis.sent == [
        f"s-0 asks every {HURRIED_SECONDS} s",
        "reset main on s-0",
        "id-s-1 at announced-s-1:26379 says main is 10.0.0.1:6379 in 7 to s-0",
        "id-s-2 at announced-s-2:26379 says main is 10.0.0.1:6379 in 7 to s-0",
        f"s-0 asks every {INFO_SECONDS} s",
    ]


def test_whom_it_cannot_be_told_of_says_so_itself() -> None:
    redis = Redis(mute=True)
    refreshed(redis)
    assert redis.sent[-1] == f"s-0 asks every {INFO_SECONDS} s"
    assert redis.now <= LEARN_SECONDS + 1


def test_a_sentinel_that_names_nobody_is_told_nothing() -> None:
    redis = Redis()
    nobody = replace(sentinel("s-0", "s-1"), current=None)
    watcher = SentinelPod("s-0", None, Endpoint(Address("s-0", 26379), LOGIN, "s-0"), nobody)
    seen = SentinelGroupState(RedisGroup("shop", "cache", "main", ()), (), (watcher,))
    clients = Clients(cast(Any, None), cast(Any, None), cast(Any, redis), Settings(cluster="demo"), lambda: 0.0,
                      lambda _: None, cast(Any, None))  # fmt: skip
    learn(Refresh(watcher, "it lists a sentinel, which is gone", RefreshBy.RESET), seen, clients)
    assert not [each for each in redis.sent if "says" in each]
