"""Labs with the application deployed, for whole rolls. What each recorded is kept for tests/permissions."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import Operator, operator_of
from lab.paths import LabPaths
from lab.spec import Delays, GroupSpec, LabSpec, TargetGroupSpec
from lab.view import LineView
from tests.permissions.collected import DIRECTORY, collect, save

MANAGED = "managed"

ORDER = (
    "demo", "sentinel", "shards", "first", "permissions", "blockers", "second", "third", "workloads", "back", "dead",
    "serving", "real",
)  # fmt: skip
"""The groups of tests that share a lab, in the order in which workers begin them; pytest-xdist would begin with the
group of most tests (--no-loadscope-reorder). A worker is given one more group when it has two tests left. So each of
the first three of `make test`, of one or two tests, brings its worker the group that comes three places later; the
third and the sixth need the same lab, which lives as long as the worker."""


def pytest_configure(config: pytest.Config) -> None:
    """Forgets what earlier runs recorded; xdist's workers come later, and have an input."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(DIRECTORY, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the tests by their groups; those of none stay where they are, at the front."""
    items.sort(key=lambda item: ORDER.index(group) if (group := group_of(item)) in ORDER else -1)


def group_of(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str((*mark.args, *mark.kwargs.values())[0]) if mark else ""


@pytest.fixture(scope="session", autouse=True)
def _records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what this worker's labs recorded, once all of them have ended, whoever started them."""
    yield
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    # pytest links to the latest directory of each name: a lab is there twice.
    found = {file.resolve() for file in tmp_path_factory.getbasetemp().glob("*/*/logs/calls.jsonl")}
    for number, calls in enumerate(sorted(found)):
        uses = collect(LabPaths(calls.parent.parent))
        save(uses, DIRECTORY / f"{uses.lab}-{worker}-{number}.json")


SETTINGS = {"canary": False, "bake_seconds": 1}
"""Two nodes at once from the start: harder on what is killed than a canary, and quicker."""


def small_spec() -> LabSpec:
    """Three nodes in two zones, the demo's workloads, traffic forwarded by any node; and a managed node group."""
    zones = ("eu-central-1a", "eu-central-1b")
    return LabSpec(
        cluster="small",
        zones=zones,
        groups=(
            GroupSpec(name="workers-a", launch_template="workers", zones=zones[:1], size=2, target_groups=("web",)),
            GroupSpec(name="workers-b", launch_template="workers", zones=zones[1:], size=1, target_groups=("web",)),
            GroupSpec(name=MANAGED, zones=zones[:1], size=0, managed_node_group=True),
        ),
        target_groups=(
            TargetGroupSpec(
                name="web",
                node_port=30080,
                listener_port=8000,
                health_path="/healthz",
                deregistration_delay_seconds=2,
            ),
        ),
        manifests=("lab/clusters/demo", "tests/e2e/forwarded.yaml"),
        delays=Delays(boot=2.0, node_removal=1.0),
    )


@pytest.fixture(scope="session")
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One lab for all tests of this worker; each leaves it as it found it, newer or outdated nodes apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path_factory.mktemp("labs")))
        with running_lab(small_spec(), "small") as lab:
            deploy(lab, SETTINGS)
            with operator_of(lab) as operator:
                operator.wait_for_workloads()
                yield operator


@pytest.fixture
def view() -> LineView:
    """What happens, in the test's captured output."""
    return LineView(Console(file=sys.stdout, width=200))


REPOSITORY = Path(__file__).resolve().parent.parent.parent
