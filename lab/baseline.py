"""The alternative, under the same traffic: `kubectl drain` node by node, as a careful person does it by hand.

New nodes come first, budgets hold because drain evicts, one node at a time; then the same cluster, anew, by a roll.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import demo
from lab.application import deploy
from lab.judge import Verdict
from lab.lifecycle import LabError, running_lab
from lab.operator import Operator, operator_of
from lab.paths import REPOSITORY, LabPaths
from lab.spec import LabSpec
from lab.view import LineView

Json = dict[str, Any]

SPEC = REPOSITORY / "lab" / "clusters" / "sentinel.yaml"
NAME = "baseline"
READY_SECONDS = 90.0
DRAIN_SECONDS = 180
AFTER_SECONDS = 20.0
"""For workloads and sentinels to settle after each node; a person looks at the pods before the next."""


@dataclass(frozen=True)
class Tried:
    """One way of replacing every node: what clients saw, and how long it took (seconds)."""

    way: str
    verdict: Verdict
    seconds: float

    def to_json(self) -> Json:
        return {"way": self.way, "seconds": round(self.seconds, 1), **self.verdict.to_json()}


def run(console: Console) -> int:
    """Both ways, one after the other, each on a lab of its own; then one table and `.lab/baseline/result.json`.

    Raises LabError.
    """
    tried = [_drain(console), _roll(console)]
    file = LabPaths.of(NAME).root / "result.json"
    file.write_text(json.dumps([each.to_json() for each in tried], indent=2) + "\n")
    console.print(table(tried))
    console.print(f"result  {file}", highlight=False, soft_wrap=True)
    return 0


def _drain(console: Console) -> Tried:
    spec = LabSpec.from_yaml(SPEC)
    with running_lab(spec, NAME) as lab, operator_of(lab) as operator:
        operator.wait_for_workloads()
        with operator.traffic():
            time.sleep(demo.QUIET_SECONDS)
            began = time.monotonic()
            drain_every_node(operator, console)
            seconds = time.monotonic() - began
            time.sleep(demo.QUIET_SECONDS)
        return Tried("kubectl drain", operator.judge(None), seconds)


def drain_every_node(operator: Operator, console: Console) -> None:
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


def _roll(console: Console) -> Tried:
    with running_lab(LabSpec.from_yaml(SPEC), NAME) as lab:
        deploy(lab)
        with operator_of(lab) as operator:
            played = demo.play(operator, LineView(console, str(int(operator.newest_version()) + 1)))
            if not played.outcome.succeeded:
                raise LabError(f"the roll failed: {played.outcome.reason}")
            return Tried("eks-rolling", played.verdict, played.outcome.ended - played.outcome.began)


def table(tried: list[Tried]) -> Table:
    """Both ways as people compare them."""
    result = Table("", *(each.way for each in tried), title="every node replaced under the same traffic")
    result.columns[0].justify = "left"
    for column in result.columns[1:]:
        column.justify = "right"
    result.add_row("took", *(f"{each.seconds:.0f} s" for each in tried))
    result.add_row("requests failed", *(f"{v.failed} of {v.requests:,}" for v in _verdicts(tried)))
    result.add_row("longest gap of requests", *(f"{v.longest_gap_seconds:.2f} s" for v in _verdicts(tried)))
    result.add_row("jobs lost, done twice", *(f"{v.jobs['lost']}, {v.jobs['twice']}" for v in _verdicts(tried)))
    for index, group in enumerate(tried[0].verdict.redis):
        name, of_each = f"redis {group.group}: ", [v.redis[index] for v in _verdicts(tried)]
        result.add_row(f"{name}writes lost", *(f"{r.lost:,} of {r.acked:,}" for r in of_each))
        result.add_row(f"{name}longest stall", *(f"{r.longest_stall_seconds:.2f} s" for r in of_each))
        result.add_row(f"{name}errors of writers", *(f"{sum(r.errors.values()):,}" for r in of_each))
        result.add_row(f"{name}failovers", *(str(r.failovers) for r in of_each))
    return result


def _verdicts(tried: list[Tried]) -> list[Verdict]:
    return [each.verdict for each in tried]
