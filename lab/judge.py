"""The judge: what clients saw of a roll, phase by phase. Pure: records in, verdict out."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

Json = dict[str, Any]

LAG_SECONDS = 0.02
"""From here on the lag of the clients' own process is worth a word."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the roll; times are epoch seconds."""

    name: str
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class HttpVerdict:
    """Requests of one phase and way. The gap is the longest time without a good answer."""

    phase: str
    route: str
    requests: int
    failed: int
    longest_gap_seconds: float
    slowest_seconds: float


@dataclass(frozen=True, slots=True)
class RedisVerdict:
    """Writes to one Redis group. The stall is the longest time that one client went without an acknowledged write."""

    group: str
    kind: str
    acked: int
    lost: int
    longest_stall_seconds: float
    failovers: int
    errors: dict[str, int]
    reads: int
    read_errors: dict[str, int]
    samples: int = 0
    """Of a cluster: how often every node was asked for the slots that it sees served."""
    unserved: int = 0
    """Answers that not all are."""
    dataset_megabytes: int = 0
    """What was there before the clients began."""
    dataset_missing: int = 0
    """Parts of it that are gone in the end."""
    stall_lag_seconds: float = 0.0
    """For how much of the longest stall the clients' own process stood still, on a machine that is busy."""
    load: dict[str, dict[str, float]] = field(default_factory=dict)
    """Use of Redis beside the writers -> what was acknowledged, and lost; seconds without an acknowledgement."""

    @property
    def load_acked(self) -> int:
        return int(sum(use["acked"] for use in self.load.values()))

    @property
    def load_lost(self) -> int:
        return int(sum(use["lost"] for use in self.load.values()))

    def to_json(self) -> Json:
        rounded = {name: round(getattr(self, name), 3) for name in ("longest_stall_seconds", "stall_lag_seconds")}
        return asdict(self) | rounded


@dataclass(frozen=True, slots=True)
class Verdict:
    """What clients saw."""

    http: tuple[HttpVerdict, ...]
    errors: dict[str, int]
    jobs: dict[str, int]
    max_unavailable_seen: dict[str, int]
    redis: tuple[RedisVerdict, ...] = ()

    @property
    def requests(self) -> int:
        return sum(v.requests for v in self.http)

    @property
    def failed(self) -> int:
        return sum(v.failed for v in self.http)

    @property
    def longest_gap_seconds(self) -> float:
        return max((v.longest_gap_seconds for v in self.http), default=0.0)

    def to_json(self) -> Json:
        return {
            "http": {
                "requests": self.requests,
                "failed": self.failed,
                "longest_gap_seconds": round(self.longest_gap_seconds, 3),
            },
            "jobs": self.jobs,
            "max_unavailable_seen": self.max_unavailable_seen,
            "phases": [
                {
                    "phase": v.phase,
                    "route": v.route,
                    "requests": v.requests,
                    "failed": v.failed,
                    "longest_gap_seconds": round(v.longest_gap_seconds, 3),
                    "slowest_seconds": round(v.slowest_seconds, 3),
                }
                for v in self.http
            ],
            "errors": self.errors,
            "redis": [r.to_json() for r in self.redis],
        }


def judge(record: Json, phases: Sequence[Phase]) -> Verdict:
    """The verdict on a traffic record. Requests belong to the phase they were sent in."""
    routes = sorted({r["route"] for r in record["requests"]})
    errors: dict[str, int] = {}
    for request in record["requests"]:
        if request["error"]:
            errors[request["error"]] = errors.get(request["error"], 0) + 1
    return Verdict(
        http=tuple(_judge_requests(record["requests"], phase, route) for phase in phases for route in routes),
        errors=errors,
        jobs=_judge_jobs(record["jobs"]),
        max_unavailable_seen=dict(record["most_unavailable"]),
        redis=tuple(_judge_redis(each) for each in record.get("redis", ())),
    )


