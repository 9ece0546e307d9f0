"""Tasks that nobody waits for, kept from being collected and from failing in silence."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)
_running: set[asyncio.Task[None]] = set()


def in_background(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    """Starts `work`; what it raises is logged under `name`."""
    task = asyncio.create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: "asyncio.Task[None]") -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)
