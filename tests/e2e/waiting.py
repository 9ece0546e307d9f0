"""Waiting for what tests of whole rolls wait for."""

import time
from collections.abc import Callable

from lab.lifecycle import LabError


def until(condition: Callable[[], object], what: str, *, within_seconds: float = 120.0) -> None:
    """Looks until it is so; raises LabError naming what was waited for."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {within_seconds:.0f} s: {what}")
        time.sleep(0.3)
