"""Faults that are planted have a place in the product as it is now, and each is another."""

import ast

import pytest

from tests.planted.__main__ import REPOSITORY
from tests.planted.faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault: Fault) -> None:
    text = (REPOSITORY / fault.file).read_text()
    assert text.count(fault.right) == 1
    planted = text.replace(fault.right, fault.wrong)
    assert planted != text
    ast.parse(planted)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_tests_that_should_find_it_are_there(fault: Fault) -> None:
    assert [path for path in fault.tests if not (REPOSITORY / "tests" / path).exists()] == []


def test_they_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
