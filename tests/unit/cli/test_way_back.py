"""A roll that goes back, as those who watch it and read of it are told."""

from dataclasses import replace

from eks_rolling.documents.report import way_back
from eks_rolling_cli.watch_view import changes
from tests.unit.cli.test_screens import ended

DOCUMENT = {"put_back": ["group ng: back from lt-1:2 to lt-1:1"], "rollback": "rollback-roll-1"}


def test_what_a_report_says_of_it_is_told_in_sentences() -> None:
    assert way_back(DOCUMENT) == (
        "group ng: back from lt-1:2 to lt-1:1",
        "the roll rollback-roll-1 replaces the new nodes again",
    )
    assert way_back({"rolls_back": "roll-1"}) == ("this roll rolls back roll-1",)
    assert way_back({"not_started": "too many"}) == (
        "the roll that replaces the new nodes again was not started: too many",
    )
    assert way_back({}) == ()


def test_who_watches_the_failed_roll_is_told_which_one_follows() -> None:
    seen = replace(ended("FAILED", "DeadlineExceeded", "alarms are firing"), way_back=way_back(DOCUMENT))
    lines = list(changes(None, seen))
    assert "the roll rollback-roll-1 replaces the new nodes again" in lines
    assert replace(seen, rollback="rollback-roll-1").to_json()["rollback"] == "rollback-roll-1"
