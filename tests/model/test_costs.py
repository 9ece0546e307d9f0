"""What a roll costs, counted along the definition."""

import pytest

from scripts import cost_table
from scripts.cost_table import costs, looks


def test_the_table_of_costs_is_current() -> None:
    """`make costs` writes it."""
    text = cost_table.DOCUMENT.read_text()
    assert text == cost_table.written(text)


def test_every_step_that_is_assumed_to_take_time_is_a_state() -> None:
    known = {name for machine in ("roll", "node") for name in cost_table._tasks(machine)}
    assert cost_table.SECONDS.keys() <= known
    assert {*cost_table.WAVE, *cost_table.EACH_NODE} - known == {"Is any node left?", "Replace nodes"}


@pytest.mark.parametrize(("seconds", "expected"), [(0, 1), (1, 2), (10, 11), (11, 12), (60, 27)])
def test_looks_follow_from_the_waits_that_steps_ask_for(seconds: float, expected: int) -> None:
    """Every second for ten seconds, then after a tenth of the time waited, in whole seconds."""
    assert looks(seconds) == expected


def test_a_node_more_costs_the_same_wherever_it_is_in_a_wave() -> None:
    one, two, three = (costs(n, 10) for n in (5, 6, 7))
    assert two.transitions - one.transitions == three.transitions - two.transitions > 0
    assert costs(12, 10).transitions - costs(11, 10).transitions > two.transitions - one.transitions
