"""The AWS server that the account's client is tried on; and which tests begin first."""

import pytest

from tests.aws_lab import assembly, aws, deployed

__all__ = ["assembly", "aws", "deployed"]

LONG_FIRST = (
    "test_zones_are_cut_for_ten_seconds",
    "test_killed_after_every_command_once_it_ends_the_same",
    "test_a_cluster_of_masters_alone_moves_too",
    "test_moves_on_ipv6",
    "test_a_node_that_does_not_answer_for_a_while",
    "test_a_fault_in_the_middle_of_a_migration",
    "test_a_server_that_does_not_answer_for_a_while",
)
"""Tests of ten seconds and more, the longest first: begun last, one of them would run alone at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups come before them all: pytest-xdist begins with what has most tests."""
    items.sort(key=lambda item: LONG_FIRST.index(name) if (name := item.name.partition("[")[0]) in LONG_FIRST else 99)
