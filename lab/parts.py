"""What a part of the lab is: a process, and how one knows that it is ready."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """A process of the lab. The supervisor starts it once every part in `after` is ready."""

    name: str
    command: Sequence[str]
    ready_url: str | None = None
    """Ready once a GET answers 200 (certificates are not checked); without it, as soon as it is started."""
    after: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 2.0
    """From SIGTERM to SIGKILL."""
