"""The lab's clients go before everything else, where the machine lets them."""

import subprocess
import sys

import pytest

from lab import priority
from lab.priority import going_first, may_go_first

SAYS = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0) == os.SCHED_RR)"]


def said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_command_goes_first_exactly_where_that_is_permitted() -> None:
    assert said(SAYS) == "False"
    assert said(going_first(SAYS)) == str(may_go_first())


def test_where_it_is_not_the_command_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "_FIRST", ("false",))
    assert going_first(SAYS) == SAYS
