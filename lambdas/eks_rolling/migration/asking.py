"""How long servers that answer late, or not at all, may keep a step: one look at a group, and all looks together.

Each server has its own end (`clients.redis`), but a group may have many of them, and a function has a minute or two:
what runs into that says nothing about anybody.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.redis import Endpoint, Silent
from eks_rolling.redis.groups import RedisGroup

LOOK_SECONDS = 15.0
"""For one look at a group. A server that is well takes a few milliseconds."""

LOOKS_SECONDS = 60.0
"""For the looks of one invocation at all groups."""

NOT_ASKED = "it was not asked, as others took too long to answer"

Seen = TypeVar("Seen")


class Asking:
    """Asks the servers of one group, one after the other. Those whose turn comes too late count as silent."""

    def __init__(self, clients: Clients) -> None:
        self._now = clients.now
        self._until = clients.now() + LOOK_SECONDS

    @property
    def late(self) -> bool:
        """Whether no more is asked."""
        return self._now() > self._until

    def __call__(self, endpoint: Endpoint, ask: Callable[[Endpoint], Seen]) -> Seen | Silent:
        return Silent(endpoint.address, NOT_ASKED) if self.late else ask(endpoint)


def in_turn(groups: Iterable[RedisGroup], now: Callable[[], float]) -> Iterator[tuple[RedisGroup, bool]]:
    """Each group, and whether there is time left to look at it.

    It is the turn of the namespace that has taken the least time: silent servers of one tenant use up its own first.
    """
    waiting, taken, until = list(groups), defaultdict[str, float](float), now() + LOOKS_SECONDS
    while waiting:
        group = min(waiting, key=lambda each: taken[each.namespace])
        waiting.remove(group)
        began = now()
        yield group, began <= until
        taken[group.namespace] += now() - began
