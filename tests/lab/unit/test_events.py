"""What a rule's target receives, and the shape of CloudTrail's parameters."""

import json
from typing import Any

import pytest

from lab.aws.cloudtrail import camel_case
from lab.aws.events import target_input

EVENT = {"id": "e1", "detail": {"instance-id": "i-1", "count": 2, "list": ["a", "b"], "text": 'a "quoted" word'}}


@pytest.mark.parametrize(
    ("target", "received"),
    [
        ({}, EVENT),
        ({"Input": '{"constant": 1}'}, {"constant": 1}),
        ({"InputPath": "$.detail.count"}, 2),
        ({"InputPath": "$.detail.list[1]"}, "b"),
    ],
)
def test_a_target_receives(target: dict[str, Any], received: Any) -> None:
    assert json.loads(target_input(target, EVENT)) == received


def test_a_template_is_filled_in_with_values_or_inside_texts() -> None:
    paths = {
        "id": "$.detail.instance-id",
        "count": "$.detail.count",
        "text": "$.detail.text",
        "none": "$.detail.missing",
    }
    template = (
        '{"id": <id>, "n": <count>, "say": "<id> has <count>: <text>", "none": <none>, "all": <aws.events.event>}'
    )
    received = target_input({"InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}}, EVENT)
    assert json.loads(received) == {
        "id": "i-1",
        "n": 2,
        "say": 'i-1 has 2: a "quoted" word',
        "none": None,
        "all": EVENT,
    }


def test_keys_begin_with_a_small_letter_in_camel_case() -> None:
    assert camel_case({"AutoScalingGroupName": "g", "Tags": [{"Key": "K"}]}) == {
        "autoScalingGroupName": "g",
        "tags": [{"key": "K"}],
    }
