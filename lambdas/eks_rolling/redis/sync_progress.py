"""A full synchronization as people follow it: bytes left, rate, and when to look again."""

from eks_rolling.observed.redis import Server
from eks_rolling.redis.actions import RedisHold, RedisStep

LONGEST_LOOK_SECONDS = 30.0

SHORTEST_RATE_SECONDS = 1.0
"""A wait that has just begun says nothing of a rate: what was read may have been read before it."""


def held_up(source: Server | None) -> str:
    """Why a synchronization may begin again and again: `source`, the master, cannot take the snapshot that it sends, or
    closes the connection when it writes more meanwhile than the limit for replicas lets it keep. "" for neither."""
    if source is not None and source.save_failed:
        return (
            "; its master could not take its last snapshot (rdb_last_bgsave_status), and a synchronization needs one: "
            "give it the disk or memory that its log says it lacks"
        )
    if source is None or not source.over_limit:
        return ""
    return (
        "; its master has closed connections over client-output-buffer-limit: if it begins again, raise the limit for "
        "replicas"
    )


def synchronizing(name: str, server: Server, source: Server | None, waited: float, step: RedisStep | None) -> RedisHold:
    """The hold of a replica that gets its master's whole data set; `source` is the master, None where it is not seen.

    A diskless master does not say how much it sends (INFO replication, master_sync_total_bytes): what it holds in
    memory is the estimate. The rate is that of the `waited` seconds since the step at hand began to wait.
    """
    left, about = server.sync_left, ""
    if left is None and source is not None and server.sync_read:
        left, about = max(0, source.used_bytes - server.sync_read), "about "
    rate = server.sync_read / waited if waited >= SHORTEST_RATE_SECONDS else 0.0
    said = f"{name} synchronizes"
    if left is not None:
        said += f", {about}{left:,} bytes left"
    if rate:
        said += f", {rate / 1e6:.1f} MB/s"
    said += held_up(source)
    seconds = min(LONGEST_LOOK_SECONDS, left / rate) if left is not None and rate else 1.0
    return RedisHold(said, step, max(1.0, seconds), left, round(rate) or None)
