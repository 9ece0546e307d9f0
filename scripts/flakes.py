"""Runs tests again and again beside busy loops, and says how often each failed: `python -m scripts.flakes N TEST...`.

There are as many busy loops as the machine has cores, so the tests get about half of it. Prints every failure with its
first line as it comes, at the end a table, and what so many runs prove. Exits 1 if anything failed.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as Xml

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
BUSY = "while True: pass"


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that take all they are given, for the time of the block."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def failures_in(results: Path) -> tuple[int, dict[str, str]]:
    """How many tests ran, and the first line of what each that failed said. Raises if there are no results."""
    ran, failed = 0, {}
    for case in Xml.parse(results).iter("testcase"):  # noqa: S314 (pytest has just written it)
        ran += 1
        for problem in (*case.iter("failure"), *case.iter("error")):
            said = (problem.get("message") or problem.text or "").strip().splitlines() or ["(nothing)"]
            failed[f"{case.get('classname')}::{case.get('name')}"] = said[0][:200]
    return ran, failed


def run_once(tests: list[str], workers: int) -> tuple[int, dict[str, str]]:
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--dist", "loadgroup", "-n", str(workers)]
        command += [f"--junitxml={results}", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 1}:
            raise SystemExit(f"pytest could not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        for kept in re.findall(r"^\S*/build/failures/\S+", done.stdout, re.MULTILINE):
            print("  kept:", kept)
        return failures_in(results)


def main() -> int:
    times, tests = int(sys.argv[1]), sys.argv[2:]
    cores = len(os.sched_getaffinity(0))
    failed: dict[str, list[str]] = defaultdict(list)
    ran = 0
    with busy_loops(cores):
        for number in range(1, times + 1):
            began = time.monotonic()
            ran, now = run_once(tests, cores)
            took, load = time.monotonic() - began, os.getloadavg()[0]
            print(f"run {number} of {times}: {len(now)} of {ran} failed; {took:.0f} s, load {load:.1f}", flush=True)
            for test, line in now.items():
                failed[test].append(line)
                print(f"  {test}: {line}", flush=True)
    table = Table("test", "failed", "said")
    for test, lines in sorted(failed.items(), key=lambda each: -len(each[1])):
        table.add_row(test, f"{len(lines)} of {times}", "\n".join(sorted(set(lines))))
    if failed:
        Console(width=200).print(table)
        return 1
    print(f"{ran} tests, {times} runs, no failure: each fails less than once in {times / 3:.1f} runs (95 %).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
