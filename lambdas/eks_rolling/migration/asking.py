"""How long what tenants made may keep a step: one look at a group, all looks together, and each object's request.

A server that answers late, or not at all, has its own end (`clients.redis`), but a group may have many of them, and a
tenant may declare thousands of groups. A function has a minute or two: what runs into that says nothing about anybody.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from eks_rolling.clients.protocols import Clients
from eks_rolling.observed.redis import Endpoint, Silent
from eks_rolling.wording import counted

LOOK_SECONDS = 15.0
"""For one look at a group. A server that is well takes a few milliseconds."""

LOOKS_SECONDS = 60.0
"""For the looks of one invocation at all groups."""

REQUESTS_SECONDS = 20.0
"""For one request for each of many objects, such as groups' Leases: some thousands of them."""

NOT_ASKED = "it was not asked, as others took too long to answer"

Seen = TypeVar("Seen")


class Namespaced(Protocol):
    """What is in a namespace."""

    @property
    def namespace(self) -> str: ...


Thing = TypeVar("Thing", bound=Namespaced)


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


def in_turn(
    things: Iterable[Thing], now: Callable[[], float], seconds: float = LOOKS_SECONDS
) -> Iterator[tuple[Thing, bool]]:
    """Each of them, and whether there is time left to look at it.

    It is the turn of the namespace that has taken the least time: what one tenant made uses up its own first.
    """
    waiting, taken, until = dict[str, deque[Thing]](), defaultdict[str, float](float), now() + seconds
    for thing in things:
        waiting.setdefault(thing.namespace, deque()).append(thing)
    while waiting:
        namespace = min(waiting, key=lambda each: taken[each])
        thing = waiting[namespace].popleft()
        if not waiting[namespace]:
            del waiting[namespace]
        began = now()
        yield thing, began <= until
        taken[namespace] += now() - began


def too_many(things: Iterable[Namespaced], what: str, done: str = "looked at") -> Iterator[str]:
    """Says of things whose turn did not come where they are: a sentence without its full stop for each namespace."""
    for namespace, count in sorted(Counter(thing.namespace for thing in things).items()):
        yield f"{counted(count, what)} in {namespace} were not {done}: there are too many"
