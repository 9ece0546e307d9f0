"""JSONata as Step Functions evaluates it."""

import re
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.aws.compat.jsonata import UNDEFINED, JsonataError, aws_timestamp, evaluate, names_in


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$states.input.n + 1", 4),
        ("6 / 2", 3),
        ("$text & '!'", 'a "quoted" \\ text!'),
        ("$a / 2 + $a / 3", 5),
        ("$states.input.nothing", None),
        ("$exists($states.input.nothing)", True),
        ("$exists($states.input.missing)", False),
        ("{'kept': $states.input.nothing, 'left out': $states.input.missing}", {"kept": None}),
        ("[0..3]", [0, 1, 2, 3]),
        ("$states.input.list[$ > 1]", [2, 3]),
        ("$map([1, 2], function($v) { $v * 2 })", [2, 4]),
        ("$partition([1, 2, 3], 2)", [[1, 2], [3]]),
        ("$range(0, 10, 5)", [0, 5, 10]),
        ("$range(3, 1, -1)", [3, 2, 1]),
        ("$hash('a', 'SHA-256')", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("$parse('{\"a\": null}')", {"a": None}),
        ("$toMillis('2025-01-31T12:00:00.000Z')", 1738324800000),
    ],
)
def test_an_expression_has_this_value(expression: str, value: Any) -> None:
    variables = {
        "states": {"input": {"n": 3, "nothing": None, "list": [1, 2, 3]}},
        "text": 'a "quoted" \\ text',
        "a": 6,
    }
    assert evaluate(expression, variables) == value


def test_nothing_is_not_null() -> None:
    assert evaluate("$missing", {}) is UNDEFINED
    assert evaluate("$states.input.missing", {"states": {"input": {}}}) is UNDEFINED


@pytest.mark.parametrize(
    "expression", ["$eval('1')", "1 / 0", "function() { 1 }", "(", "$error('no')", "$partition([1], 0)"]
)
def test_what_cannot_be_evaluated_is_one_kind_of_error(expression: str) -> None:
    with pytest.raises(JsonataError):
        evaluate(expression, {})


def test_uuids_differ_and_a_seeded_random_does_not() -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", evaluate("$uuid()", {}))
    assert evaluate("$uuid()", {}) != evaluate("$uuid()", {})
    assert evaluate("$random(5)", {}) == evaluate("$random(5)", {})


def test_the_result_shares_nothing_with_the_variables() -> None:
    given = {"list": [1]}
    evaluate("$given", {"given": given})["list"].append(2)
    assert given == {"list": [1]}


def test_millis_go_on_though_an_expression_is_parsed_once() -> None:
    first = evaluate("$millis()", {})
    while evaluate("$millis()", {}) == first:
        pass
    assert evaluate("$millis()", {}) > first


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        sums = {evaluate("$sum([1..$n])", {"n": number}) for _ in range(200)}
        wrong.extend(sums - {number * (number + 1) // 2})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_names_and_times() -> None:
    assert names_in("$a.b + $states.input.$c") == {"a", "states", "c"}
    assert aws_timestamp(datetime(2025, 1, 31, 12, 0, 0, 5_999, tzinfo=UTC)) == "2025-01-31T12:00:00.005Z"
