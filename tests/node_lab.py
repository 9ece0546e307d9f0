"""A lab with nodes whose pods really run, for tests: launching instances, looking at pods, sending them traffic."""

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.addresses import APISERVER_PORT, AWS_PORT
from lab.controlplane.start import COMPONENTS
from lab.instances import node_name
from lab.kube import Access, Items, Json
from lab.lifecycle import Lab, outside_ports, running_lab
from lab.loop_thread import LoopThread
from lab.spec import Delays, GroupSpec, LabSpec, RestartBackoff
from tests.blocking_kube import BlockingKube
from tests.cluster import Cluster, taints
from tests.waiting import until

ZONES = ("eu-central-1a", "eu-central-1b")
_POOLS = 60
_GRACEFUL = "graceful"
_numbers = itertools.count(1)
_hosts = itertools.count(10)


def spec() -> LabSpec:
    """A lab without an AWS server, whose groups exist only to give their nodes a label for each test to select by."""
    return LabSpec(
        zones=ZONES,
        parts=(*COMPONENTS, "node-agent", "heartbeats", "service-proxy"),
        groups=tuple(
            GroupSpec(
                name=pool,
                zones=ZONES,
                size=0,
                labels={"tests/pool": pool},
                # Longer than any test: what ends, has been told to.
                shutdown_grace_seconds=600 if pool == _GRACEFUL else 0,
            )
            for pool in (_GRACEFUL, *map(_pool, range(1, _POOLS)))
        ),
        delays=Delays(
            volume_attach=0.4, volume_detach=0.6, node_ready=0.3, node_removal=0.5, health_check_interval=0.2
        ),
        restart_backoff=RestartBackoff(first=0.5, longest=2.0),
    )


@dataclass(frozen=True)
class Machine:
    """An instance as the stand-in for the AWS server tells of it."""

    id: str
    zone: str
    address: str

    @property
    def node(self) -> str:
        return node_name(self.address, LabSpec().region)


class NodeLab:
    """The running lab and the stand-in's two lists."""

    def __init__(self, lab: Lab, kube: BlockingKube, kubeconfig: Path, port_for: Callable[[str, int], int]) -> None:
        self.lab = lab
        self.kube = kube
        self.kubeconfig = kubeconfig
        self.port_for = port_for
        """From an address inside to the port of 127.0.0.1 that leads there."""
        self._instances: dict[str, Json] = {}

    def launch(self, group: str, zone: str, address: str | None = None) -> Machine:
        """An instance that runs from now on; at an address of its own unless one is given."""
        number = next(_hosts)
        machine = Machine(f"i-{number:017x}", zone, address or f"10.0.{ZONES.index(zone)}.{number}")
        self._instances[machine.id] = {
            "id": machine.id, "state": "running", "group": group, "zone": zone, "type": "m6i.large",
            "private_ip": machine.address, "image_id": "ami-0123456789abcdef0", "launched": time.time(),
        }  # fmt: skip
        self._put("instances", list(self._instances.values()))
        return machine

    def set_state(self, machine: Machine, state: str) -> None:
        """Has an instance say that it is shutting-down or terminated."""
        self._instances[machine.id]["state"] = state
        self._put("instances", list(self._instances.values()))

    def set_targets(self, groups: Items) -> None:
        """What `GET /_lab/targets` answers from now on."""
        self._put("targets", groups)

    def targets(self) -> Items:
        """What it answers now, health checks' verdicts included."""
        found: Items = self._standin("GET", "targets")
        return found

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints. Raises CalledProcessError, with what it complained of."""
        command = [str(self.lab.paths.binaries / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def run_inside(self, pod: str, *command: str) -> str:
        """What a command prints that is run inside a pod ("namespace/name")."""
        full = [sys.executable, "-m", "lab.node.exec", str(self.lab.paths.root), pod, *command]
        done = self.lab.run(full, capture_output=True)
        assert done.returncode == 0, done.stderr
        return str(done.stdout).strip()

    def connect(self, address: str, port: int, timeout: float = 5.0) -> HTTPConnection:
        """An HTTP connection to an address inside, made from the lab's own namespace."""
        return HTTPConnection("127.0.0.1", self.port_for(address, port), timeout=timeout)

    def get(self, address: str, port: int, path: str = "/") -> Json:
        """One request on a connection of its own; the JSON that comes back. Raises OSError."""
        with contextlib.closing(self.connect(address, port)) as connection:
            connection.request("GET", path)
            answer: Json = json.loads(connection.getresponse().read())
            return answer

    def processes(self) -> list[str]:
        """The command line of every process in the lab."""
        return str(self.lab.run(["ps", "-eo", "args"], capture_output=True).stdout).splitlines()

    def _put(self, what: str, content: Any) -> None:
        self._standin("PUT", what, content)

    def _standin(self, method: str, what: str, content: Any = None) -> Any:
        with contextlib.closing(self.connect("127.0.0.1", AWS_PORT)) as connection:
            connection.request(method, f"/_lab/{what}", None if content is None else json.dumps(content))
            return json.loads(connection.getresponse().read())


