"""The alternatives, under the same traffic, each on the same cluster anew.

`kubectl drain` node by node, as a careful person does it by hand: new nodes come first, budgets hold because drain
evicts, one node at a time. Another public roller, hellofresh's eks-rolling-update. And a roll of this project.
"""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import demo, other_rollers
from lab.application import deploy
from lab.judge import RedisVerdict, Verdict
from lab.lifecycle import LabError, running_lab
from lab.operator import Operator, operator_of
from lab.paths import REPOSITORY, LabPaths
from lab.spec import LabSpec
from lab.view import LineView

Json = dict[str, Any]

CLUSTERS = REPOSITORY / "lab" / "clusters"
NAME = "baseline"
READY_SECONDS = 90.0
DRAIN_SECONDS = 180
AFTER_SECONDS = 20.0
"""For workloads and sentinels to settle after each node; a person looks at the pods before the next."""


class Cluster(StrEnum):
    """The clusters of `lab/clusters` that both ways are tried on, by the Redis group in them."""

    SENTINEL = "sentinel"
    SHARDS = "shards"

    def spec(self) -> LabSpec:
        return LabSpec.from_yaml(CLUSTERS / f"{self}.yaml")


class Roller(StrEnum):
    """The ways of replacing every node that are compared, in the order of the table."""

    DRAIN = "drain"
    EKS_ROLLING_UPDATE = "eks-rolling-update"
    EKS_ROLLING = "eks-rolling"

    @property
    def called(self) -> str:
        return "kubectl drain" if self is Roller.DRAIN else str(self)


@dataclass(frozen=True)
class Run:
    """Every node replaced once: what clients saw, and how long it took (seconds)."""

    verdict: Verdict
    seconds: float


@dataclass(frozen=True)
class Tried:
    """One way of replacing every node, tried once or several times."""

    way: str
    runs: tuple[Run, ...]

    def to_json(self) -> Json:
        runs = [{"seconds": round(run.seconds, 1), **run.verdict.to_json()} for run in self.runs]
        return {"way": self.way, "runs": runs}


def run(console: Console, spec: LabSpec, rolls: int = 1, rollers: Collection[Roller] = tuple(Roller)) -> int:
    """The rollers, one after the other, each on a lab of its own; eks-rolling `rolls` times.

    `spec` is the lab's. Ends with one table and `.lab/baseline/result.json`. Raises LabError.
    """
    python = other_rollers.install() if Roller.EKS_ROLLING_UPDATE in rollers else None
    tried: list[Tried] = []
    for roller in (r for r in Roller if r in rollers):
        times = rolls if roller is Roller.EKS_ROLLING else 1
        runs: list[Run] = []
        for number in range(1, times + 1):
            console.print(f"{roller.called}, {number} of {times}", highlight=False)
            if roller is Roller.EKS_ROLLING:
                runs.append(_roll(spec, console))
            elif python is not None and roller is Roller.EKS_ROLLING_UPDATE:
                runs.append(_by_hand(spec, partial(_other_roller, console, python)))
            else:
                runs.append(_by_hand(spec, partial(drain_every_node, console)))
        tried.append(Tried(roller.called, tuple(runs)))
    file = LabPaths.of(NAME).root / "result.json"
    file.write_text(json.dumps([each.to_json() for each in tried], indent=2) + "\n")
    console.print(table(tried))
    console.print(f"result  {file}", highlight=False, soft_wrap=True)
    return 0


def _by_hand(spec: LabSpec, replace: Callable[[Operator], None]) -> Run:
    """Without the application."""
    with running_lab(spec, NAME) as lab, operator_of(lab) as operator:
        operator.wait_for_workloads()
        old = {node.instance for node in operator.state().nodes}
        with operator.traffic():
            time.sleep(demo.QUIET_SECONDS)
            began = time.monotonic()
            replace(operator)
            seconds = time.monotonic() - began
            time.sleep(demo.QUIET_SECONDS)
        if kept := old & {node.instance for node in operator.state().nodes}:
            raise LabError(f"{len(kept)} of {len(old)} nodes are still there: it would be no comparison")
        return Run(operator.judge(None), seconds)


def _other_roller(console: Console, python: Path, operator: Operator) -> None:
    for line in operator.rolls.publish_all():
        console.print(line, highlight=False)
    other_rollers.replace_every_node(operator.lab, python)


