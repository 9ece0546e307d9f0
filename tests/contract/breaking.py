"""Faults at a stage of a migration on real servers: where they happen, what a group is then, what they cost anyway."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.contract.redis_pods import Ended, Pods, Writer, lost, migrate, wait_until_all_write_on, writers
from tests.contract.redis_sides import Processes, processes, wait_until_whole

FAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Stage:
    """The `times`-th call of that name whose first argument ends with `subject`, and the moment before or after it."""

    point: str
    times: int = 1
    before: bool = False
    subject: str = ""


class Breaking:
    """Passes calls on; at the stage the fault happens, once."""

    def __init__(self, inner: Any, stage: Stage, fault: Callable[[], None]) -> None:
        self._inner, self._stage, self._left, self._fault = inner, stage, stage.times, fault

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name != self._stage.point:
            return call

        def breaks(*arguments: Any) -> Any:
            self._left -= str(arguments[0]).endswith(self._stage.subject)
            due = self._left == 0
            if due:
                self._left = -1
            if due and self._stage.before:
                self._fault()
            answer = call(*arguments)
            if due and not self._stage.before:
                self._fault()
            return answer

        return breaks


@dataclass
class Case:
    """A Sentinel group in the middle of a migration. What a fault starts for later is waited for at the end."""

    side: Processes
    pods: Pods
    later: list[threading.Timer] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    deaths: list[float] = field(default_factory=list)
    """When masters died (monotonic seconds): what each may cost is said in `unreplicated`."""

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()
        self.later.append(timer)


Fault = Callable[[Case], None]


@contextmanager
def whole_group() -> Iterator[Processes]:
    with processes() as side:
        side.start()
        wait_until_whole(side)
        yield side


def played(side: Processes, stage: Stage, fault: Fault) -> tuple[Case, Ended, list[Writer]]:
    """A migration during which the fault happens."""
    case = Case(side, Pods(side))
    happens = functools.partial(fault, case)
    client, pods = Breaking(side.client, stage, happens), Breaking(case.pods, stage, happens)
    with writers(side) as written:
        wait_until_all_write_on(written)
        ended = migrate(pods, client, 150)
        wait_until_all_write_on(written)
    for timer in case.later:
        timer.join()
    return case, ended, written


def lost_without_a_roll(fault: Fault) -> int:
    """What the same fault costs a group that nobody touches, beyond what a master's death may."""
    with whole_group() as side:
        case = Case(side, Pods(side))
        with writers(side) as written:
            wait_until_all_write_on(written)
            fault(case)
            time.sleep(FAULT_SECONDS + 5)
        for timer in case.later:
            timer.join()
        return lost(side, case.pods.endpoint(case.pods.name_of_master()).address.host, written, case.deaths)
