"""What tests of whole rolls over Redis groups ask, and what holds after every one of them."""

import base64
import json
import sys
from collections.abc import Collection

from lab import demo
from lab.operator import Operator
from lab.spec import LabSpec


def outdated_in(spec: LabSpec, zones: Collection[str]) -> LabSpec:
    """The cluster, where a new version of a launch template leaves nodes in other zones as they are: their groups name
    the version that they have."""
    stays = {"launch_template_version": "1"}
    groups = (g if {*g.zones} <= {*zones} else g.model_copy(update=stays) for g in spec.groups)
    return spec.model_copy(update={"groups": tuple(groups)})


def redis(operator: Operator, pod: str, *command: str) -> list[str]:
    """What redis-cli says inside a pod, line by line."""
    port = "26379" if "sentinel" in pod else "6379"
    script = 'REDISCLI_AUTH=$(cat /etc/redis-auth/password) exec redis-cli -p "$@"'
    inside = [sys.executable, "-m", "lab.node.exec", str(operator.lab.paths.root), f"shop/{pod}"]
    done = operator.lab.run([*inside, "sh", "-c", script, "sh", port, *command], capture_output=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).split("\n")


def addresses(operator: Operator) -> dict[str, str]:
    """Pod -> address."""
    pods = json.loads(kubectl(operator, "get", "pods", "-n", "shop", "-o", "json"))["items"]
    return {p["metadata"]["name"]: p["status"].get("podIP", "") for p in pods}


def kubectl(operator: Operator, *command: str) -> str:
    done = operator.lab.run(["kubectl", *command], capture_output=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def assert_no_secret_told(operator: Operator, played: demo.Played, name: str, group: str) -> None:
    """The password in that Secret is in no log, state, report or plan."""
    password = kubectl(operator, "get", "secret", "-n", "shop", name, "-o", "jsonpath={.data.password}")
    secret = base64.b64decode(password)
    logs = [f for f in operator.lab.paths.logs.rglob("*") if f.is_file()]
    assert any(f.parent.name == "lambda" for f in logs)
    told = {str(f): f.read_bytes() for f in logs}
    told |= {file: operator.rolls.text(played.outcome.roll, file).encode() for file in ("plan.json", "report.html")}
    machines = operator.rolls.client("stepfunctions")
    for machine in machines.list_state_machines()["stateMachines"]:
        for execution in machines.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]:
            arn = execution["executionArn"]
            told[arn] = json.dumps(machines.get_execution_history(executionArn=arn), default=str).encode()
    assert [place for place, text in told.items() if secret in text or password.encode() in text] == []
    # The search would find it: the functions' logs do name the Secret's group.
    assert any(group.encode() in text for text in told.values())


def assert_rolled(played: demo.Played, zones: Collection[str] | None = None) -> None:
    """Every node was replaced; where `zones` says so, every node there and no other."""
    said = (played.outcome.reason, played.outcome.report["reason"], played.outcome.report["findings"])
    assert (played.outcome.status, played.outcome.report["left_behind"]) == ("SUCCEEDED", []), said
    gone = {n.instance for n in played.before.nodes} - {n.instance for n in played.after.nodes}
    assert gone == {n.instance for n in played.before.nodes if zones is None or n.zone in zones}
    assert played.after.zones == played.before.zones
    assert played.after.restored(played.before), (played.before, played.after)
    assert (played.verdict.failed, played.verdict.jobs["lost"]) == (0, 0), played.verdict.errors