def _judge_redis(record: Json) -> RedisVerdict:
    writers, lag = record["writers"], record.get("lag", ())
    stalls = [each for w in writers for each in itertools.pairwise(w["at"])]
    begins, ends = max(stalls, key=lambda each: each[1] - each[0], default=(0.0, 0.0))
    return RedisVerdict(
        record["group"],
        record["kind"],
        acked=sum(w["acked"] for w in writers),
        lost=sum(len(w["lost"]) for w in writers),
        longest_stall_seconds=ends - begins,
        failovers=record["failovers"],
        errors=dict(record["errors"]),
        reads=record["reads"],
        read_errors=dict(record["read_errors"]),
        samples=record.get("samples", 0),
        unserved=len(record.get("unserved", ())),
        dataset_megabytes=record.get("dataset", {}).get("megabytes", 0),
        dataset_missing=record.get("dataset", {}).get("missing", 0),
        stall_lag_seconds=sum(max(0.0, min(ends, due + late) - max(begins, due)) for due, late in lag),
        load=record.get("load", {}),
    )


def _judge_requests(requests: Iterable[Json], phase: Phase, route: str) -> HttpVerdict:
    mine = [r for r in requests if r["route"] == route and phase.begins <= r["at"] < phase.ends]
    good = sorted(r["at"] + r["seconds"] for r in mine if not r["error"])
    # A phase without any good answer is one whole gap.
    edges = [phase.begins, *good, phase.ends] if mine and not good else good
    gaps = [later - earlier for earlier, later in itertools.pairwise(edges)]
    return HttpVerdict(
        phase.name,
        route,
        len(mine),
        sum(1 for r in mine if r["error"]),
        max(gaps, default=0.0),
        max((r["seconds"] for r in mine), default=0.0),
    )


def _judge_jobs(jobs: Iterable[Json]) -> dict[str, int]:
    counts = {"done": 0, "lost": 0, "twice": 0}
    for job in jobs:
        counts["done"] += bool(job["done_by"])
        counts["lost"] += not job["done_by"]
        counts["twice"] += len(job["done_by"]) > 1
    return counts


def _redis_line(verdict: RedisVerdict) -> str:
    times = f"{verdict.failovers} failover{'' if verdict.failovers == 1 else 's'}"
    return (
        f"redis {verdict.group}: {verdict.acked:,} writes acknowledged, {verdict.lost:,} lost, {times}, "
        f"longest stall {verdict.longest_stall_seconds:.2f} s{_lagging(verdict)}"
        + (f", slots unserved in {verdict.unserved} of {verdict.samples:,} samples" if verdict.samples else "")
        + (
            f", {verdict.dataset_missing} parts of {verdict.dataset_megabytes} MB gone"
            if verdict.dataset_megabytes
            else ""
        )
        + (f", {verdict.load_lost:,} of {verdict.load_acked:,} under load lost" if verdict.load else "")
    )


def _lagging(verdict: RedisVerdict) -> str:
    lag = verdict.stall_lag_seconds
    return f" (for {lag:.2f} s of it the clients' own process stood still)" if lag >= LAG_SECONDS else ""


def table(verdict: Verdict) -> Table:
    """The verdict as people read it."""
    result = Table("phase", "way", title="what clients saw", title_justify="left")
    for column in ("requests", "failed", "longest gap", "slowest"):
        result.add_column(column, justify="right")
    for row in verdict.http:
        result.add_row(
            row.phase,
            row.route,
            str(row.requests),
            f"[red]{row.failed}" if row.failed else "0",
            f"{row.longest_gap_seconds:.3f} s",
            f"{row.slowest_seconds:.3f} s",
        )
    jobs = verdict.jobs
    missing = ", ".join(f"{app} {most}" for app, most in sorted(verdict.max_unavailable_seen.items()))
    result.caption = (
        f"jobs: {jobs['done']} done, {jobs['lost']} lost, {jobs['twice']} done twice\n"
        f"most pods unavailable at any moment: {missing}" + "".join(f"\n{_redis_line(r)}" for r in verdict.redis)
    )
    result.caption_justify = "left"
    return result
