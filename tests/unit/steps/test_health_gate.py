"""What the gate's checks say of an answer."""

import pytest

from eks_rolling.clients.protocols import HttpAnswer
from eks_rolling.payloads import Hold
from eks_rolling.settings import PageCheck
from eks_rolling.steps.health_gate import decide, judge

URL = "https://shop.example/health"


@pytest.mark.parametrize(
    ("check", "answer", "wrong"),
    [
        (PageCheck(url=URL), HttpAnswer(200, "fine"), ""),
        (PageCheck(url=URL), HttpAnswer(503, "fine"), f"{URL} answers 503, not 200"),
        (PageCheck(url=URL, status=204), HttpAnswer(200), f"{URL} answers 200, not 204"),
        (PageCheck(url=URL, contains="fine"), HttpAnswer(200, "all fine"), ""),
        (PageCheck(url=URL, contains="fine"), HttpAnswer(200, "so so"), f"{URL} answers without the text 'fine'"),
        (PageCheck(url=URL), HttpAnswer(fault="timed out"), f"{URL} does not answer: timed out"),
    ],
)
def test_a_check_says_what_is_wrong(check: PageCheck, answer: HttpAnswer, wrong: str) -> None:
    assert judge(check, answer) == wrong


def test_a_check_that_does_not_pass_holds_the_gate() -> None:
    held = decide([], [], (), 100.0, 60.0, unanswered=["a is down", "b is down"])
    assert isinstance(held, Hold)
    assert held.reason == "checks do not pass: a is down; b is down"
