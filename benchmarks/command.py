"""How long `eks-rolling plan` takes on the demo's cluster, as a user waits for it: `python -m benchmarks.command`.

Six outdated nodes, Redis under Sentinel and a Redis Cluster; the command's own start, imports and sign-in included.
Once with nothing deployed, once with the deployed settings. The exit code is 1 if a median is above the target.
"""

import json
import resource
import statistics
import sys
import time

from rich.console import Console
from rich.table import Table

from lab.application import deploy, synthesize
from lab.demo import SPEC
from lab.lifecycle import Lab, running_lab
from lab.operator import operator_of
from lab.spec import LabSpec

TARGET_SECONDS = 3.0
TIMES = 7


def measured(lab: Lab, *arguments: str) -> tuple[list[float], list[float]]:
    """Seconds of the clock and of the processors, for each time that the command is run."""
    took, worked = [], []
    for _ in range(TIMES):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = lab.run([sys.executable, "-m", "eks_rolling_cli", *arguments], capture_output=True)
        took.append(time.monotonic() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        worked.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode != 0:
            sys.exit(f"eks-rolling {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return took, worked


def main() -> None:
    console = Console()
    table = Table("eks-rolling", "median", "worst", "CPU", title=f"{TIMES} times each", title_justify="left")
    medians = []
    spec = LabSpec.from_yaml(SPEC)
    with running_lab(spec, "bench-command", lambda _: None) as lab, operator_of(lab) as operator:
        operator.wait_for_workloads(within_seconds=180)
        # Nobody hears of it, since nothing is deployed yet.
        operator.rolls.publish_version("workers")
        for title, arguments in (("--help", ["--help"]), ("plan, nothing deployed", ["plan", "--json"])):
            medians.append(_row(table, title, *measured(lab, *arguments)))
        synthesize(spec.cluster)
        deploy(lab)
        medians.append(_row(table, "plan, deployed", *measured(lab, "plan", "--json")))
        document = json.loads(
            lab.run([sys.executable, "-m", "eks_rolling_cli", "plan", "--json"], capture_output=True).stdout
        )
    console.print(table)
    console.print(f"{len(document['nodes'])} nodes, {sum(len(n['moves']) for n in document['nodes'])} pods that move")
    sys.exit(max(medians) > TARGET_SECONDS)


def _row(table: Table, title: str, took: list[float], worked: list[float]) -> float:
    median = statistics.median(took)
    table.add_row(title, f"{median:.2f} s", f"{max(took):.2f} s", f"{statistics.median(worked):.2f} s")
    return median


if __name__ == "__main__":
    main()
