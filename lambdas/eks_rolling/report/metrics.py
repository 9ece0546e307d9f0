"""What is counted, as CloudWatch metrics: the embedded metric format, which a function's log carries without any call.

A step answers with what it did; this module alone knows what of it is counted, and under which name. An invocation that
is made again after a fault counts again: the numbers are for charts and alarms, the report is the record.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from eks_rolling.documents.failure import error_of
from eks_rolling.documents.report import NodeEnding
from eks_rolling.errors import Aborted, NotBegun
from eks_rolling.payloads import NodeOutcomeTask, Status, StepResult, Task

NAMESPACE = "EksRolling"
CLUSTER = "cluster"
"""The dimension that every metric has."""


class Name(StrEnum):
    """Every metric."""

    ROLLS_STARTED = "RollsStarted"
    ROLLS_ENDED = "RollsEnded"
    NODES_REPLACED = "NodesReplaced"
    NODES_FAILED = "NodesFailed"
    WAIT_SECONDS = "WaitSeconds"
    PODS_EVICTED = "PodsEvicted"
    EVICTIONS_REFUSED = "EvictionsRefused"
    REDIS_STALL_SECONDS = "RedisStallSeconds"
    AUTOSCALER_PAUSED_SECONDS = "AutoscalerPausedSeconds"
    ORPHANS = "Orphans"
    FAULTS = "Faults"


SPLIT: Mapping[Name, str] = {Name.ROLLS_ENDED: "outcome", Name.WAIT_SECONDS: "reason", Name.FAULTS: "error"}
"""Metrics with a second dimension: its name."""

WAITS: Mapping[str, str] = {
    "receive_change": "quiet, window or another roll",
    "take_lock": "another roll",
    "pause_interference": "cluster-autoscaler",
    "launch_replacement": "capacity",
    "await_ready": "replacement",
    "replace_unjoined": "replacement",
    "inspect_redis": "Redis group",
    "attach_master": "Redis sync",
    "join_stand_in": "Redis sync",
    "sync_shard_pod": "Redis sync",
    "leave_load_balancers": "load balancer",
    "evict": "eviction",
    "await_load_balancers": "load balancer",
    "await_volumes": "volumes",
    "terminate": "termination",
    "health_gate": "gate",
    "restore": "restore",
}
"""Step -> what it waits for; steps that are not here wait under their own names."""

COUNTED: Mapping[str, tuple[Name, MetricUnit]] = {
    "evicted": (Name.PODS_EVICTED, MetricUnit.Count),
    "refused": (Name.EVICTIONS_REFUSED, MetricUnit.Count),
    "stall_seconds": (Name.REDIS_STALL_SECONDS, MetricUnit.Seconds),
    "orphans_found": (Name.ORPHANS, MetricUnit.Count),
    "autoscaler_paused_seconds": (Name.AUTOSCALER_PAUSED_SECONDS, MetricUnit.Seconds),
}
"""Keys of a step's output that are counted as they are, whichever step answers them."""

UNWANTED = frozenset({Aborted.__name__, NotBegun.__name__})
"""Errors of nodes that were not replaced, and did not fail either."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One value. `part` is its second dimension's value, for the metrics that have one."""

    name: Name
    value: float = 1
    unit: MetricUnit = MetricUnit.Count
    part: str = ""


def of_result(step: str, task: Task, result: StepResult) -> list[Metric]:
    """What an answer counts as."""
    metrics = [
        Metric(name, result.output[key], unit) for key, (name, unit) in COUNTED.items() if result.output.get(key)
    ]
    if result.status is Status.WAIT:
        reason = WAITS.get(step, step.replace("_", " "))
        return [*metrics, Metric(Name.WAIT_SECONDS, result.wait_seconds, MetricUnit.Seconds, reason)]
    if isinstance(task, NodeOutcomeTask):
        if result.output.get("outcome") == NodeEnding.REPLACED:
            metrics.append(Metric(Name.NODES_REPLACED))
        elif error_of(task.failure) not in UNWANTED:
            metrics.append(Metric(Name.NODES_FAILED))
    if step == "take_lock":
        metrics.append(Metric(Name.ROLLS_STARTED))
    if step == "report" and "outcome" in result.output:
        metrics.append(Metric(Name.ROLLS_ENDED, part=str(result.output["outcome"])))
    return metrics


def of_fault(error: Exception) -> list[Metric]:
    """What a fault counts as."""
    return [Metric(Name.FAULTS, part=type(error).__name__)]


def emit(metrics: Iterable[Metric], cluster: str, **about: str | None) -> None:
    """Writes each metric into the log, with what it is `about` (roll, step, node): to search by, no dimension."""
    for metric in metrics:
        line = EphemeralMetrics(namespace=NAMESPACE)
        line.add_dimension(CLUSTER, cluster)
        if metric.name in SPLIT:
            line.add_dimension(SPLIT[metric.name], metric.part)
        line.add_metric(metric.name, metric.unit, metric.value)
        for key, value in about.items():
            if value:
                line.add_metadata(key, value)
        print(json.dumps(line.serialize_metric_set()))
