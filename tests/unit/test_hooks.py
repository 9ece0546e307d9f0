"""What hooks are sent, and what their answers mean."""

import pytest

from eks_rolling.clients.protocols import HttpAnswer
from eks_rolling.errors import BadRequest
from eks_rolling.payloads import HookTask
from eks_rolling.roll.hooks import HookFailed, HookPassed, HookWaits, meaning, question
from eks_rolling.settings import Hook, Moment, OnFailure, Settings

HOOK = Hook(name="ask", when=Moment.BEFORE_NODE, url="https://hooks.example/")
TASK = HookTask(roll="roll-1", when=Moment.BEFORE_NODE, instance="i-1", node="node-1", group="ng-a")


ASLEEP = HttpAnswer(fault="ResourceNotReadyException: it wakes", uncalled=True)


@pytest.mark.parametrize(("waited", "waits"), [(0, True), (299, True), (300, False)])
def test_a_function_that_sleeps_is_waited_for_and_one_that_may_be_left_out_for_a_while_only(
    waited: float, *, waits: bool
) -> None:
    optional = HOOK.model_copy(update={"on_failure": OnFailure.CONTINUE})
    assert isinstance(meaning(optional, ASLEEP, waited), HookWaits) == waits
    assert isinstance(meaning(HOOK, ASLEEP, waited), HookWaits)


def test_a_hook_is_sent_which_node_of_which_roll_and_a_key_that_stays_the_same() -> None:
    """R3."""
    assert question(TASK, HOOK, "demo", "") == {
        "cluster": "demo",
        "roll": "roll-1",
        "when": "before_node",
        "node": "node-1",
        "instance": "i-1",
        "replacement": "",
        "failure": "",
        "key": "roll-1/before_node/i-1/ask",
    }


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        (HttpAnswer(200, '{"status": "done"}'), HookPassed()),
        (HttpAnswer(204), HookPassed()),
        (HttpAnswer(200, "null"), HookPassed()),
        (HttpAnswer(200, "ok"), HookPassed()),
        (
            HttpAnswer(200, '{"status": "wait", "seconds": 20, "reason": "a sale"}'),
            HookWaits("hook ask asks to wait: a sale", 20),
        ),
        (HttpAnswer(200, '{"status": "wait"}'), HookWaits("hook ask asks to wait: it gives no reason", 10)),
        (
            HttpAnswer(200, '{"status": "wait", "seconds": 1e9}'),
            HookWaits("hook ask asks to wait: it gives no reason", 900),
        ),
        (
            HttpAnswer(200, f'{{"status": "wait", "seconds": 1{"0" * 400}}}'),
            HookWaits("hook ask asks to wait: it gives no reason", 900),
        ),
        (HttpAnswer(200, "[" * 100_000), HookPassed()),
        (
            HttpAnswer(200, '{"status": "wait", "seconds": NaN}'),
            HookFailed("hook ask wants to be asked again in nan s, which is not a valid number"),
        ),
        (
            HttpAnswer(200, '{"status": "wait", "seconds": "soon"}'),
            HookFailed("hook ask wants to be asked again in 'soon' s, which is not a valid number"),
        ),
        (
            HttpAnswer(200, '{"status": "no"}'),
            HookFailed('hook ask answers {"status": "no"}, neither done nor wait'),
        ),
        (HttpAnswer(409, "not\ntoday"), HookFailed("hook ask answers 409 not today")),
        (HttpAnswer(fault="timed out"), HookFailed("hook ask does not answer: timed out")),
        (ASLEEP, HookWaits("hook ask cannot be called yet: ResourceNotReadyException: it wakes", 10)),
    ],
)
def test_an_answer_lets_go_on_or_asks_to_wait_or_is_a_failure(
    answer: HttpAnswer, means: HookPassed | HookWaits | HookFailed
) -> None:
    assert meaning(HOOK, answer) == means


@pytest.mark.parametrize(
    ("hooks", "problem"),
    [
        ([{"name": "a", "when": "before_node"}], "either a function or a url"),
        (
            [{"name": "a", "when": "before_node", "url": "https://x/", "timeout_seconds": 13}] * 2,
            "two hooks of before_node have the same name",
        ),
        (
            [{"name": n, "when": "before_node", "url": "https://x/", "timeout_seconds": 13} for n in "ab"],
            r"of before_node together \(26 s\) must be 25 s at most",
        ),
        ([{"name": "a", "when": "before_node", "url": "http://x/"}], "hooks.0.url: string should match"),
        ([{"name": "a", "when": "before_node", "function": "ask"}], "hooks.0.function: string should match"),
        ([{"name": "a", "when": "sometimes", "url": "https://x/"}], "hooks.0.when: input should be 'before_roll'"),
    ],
)
def test_settings_of_hooks_that_cannot_work_are_refused(hooks: list[dict[str, object]], problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        Settings.parse({"cluster": "demo", "hooks": hooks})
