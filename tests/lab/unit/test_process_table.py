from pathlib import Path

import pytest

from lab.controlplane.start import COMPONENTS
from lab.paths import LabPaths
from lab.process_table import process_table
from lab.spec import LabSpec
from lab.supervisor import levels

PATHS = LabPaths(Path("/labs/demo"))


def test_every_part_builds_on_parts_that_there_are() -> None:
    parts = process_table(PATHS, LabSpec())
    names = {part.name for part in parts}

    assert len(names) == len(parts)
    assert all(set(part.after) <= names for part in parts)


def test_the_aws_server_and_etcd_wait_for_nothing() -> None:
    first = {part.name for part in process_table(PATHS, LabSpec()) if not part.after}
    assert first == {"etcd", "aws-server"}


def test_a_spec_may_leave_parts_out() -> None:
    parts = process_table(PATHS, LabSpec(parts=COMPONENTS))
    assert tuple(part.name for part in parts) == COMPONENTS


def test_a_part_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown parts \['kubelet'\]; a lab has \['aws-server', 'etcd'"):
        process_table(PATHS, LabSpec(parts=("kubelet",)))


def test_parts_end_in_the_order_opposite_to_what_they_build_on() -> None:
    by_part = levels(process_table(PATHS, LabSpec()))

    assert by_part["etcd"] == by_part["aws-server"] == 0
    assert by_part["kube-apiserver"] == 1
    assert by_part["kube-scheduler"] == by_part["node-agent"] == 2


def test_nodes_are_given_up_after_as_long_as_the_spec_says() -> None:
    (controller_manager,) = process_table(
        PATHS, LabSpec(parts=("kube-controller-manager",), node_monitor_grace_seconds=7)
    )
    assert "--node-monitor-grace-period=7s" in controller_manager.command
