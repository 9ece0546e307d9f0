"""What applications do to Redis beside small writes: large values in pipelines, transactions, scripts, queues with
blocking pops, messages, keys that expire.

Each kind of use has a client of its own, remembers what was acknowledged, and looks for it in the end. Keys of one
transaction, script or queue have one hash tag, so that all of it works in a cluster too.
"""

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from lab.traffic.cancelling import cancel_all

Json = dict[str, Any]

SIZES = (1_000, 10_000, 100_000, 1_000_000)
"""Of values, in bytes: the same share of the load each."""

FLUSH_BYTES = 100_000
"""A pipeline is sent with so many bytes, or with one larger value."""

VALUES = 16
"""Keys of each size, written again and again: 18 MB in all."""

TRANSACTIONS, SCRIPTS, TODO, DONE = "load:transactions", "load:scripts", "{load:queue}:todo", "{load:queue}:done"
CHANNEL = "load:messages"
LATER, SOON = "load:later", "load:soon"
LISTS = 16
"""Pairs of lists that transactions and scripts write to: they are spread over the slots of a cluster."""

PER_SECOND = 20.0
"""Transactions, scripts, queued jobs, messages and expiring keys, of each."""

POP_SECONDS = 0.5
SOON_MILLISECONDS = 500
LATER_SECONDS = 3600
AGAIN_SECONDS = 0.01
LAST_SECONDS = 30.0

BOTH = "redis.call('rpush', KEYS[1], ARGV[1]) redis.call('rpush', KEYS[2], ARGV[1]) return 1"


@dataclass(slots=True)
class Use:
    """What one kind of use had acknowledged. Gaps are seconds without an acknowledgement."""

    acked: int = 0
    errors: int = 0
    longest_gap: float = 0.0
    numbers: set[int] = field(default_factory=set)
    _last: float = 0.0

    def note(self, *numbers: int, acked: int = 1) -> None:
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self._last) if self._last else 0.0
        self._last = now
        self.acked += acked
        self.numbers.update(numbers)

    def to_json(self, lost: int) -> Json:
        return {"acked": self.acked, "lost": lost, "errors": self.errors, "longest_gap": round(self.longest_gap, 3)}


