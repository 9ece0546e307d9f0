"""What tenants, nodes, servers and people wrote steers no terminal and is no markup, wherever it is shown."""

import io
import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from eks_rolling import legible
from eks_rolling.documents.failure import explain
from eks_rolling.documents.report import Ending, Report
from eks_rolling.errors import Refused, sentence
from eks_rolling.payloads import StepResult
from eks_rolling.report import messages
from eks_rolling.report.page import page
from eks_rolling_cli.cli_context import Screen

HOSTILE = st.text(
    st.one_of(
        st.characters(categories=("Cc", "Cf", "Zl", "Zp")),
        st.sampled_from("<>&|!@#[]()`*_\"'{}%\\abc \u009b\u202e"),
    ),
    max_size=60,
)
ESCAPE = "pod \x1b]0;owned\x07 \x1b[2J\x9b31m \u202etxt.exe\u2066 <!channel> [x](http://evil) <script>alert(1)</script>"


def harmless(shown: str) -> bool:
    """No control character but a line's end, and nothing that turns the direction of reading."""
    return not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in shown) and not any(
        unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"} for c in shown
    )


@given(HOSTILE)
@example(ESCAPE)
def test_a_line_is_harmless_and_one_line(text: str) -> None:
    said = legible.line(text)
    assert harmless(said)
    assert "\n" not in said
    assert legible.line(said) == said


@given(HOSTILE)
@example(ESCAPE)
def test_the_terminal_is_not_steered(text: str) -> None:
    file = io.StringIO()
    screen = Screen(file=file, force_terminal=True, color_system=None, width=80)
    table = Table("a")
    table.add_row(Text(text))
    for content in (Text(text), table):
        screen.print(content)
    screen.print(text, markup=False, soft_wrap=True)
    assert harmless(file.getvalue())


@given(HOSTILE)
@example(ESCAPE)
def test_an_answer_an_error_and_a_failure_are_one_harmless_line(text: str) -> None:
    failure = {"Error": "Refused", "Cause": json.dumps({"errorType": "Refused", "errorMessage": text})}
    for said in (StepResult.done(text).reason, sentence(Refused(text)), explain(failure)):
        assert harmless(said)
        assert "\n" not in said


@given(HOSTILE)
@example(ESCAPE)
def test_a_message_has_no_markup_of_chats_and_its_subject_is_printable(text: str) -> None:
    said = messages.Message(
        messages.subject("demo", text), text, "demo", "roll-1", messages.Topic.ENDED, steps=(text, "next")
    )
    assert harmless(said.text)
    assert said.heading.isascii()
    assert said.heading.isprintable()
    content = json.loads(said.for_programs)["content"]
    for shown in (content["description"], *content["nextSteps"]):
        assert harmless(shown)
        assert not {"<", ">"} & set(shown)
        assert "](" not in shown


@pytest.mark.parametrize("text", [ESCAPE, "<img src=x onerror=alert(1)>", "\x9b31m\u202e"])
def test_the_page_shows_it_as_text(text: str) -> None:
    report = Report.model_validate(
        {"roll": "roll-1", "cluster": "demo", "outcome": Ending.FAILED, "cause": text, "left_behind": (text,)}
    )
    shown = page(report)
    assert harmless(shown)
    assert "<script>alert" not in shown
    assert "<img src=x" not in shown
