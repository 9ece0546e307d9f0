"""Runs cases of a part, over several processes, and says how many there were and which failed."""

import random
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tests.fuzz.parts import PARTS, Case
from tests.fuzz.wild import Wild

PIECES = 64
"""Each process takes so many cases at a time at least: what a part sets up is set up once for them."""

KEPT = 5
"""Failures of a piece that are told in full."""


@dataclass(frozen=True)
class Failure:
    """A case that failed: it comes again by its part, seed and number."""

    part: str
    seed: int
    number: int
    told: str

    def __str__(self) -> str:
        again = f"make fuzz PART={self.part} SEED={self.seed} FROM={self.number} N=1"
        return f"{self.told}\n{again}"


@contextmanager
def set_up(part: str) -> Iterator[Case]:
    """A part's case, ready to be run."""
    made = PARTS[part]()
    yield next(made)
    for _ in made:
        raise AssertionError(f"{part} has more than one case")


def run(part: str, seed: int, numbers: range) -> tuple[int, list[Failure]]:
    """How many cases ran, and the first that failed."""
    failures: list[Failure] = []
    # Deep structures fail by the product's own limits, not by how deep the test itself stands.
    sys.setrecursionlimit(1000)
    with set_up(part) as case:
        for number in numbers:
            try:
                case(Wild(random.Random(f"{part} {seed} {number}")))
            except Exception:  # noqa: BLE001 (that is what is looked for)
                failures.append(Failure(part, seed, number, traceback.format_exc(limit=-4)))
                if len(failures) == KEPT:
                    return number + 1 - numbers.start, failures
    return len(numbers), failures


def run_side_by_side(part: str, seed: int, numbers: range, processes: int) -> Iterator[tuple[int, list[Failure]]]:
    """The same in pieces, each as it is done."""
    size = max(PIECES, len(numbers) // (16 * processes))
    pieces = [numbers[at : at + size] for at in range(0, len(numbers), size)]
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run, [part] * len(pieces), [seed] * len(pieces), pieces)
