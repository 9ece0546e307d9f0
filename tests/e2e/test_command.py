"""The operator's command in the lab, as people type it: plans, watchers that come and go, pauses, aborts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.cluster_state import ClusterState
from lab.operator import Operator
from tests import scope
from tests.e2e.conftest import MANAGED, REPOSITORY
from tests.e2e.holding import WITHOUT_LOCK, dying_at, wait_until_at
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

FIRST, SECOND, THIRD = (pytest.mark.xdist_group(name) for name in ("first", "second", "third"))
"""The labs of the other tests of whole rolls."""

HELD = [
    ("Plan the roll", False),
    ("Pause what interferes", True),
    ("Wait for the replacement", False),
    ("Evict pods", True),
    ("Terminate the instance", False),
]
"""Where a roll is paused, and whether it goes on before it is aborted."""

Json = dict[str, Any]

WORKERS = ("workers-a", "workers-b")
"""The groups of that lab which are rolled."""

STILL_SECONDS = 4.0
"""For so long a paused roll is watched: no step waits longer between two looks while pods end."""


def typed(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "eks_rolling_cli", *arguments]


def run(operator: Operator, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command, run inside the lab."""
    done = operator.lab.run(typed(*arguments), cwd=REPOSITORY, capture_output=True)
    print("$ eks-rolling", *arguments, "\n", done.stdout, done.stderr, "exit code", done.returncode)
    return done


def begin(operator: Operator) -> str:
    """A new launch template version, and the roll that follows from it."""
    published = time.time()
    operator.rolls.publish_version("workers")
    return operator.rolls.started_since(published, within_seconds=60)


def how_it_stands(operator: Operator) -> Json:
    document: Json = json.loads(run(operator, "watch", "--once", "--json").stdout)
    return document


def where(seen: Json) -> list[tuple[str, str]]:
    """What moves while a roll does: its own step, and the stage of every node."""
    return [(seen["state"], seen["status"]), *((n["node"], n["stage"]) for n in seen["nodes"])]


