"""Runs the tests of the product in three parts, side by side: `python -m scripts.side_by_side [--sample-seed=N] ...`.

Options go to pytest. Whole rolls in labs wait for most of their time. Beside them run the tests that only compute, at
the lowest priority: they take what is left of the cores, and nothing that the others would need in time. Tests on real
servers, which wait for half of their time, begin once one of the two has ended. One seed draws all samples. What each
part prints comes in one piece, in the order below. Exits 1 if one part fails, 130 once an interruption has ended all
of them.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

SEED = "--sample-seed="
INTERRUPTED = 130
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PAUSE_SECONDS = 0.2
DECISIONS = ("tests/hostile", "tests/model", "tests/stacks", "tests/unit")
_NICE_TIMEOUT_SECONDS = 1200
"""Of a test to which the others leave little of a core."""


@dataclass(frozen=True)
class Part:
    """Tests that run on processes of their own."""

    name: str
    command: tuple[str, ...]
    niceness: int = 0
    follows: bool = False
    """It begins once one of the others has ended, and has left room. Not the first one."""


@dataclass
class Running:
    """A part at work. What it prints is in a file until its turn has come."""

    part: Part
    process: "subprocess.Popen[bytes]"
    output: BinaryIO
    passed_on: int = 0
    """So many bytes of it."""


def parts(cores: int, gigabytes: float, options: Sequence[str]) -> tuple[Part, ...]:
    """How the tests are divided on a machine of that size.

    A lab of a whole roll wants most of a core and two gigabytes, a process of tests on real servers a third of one.
    """

    def pytest(workers: int, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "pytest", "-n", str(workers), "--dist", "loadgroup", *options, *arguments)

    rolling = max(1, min(cores + 1, int(gigabytes / 3)))
    waiting = max(1, min(3 * cores, int(gigabytes / 2)))
    return (
        Part("rolls", pytest(rolling, "--no-loadscope-reorder", "tests/e2e")),
        Part("clients", pytest(waiting, "tests/contract"), follows=True),
        Part("decisions", pytest(cores, f"--timeout={_NICE_TIMEOUT_SECONDS}", *DECISIONS), niceness=19),
    )


def with_seed(options: Iterable[str]) -> list[str]:
    """The options, with a seed if they have none: every part draws its sample with the same."""
    given = list(options)
    drawn = [] if any(o.startswith(SEED) for o in given) else [f"{SEED}{random.SystemRandom().randrange(10**6)}"]
    return [*given, *drawn]


def run(wanted: Sequence[Part], to: BinaryIO) -> int:
    """Runs them side by side, and writes what they say one after the other. Answers the exit code."""
    began = time.monotonic()
    running: dict[str, Running] = {}
    ended: list[tuple[str, int]] = []
    with ExitStack() as stack:

        def begin() -> None:
            for part in wanted:
                room = not part.follows or any(each.process.poll() is not None for each in running.values())
                if room and part.name not in running:
                    _begin(part, running, stack.enter_context(TemporaryFile()))

        try:
            for part in wanted:
                begin()
                ended.append((part.name, _told(running[part.name], to, begin)))
        except KeyboardInterrupt:
            _interrupt(running.values())
            for each in running.values():
                _told(each, to)
            return INTERRUPTED
    failed = [name for name, code in ended if code]
    verdict = f"failed: {', '.join(failed)}" if failed else "all passed"
    to.write(f"\n{len(ended)} parts in {(time.monotonic() - began) / 60:.1f} minutes: {verdict}\n".encode())
    to.flush()
    return 1 if failed else 0


def _begin(part: Part, running: dict[str, Running], output: BinaryIO) -> None:
    """What has begun when an interruption comes is ended."""
    with _uninterrupted() as mask:
        running[part.name] = _start(part, output, mask)


@contextmanager
def _uninterrupted() -> Iterator[set[int]]:
    """Interruptions come afterwards: of what has begun in here, everybody knows by then. Gives the mask from before."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        yield {*mask}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(part: Part, output: BinaryIO, mask: set[int]) -> Running:
    # A group of its own: an interruption reaches all of its processes, once. They would inherit what is blocked here.
    process = subprocess.Popen(
        ["nice", "-n", str(part.niceness), *part.command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=partial(signal.pthread_sigmask, signal.SIG_SETMASK, mask),
    )
    return Running(part, process, output)


def _told(each: Running, to: BinaryIO, meanwhile: Callable[[], None] = lambda: None) -> int:
    """Passes on what the part has said and says, until it has ended; its exit code. Does `meanwhile` in pauses."""
    if not each.passed_on:
        to.write(f"\n{each.part.name}: {' '.join(each.part.command)}\n".encode())
    while True:
        code = each.process.poll()
        said = os.pread(each.output.fileno(), 1 << 20, each.passed_on)
        each.passed_on += len(said)
        to.write(said)
        to.flush()
        if not said and code is not None:
            return code
        if not said:
            meanwhile()
            time.sleep(_PAUSE_SECONDS)


def _interrupt(running: Iterable[Running]) -> None:
    """Has every part end its labs and itself, as Ctrl-C does; a second one ends them at once."""
    alive = [each.process for each in running if each.process.poll() is None]
    for process in alive:
        os.killpg(process.pid, signal.SIGINT)
    try:
        for process in alive:
            process.wait()
    except KeyboardInterrupt:
        for process in alive:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def hear_interruptions() -> None:
    """Ctrl-C, a cancelled job and a closed terminal are the same to us. Parts hear it even if whoever started us in the
    background had it ignored: a handler, unlike that, is not inherited."""
    for interruption in INTERRUPTIONS:
        signal.signal(interruption, signal.default_int_handler)


def _gigabytes() -> float:
    """That are free for processes."""
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable")]
    return int(line.split()[1]) / 1024**2


def main() -> int:
    hear_interruptions()
    options = with_seed(sys.argv[1:])
    print("rolls and decisions, and clients once one of the two has ended:", *options, flush=True)
    return run(parts(len(os.sched_getaffinity(0)), _gigabytes(), options), sys.stdout.buffer)


if __name__ == "__main__":
    sys.exit(main())
