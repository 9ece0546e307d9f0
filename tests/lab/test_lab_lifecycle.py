"""A lab leaves nothing behind, however it and whoever started it end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lab.controlplane.start import COMPONENTS
from lab.lifecycle import LabError, begin, current_state, find, is_running, known_labs, running_lab
from lab.paths import REPOSITORY, LabPaths
from lab.spec import LabSpec
from tests.waiting import until

pytestmark = pytest.mark.lab

CONTROL_PLANE = LabSpec(parts=COMPONENTS)
ETCD_ONLY = LabSpec(parts=("etcd",))
"""The smallest lab that there is, for what does not depend on what runs in it."""


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for the labs of one test, which must be over by its end; those of a failed test are ended."""
    directory = tmp_path / "labs"
    monkeypatch.setenv("EKS_ROLLING_LABS", str(directory))
    yield directory
    left = processes_of(directory)
    for paths in known_labs():
        if is_running(paths):
            find(paths.name).stop()
    assert left == []


class Starter:
    """A process that starts a lab; what it says goes to a file."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._words = directory / "said"
        with self._words.open("wb") as words:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=REPOSITORY,
                stdout=words,
                stderr=words,
                # As on a terminal: a shell's background jobs ignore Ctrl-C, and so would their children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_until_it_said(self, message: str) -> None:
        until(lambda: message in self._words.read_text(), f"the words: {message}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(labs: Path, tmp_path: Path) -> Iterator[Callable[..., Starter]]:
    """Starts Python with these arguments; it is killed at the end, had it not ended before."""
    started: list[Starter] = []

    def begin_one(*arguments: str) -> Starter:
        started.append(Starter(tmp_path, *arguments))
        return started[-1]

    yield begin_one
    for starter in started:
        starter.kill()


@pytest.fixture
def start_up(start: Callable[..., Starter], tmp_path: Path) -> Callable[..., Starter]:
    """`lab up` of a lab called "started" with these parts and options."""

    def up(spec: LabSpec, *options: str) -> Starter:
        shape = tmp_path / "spec.yaml"
        shape.write_text(yaml.safe_dump({"parts": list(spec.parts or ())}))
        return start("-m", "lab", "up", "--name", "started", "--spec", str(shape), *options)

    return up


def test_commands_run_inside_and_their_exit_code_comes_out(labs: Path) -> None:
    with running_lab(ETCD_ONLY, "inside") as lab:
        addresses = lab.run(["ip", "-brief", "address"], capture_output=True).stdout
        assert "10.244.0.1/18" in addresses
        assert "10.244.64.1/18" in addresses
        assert "10.0.255.1/32" in addresses
        assert lab.run(["sh", "-c", "exit 7"]).returncode == 7
        assert lab.run(["cat", "/proc/sys/net/ipv4/ip_forward"], capture_output=True).stdout == "1\n"


def test_kubectl_and_the_aws_settings_are_at_hand_inside(labs: Path) -> None:
    with running_lab(CONTROL_PLANE, "at-hand") as lab:
        namespaces = lab.run(["kubectl", "get", "namespaces", "--output=name"], capture_output=True).stdout
        assert "namespace/default" in namespaces
        endpoints = ["kubectl", "get", "endpointslices", "kubernetes", "--output=json"]
        (endpoint,) = json.loads(lab.run(endpoints, capture_output=True).stdout)["endpoints"]
        assert endpoint["addresses"] == ["10.0.255.1"]
        assert lab.environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"


def test_manifests_of_the_spec_are_applied_by_the_time_the_lab_runs(labs: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}")
    bad.write_text("{apiVersion: v1, kind: Nonsense, metadata: {name: x}}")

    with running_lab(CONTROL_PLANE.model_copy(update={"manifests": (str(good),)}), "with-manifests") as lab:
        assert lab.run(["kubectl", "get", "configmap", "settings"], capture_output=True).returncode == 0
        refused = run_cli("apply", str(bad), "--name", "with-manifests")
        assert refused.returncode == 1
        assert 'no matches for kind "Nonsense"' in refused.stderr


def test_two_labs_run_side_by_side_and_names_are_unique(labs: Path) -> None:
    with (
        running_lab(ETCD_ONLY, "one"),
        running_lab(ETCD_ONLY, "two"),
        pytest.raises(LabError, match="a lab called one is running"),
    ):
        begin(ETCD_ONLY, "one")
    with running_lab(ETCD_ONLY, "one"):
        pass


def test_a_lab_ends_when_its_embedding_program_is_killed(labs: Path, start: Callable[..., Starter]) -> None:
    program = start(
        "-c",
        "from lab.lifecycle import running_lab, LabSpec\n"
        "import time\n"
        "with running_lab(LabSpec(parts=('etcd',)), 'embedded') as lab:\n"
        "    sleeper = lab.popen(['sleep', '600'])\n"
        "    print('it runs', flush=True)\n"
        "    time.sleep(600)\n",
    )
    program.wait_until_it_said("it runs")
    assert processes_of(labs)

    program.kill()

    until(lambda: not processes_of(labs), "the lab's end")
    assert current_state(LabPaths.of("embedded")) == "stopped"


@pytest.mark.parametrize("message", ["making the network", "etcd is starting", "kube-apiserver is starting"])
def test_a_lab_leaves_nothing_when_up_is_killed_while_it_starts(
    labs: Path, start_up: Callable[..., Starter], message: str
) -> None:
    up = start_up(CONTROL_PLANE)
    up.wait_until_it_said(message)

    up.kill()

    until(lambda: not processes_of(labs), "the lab's end")


def test_ctrl_c_while_starting_ends_the_lab(labs: Path, start_up: Callable[..., Starter]) -> None:
    up = start_up(CONTROL_PLANE)
    up.wait_until_it_said("kube-apiserver is starting")

    up.process.send_signal(signal.SIGINT)

    assert up.process.wait(30) == 130
    assert processes_of(labs) == []


def test_ctrl_c_ends_a_lab_in_the_foreground(labs: Path, start_up: Callable[..., Starter]) -> None:
    up = start_up(ETCD_ONLY, "--foreground")
    up.wait_until_it_said("lab started is running")

    up.process.send_signal(signal.SIGINT)

    assert up.process.wait(30) == 0
    assert processes_of(labs) == []


def test_a_lab_outlives_up_until_down(labs: Path, start_up: Callable[..., Starter]) -> None:
    assert start_up(ETCD_ONLY, "--json").process.wait(60) == 0
    lab = find("started")
    assert lab.run(["true"]).returncode == 0
    assert current_state(lab.paths) == "running"

    down = run_cli("down", "--name", "started", "--json")

    assert json.loads(down.stdout) == [{"name": "started", "state": "stopped"}]
    assert processes_of(labs) == []
    assert not lab.paths.etcd.exists()
    assert (lab.paths.logs / "etcd.log").exists()


def test_a_part_that_dies_ends_the_lab_which_says_which_and_how(labs: Path) -> None:
    bound = begin(ETCD_ONLY, "dying")
    lab = bound.wait_until_running()

    lab.signal("etcd", signal.SIGKILL)

    with pytest.raises(LabError, match="etcd was ended by SIGKILL"):
        bound.wait_until_over()
    told = run_cli("status", "--name", "dying", "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["state"] == "failed"
    assert json.loads(told.stdout)["said"]["part"] == "etcd"


def test_a_part_that_cannot_start_fails_the_lab_with_its_last_words(
    labs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EKS_ROLLING_CONTROL_PLANE", str(broken_programs(tmp_path / "programs")))

    with pytest.raises(LabError, match="etcd ended with exit code 3") as failure:
        begin(ETCD_ONLY, "broken").wait_until_running()

    assert failure.value.details == "this is no etcd"


def test_a_lab_whose_supervisor_is_killed_is_gone_at_once(labs: Path) -> None:
    bound = begin(ETCD_ONLY, "beheaded")
    lab = bound.wait_until_running()

    os.kill(lab.pid, signal.SIGKILL)

    with pytest.raises(LabError, match="lab beheaded was killed"):
        bound.wait_until_over()
    until(lambda: not processes_of(labs), "the lab's end")
    assert current_state(lab.paths) == "killed"


def test_commands_for_a_lab_that_does_not_run_say_how_to_start_one(labs: Path) -> None:
    for command in (["shell", "true"], ["down"], ["apply", "-"], ["status"]):
        told = run_cli(*command)
        assert told.returncode == 1
        assert "`python -m lab up --name demo` starts one" in told.stderr


def broken_programs(directory: Path) -> Path:
    directory.mkdir()
    for name in (*COMPONENTS, "kubectl"):
        program = directory / name
        program.write_text("#!/bin/sh\necho this is no etcd\nexit 3\n")
        program.chmod(0o755)
    return directory


def run_cli(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lab", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def processes_of(labs: Path) -> list[str]:
    """Command lines of every process of this machine that has to do with the labs in that directory."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            surroundings = (directory / "environ").read_bytes()
            theirs = str(labs) in words or f"EKS_ROLLING_LAB={labs}/".encode() in surroundings
            if theirs and (directory / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(words)
    return found
