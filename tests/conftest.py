"""Fixtures that several folders use, and which tests stay together when they run on several processes."""

from collections.abc import Generator

import hypothesis
import pytest

from tests import evidence, scope
from tests.lab_fixtures import _kubelet, cluster, control_plane
from tests.node_lab import graceful_nodes, node_lab, nodes

__all__ = ["_kubelet", "cluster", "control_plane", "graceful_nodes", "node_lab", "nodes"]


def pytest_addoption(parser: pytest.Parser) -> None:
    scope.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    scope.settle_seed(config)
    # How long an example takes says how busy the machine is, and nothing about the product.
    hypothesis.settings.register_profile("believed", deadline=None)
    hypothesis.settings.load_profile("believed")


def pytest_report_header(config: pytest.Config) -> str:
    return scope.told(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    scope.leave_out(config, items)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that share a lab run in one process, so that there is one of it; of the nodes' lab one per module."""
    fixtures = getattr(item, "fixturenames", ())
    for name in ("node_lab", "control_plane", "aws", "answers"):
        if name in fixtures:
            group = f"{name}-{item.path.stem}" if name == "node_lab" else name
            item.add_marker(pytest.mark.xdist_group(group))
            break


def pytest_runtest_setup(item: pytest.Item) -> None:
    evidence.begin(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("kept of this failure", str(evidence.keep(item, report))))
    return report
