"""Which of a Service's pods become targets."""

from typing import Any

from lab.network.pod_targets import ready_addresses


def test_ready_pods_are_targets_and_those_that_terminate_are_not() -> None:
    slices: list[dict[str, Any]] = [
        {
            "endpoints": [
                {"addresses": ["10.244.0.7"], "conditions": {"ready": True}},
                {"addresses": ["10.244.0.8"], "conditions": {"ready": False, "serving": True, "terminating": True}},
                {"addresses": ["10.244.0.5"]},
            ]
        },
        {"endpoints": None},
    ]
    assert ready_addresses(slices) == ["10.244.0.5", "10.244.0.7"]
