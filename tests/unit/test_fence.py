"""How long a restore waits for steps that nobody can stop any more [R6]."""

from typing import Any

import pytest

from eks_rolling.observed.kubernetes import Lease
from eks_rolling.payloads import RestoreTask
from eks_rolling.roll.fence import steps_over_at, steps_still_at_work
from eks_rolling.roll.lock import STEPS_UNTIL

ENDED = Lease("kube-system/eks-rolling", "", renewed=1000.0, duration=180.0, annotations={STEPS_UNTIL: "1060"})
FAILED: dict[str, Any] = {"Error": "NotFound", "Cause": "{}"}
LOST: dict[str, Any] = {"Error": "States.Timeout", "Cause": ""}


@pytest.mark.parametrize(
    ("failure", "by", "until"),
    [
        (None, "restore-1", 1060.0),
        (FAILED, "restore-1", 1060.0),
        (LOST, "", 1060.0),
        (FAILED, "", 0.0),
        (None, "", 0.0),
    ],
    ids=["started for a roll", "for one that failed", "no answer came", "a step said why it failed", "all have ended"],
)
def test_steps_that_nobody_has_heard_of_may_be_at_work_until_what_they_wrote(
    failure: dict[str, Any] | None, by: str, until: float
) -> None:
    of = RestoreTask(roll="roll-1", failure=failure, by=by)
    assert steps_over_at(ENDED, of) == until
    assert steps_still_at_work(ENDED, of, 1020.0) == max(0.0, until - 1020.0)
    assert steps_still_at_work(ENDED, of, 1061.0) == 0.0
