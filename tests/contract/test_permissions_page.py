"""docs/permissions.md is what the API server answers, and nobody may write workloads in all namespaces."""

import subprocess
from collections.abc import Iterator, Sequence

import pytest

from scripts.permissions_page import DOCUMENT, FILES, REPOSITORY, Kubectl, bound, everywhere, page
from tests.lab_fixtures import ControlPlane

pytestmark = pytest.mark.lab

WORKLOADS = (
    "cronjobs",
    "daemonsets",
    "deployments",
    "jobs",
    "pods",
    "replicasets",
    "replicationcontrollers",
    "statefulsets",
)
READING = {"get", "list", "watch"}


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    """As the administrator of a cluster in which the files that ship are applied."""

    def run(arguments: Sequence[str]) -> str:
        command = [str(control_plane.lab.paths.binaries / "kubectl"), f"--kubeconfig={control_plane.kubeconfig}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for file in FILES:
        run(["apply", "-f", str(REPOSITORY / file)])
    yield run
    for file in FILES:
        run(["delete", "-f", str(REPOSITORY / file), "--wait=false"])


def test_the_page_is_what_the_api_server_answers(kubectl: Kubectl) -> None:
    assert DOCUMENT.read_text() == page(kubectl), "make permissions"


def test_no_group_writes_workloads_in_all_namespaces(kubectl: Kubectl) -> None:
    """T1. Eviction is no write of a pod: the API server holds it to the budgets."""
    assert len(bound()) > 8
    for group in bound():
        for resource, names, verbs in everywhere(kubectl, group):
            kind = resource.partition(".")[0]
            assert "*" not in f"{resource}{verbs}", (group, resource, verbs)
            if kind.partition("/")[0] in WORKLOADS and kind != "pods/eviction":
                assert set(verbs.split()) <= READING, (group, resource, names, verbs)
