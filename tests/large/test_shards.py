"""Redis Clusters that take their time: `make test-large`. Twelve shards over eight nodes; masters without replicas."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lab import demo
from lab.application import deploy
from lab.lifecycle import running_lab
from lab.operator import operator_of
from lab.spec import LabSpec
from lab.view import LineView
from tests.e2e.conftest import REPOSITORY, SETTINGS
from tests.e2e.rolled import assert_rolled
from tests.e2e.shards import assert_normal, roles

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]


@dataclass(frozen=True)
class Shape:
    """How many nodes and pods each zone has, who is master, and who follows whom."""

    nodes: int
    pods: int
    masters: tuple[str, ...]
    replicas: dict[str, str]


def names(zone: str, *ordinals: int) -> tuple[str, ...]:
    return tuple(f"redis-{zone}-{n}" for n in ordinals)


MASTERS = (*names("a", *range(6)), *names("b", *range(6)))
TWELVE = Shape(
    4, 12, MASTERS, dict(zip((*names("b", *range(6, 12)), *names("a", *range(6, 12))), MASTERS, strict=True))
)
ALONE = Shape(2, 2, (*names("a", 0, 1), *names("b", 0, 1)), {})


def manifests(shape: Shape, directory: Path) -> Path:
    """The lab's cluster, of another shape."""
    shipped = REPOSITORY / "lab" / "clusters" / "shards"
    documents = list(yaml.safe_load_all((shipped / "redis.yaml").read_text()))
    for document in documents:
        if document["kind"] == "StatefulSet":
            document["spec"]["replicas"] = shape.pods
        elif document["kind"] == "Job":
            (container,) = document["spec"]["template"]["spec"]["containers"]
            pairs = " ".join(f"{replica}={master}" for replica, master in shape.replicas.items())
            container["env"] = [
                {"name": "MASTERS", "value": " ".join(shape.masters)},
                {"name": "REPLICAS", "value": pairs},
            ]
    (directory / "redis.yaml").write_text(yaml.safe_dump_all(documents))
    (directory / "rbac.yaml").write_text((shipped / "rbac.yaml").read_text())
    return directory


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EKS_ROLLING_LABS", str(tmp_path / "labs"))
        yield tmp_path


@pytest.mark.parametrize("shape", [pytest.param(TWELVE, id="twelve shards"), pytest.param(ALONE, id="masters alone")])
def test_a_roll_moves_every_pod_and_no_acknowledged_write_is_lost(labs: Path, shape: Shape) -> None:
    """C1, C2."""
    spec = LabSpec.from_yaml(REPOSITORY / "lab" / "clusters" / "shards.yaml")
    (labs / "manifests").mkdir()
    spec = spec.model_copy(
        update={
            "groups": tuple(group.model_copy(update={"size": shape.nodes}) for group in spec.groups),
            "manifests": ("lab/clusters/demo", str(manifests(shape, labs / "manifests"))),
        }
    )
    pods = (*shape.masters, *shape.replicas)
    with running_lab(spec, "large") as lab:
        deploy(lab, SETTINGS)
        with operator_of(lab) as operator:
            operator.wait_for_workloads()
            played = demo.play(operator, LineView(Console(file=sys.stdout, width=200)), quiet_seconds=2)
            after = roles(operator, pods)
            assert_rolled(played)
            (shards,) = played.verdict.redis
            assert (shards.lost, shards.unserved, shards.failovers) == (0, 0, 2 * len(shape.masters))
            assert {pod for pod, (_, _, slots) in after.items() if slots} == set(shape.masters)
            assert_normal(operator, after)
