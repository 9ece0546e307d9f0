"""Fixtures that several folders use, and which tests stay together when they run on several processes."""

import pytest

from tests.lab_fixtures import _kubelet, cluster, control_plane
from tests.node_lab import node_lab, nodes

__all__ = ["_kubelet", "cluster", "control_plane", "node_lab", "nodes"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a lab run in one process, so that there is one of it."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for name in ("node_lab", "control_plane", "aws", "small_lab"):
            if name in fixtures:
                item.add_marker(pytest.mark.xdist_group(name))
                break
