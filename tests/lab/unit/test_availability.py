"""Whose pods are counted while clients ask."""

import pytest

from lab.traffic.availability import of_its_own_kind


@pytest.mark.parametrize(
    ("owner", "app"),
    [
        ({"apiVersion": "lab.example.com/v1", "controller": True}, "cache"),
        ({"apiVersion": "lab.example.com/v1"}, ""),
        ({"apiVersion": "apps/v1", "controller": True}, ""),
        ({"apiVersion": "batch/v1", "controller": True}, ""),
        ({"apiVersion": "v1", "controller": True}, ""),
        (None, ""),
    ],
)
def test_a_controller_of_a_kind_of_its_own_is_known_by_its_pods(owner: dict[str, object] | None, app: str) -> None:
    metadata = {"labels": {"app": "cache"}, "ownerReferences": [owner] if owner else None}
    assert of_its_own_kind({"metadata": metadata}) == app
