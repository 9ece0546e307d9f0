"""Fixtures of labs, for every test that needs a real cluster. Imported by tests/conftest.py."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from lab.addresses import APISERVER_PORT
from lab.controlplane.start import COMPONENTS
from lab.kube import Access, Kube
from lab.lifecycle import Lab, outside_ports, running_lab
from lab.loop_thread import LoopThread
from lab.spec import LabSpec
from tests.blocking_kube import BlockingKube
from tests.cluster import Cluster
from tests.fake_kubelet import play_kubelet

_numbers = itertools.count(1)


@dataclass(frozen=True)
class ControlPlane:
    """A real control plane without nodes, in namespaces of its own, reached through local ports."""

    lab: Lab
    kube: BlockingKube
    """As the cluster's administrator."""
    kubeconfig: Path
    """The administrator's, for programs outside the lab."""
    port_for: Callable[[str, int], int]
    """From an address inside to the port of 127.0.0.1 that leads there."""
    loop: LoopThread

    def kube_as(self, token: str) -> BlockingKube:
        """The same server as whoever this bearer token stands for. The caller closes it."""
        return BlockingKube(replace(self.kube.access, token=token), self.loop)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Started once per session; tests keep apart by namespaces and node names (`cluster`).

    Needs the binary: `python -m lab.controlplane.build`.
    """
    directory = tmp_path_factory.mktemp("control-plane")
    # Heartbeats are not what these tests are about: nodes made by hand stay Ready without.
    spec = LabSpec(parts=COMPONENTS, node_monitor_grace_seconds=3600)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("EKS_ROLLING_LABS", str(directory / "labs"))
        lab = stack.enter_context(running_lab(spec, "control-plane"))
        port_for = stack.enter_context(outside_ports(lab))
        loop = stack.enter_context(LoopThread())
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(_moved(lab.paths.kubeconfig, port_for("127.0.0.1", APISERVER_PORT)))
        kube = BlockingKube(Access.from_kubeconfig(kubeconfig), loop)
        stack.callback(kube.close)
        yield ControlPlane(lab, kube, kubeconfig, port_for, loop)


@pytest.fixture(scope="session")
def _kubelet(control_plane: ControlPlane) -> Iterator[None]:
    async def play() -> None:
        async with Kube(control_plane.kube.access) as kube:
            await play_kubelet(kube)

    playing = control_plane.loop.start(play())
    yield
    failed = playing.done()
    playing.cancel()
    if failed:
        playing.result()


@pytest.fixture
def cluster(control_plane: ControlPlane, _kubelet: None) -> Iterator[Cluster]:
    """A namespace and nodes of one test's own on the shared control plane; pods bound to the nodes "run"."""
    cluster = Cluster(control_plane.kube, f"test-{next(_numbers)}")
    yield cluster
    cluster.discard()


def _moved(kubeconfig: Path, port: int) -> str:
    document = yaml.safe_load(kubeconfig.read_text())
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    return yaml.safe_dump(document)
