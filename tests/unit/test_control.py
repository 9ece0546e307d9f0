"""What a person's wish does to a step."""

import importlib
from pathlib import Path

import pytest

from eks_rolling import steps
from eks_rolling.errors import Aborted
from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import Status
from eks_rolling.roll.lock import ABORT, LOOK_SECONDS, PAUSE
from eks_rolling.roll.operator_requests import Honors, hold_or_abort

BEFORE_THE_LOCK = {"check_permissions", "ask_approval", "plan", "receive_change", "take_lock"}
AFTER_THE_WORK = {"put_back_version", "record_node", "report", "restore", "settle_redis"}
ASKS_ITSELF = {"health_gate", "inspect_redis", "run_hooks"}
MIDST_OF_A_MIGRATION = {"migrate_cluster", "migrate_sentinel"}
CANNOT_WAIT = {"select_wave"}
STOPS_ANYWHERE = {
    "await_load_balancers",
    "await_ready",
    "await_volumes",
    "taint_no_schedule",
    "evict",
    "launch_replacement",
    "leave_load_balancers",
    "pause_interference",
    "replace_unjoined",
    "taint_nodes",
    "terminate",
}
ON_ITS_OWN = {"find_orphans"}
"""Belongs to no roll."""

EXPECTED = {
    **dict.fromkeys(BEFORE_THE_LOCK | AFTER_THE_WORK | ASKS_ITSELF | MIDST_OF_A_MIGRATION | ON_ITS_OWN, Honors.NOTHING),
    **dict.fromkeys(CANNOT_WAIT, Honors.ABORT),
    **dict.fromkeys(STOPS_ANYWHERE, Honors.BOTH),
}


def modules() -> set[str]:
    return {p.stem for p in Path(steps.__path__[0]).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("step", sorted(modules()))
def test_every_step_is_one_that_a_person_may_stop_or_one_that_they_may_not(step: str) -> None:
    assert importlib.import_module(f"eks_rolling.steps.{step}").handler.honors is EXPECTED[step]


def test_what_no_step_is_called_by_is_not_listed() -> None:
    assert EXPECTED.keys() - ON_ITS_OWN <= modules()


def lease(**annotations: str) -> Lease:
    names = {"pause": PAUSE, "abort": ABORT}
    return Lease("kube-system/eks-rolling", "roll-1", annotations={names[key]: why for key, why in annotations.items()})


def test_without_a_wish_nothing_is_held() -> None:
    assert hold_or_abort(lease(), 7.0) is None


@pytest.mark.parametrize(("why", "said"), [("lunch", "lunch"), ("", "no reason was given")])
def test_a_paused_step_waits_and_its_deadline_begins_anew(why: str, said: str) -> None:
    paused = hold_or_abort(lease(pause=why), 7.0)
    assert paused is not None
    assert (paused.status, paused.reason) == (Status.WAIT, f"the roll is paused: {said}")
    assert (paused.since, paused.wait_seconds) == (7.0, LOOK_SECONDS)


def test_an_abort_goes_before_a_pause() -> None:
    with pytest.raises(Aborted, match=r"^The roll was aborted: enough\.$"):
        hold_or_abort(lease(pause="lunch", abort="enough"), 7.0)


def test_a_step_that_cannot_wait_may_still_end() -> None:
    assert hold_or_abort(lease(pause="lunch"), 7.0, Honors.ABORT) is None
    with pytest.raises(Aborted):
        hold_or_abort(lease(abort="enough"), 7.0, Honors.ABORT)
    assert hold_or_abort(lease(abort="enough"), 7.0, Honors.NOTHING) is None
