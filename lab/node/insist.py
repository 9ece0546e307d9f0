"""Doing what must be done, however often it takes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lab.kube import KubeError, UnreachableError
from lab.network.netns import NetworkError

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
T = TypeVar("T")


async def insist(work: Callable[[], Awaitable[T]], unless: tuple[type[KubeError], ...] = ()) -> T:
    """Does `work` until neither the API server nor the network refuses it. Raises only what `unless` names."""
    while True:
        try:
            return await work()
        except unless:
            raise
        except (KubeError, UnreachableError, NetworkError) as error:
            _log.warning("%s; again in %g s", error, _RETRY_SECONDS)
            await asyncio.sleep(_RETRY_SECONDS)