class Nodes(Cluster):
    """One test's namespace and nodes; pods made here are confined to the nodes made here."""

    def __init__(self, node_lab: NodeLab, name: str) -> None:
        super().__init__(node_lab.kube, name)
        self.node_lab = node_lab
        self.machines: list[Machine] = []

    def launch(self, zone: str = ZONES[0], *, address: str | None = None, wait: bool = True) -> Machine:
        """An instance of this test's own; returns once its node is Ready and untainted."""
        machine = self.node_lab.launch(self.name, zone, address)
        self.machines.append(machine)
        if wait:
            self.kube.wait_for(
                f"{machine.node} ready",
                "/api/v1/nodes",
                lambda nodes: True if nodes and node_is_ready(nodes[0]) and not taints(nodes[0]) else None,
                fieldSelector=f"metadata.name={machine.node}",
            )
        return machine

    def discard(self) -> None:
        super().discard()
        for machine in self.machines:
            self.node_lab.set_state(machine, "terminated")

    def run_inside(self, pod: str, *command: str) -> str:
        return self.node_lab.run_inside(f"{self.name}/{pod}", *command)

    def logs(self, pod: str, *options: str) -> str:
        return self.node_lab.kubectl("logs", "-n", self.name, pod, *options)

    @contextmanager
    def following(self, pod: str, *options: str) -> Iterator[Iterator[str]]:
        """The lines of a pod's log as they come, until its container ends."""
        command = [str(self.node_lab.lab.paths.binaries / "kubectl"), f"--kubeconfig={self.node_lab.kubeconfig}"]
        command += ["logs", "-n", self.name, pod, "--follow", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield iter(process.stdout)
            finally:
                process.kill()

    def kept_log(self, pod: str, container: str = "main", attempt: int = 0) -> list[str]:
        """A container's log without time stamps, also after the pod has gone."""
        (file,) = self.node_lab.lab.paths.pod_logs.glob(f"{self.name}_{pod}_*/{container}/{attempt}.log")
        return [line.split(" ", 3)[3] for line in file.read_text().splitlines()]

    def wait_until_gone(self, pod: str, seconds: float = 15) -> None:
        self.kube.wait_for(f"{pod} gone", self.path("v1/pods"), lambda pods: None if pods else True,
                           seconds=seconds, fieldSelector=f"metadata.name={pod}")  # fmt: skip

    def wait_for_event(self, reason: str, text: str = "") -> str:
        """The message of the first event for that reason that has `text` in it."""
        return self.kube.wait_for(
            f"event {reason}",
            self.path("v1/events"),
            lambda events: next(
                (str(e["message"]) for e in events if e["reason"] == reason and text in e["message"]), None
            ),
        )


def node_is_ready(node: Json) -> bool:
    conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True"


def shell(script: str, **fields: Any) -> Json:
    """A container that runs a shell script."""
    return {"name": "main", "image": "busybox", "command": ["sh", "-c", script], **fields}


def web(**fields: Any) -> Json:
    """A container that serves HTTP on port 8080, checked once a second."""
    return {
        "name": "main",
        "image": "registry.example.com/shop/web:1.4.2",
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        **fields,
    }


@pytest.fixture(scope="session")
def node_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeLab]:
    """Started once per session; tests keep apart by namespaces and nodes (`nodes`)."""
    directory = tmp_path_factory.mktemp("node-lab")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("EKS_ROLLING_LABS", str(directory / "labs"))
        lab = stack.enter_context(running_lab(spec(), "nodes"))
        standin = lab.popen([sys.executable, "-m", "tests.aws_standin"])
        stack.callback(standin.wait)
        stack.callback(standin.kill)
        port_for = stack.enter_context(outside_ports(lab))
        loop = stack.enter_context(LoopThread())
        kubeconfig = directory / "kubeconfig"
        document = yaml.safe_load(lab.paths.kubeconfig.read_text())
        document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port_for('127.0.0.1', APISERVER_PORT)}"
        kubeconfig.write_text(yaml.safe_dump(document))
        kube = BlockingKube(Access.from_kubeconfig(kubeconfig), loop)
        stack.callback(kube.close)
        node_lab = NodeLab(lab, kube, kubeconfig, port_for)
        _wait_for_standin(node_lab)
        yield node_lab


@pytest.fixture
def nodes(node_lab: NodeLab) -> Iterator[Nodes]:
    """A namespace and nodes of one test's own."""
    nodes = Nodes(node_lab, _pool(next(_numbers)))
    yield nodes
    nodes.discard()


@pytest.fixture
def graceful_nodes(node_lab: NodeLab) -> Iterator[Nodes]:
    """Nodes whose kubelets end their pods when their instance shuts down. For one test alone."""
    nodes = Nodes(node_lab, _GRACEFUL)
    yield nodes
    nodes.discard()


def _pool(number: int) -> str:
    return f"nodes-{number}"


def _wait_for_standin(node_lab: NodeLab) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError, HTTPException):
            node_lab.targets()
            return True
        return False

    until(answers, "the stand-in for the AWS server answers")
