"""Waiting for what a machine does in its own time: for conditions, with deadlines that a slow machine stretches.

A test never judges how long something took. A deadline is there only so that what will never come ends the test with
a sentence; it is said for a quiet machine and stretched by how busy this one is.
"""

import os
import time
from collections.abc import Callable
from typing import Any

_BURST_SECONDS = 0.005
_LONGEST_PAUSE = 0.5
_LONGEST = 8.0
"""A deadline is stretched so many times at most: a test that hangs has to end before the job does."""


def slowness() -> float:
    """How many times longer than on a quiet machine work takes now: 1 or more.

    By what this thread is given of a core for a moment, and by how many processes wait for one.
    """
    began, used = time.perf_counter(), time.thread_time()
    while time.thread_time() - used < _BURST_SECONDS:
        pass
    stretched = (time.perf_counter() - began) / _BURST_SECONDS
    cores = len(os.sched_getaffinity(0))
    return min(_LONGEST, max(1.0, stretched, os.getloadavg()[0] / cores))


def patience(seconds: float) -> float:
    """So long at most is waited now for what a quiet machine does within `seconds`."""
    return seconds * slowness()


def until(look: Callable[[], object], what: str, *, within_seconds: float = 60.0, pause: float = 0.05) -> Any:
    """What `look` first answers that is true. Fails as an assertion naming `what` if that never comes.

    A look that takes long keeps both sides of it busy: the pause after it is three times as long, up to half a second.
    """
    began = looked = time.monotonic()
    while not (seen := look()):
        now = time.monotonic()
        waited, took = now - began, now - looked
        if waited > within_seconds:
            allowed = patience(within_seconds)
            assert waited <= allowed, f"not within {within_seconds:.0f} s ({allowed:.0f} s on this machine): {what}"
        time.sleep(max(pause, min(_LONGEST_PAUSE, 3 * took)))
        looked = time.monotonic()
    return seen
