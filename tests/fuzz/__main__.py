"""`make fuzz`: so many cases of each part, or of one. Prints counts and seeds; exits 1 if any case failed."""

import argparse
import os
import random
import sys
import time

from tests.fuzz.parts import PARTS
from tests.fuzz.running import run_side_by_side


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--number", type=int, default=100_000, help="cases of each part")
    parser.add_argument("--seed", type=int, help="draws the cases that the run with it drew")
    parser.add_argument("--part", choices=PARTS, help="this part alone")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    failed = False
    for part in [given.part] if given.part else PARTS:
        began, ran = time.monotonic(), 0
        failures = []
        numbers = range(given.first, given.first + given.number)
        for count, found in run_side_by_side(part, seed, numbers, given.processes):
            ran += count
            for failure in found:
                print(failure, flush=True)
            failures += found
        took = time.monotonic() - began
        print(f"{part}: {ran} cases, {len(failures)} failed, seed {seed}, {took:.0f} s", flush=True)
        failed = failed or bool(failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
