"""Faults: seeded, counted, and refused when they are none."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from lab.aws import authorize
from lab.aws.faults import Faults, FaultSpec, Refusal


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
    assert faults.refusal("ec2", "ec2:CreateTags") == Refusal("RequestLimitExceeded", "Rate exceeded", 503)
    assert faults.refusal("sns", "sns:Publish") is None
    faults.killed()
    assert (faults.describe()["kills"], faults.describe()["throttled"]) == (1, 1)
    faults.put({})
    assert set(faults.describe().values()) == {0}


def test_some_actions_alone_can_be_throttled() -> None:
    faults = Faults()
    faults.put({"throttle": {"seed": 1, "share": 1, "services": ["ec2"], "actions": ["ec2:CreateTags"]}})
    assert faults.refusal("ec2", "ec2:DescribeInstances") is None
    assert faults.refusal("ec2", "ec2:CreateTags") is not None


def test_an_action_is_refused_as_often_as_it_was_told() -> None:
    faults = Faults()
    action = "autoscaling:SuspendProcesses"
    faults.put({"refuse": [{"action": action, "code": "ResourceInUse", "message": "busy", "times": 2}]})
    answers = [faults.refusal("autoscaling", action) for _ in range(3)]
    assert answers == [Refusal("ResourceInUse", "busy", 400)] * 2 + [None]
    assert faults.refusal("autoscaling", "autoscaling:ResumeProcesses") is None
    assert faults.describe()["refused"] == 2


def test_an_action_can_be_refused_to_one_role_alone() -> None:
    faults = Faults()
    action = "autoscaling:ResumeProcesses"
    faults.put({"refuse": [{"action": action, "caller": "RestoreRole", "code": "AccessDenied"}]})
    assert faults.refusal("autoscaling", action, "arn:aws:iam::1:role/PauseRole1") is None
    assert faults.refusal("autoscaling", action) is None
    assert all(faults.refusal("autoscaling", action, "arn:aws:iam::1:role/RestoreRole1") for _ in range(20))


def review(verb: str, resource: str, user: str, subresource: str = "") -> dict[str, Any]:
    asked = {"verb": verb, "resource": resource, "subresource": subresource}
    return {"apiVersion": "authorization.k8s.io/v1", "spec": {"user": user, "resourceAttributes": asked}}


RESTORE = "arn:aws:sts::1:assumed-role/x-FunctionsRestoreRole-1/x-restore"


def test_a_request_to_the_api_server_is_forbidden_to_one_role_alone() -> None:
    faults, frozen = Faults(), list[tuple[str, float]]()
    faults.put({"forbid": [{"verb": "create", "resource": "pods/eviction", "caller": "RestoreRole"}]})

    def answer(*asked: str) -> dict[str, Any]:
        status: dict[str, Any] = authorize.review(review(*asked), faults, no_freeze(frozen))["status"]
        return status

    assert answer("create", "pods", RESTORE, "eviction") == {
        "allowed": False,
        "denied": True,
        "reason": authorize.REASON,
    }
    # No opinion: RBAC decides.
    assert answer("create", "pods", RESTORE.replace("Restore", "Evict"), "eviction") == {"allowed": False}
    assert answer("create", "pods", RESTORE) == {"allowed": False}
    assert answer("delete", "pods", RESTORE, "eviction") == {"allowed": False}
    assert faults.describe()["forbidden"] == 1
    assert frozen == []


def no_freeze(frozen: list[tuple[str, float]]) -> Callable[[str, float], Callable[[], bool]]:
    def freeze(name: str, seconds: float) -> Callable[[], bool]:
        frozen.append((name, seconds))
        return lambda: True

    return freeze


def test_a_request_freezes_the_process_that_makes_it_once() -> None:
    faults, frozen = Faults(), list[tuple[str, float]]()
    faults.put({"freeze": {"caller": "RestoreRole", "verb": "update", "resource": "leases", "seconds": 20}})
    for verb in ("get", "update", "update"):
        answer = authorize.review(review(verb, "leases", RESTORE), faults, no_freeze(frozen))
        assert answer["status"] == {"allowed": False}
    assert frozen == [("x-restore", 20)]
    assert faults.describe()["frozen"] == 1


def test_a_process_that_does_not_go_on_never_asked() -> None:
    faults = Faults()
    faults.put({"freeze": {"caller": "RestoreRole", "verb": "update", "resource": "leases", "seconds": 20}})
    answer = authorize.review(review("update", "leases", RESTORE), faults, lambda *_: lambda: False)
    assert answer["status"]["denied"]


def test_a_call_freezes_the_process_that_makes_it() -> None:
    faults = Faults()
    faults.put({"freeze": {"caller": "Terminate", "action": "ec2:CreateTags", "seconds": 5}})
    assert faults.freeze_seconds("role/TerminateRole", action="ec2:DeleteTags") == 0
    assert faults.freeze_seconds("role/RestoreRole", action="ec2:CreateTags") == 0
    assert faults.freeze_seconds("role/TerminateRole", action="ec2:CreateTags") == 5
    assert faults.freeze_seconds("role/TerminateRole", action="ec2:CreateTags") == 0


def test_a_function_sleeps_until_it_has_been_called_for_a_while() -> None:
    now = [0.0]
    faults = Faults(clock=lambda: now[0])
    faults.put({"asleep": {"waking_seconds": 60, "after_seconds": 100, "functions": "evict"}})
    assert [faults.is_asleep("roll-evict"), faults.is_asleep("roll-plan")] == [True, False]
    now[0] = 59.0
    assert faults.is_asleep("roll-evict")
    now[0] = 60.0
    assert not faults.is_asleep("roll-evict")
    now[0] = 160.0
    assert not faults.is_asleep("roll-evict")
    now[0] = 261.0
    assert faults.is_asleep("roll-evict")
    assert faults.describe()["asleep"] == 3


def test_capacity_is_lacking_in_the_zones_named() -> None:
    faults = Faults()
    faults.put({"no_capacity": {"zones": ["a"], "times": 1}})
    assert [faults.has_no_capacity(zone) for zone in ("b", "a", "a")] == [False, True, False]


def test_the_ordinary_faults_stay_under_those_put_on_top() -> None:
    ordinary = FaultSpec.model_validate({"settling": {"seconds": 2}})
    faults = Faults(ordinary)
    assert faults.settling_seconds() == 2
    faults.put({"duplicate_events": True})
    assert (faults.settling_seconds(), faults.spec.duplicate_events) == (2, True)
    faults.put({"settling": None})
    assert faults.settling_seconds() == 0


def test_latency_is_for_the_services_named() -> None:
    faults = Faults()
    faults.put({"latency": {"seconds": 0.2, "services": ["eks"]}})
    assert (faults.delay("eks"), faults.delay("ec2")) == (0.2, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lambda_kil": {}},
        {"lambda_kill": {"seed": 1, "share": 2, "within_seconds": 1}},
        {"freeze": {"caller": "x", "seconds": 1}},
        {"freeze": {"caller": "x", "seconds": 26, "verb": "get", "resource": "nodes"}},
        {"freeze": {"caller": "x", "seconds": 1, "action": "ec2:CreateTags", "verb": "get", "resource": "nodes"}},
    ],
)
def test_what_is_no_fault_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Faults().put(wrong)
