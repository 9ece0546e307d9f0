"""A real AWS server with the probe app deployed into it, for tests of it and of the client that calls it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from lab.aws.deploy import deploy
from lab.paths import REPOSITORY, LabPaths, cache_directory, made_once
from lab.spec import Delays, GroupSpec, LabSpec, OverrideSpec, TargetGroupSpec
from tests.waiting import until

REGION = "eu-central-1"
ZONES = ("eu-central-1a", "eu-central-1b")
PROBE = Path(__file__).parent / "lab" / "aws" / "probe"
SPEC = LabSpec(
    groups=(
        GroupSpec(name="launching", zones=ZONES, size=1, max=20),
        GroupSpec(name="single", zones=ZONES[:1], size=0, max=3),
        GroupSpec(name="limited", zones=ZONES, size=2, min=1, max=2),
        GroupSpec(name="settling", zones=ZONES[:1], size=1, max=4),
        GroupSpec(name="ending", zones=ZONES[:1], size=1, max=4),
        GroupSpec(name="replaced", zones=ZONES, size=2, max=4),
        GroupSpec(name="serving", zones=ZONES, size=2, max=4, target_groups=("web", "raw")),
        GroupSpec(name="hooked", zones=ZONES[:1], size=0, max=1),
        GroupSpec(name="hooked-briefly", zones=ZONES[:1], size=1),
        GroupSpec(name="sharing", launch_template="limited", zones=ZONES[:1], size=1),
        GroupSpec(name="configured", zones=ZONES[:1], size=1, max=3, launch_configuration=True),
        GroupSpec(name="several-types", zones=ZONES[:1], size=1, max=3, instance_types=("m7i.large", "m6i.large")),
        GroupSpec(
            name="by-attributes",
            zones=ZONES[:1],
            size=1,
            max=3,
            override=OverrideSpec(allowed_types=("m7i.*",), launch_template="of-the-override"),
        ),
        GroupSpec(name="by-parameter", zones=ZONES[:1], size=1, max=3, image_parameter="/lab/image"),
        GroupSpec(name="going-slowly", zones=ZONES[:1], size=1, terminating_hook_seconds=1),
        GroupSpec(name="managed", zones=ZONES[:1], size=1, managed_node_group=True),
    ),
    target_groups=(
        TargetGroupSpec(
            name="web", node_port=30080, listener_port=8080, health_path="/healthz", deregistration_delay_seconds=1
        ),
        TargetGroupSpec(name="raw", node_port=30090, listener_port=8090, deregistration_delay_seconds=0),
        TargetGroupSpec(name="pods", pods_of="shop/web", node_port=8080, listener_port=8100),
    ),
    delays=Delays(boot=0.5, terminate=0.5),
)
_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A running AWS server."""

    process: subprocess.Popen[str]
    port: int
    paths: LabPaths

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str) -> Any:
        """A boto3 client, made once."""
        return _client(service, self.endpoint)

    def lab(self, method: str, path: str, body: Any = None) -> Any:
        """A request to `/_lab/...`; answers its JSON, raises urllib.error.HTTPError for an error."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint}/_lab/{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def instance(self, instance_id: str) -> dict[str, Any]:
        """What `/_lab/instances` says of an instance."""
        (found,) = [i for i in self.lab("GET", "instances") if i["id"] == instance_id]
        return dict(found)

    def ended(self, execution: str) -> dict[str, Any]:
        """Waits for an execution's end; answers its description."""

        def look() -> dict[str, Any] | None:
            described: dict[str, Any] = self.client("stepfunctions").describe_execution(executionArn=execution)
            return described if described["status"] != "RUNNING" else None

        return dict(until(look, f"{execution} has ended"))

    def invoke(self, function: str, payload: Any) -> tuple[Any, str | None]:
        """Invokes a function; answers its payload and what kind of function error it was."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload))
        return json.load(answer["Payload"]), answer.get("FunctionError")


@cache
def _client(service: str, endpoint: str) -> Any:
    session: Any = boto3.session.Session("test", "test", region_name=REGION)
    return session.client(service, endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1}))


def start_server(directory: Path, spec: LabSpec = SPEC) -> Server:
    """Starts a server with a lab's directory of its own and waits until it answers."""
    paths = LabPaths(directory)
    spec.save(paths.spec)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lab.aws.server", str(directory), "--host", "127.0.0.1", "--port", str(port)]
    log = (directory / "server.log").open("w")
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, text=True)
    log.close()
    server = Server(process, port, paths)

    def ready() -> bool:
        assert process.poll() is None, (directory / "server.log").read_text()
        try:
            return bool(server.lab("GET", "ready")["ready"])
        except urllib.error.URLError:
            return False

    until(ready, "the AWS server is ready", within_seconds=_READY_SECONDS)
    return server


def stop_server(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(10)


def document(action: Any, resource: Any = "*", condition: Any = None) -> str:
    """A policy of one statement that allows."""
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [statement | ({"Condition": condition} if condition else {})]}
    )


@contextmanager
def role(server: Server, name: str, *policies: str) -> Iterator[boto3.session.Session]:
    """A session of a role that has these policies, for the time of the block."""
    iam = server.client("iam")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    for number, policy in enumerate(policies):
        iam.put_role_policy(RoleName=name, PolicyName=str(number), PolicyDocument=policy)
    key = server.client("sts").assume_role(RoleArn=arn, RoleSessionName="step")["Credentials"]
    try:
        yield boto3.session.Session(key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"], REGION)
    finally:
        for number, _ in enumerate(policies):
            iam.delete_role_policy(RoleName=name, PolicyName=str(number))
        iam.delete_role(RoleName=name)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The AWS server that all tests share; each test uses groups of its own."""
    server = start_server(tmp_path_factory.mktemp("lab"))
    yield server
    stop_server(server)
    print((server.paths.root / "server.log").read_text())


@pytest.fixture(scope="session")
def assembly() -> Path:
    """The probe app as CDK synthesizes it, kept until the app changes."""
    sources = sorted(PROBE.rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]

    def make(directory: Path) -> None:
        environment = os.environ | {
            "PYTHONPYCACHEPREFIX": str(cache_directory() / "bytecode"),
            "PYTHONPATH": ".:lambdas",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "tests.lab.aws.probe.app", str(directory)]
        subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)

    return made_once(cache_directory() / "probe" / digest, make)


@pytest.fixture(scope="session")
def deployed(aws: Server, assembly: Path) -> dict[str, str]:
    """The outputs of the probe app, deployed."""
    return deploy(assembly, endpoint=aws.endpoint, region=REGION)["Probe"]
