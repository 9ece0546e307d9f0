"""The demo: a production-like cluster, rolled under live traffic by its own event; then the judge speaks."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import judge
from lab.application import deploy, synthesize
from lab.cluster_state import ClusterState
from lab.judge import Verdict
from lab.lifecycle import running_lab
from lab.meanwhile import Meanwhile
from lab.operator import Operator, operator_of
from lab.paths import REPOSITORY, LabPaths
from lab.rolls import Outcome
from lab.spec import LabSpec
from lab.view import LineView, LiveView, Screen, Snapshot

Json = dict[str, Any]

CLUSTERS = REPOSITORY / "lab" / "clusters"
SPEC = CLUSTERS / "demo.yaml"
QUIET_SECONDS = 5.0
"""Traffic before and after the roll, to compare it with."""

ROLL_SECONDS = 900.0
"""After so long the demo gives up on the roll."""


@dataclass(frozen=True)
class Played:
    """A roll under traffic: what was there before and after, how the roll ended, what clients saw."""

    before: ClusterState
    after: ClusterState
    outcome: Outcome
    verdict: Verdict
    happened: tuple[str, ...] = ()
    """What else went on in the cluster, of what its spec says."""
    missed: tuple[str, ...] = ()
    """What was to go on, and has not."""


def play(
    operator: Operator,
    view: Screen,
    *,
    quiet_seconds: float = QUIET_SECONDS,
    roll_seconds: float = ROLL_SECONDS,
    with_plan: bool = False,
) -> Played:
    """Clients first, then a new launch template version; everything else happens by itself. Raises LabError.

    `with_plan`: the roll's plan is shown as soon as it is made.
    """
    operator.wait_for_workloads()
    before = operator.settled_state()
    meanwhile = Meanwhile(operator, operator.lab.spec.meanwhile)
    with operator.traffic():
        view.say("clients ask; nothing else happens yet")
        time.sleep(quiet_seconds)
        meanwhile.begin()
        published = time.time()
        for line in operator.rolls.publish_all():
            view.say(line)

        planned: set[str] = set()

        def show(snapshot: Snapshot) -> None:
            view.show(snapshot)
            roll = snapshot.roll
            if roll is None:
                return
            unseen = with_plan and roll.plan and roll.roll not in planned
            if unseen and (document := operator.rolls.document(roll.roll, "plan.json")):
                planned.add(roll.roll)
                view.plan(document)
            for line in meanwhile.see(roll):
                view.say(line)

        execution, outcome = _follow_change(operator, show, published, roll_seconds)
        # One that waited for the lock takes it now, and finds nothing to do.
        operator.rolls.wait_for_all_since(published, within_seconds=roll_seconds)
        view.say("the roll has ended; clients ask on for a moment")
        time.sleep(quiet_seconds)
    for line in meanwhile.end(before):
        view.say(line)
    after = operator.settled_state()
    verdict = operator.judge(execution)
    return Played(before, after, outcome, verdict, tuple(meanwhile.happened), tuple(meanwhile.missing))


def _follow_change(
    operator: Operator, show: Callable[[Snapshot], None], published: float, seconds: float
) -> tuple[str, Outcome]:
    """The roll that came of a change, and how it ended.

    EventBridge may deliver an event more than once, and of the executions that start all but one join it: those end
    without a report.
    """
    followed: list[str] = []
    execution = operator.rolls.started_since(published)
    while True:
        followed.append(execution)
        outcome = operator.follow(execution, show, within_seconds=seconds)
        others = [e for e in operator.rolls.all_since(published) if e not in followed]
        if outcome.report or not others:
            return execution, outcome
        execution = others[0]


def result(played: Played, seconds: dict[str, float], report: Path) -> Json:
    """The demo's result.json."""
    verdict = played.verdict.to_json()
    old = {n.instance for n in played.before.nodes}
    return {
        "nodes": {
            "outdated": len(old),
            "replaced": len(old - {n.instance for n in played.after.nodes}),
            "zones_kept": played.before.zones == played.after.zones,
        },
        "http": verdict["http"],
        "jobs": verdict["jobs"],
        "max_unavailable_seen": verdict["max_unavailable_seen"],
        "failed_jobs": list(played.after.jobs),
        "meanwhile": {"happened": list(played.happened), "missed": list(played.missed)},
        "restored": played.after.restored(played.before),
        "left_behind": [*played.outcome.report.get("left_behind", []), *played.after.marks],
        "redis": verdict["redis"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "report": str(report),
        "roll": {"status": played.outcome.status, "reason": played.outcome.reason},
        "phases": verdict["phases"],
        "errors": verdict["errors"],
    }


def succeeded(document: Json) -> bool:
    """Whether the demo showed what it is there to show."""
    nodes, http, jobs = document["nodes"], document["http"], document["jobs"]
    return bool(
        document["roll"]["status"] == "SUCCEEDED"
        and nodes["replaced"] == nodes["outdated"] > 0
        and nodes["zones_kept"]
        and http["requests"] > 0
        and http["failed"] == 0
        and http["longest_gap_seconds"] < 1
        and jobs["lost"] == 0
        and not document["failed_jobs"]
        and not document["meanwhile"]["missed"]
        and document["max_unavailable_seen"].get("web", 0) <= 1
        and document["restored"]
        and all(group["acked"] > 0 and group["lost"] == 0 for group in document["redis"])
        and not document["left_behind"]
    )


class Cluster(StrEnum):
    """The clusters that can be shown."""

    DEMO = "demo"
    REAL = "real"

    def spec(self) -> LabSpec:
        """What its lab looks like."""
        return LabSpec.from_yaml(CLUSTERS / f"{self}.yaml")


def run(console: Console, cluster: Cluster, *, live: bool) -> int:
    """Starts a lab, plays, writes result.json and report.html, and says what came out. Answers the exit code.

    Raises LabError for whatever keeps it from being played.
    """
    spec = cluster.spec()
    paths = LabPaths.of(cluster)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as background:
        # CDK and the control plane start side by side.
        assembly = background.submit(synthesize, spec.cluster, spec.settings)
        with running_lab(spec, cluster, lambda line: _tell(console, line.message)) as lab:
            console.print("synthesizing and deploying the application", highlight=False)
            assembly.result()
            deploy(lab)
            started = time.monotonic() - began
            with operator_of(lab) as operator:
                view: Screen = LiveView(console, spec.cluster) if live else LineView(console)
                with view:
                    played = play(operator, view, with_plan=True)
                report = paths.root / "report.html"
                documents = {
                    name: operator.rolls.text(played.outcome.roll, name)
                    for name in ("plan.json", "report.html", "report.json")
                }
    for name, text in documents.items():
        (paths.root / name).write_text(text)
    seconds = {
        "start": started,
        "roll": played.outcome.ended - played.outcome.began,
        "total": time.monotonic() - began,
    }
    document = result(played, seconds, report)
    file = paths.root / "result.json"
    file.write_text(json.dumps(document, indent=2) + "\n")
    _conclude(console, played, document, file)
    return 0 if succeeded(document) else 1


def _tell(console: Console, words: str) -> None:
    console.print(words, style="dim", highlight=False, markup=False)


def _conclude(console: Console, played: Played, document: Json, file: Path) -> None:
    console.print()
    console.print(judge.table(played.verdict))
    nodes = document["nodes"]
    facts = Table.grid(padding=(0, 2))
    facts.add_row("roll", f"{played.outcome.reason} in {document['seconds']['roll']:.0f} s")
    facts.add_row(
        "nodes",
        f"{nodes['replaced']} of {nodes['outdated']} replaced, "
        + ("each in its zone" if nodes["zones_kept"] else "[red]not as many in each zone as before"),
    )
    facts.add_row("as before", _before_and_after(played) if document["restored"] else "[red]no: see result.json")
    facts.add_row("left behind", ", ".join(document["left_behind"]) or "nothing")
    for line in document["meanwhile"]["happened"]:
        facts.add_row("meanwhile", line)
    for job in document["failed_jobs"]:
        facts.add_row("Job", f"[red]{job} lost a pod")
    for line in document["meanwhile"]["missed"]:
        facts.add_row("meanwhile", f"[red]{line}: the roll did not meet it")
    facts.add_row("report", document["report"])
    facts.add_row("result", str(file))
    console.print(facts)
    if not succeeded(document):
        console.print("[bold red]The roll was not what it should have been.")


def _before_and_after(played: Played) -> str:
    sizes = ", ".join(f"{name} at most {group['max']}" for name, group in sorted(played.after.groups.items()))
    return f"cluster-autoscaler at {played.after.autoscaler}; {sizes}; no process suspended; no taint"
