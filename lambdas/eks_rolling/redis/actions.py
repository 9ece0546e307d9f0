"""What every Redis group's migration has in common: the states that do it, and the answers that change nothing."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

NEAR_BYTES = 1024 * 1024
"""A replica that is behind by less is in sync: it needs milliseconds."""

PATIENCE_SECONDS = 20.0
"""What Redis and Sentinel settle by themselves is settled by then: INFO every 10 s, hello every 2 s."""


class RedisStep(StrEnum):
    """What each state that migrates a group stands for: deadlines, waits and metrics are named after it."""

    MOVE_REPLICA = "move_replica"
    FAIL_OVER = "fail_over"
    MOVE_MASTER = "move_master"
    ATTACH_MASTER = "attach_master"
    FAIL_BACK = "fail_back"
    REFRESH_SENTINELS = "refresh_sentinels"
    MOVE_SENTINEL = "move_sentinel"

    CREATE_STAND_IN = "create_stand_in"
    JOIN_STAND_IN = "join_stand_in"
    FAIL_OVER_TO_STAND_IN = "fail_over_to_stand_in"
    MOVE_SHARD_POD = "move_shard_pod"
    SYNC_SHARD_POD = "sync_shard_pod"
    FAIL_BACK_TO_SHARD_POD = "fail_back_to_shard_pod"
    REMOVE_STAND_IN = "remove_stand_in"
    DELETE_STAND_IN = "delete_stand_in"


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, in a sentence; `stall` is for how many seconds no client could write, if that was part of it.

    `failed_over`: a master's role changed hands. `untold`: not every sentinel names the new master yet. `acted`: False
    where nothing was changed, so that the same wait goes on.
    """

    said: str
    stall: float | None = None
    failed_over: bool = False
    untold: bool = False
    acted: bool = True

    def switches(self, group: str) -> list[dict[str, Any]]:
        """The handover of a master that this was, or tried to be, as the step's answer passes it to the report."""
        if self.stall is None and not self.failed_over:
            return []
        stalled = None if self.stall is None else round(self.stall * 1000)
        return [{"group": group, "stalled_ms": stalled, "completed": self.failed_over}]


@dataclass(frozen=True, slots=True)
class RedisHold:
    """Nothing to do but wait; without a `step` whichever state looks waits.

    `bytes_left` and `bytes_per_second` are those of a synchronization, where they are known.
    """

    reason: str
    step: RedisStep | None = None
    seconds: float = 1.0
    bytes_left: int | None = None
    bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """A person has to decide."""

    reason: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The group is normal and nothing of it is on the node."""

    reason: str