class Load:
    """All uses of one group.

    `connect` answers a new client of the group; `at`, in a cluster, a client of the one node at a host and port.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        megabytes_per_second: float,
        refused: tuple[type[BaseException], ...],
        at: Callable[[str, int], Any] | None = None,
    ) -> None:
        self._connect, self._at, self._rate, self._refused = connect, at, megabytes_per_second * 1e6, refused
        self._clients: list[Any] = []
        self._nodes: dict[tuple[str, int], Any] = {}
        self._noise = os.urandom(max(SIZES))
        self._newest: dict[str, int] = {}
        """Key of a large value -> the last number that was acknowledged for it."""
        self.uses = {name: Use() for name in ("values", "transactions", "scripts", "queue", "messages", "expiring")}

    def _client(self) -> Any:
        self._clients.append(self._connect())
        return self._clients[-1]

    async def run(self) -> None:
        """Until cancelled."""
        work: list[Coroutine[Any, Any, None]] = [
            self._write_values(),
            self._again("transactions", PER_SECOND, self._transaction),
            self._again("scripts", PER_SECOND, self._script),
            self._again("queue", PER_SECOND, self._push),
            self._again("", 0, self._pop),
            self._again("", PER_SECOND, self._publish),
            self._hear(),
            self._again("expiring", PER_SECOND, self._expire),
        ]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            # `asyncio.gather` ends with the first that is cancelled, and another one might write on.
            await cancel_all(tasks)

    async def _again(self, use: str, per_second: float, write: Callable[[Any, int], Coroutine[Any, Any, Any]]) -> None:
        """One number after the other; one that was refused is not tried again: it may have been written."""
        client = self._client()
        for number in itertools.count(1):
            try:
                await write(client, number)
            except self._refused:
                if use:
                    self.uses[use].errors += 1
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if use:
                self.uses[use].note(number)
            if per_second:
                await asyncio.sleep(1 / per_second)

    async def _write_values(self) -> None:
        client, use = self._client(), self.uses["values"]
        began, sent = time.monotonic(), 0
        numbers = itertools.count(1)
        for batch in itertools.cycle(_batches()):
            pairs = [(key, next(numbers), size) for key, size in batch]
            pipeline = client.pipeline(transaction=False)
            for key, number, size in pairs:
                pipeline.set(key, b"%d:" % number + self._noise[:size])
            try:
                await pipeline.execute()
            except self._refused:
                use.errors += 1
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self._newest |= {key: number for key, number, _ in pairs}
            use.note(acked=len(pairs))
            sent += sum(size for _, size in batch)
            await asyncio.sleep(max(0.0, sent / self._rate - (time.monotonic() - began)))

    async def _transaction(self, client: Any, number: int) -> None:
        one, other = _pair(TRANSACTIONS, number)
        pipeline = (await self._server_of(client, one)).pipeline(transaction=True)
        for key in (one, other):
            pipeline.rpush(key, number)
        await pipeline.execute()

    async def _server_of(self, client: Any, key: str) -> Any:
        """A client of the server that has the key.

        redis-py's own transactions in a cluster read from another event loop's connection, and fail (asyncio, 8.1).
        """
        if self._at is None:
            return client
        # A redirection of it teaches the client where the slot is now.
        await client.exists(key)
        node = client.get_node_from_key(key)
        where = (node.host, int(node.port))
        if where not in self._nodes:
            self._nodes[where] = self._at(*where)
        return self._nodes[where]

    async def _listener(self) -> Any:
        """A new client that can subscribe: messages reach every node of a cluster."""
        client = self._connect()
        if self._at is None:
            return client
        async with client:
            await client.exists(LATER)
            node = client.get_node_from_key(LATER)
            return self._at(node.host, int(node.port))

    async def _script(self, client: Any, number: int) -> None:
        await client.eval(BOTH, 2, *_pair(SCRIPTS, number), number)

    async def _push(self, client: Any, number: int) -> None:
        await client.rpush(TODO, number)

    async def _pop(self, client: Any, _number: int) -> None:
        await client.blmove(TODO, DONE, POP_SECONDS, "LEFT", "RIGHT")

    async def _publish(self, client: Any, number: int) -> None:
        await client.publish(CHANNEL, number)

    async def _expire(self, client: Any, number: int) -> None:
        await client.set(f"{LATER}:{number}", number, ex=LATER_SECONDS)
        await client.set(f"{SOON}:{number}", number, px=SOON_MILLISECONDS)

    async def _hear(self) -> None:
        """Messages are delivered at most once; what counts is how soon they come again."""
        use = self.uses["messages"]
        while True:
            try:
                async with await self._listener() as client, client.pubsub() as subscriber:
                    await subscriber.subscribe(CHANNEL)
                    while True:
                        said = await subscriber.get_message(ignore_subscribe_messages=True, timeout=POP_SECONDS)
                        if said is not None:
                            use.note()
            except self._refused:
                use.errors += 1
                await asyncio.sleep(AGAIN_SECONDS)

    async def conclude(self) -> Json:
        """Each use, with how much of what was acknowledged is not there; asked until it is answered.

        Then its clients are closed. Raises TimeoutError.
        """
        client = self._client()
        await asyncio.sleep(2 * SOON_MILLISECONDS / 1000)
        looks: dict[str, Callable[[Any], Awaitable[int]]] = {
            "values": self._lost_values,
            "transactions": lambda c: self._lost_pairs(c, TRANSACTIONS, "transactions"),
            "scripts": lambda c: self._lost_pairs(c, SCRIPTS, "scripts"),
            "queue": self._lost_jobs,
            "expiring": self._lost_keys,
        }
        found: Json = {"messages": self.uses["messages"].to_json(0)}
        async with asyncio.timeout(LAST_SECONDS):
            while missing := looks.keys() - found.keys():
                for name in missing:
                    with contextlib.suppress(*self._refused):
                        found[name] = self.uses[name].to_json(await looks[name](client))
        for each in (*self._clients, *self._nodes.values()):
            with contextlib.suppress(*self._refused):
                await each.aclose()
        return found

    async def _lost_values(self, client: Any) -> int:
        """Values older than what was acknowledged last, or not whole."""
        lost = 0
        for key, newest in self._newest.items():
            head, length = await client.getrange(key, 0, 15), await client.strlen(key)
            number, _, _ = bytes(head).partition(b":")
            whole = length == len(number) + 1 + _size_of(key)
            lost += not (number.isdigit() and int(number) >= newest and whole)
        return lost

    async def _lost_pairs(self, client: Any, prefix: str, use: str) -> int:
        """Numbers that are missing in one of two lists that were written together, acknowledged or not."""
        both: list[set[int]] = [set(), set()]
        for number in range(LISTS):
            for side, key in enumerate(_pair(prefix, number)):
                both[side] |= await _numbers(client, key)
        first, second = both
        return len(self.uses[use].numbers - (first & second)) + len(first ^ second)

    async def _lost_jobs(self, client: Any) -> int:
        """Neither waiting nor done."""
        there = await _numbers(client, DONE) | await _numbers(client, TODO)
        return len(self.uses["queue"].numbers - there)

    async def _lost_keys(self, client: Any) -> int:
        """Keys that are gone an hour early, or there after their time."""
        lost = 0
        for number in self.uses["expiring"].numbers:
            lost += await client.get(f"{LATER}:{number}") is None
            lost += await client.get(f"{SOON}:{number}") is not None
        return lost


def totals(concluded: Json) -> tuple[int, int]:
    """How much was acknowledged, and how much of it is not there."""
    return sum(use["acked"] for use in concluded.values()), sum(use["lost"] for use in concluded.values())


def _batches() -> list[list[tuple[str, int]]]:
    """Keys and sizes of pipelines: the same bytes of each size."""
    batches: list[list[tuple[str, int]]] = []
    for size in SIZES:
        at_once = min(VALUES, max(1, FLUSH_BYTES // size))
        keys = itertools.cycle(f"load:value:{size}:{n}" for n in range(VALUES))
        batches += [[(next(keys), size) for _ in range(at_once)] for _ in range(max(SIZES) // (at_once * size))]
    # Large ones between small ones, always in the same order.
    random.Random(1).shuffle(batches)  # noqa: S311 (no secret)
    return batches


def _size_of(key: str) -> int:
    return int(key.rsplit(":", 2)[1])


def _pair(prefix: str, number: int) -> tuple[str, str]:
    tag = f"{{{prefix}:{number % LISTS}}}"
    return f"{tag}:a", f"{tag}:b"


async def _numbers(client: Any, key: str) -> set[int]:
    return {int(number) for number in await client.lrange(key, 0, -1)}
