"""Another release is deployed while a roll is at work: functions, settings, definitions; in the lab under traffic."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from eks_rolling.names import node_execution_suffix
from eks_rolling.wording import counted
from lab.application import deploy, synthesize
from lab.lifecycle import Lab
from lab.operator import Operator
from lab.view import LineView
from tests.e2e.conftest import REPOSITORY, SETTINGS
from tests.e2e.test_command import begin, run
from tests.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

FIRST_STATE = "A newer release begins"
SAID = "this is a newer release"

Json = dict[str, Any]


def newer(lab: Lab, directory: Path) -> Path:
    """The application as another release: each function's code says so, each machine begins with another state, and
    the settings differ."""
    shutil.copytree(synthesize(lab.spec.cluster, {**SETTINGS, "surge": 1, "notify_hold_minutes": 45}), directory)
    packages = list(directory.glob("asset.*/eks_rolling/__init__.py"))
    assert packages
    for compiled in directory.rglob("__pycache__"):
        # It would go before the source, unlooked at.
        shutil.rmtree(compiled)
    for package in packages:
        package.chmod(0o644)
        package.write_text(f"{package.read_text()}\nprint({SAID!r}, flush=True)\n")
    (file,) = directory.glob("*.template.json")
    template = json.loads(file.read_text())
    machines = [r for r in template["Resources"].values() if r["Type"] == "AWS::StepFunctions::StateMachine"]
    assert len(machines) == 3
    for machine in machines:
        parts = machine["Properties"]["DefinitionString"]["Fn::Join"][1]
        parts[0], changed = re.subn(
            r'"StartAt":("[^"]+"),"States":\{',
            rf'"StartAt":"{FIRST_STATE}","States":{{"{FIRST_STATE}":{{"Type":"Pass","Next":\1}},',
            parts[0],
            count=1,
        )
        assert changed == 1, parts[0][:300]
    file.chmod(0o644)
    file.write_text(json.dumps(template))
    return directory


def put(lab: Lab, assembly: Path) -> None:
    done = lab.run(
        [sys.executable, "-m", "lab.aws.deploy", str(lab.paths.root), str(assembly)],
        cwd=REPOSITORY,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def entered(operator: Operator, execution: str) -> list[str]:
    events = operator.rolls.executions.history(execution)
    return [e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e]


@pytest.mark.xdist_group("second")
@pytest.mark.long  # tests/model/test_deployments.py deploys at every moment
def test_a_release_that_is_deployed_while_nodes_are_replaced_is_taken_up_and_the_roll_goes_on(
    small_lab: Operator, view: LineView, tmp_path: Path
) -> None:
    """R2, N1, N2: the roll keeps the definition that it began with; nodes that begin later have the new one; functions
    are the new ones at once."""
    before = small_lab.settled_state()
    release = newer(small_lab.lab, tmp_path / "release")
    try:
        with small_lab.traffic():
            roll = begin(small_lab)
            until(
                lambda: any(p.state == "Evict pods" for p in small_lab.rolls.nodes_in_flight()),
                "a node is being emptied",
                within_seconds=120,
            )
            older = {p.name for p in small_lab.rolls.nodes_in_flight()}
            put(small_lab.lab, release)
            outcome = small_lab.follow(roll, view.show, within_seconds=400)
    finally:
        deploy(small_lab.lab, SETTINGS)
    assert outcome.succeeded, outcome.reason
    assert [outcome.report[part] for part in ("left_behind", "orphans", "gaps")] == [[], [], []]

    assert FIRST_STATE not in entered(small_lab, roll)
    nodes = {e.name: e.arn for e in small_lab.rolls.executions.of(small_lab.rolls.machine("node")) if e.name}
    ours = {name: arn for name, arn in nodes.items() if name.endswith(node_execution_suffix(outcome.roll))}
    assert len(ours) == len(before.nodes)
    begun_with_it = {name for name, arn in ours.items() if FIRST_STATE in entered(small_lab, arn)}
    assert begun_with_it == ours.keys() - older
    assert begun_with_it
    logs = {file.stem: file.read_text() for file in (small_lab.lab.paths.logs / "lambda").glob("*.log")}
    say = [name for name, text in logs.items() if SAID in text]
    assert [n for n in say if "HealthGate" in n]
    assert [n for n in say if "Report" in n]

    after = small_lab.settled_state()
    assert after.restored(before), (before, after)
    assert {n.version for n in after.nodes} == {small_lab.newest_version()}
    verdict = small_lab.judge(None)
    assert (verdict.failed, verdict.errors, verdict.jobs["lost"]) == (0, {}, 0)


@pytest.mark.xdist_group("third")
def test_doctor_finds_what_was_deployed_well_and_has_the_functions_plan(small_lab: Operator) -> None:
    asked = run(small_lab, "doctor", "--deployed", "--json")
    found = {line["name"]: line for line in json.loads(asked.stdout)}
    assert asked.returncode == 0, [line for line in found.values() if line["health"] == "fail"]
    outdated = sum(n.version != small_lab.newest_version() for n in small_lab.settled_state().nodes)
    planned = counted(outdated, "outdated node")
    assert found["dry run"]["said"] == f"the functions reach everything, and planned: {planned}"
    # Nobody subscribes in a lab, and it has no trail: EventBridge has its events without one. It deploys without
    # CloudFormation, and encrypts nothing.
    unlike = {"messages", "CloudTrail", "stack", "message key"}
    assert {name for name, line in found.items() if line["health"] != "ok"} == unlike
