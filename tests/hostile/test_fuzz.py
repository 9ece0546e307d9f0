"""A few hundred cases of each part of the fuzz; `make fuzz` runs as many as are wanted [T1]."""

import random

import pytest

from tests import scope
from tests.fuzz import wild
from tests.fuzz.parts import PARTS
from tests.fuzz.running import Failure, run
from tests.fuzz.wild import Wild

CASES = {scope.QUICK: 100, scope.TEST: 400, scope.ALL: 2000}


@pytest.mark.parametrize("part", PARTS)
def test_whatever_is_written_is_read_or_a_sentence(part: str, request: pytest.FixtureRequest) -> None:
    """T1: no exception but ours, no effect outside the plan."""
    seed = scope.dice(request.config, part).randrange(10**6)
    count, failures = run(part, seed, range(CASES[request.config.option.scope]))
    assert failures == [], "\n".join(map(str, failures))
    assert count == CASES[request.config.option.scope]


def test_a_case_comes_again_by_its_seed_and_number() -> None:
    drawn = [[Wild(random.Random(f"marks 1 {number}")).json() for number in range(50)] for _ in "ab"]
    assert repr(drawn[0]) == repr(drawn[1])
    assert len({repr(each) for each in drawn[0]}) > 20


def test_what_is_drawn_has_every_kind_of_spice() -> None:
    dice = random.Random(1)
    texts = "".join(Wild(dice).near(("desired:2@999000", "10.0.0.1")) for _ in range(5000))
    assert [piece for piece in wild.SPICE if piece not in texts] == []
    assert max(len(Wild(dice).text()) for _ in range(500)) >= 5000


def test_a_case_that_fails_is_told_with_how_it_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("status")

    monkeypatch.setitem(PARTS, "broken", lambda: iter([broken]))
    count, failures = run("broken", 7, range(3, 50))
    assert count == len(failures) == 5
    assert isinstance(failures[0], Failure)
    assert "KeyError" in str(failures[0])
    assert str(failures[0]).endswith("make fuzz PART=broken SEED=7 FROM=3 N=1")
