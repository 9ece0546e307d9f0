"""Sentences on a terminal and off it: folded between words, but no command; and by one console alone."""

import io
from functools import partial

import pytest
from rich.console import Console
from rich.text import Text

from eks_rolling.documents.remedies import typed
from eks_rolling_cli import cli_context, doctor, history, plan_view, rolls_page
from eks_rolling_cli.exits import CommandError, Exit
from eks_rolling_cli.format import beginning, brief
from eks_rolling_cli.listing import folded
from eks_rolling_cli.settings import settings_of
from tests.unit.cli.conftest import Run
from tests.unit.cli.targets import FakeTarget

COMMAND = partial(typed, cluster="demo")
SENTENCE = "→ `eks-rolling start --cluster platform-production` shows a plan and asks; that roll finishes what is left"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_sentence_is_folded_between_words_and_a_command_stays_on_one_line(width: int) -> None:
    lines = [line.plain for line in folded(Text(SENTENCE), width)]
    assert " ".join(lines) == SENTENCE
    assert [line for line in lines if "`eks-rolling start --cluster platform-production`" in line]
    assert all(len(line) <= width or "`" in line for line in lines)
    assert [line.plain for line in folded(Text("one\ntwo three"), 5)] == ["one", "two", "three"]


@pytest.mark.parametrize(("terminal", "lines"), [(True, 2), (False, 1)])
def test_a_result_is_folded_on_a_terminal_alone(terminal: bool, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(cli_context, "output", Console(file=written, width=80, force_terminal=terminal))
    cli_context.tell(SENTENCE)
    assert len(written.getvalue().splitlines()) == lines


def test_the_rest_of_a_folded_line_stands_under_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(cli_context, "output", Console(file=written, width=40, force_terminal=True))
    cli_context.tell(f"  {SENTENCE}")
    assert all(line.startswith("  ") and line[2] != " " for line in written.getvalue().splitlines())


def test_doctors_lines_and_its_spinner_share_a_console(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two consoles would write into each other's lines."""
    lines, beside = io.StringIO(), io.StringIO()
    monkeypatch.setattr(doctor, "output", Console(file=lines, width=80, force_terminal=True))
    monkeypatch.setattr(doctor, "errors", Console(file=beside, width=80, force_terminal=True))
    monkeypatch.setattr(doctor, "CHECKS", {"credentials": lambda _: "well"})
    assert run("doctor").exit_code == 0
    assert "looking" in lines.getvalue()
    assert beside.getvalue() == ""


def test_what_is_wrong_with_the_command_line_is_not_taken_for_an_account_without_a_deployment(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(_: str) -> str:
        raise CommandError("No region is set: pass --region or set AWS_REGION.", Exit.USAGE)

    monkeypatch.setattr(target, "machine", nowhere)
    with pytest.raises(CommandError, match="No region is set"):
        settings_of(target)
    assert capsys.readouterr().err == ""


def test_a_name_that_eventbridge_gave_is_told_by_its_beginning_which_is_enough_to_type() -> None:
    given = "33bacbeb-71ec-4965-a6fe-92d75f39063c_b72a8c6c-f600-4dfc-9307-051c2b36d4be"
    assert (beginning(given), brief(given)) == ("33bacbeb", "33bacbeb…")
    assert beginning("roll-20261126-021400-1a2b") == brief("roll-20261126-021400-1a2b") == "roll-20261126-021400-1a2b"


@pytest.mark.parametrize(
    "given",
    [
        "prod-2026-11-26-new-image-of-the-web-nodes-1",
        "rollback-prod-2026-11-26-new-image-of-the-web-nodes-1",
        "deadbeef-is-what-the-nodes-of-the-shop-are-called",
    ],
)
def test_a_long_name_that_a_person_chose_is_typed_in_full(given: str) -> None:
    """Its first word may begin the names of many rolls."""
    assert beginning(given) == brief(given) == given


def test_a_long_name_takes_no_columns_from_how_a_roll_ended() -> None:
    told = {
        "roll": "33bacbeb-71ec-4965-a6fe-92d75f39063c_b72a8c6c-f600-4dfc-9307-051c2b36d4be", "status": "SUCCEEDED",
        "outcome": "replaced", "began": 1000.0, "ended": 1400.0, "reason": "", "held_lock": True, "left_behind": [],
    }  # fmt: skip
    written = io.StringIO()
    Console(file=written, width=80).print(history.listed([told], COMMAND))
    assert written.getvalue().splitlines()[1].split()[:2] == ["33bacbeb…", "replaced"]


LATER = {
    "left to another roll": ("SUCCEEDED", "", False, 1), "its report is gone": ("SUCCEEDED", "", True, 0),
    "dry run": ("SUCCEEDED", "dry-run", False, 1), "blocked": ("FAILED", "blocked", False, 1),
    "not approved": ("FAILED", "not-approved", False, 1), "cancelled": ("ABORTED", "stopped", False, 1),
    "no plan was made": ("FAILED", "failed", False, 1), "failed": ("FAILED", "failed", True, 0),
    "nothing to do": ("SUCCEEDED", "nothing", False, 0), "waits for approval": ("RUNNING", "", False, 1),
    "replaced, and forgotten": ("SUCCEEDED", "replaced", None, 0),
    "blocked, and forgotten": ("FAILED", "blocked", None, 1),
}  # fmt: skip
"""Rolls after one that left something: status, outcome, whether they held the lock, and remedies that are printed."""


@pytest.mark.parametrize("name", LATER)
def test_what_is_left_has_its_remedy_though_a_later_roll_changed_nothing(name: str) -> None:
    """R2, on the terminal and on the page."""
    told = {
        "roll": "roll-1", "status": "FAILED", "outcome": "aborted", "began": 1000.0, "ended": 1400.0, "reason": "",
        "held_lock": True, "left_behind": ["group ng-a keeps its maximum"], "planned": 0, "longest_stall_ms": None,
        "report": "",
    }  # fmt: skip
    status, outcome, held, remedies = LATER[name]
    later = told | {"roll": "roll-2", "status": status, "outcome": outcome, "held_lock": held, "left_behind": []}
    written = io.StringIO()
    Console(file=written, width=100).print(history.listed([later, told], COMMAND))
    assert written.getvalue().count("eks-rolling start --cluster demo") == remedies
    page = rolls_page.page("demo", "demo", [later, told], 2000.0, COMMAND("start"))
    assert page.count("eks-rolling start --cluster demo") == remedies


def test_what_a_restore_says_of_a_stopped_roll_has_its_remedy_whether_it_got_the_lock_or_not() -> None:
    """R2: the answer that it had got it may have been lost."""
    told = {"status": "ABORTED", "outcome": "stopped", "held_lock": False, "left_behind": ["group ng-a keeps 5"]}
    assert rolls_page.settles(told)


def test_colour_that_a_pipeline_asks_for_makes_no_terminal_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    written = io.StringIO()
    screen = cli_context.Screen(file=written, width=40)
    assert not screen.is_terminal
    monkeypatch.setattr(cli_context, "output", screen)
    cli_context.tell(SENTENCE)
    assert written.getvalue() == f"{SENTENCE}\n"


def test_a_reader_that_closes_the_pipe_is_no_failure() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        cli_context.Screen(file=Closed()).print("a line")


def test_a_roll_that_was_aborted_is_not_told_as_failed() -> None:
    told = {
        "roll": "roll-1", "status": "FAILED", "outcome": "aborted", "began": 1000.0, "ended": 1400.0,
        "reason": "The roll was aborted.", "held_lock": True, "left_behind": [],
    }  # fmt: skip
    written = io.StringIO()
    Console(file=written, width=100).print(history.listed([told], COMMAND))
    assert "aborted" in written.getvalue().splitlines()[1]


def test_the_plan_on_the_terminal_tells_a_spare_replacement_too() -> None:
    """R2: a person is asked whether to start that."""
    nodes = [{"node": "a", "instance": "i-1"}, {"node": "b", "instance": "i-2", "place": "i-1"}]
    document = {"cluster": "demo", "outcome": "roll", "reason": "2 outdated nodes will be replaced", "nodes": nodes}
    written = io.StringIO()
    Console(file=written, width=100).print(plan_view.rendered(document, ""))
    assert written.getvalue().count("a spare replacement for i-1: it goes, and none comes") == 1
