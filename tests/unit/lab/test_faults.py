"""Faults: seeded, counted, and refused when they are none."""

import pytest
from pydantic import ValidationError

from lab.aws.faults import Faults


def test_a_seed_gives_the_same_kills_again() -> None:
    faults = Faults()

    def sequence() -> list[float | None]:
        faults.put({"lambda_kill": {"seed": 7, "share": 0.3, "within_seconds": 2}})
        return [faults.kill_after("evict") for _ in range(200)]

    first = sequence()
    assert sequence() == first
    struck = [after for after in first if after is not None]
    assert 40 <= len(struck) <= 80
    assert all(0 <= after <= 2 for after in struck)


def test_a_kill_can_be_for_some_functions_only() -> None:
    faults = Faults()
    faults.put({"lambda_kill": {"seed": 7, "share": 1, "within_seconds": 2, "functions": "evict"}})
    assert faults.kill_after("roll-plan") is None
    assert faults.kill_after("roll-evict") is not None


def test_strikes_are_counted_until_the_faults_are_set_anew() -> None:
    faults = Faults()
    faults.put({"throttle": {"seed": 1, "share": 1, "services": ["ec2"]}})
    assert faults.throttles("ec2")
    assert not faults.throttles("sns")
    faults.killed()
    assert (faults.describe()["kills"], faults.describe()["throttled"]) == (1, 1)
    faults.put({})
    assert faults.describe() == {"duplicate_events": False, "kills": 0, "throttled": 0}


def test_latency_is_for_the_services_named() -> None:
    faults = Faults()
    faults.put({"latency": {"seconds": 0.2, "services": ["eks"]}})
    assert (faults.delay("eks"), faults.delay("ec2")) == (0.2, 0.0)


@pytest.mark.parametrize("wrong", [{"lambda_kil": {}}, {"lambda_kill": {"seed": 1, "share": 2, "within_seconds": 1}}])
def test_what_is_no_fault_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Faults().put(wrong)