@SECOND
@pytest.mark.long  # pauses and aborts watch, too
def test_a_plan_names_the_outdated_nodes_and_a_watcher_comes_and_goes(small_lab: Operator) -> None:
    before = small_lab.settled_state()
    assert "No node is outdated" in run(small_lab, "plan").stdout
    with small_lab.traffic():
        execution = begin(small_lab)
        plan = json.loads(run(small_lab, "plan", "--json").stdout)
        assert (plan["outcome"], len(plan["nodes"])) == ("roll", len(before.nodes))

        watcher = small_lab.lab.popen(
            ["env", "--default-signal=INT", *typed("watch")],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watcher.stdout is not None
        assert watcher.stdout.readline().split("  ", 1)[1].startswith(f"roll {execution.rpartition(':')[2]}")
        interrupt(watcher)
        try:
            _, said = watcher.communicate(timeout=60)
        finally:
            watcher.kill()
        assert watcher.returncode == 130, said
        assert "continues" in said

        rest = run(small_lab, "watch", "--json")
        assert rest.returncode == 0, rest.stderr
    last = json.loads(rest.stdout.splitlines()[-1])
    assert (last["status"], last["replaced"]) == ("SUCCEEDED", len(before.nodes))
    assert run(small_lab, "report").returncode == 0
    assert small_lab.settled_state().restored(before)
    verdict = small_lab.judge(None)
    assert (verdict.failed, verdict.jobs["lost"]) == (0, 0)


@THIRD
def test_init_writes_a_file_that_synth_accepts_and_a_plan_takes_as_it_is(small_lab: Operator, tmp_path: Path) -> None:
    file = tmp_path / "eks-rolling.yaml"
    wrote = run(small_lab, "init", "--output", str(file))
    assert wrote.returncode == 0
    assert f"Auto Scaling groups: {', '.join(WORKERS)}" in wrote.stderr
    assert f"left to AWS, managed node groups: {MANAGED}" in wrote.stderr
    assert "cluster-autoscaler: kube-system/" in wrote.stderr
    synthesized = subprocess.run(
        [sys.executable, "app.py"],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "CDK_CONTEXT_JSON": json.dumps({"eks-rolling": str(file), "aws:cdk:bundling-stacks": []}),
            "CDK_OUTDIR": str(tmp_path / "out"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert synthesized.returncode == 0, synthesized.stderr
    assert list((tmp_path / "out").glob("*.template.json"))
    planned = run(small_lab, "plan", "--settings", str(file), "--json")
    assert planned.returncode == 0
    document = json.loads(planned.stdout)
    # The test before may have left some.
    outdated = [n for n in small_lab.settled_state().nodes if n.version != small_lab.newest_version()]
    assert (document["cluster"], len(document["nodes"])) == (small_lab.lab.spec.cluster, len(outdated))
    assert document["outcome"] == ("roll" if outdated else "nothing")


def interrupt(watcher: "subprocess.Popen[str]") -> None:
    """What Ctrl-C does: to the command inside, whose parent is the process that waits for it outside."""
    (inside,) = Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children").read_text().split()
    os.kill(int(inside), signal.SIGINT)


@FIRST
@pytest.mark.drawn(keep=1)
@pytest.mark.parametrize(("state", "goes_on"), HELD)
def test_a_roll_is_paused_resumed_and_aborted_anywhere_and_everything_is_put_back(
    small_lab: Operator, request: pytest.FixtureRequest, state: str, *, goes_on: bool
) -> None:
    """R2: what was not replaced is as it was. What cannot be put back, because pods run on it already, is named, and is
    exit code 1; the next roll goes on with that and with the rest. Where nothing is left, tests/e2e/test_stops.py has
    the next roll in `make test`.

    The roll is held at the state where it is paused. One that goes on may end by itself before the abort is typed: then
    that is said.
    """
    before = small_lab.settled_state()
    with small_lab.traffic():
        with dying_at(small_lab, state):
            execution = begin(small_lab)
            wait_until_at(small_lab, execution, state)
            asked = run(small_lab, "pause", "--reason", "lunch")
        if state in WITHOUT_LOCK:
            assert asked.returncode == 3
        else:
            assert asked.returncode == 0
            assert run(small_lab, "pause", "--wait", "--reason", "lunch").returncode == 0
            was = how_it_stands(small_lab)
            assert was["asked"]["pause"].startswith("lunch (")
            time.sleep(STILL_SECONDS)
            assert where(how_it_stands(small_lab)) == where(was)
            if goes_on:
                assert run(small_lab, "resume", "--wait").returncode == 0
        aborted = run(small_lab, "abort", "--yes", "--wait", "--reason", "wrong image")
        stopped = small_lab.rolls.outcome(execution)
        left = stopped.report.get("left_behind", [])
        if stopped.succeeded:
            assert goes_on
            assert (aborted.returncode, "had ended on its own" in aborted.stdout) in {(0, True), (4, False)}
        else:
            assert aborted.returncode == (1 if left else 0)
        assert not [s for s in left if "stays: it is in use" not in s and "keeps the maximum size" not in s]
        assert_quiet(small_lab, before)
        if not left:
            assert small_lab.settled_state().restored(before), (before, small_lab.settled_state())

        rolls_again = bool(left) or request.config.option.scope == scope.ALL
        if rolls_again:
            assert run(small_lab, "start", "--yes").returncode == 0
    verdict = small_lab.judge(None)
    assert (verdict.failed, verdict.errors, verdict.jobs["lost"]) == (0, {}, 0)
    if rolls_again:
        assert {n.version for n in small_lab.settled_state().nodes} == {small_lab.newest_version()}
    assert_quiet(small_lab, before)
    assert small_lab.settled_state().restored(before), (before, small_lab.settled_state())


def assert_quiet(operator: Operator, before: ClusterState) -> None:
    """Nothing of a roll is at work: no taint, no cordon, no lock; autoscaler and processes are as before."""
    now = operator.settled_state()
    assert not [n for n in now.nodes if n.taint or n.cordoned]
    assert now.autoscaler == before.autoscaler
    assert not [m for m in now.marks if m.startswith(("node", "lock", "budget"))]
    assert {g: v["suspended"] for g, v in now.groups.items()} == {g: v["suspended"] for g, v in before.groups.items()}


@SECOND
@pytest.mark.long  # tests/model approves and refuses, too
def test_a_roll_waits_for_a_person_who_refuses_it_or_approves_it(small_lab: Operator) -> None:
    before = small_lab.settled_state()
    begin(small_lab)
    assert run(small_lab, "abort", "--yes", "--wait").returncode == 0

    wait_for_a_person(small_lab)
    assert run(small_lab, "pause").returncode == 3
    assert run(small_lab, "refuse", "--reason", "not before the release").returncode == 0
    refused = run(small_lab, "watch")
    assert refused.returncode == 3
    assert "not before the release" in refused.stdout
    assert small_lab.settled_state().restored(before)

    wait_for_a_person(small_lab)
    assert run(small_lab, "approve", "--yes", "--watch").returncode == 0
    after = small_lab.settled_state()
    assert after.restored(before), (before, after)
    assert {n.version for n in after.nodes} == {small_lab.newest_version()}


def wait_for_a_person(operator: Operator) -> None:
    """Starts a roll that asks for approval, and waits until it does."""
    assert run(operator, "start", "--yes", "--detach", "--approval").returncode == 0
    until(lambda: how_it_stands(operator)["state"] == "Wait for approval", "the roll asks")
    assert run(operator, "approve", "--cluster", "no-such-cluster").returncode == 4