def drain_every_node(console: Console, operator: Operator) -> None:
    """Doubles every group, then drains and terminates the old nodes. Raises LabError when a drain does not end."""
    scaling, old = operator.rolls.autoscaling, operator.state().nodes
    for name, group in operator.state().groups.items():
        scaling.update_auto_scaling_group(
            AutoScalingGroupName=name, MaxSize=2 * group["desired"], DesiredCapacity=2 * group["desired"]
        )
    deadline = time.monotonic() + READY_SECONDS
    while sum(n.ready for n in operator.state().nodes) < 2 * len(old):
        if time.monotonic() > deadline:
            raise LabError(f"the new nodes are not Ready within {READY_SECONDS:.0f} s")
        time.sleep(0.5)
    for node in old:
        _kubectl(operator, "cordon", node.name)
    for node in old:
        console.print(f"draining {node.name}", highlight=False)
        _kubectl(
            operator, "drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_SECONDS}s"
        )
        scaling.terminate_instance_in_auto_scaling_group(InstanceId=node.instance, ShouldDecrementDesiredCapacity=True)
        time.sleep(AFTER_SECONDS)


def _kubectl(operator: Operator, *command: str) -> None:
    done = operator.lab.run(["kubectl", *command], capture_output=True)
    if done.returncode != 0:
        raise LabError(f"kubectl {' '.join(command)} failed", details=done.stderr)


def _roll(spec: LabSpec, console: Console) -> Run:
    with running_lab(spec, NAME) as lab:
        deploy(lab)
        with operator_of(lab) as operator:
            played = demo.play(operator, LineView(console))
            if not played.outcome.succeeded:
                raise LabError(f"the roll failed: {played.outcome.reason}")
            return Run(played.verdict, played.outcome.ended - played.outcome.began)


def table(tried: list[Tried]) -> Table:
    """The ways as people compare them: counts of all runs together, times as medians with the worst beside them."""
    columns = [f"{each.way}, {len(each.runs)} times" if len(each.runs) > 1 else each.way for each in tried]
    result = Table("", *columns, title="every node replaced under the same traffic")
    result.columns[0].justify = "left"
    for column in result.columns[1:]:
        column.justify = "right"

    def count(label: str, of: Callable[[Verdict], int], among: Callable[[Verdict], int] | None = None) -> None:
        cells = []
        for each in tried:
            total = sum(of(run.verdict) for run in each.runs)
            whole = f" of {sum(among(run.verdict) for run in each.runs):,}" if among else ""
            cells.append(f"{total:,}{whole}")
        result.add_row(label, *cells)

    def times(label: str, of: Callable[[Run], float], digits: int = 2) -> None:
        cells = []
        for each in tried:
            values = [of(run) for run in each.runs]
            worst = f" (worst {max(values):.{digits}f} s)" if len(values) > 1 else ""
            cells.append(f"{median(values):.{digits}f} s{worst}")
        result.add_row(label, *cells)

    times("took", lambda run: run.seconds, 0)
    count("requests failed", lambda v: v.failed, lambda v: v.requests)
    times("longest gap of requests", lambda run: run.verdict.longest_gap_seconds)
    count("jobs lost", lambda v: v.jobs["lost"])
    count("jobs done twice", lambda v: v.jobs["twice"])

    def redis_group(index: int, name: str) -> None:
        def of(verdict: Verdict) -> RedisVerdict:
            return verdict.redis[index]

        count(f"redis {name}: writes lost", lambda v: of(v).lost, lambda v: of(v).acked)
        times(f"redis {name}: longest stall", lambda run: of(run.verdict).longest_stall_seconds)
        times(f"redis {name}: of that, clients held up", lambda run: of(run.verdict).stall_lag_seconds)
        count(f"redis {name}: errors of writers", lambda v: sum(of(v).errors.values()))
        count(f"redis {name}: failovers", lambda v: of(v).failovers)
        if tried[0].runs[0].verdict.redis[index].dataset_megabytes:
            count(f"redis {name}: parts of its data set lost", lambda v: of(v).dataset_missing)
        if tried[0].runs[0].verdict.redis[index].load:
            count(f"redis {name}: lost under load", lambda v: of(v).load_lost, lambda v: of(v).load_acked)
        if tried[0].runs[0].verdict.redis[index].samples:
            count(f"redis {name}: slots seen unserved", lambda v: of(v).unserved, lambda v: of(v).samples)

    for index, group in enumerate(tried[0].runs[0].verdict.redis):
        redis_group(index, group.group)
    return result
