"""Short waits inside one invocation, each with a deadline: a switch of masters is made of them."""

from collections.abc import Callable
from dataclasses import replace

from eks_rolling.clients.protocols import Clients
from eks_rolling.errors import Transient, sentence
from eks_rolling.observed.redis import Endpoint, Role, Server
from eks_rolling.redis.actions import NEAR_BYTES

CAUGHT_UP_SECONDS = 2.5
"""After a full synchronization a master may send nothing until the replica's next acknowledgement, a second later (the
first one can come before the master has noticed that the transfer ended). Writes that were paused meanwhile would
stand still for as long: measured 0.4 to 0.6 s in 4 of 24 failovers."""

POLL_SECONDS = 0.005


def within(seconds: float, condition: Callable[[], bool], clients: Clients, *, every: float = POLL_SECONDS) -> bool:
    """Whether the condition comes true in that time; asked every few milliseconds, or `every` so many seconds."""
    deadline = clients.now() + seconds
    while not condition():
        if clients.now() > deadline:
            return False
        clients.sleep(every)
    return True


def asked_after(server: Server, endpoint: Endpoint, reached: int, clients: Clients) -> Server:
    """The server, with the offset that it has now where that was far from `reached`, its master's.

    Servers are looked at one after the other: what a busy master took between the look at its replica and the look at
    itself is nothing that the replica lacks.
    """
    if server.role is Role.MASTER or reached - server.offset <= NEAR_BYTES:
        return server
    try:
        role, offset = clients.redis.offset(endpoint)
    except Transient:
        return server
    return replace(server, offset=offset) if role is server.role else server


def caught_up(replica: Endpoint, master: Endpoint, clients: Clients) -> bool:
    """Whether the replica gets to where its master is now, in bytes of the stream, while writes go on.

    Raises what the clients raise.
    """
    _, goal = clients.redis.offset(master)
    return within(CAUGHT_UP_SECONDS, lambda: clients.redis.offset(replica)[1] >= goal, clients)


def behind(replica: object, at: Endpoint, master: object, source: Endpoint, clients: Clients) -> str:
    """What keeps the replica from where its master is now, as a sentence without its full stop; "" if nothing does.

    Raises what the clients raise, but for faults that pass: nothing was tried yet that a count should know of.
    """
    try:
        late = not caught_up(at, source, clients)
    except Transient as error:
        return sentence(error).rstrip(".")
    return f"{replica} did not catch up with {master} within {CAUGHT_UP_SECONDS} s; tried again later" if late else ""
