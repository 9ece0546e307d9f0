"""Users' hooks in a lab: a function of their own, and an address that speaks TLS."""

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.application import deploy
from lab.aws import ACCOUNT_ID
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.paths import REPOSITORY
from lab.spec import Delays, GroupSpec, LabSpec
from lab.view import LineView
from tests.e2e import hook_server

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800), pytest.mark.xdist_group("permissions")]

Json = dict[str, Any]

REGION, ZONE = "eu-central-1", "eu-central-1a"
FUNCTION = "may-a-node-go"
ADDRESS = f"https://localhost:{hook_server.PORT}/rolls"
SETTINGS = {
    "canary": False,
    "bake_seconds": 0,
    "on_change": "off",
    "hooks": [
        {"name": "gate", "when": "before_roll", "url": ADDRESS},
        {
            "name": "sale",
            "when": "before_node",
            "function": f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{FUNCTION}",
        },
        {"name": "log", "when": "after_node", "url": ADDRESS, "on_failure": "continue"},
        {"name": "log", "when": "after_roll", "url": ADDRESS, "on_failure": "continue"},
    ],
}

CODE = """
asked = set()


def handler(event, context):
    print("asked about", event["key"])
    if event["key"] in asked:
        return {"status": "done"}
    asked.add(event["key"])
    return {"status": "wait", "seconds": 2, "reason": "a sale"}
"""
"""It lets a node go when it is called for the second time."""


@dataclass(frozen=True)
class Hooked:
    operator: Operator
    record: Path

    def heard(self) -> list[Json]:
        """What the address was told so far."""
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []

    def answer(self, status: int) -> None:
        self.record.with_suffix(".status").write_text(str(status))


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    """One outdated node, and hooks at every moment of a roll."""
    spec = LabSpec(
        cluster="hooks",
        zones=(ZONE,),
        groups=(GroupSpec(name="workers", zones=(ZONE,), size=1),),
        manifests=("tests/e2e/few.yaml",),
        delays=Delays(boot=1.0, node_ready=0.5, node_removal=0.5),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(spec, "hooks") as lab:
            deploy(lab, SETTINGS)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                make_function(operator)
                trust(operator, lab.paths.pki / "ca.crt")
                operator.rolls.publish_version("workers")
                hooked = Hooked(operator, lab.paths.root / "hooks.jsonl")
                with address(hooked):
                    yield hooked


def make_function(operator: Operator) -> None:
    trusted = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = operator.rolls.client("iam").create_role(
        RoleName=FUNCTION, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trusted]})
    )
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as file:
        file.writestr("index.py", CODE)
    operator.rolls.client("lambda").create_function(
        FunctionName=FUNCTION,
        Runtime="python3.13",
        Role=role["Role"]["Arn"],
        Handler="index.handler",
        Code={"ZipFile": code.getvalue()},
        Timeout=5,
    )


def trust(operator: Operator, authority: Path) -> None:
    """The step's system trusts certificates of that authority, too."""
    functions = operator.rolls.client("lambda")
    names = [
        f["FunctionName"] for page in functions.get_paginator("list_functions").paginate() for f in page["Functions"]
    ]
    (name,) = [n for n in names if "FunctionsRunHooks" in n]
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    variables["SSL_CERT_FILE"] = str(authority)
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


@contextmanager
def address(hooked: Hooked) -> Iterator[None]:
    pki = hooked.operator.lab.paths.pki
    files = [str(f) for f in (pki / "apiserver.crt", pki / "apiserver.key", hooked.record)]
    server = hooked.operator.lab.popen([sys.executable, "-m", "tests.e2e.hook_server", *files], cwd=REPOSITORY)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def test_a_hook_that_refuses_ends_the_roll_before_anything_is_changed(hooked: Hooked, view: LineView) -> None:
    """R2; the hook after the roll hears why."""
    operator = hooked.operator
    hooked.answer(409)
    before = operator.settled_state()
    outcome = operator.follow(operator.rolls.start({}), view.show, within_seconds=90)
    assert outcome.status == "FAILED"
    assert "The hook gate answers 409" in outcome.reason
    assert operator.settled_state() == before
    gate, log = hooked.heard()
    assert (gate["when"], gate["failure"]) == ("before_roll", "")
    assert log["when"] == "after_roll"
    assert "The hook gate answers 409" in log["failure"]


def test_hooks_are_asked_at_every_moment_and_one_lets_a_node_wait(hooked: Hooked, view: LineView) -> None:
    operator = hooked.operator
    hooked.answer(204)
    told = len(hooked.heard())
    (old,) = operator.settled_state().nodes
    outcome = operator.follow(operator.rolls.start({}), view.show, within_seconds=180)
    assert outcome.succeeded, outcome.reason
    (new,) = operator.settled_state().nodes
    heard = hooked.heard()[told:]
    assert [(h["when"], h["node"], h["instance"], h["replacement"], h["failure"]) for h in heard] == [
        ("before_roll", "", "", "", ""),
        ("after_node", old.name, old.instance, new.instance, ""),
        ("after_roll", "", "", "", ""),
    ]
    assert [h["header"] for h in heard] == [h["key"] for h in heard]
    said = (operator.lab.paths.logs / "lambda" / f"{FUNCTION}.log").read_text()
    assert said.count(f"asked about {outcome.roll}/before_node/{old.instance}/sale") == 2
    (node,) = outcome.report["nodes"]
    (asked,) = [s for s in node["steps"] if s["name"] == "Ask the hooks before the node"]
    assert "hook sale asks to wait: a sale" in json.dumps(asked)
