"""Holding a roll at one of its states, so that whoever comes then comes in time."""

from collections.abc import Iterator
from contextlib import contextmanager

from lab.operator import Operator
from tests.waiting import until

STATES = {
    "Wait for the change to settle": "ReceiveChange",
    "Plan the roll": "Plan",
    "Pause what interferes": "PauseInterference",
    "Taint every outdated node": "TaintNodes",
    "Launch the replacement": "LaunchReplacement",
    "Wait for the replacement": "AwaitReady",
    "Close the old node to new pods": "TaintNoSchedule",
    "Leave the load balancers": "LeaveLoadBalancers",
    "Evict pods": "Evict",
    "Terminate the instance": "Terminate",
    "Open the gate to the next wave": "HealthGate",
}
"""Where rolls are held: state -> its function."""

WITHOUT_LOCK = ("Wait for the change to settle", "Plan the roll")
"""States at which a roll does not hold the cluster's lock yet."""


@contextmanager
def dying_at(operator: Operator, state: str) -> Iterator[None]:
    """The state's function dies before it begins, every time, so that no roll gets past the state."""
    function = f"Functions{STATES[state]}"
    operator.fault({"lambda_kill": {"seed": 1, "share": 1, "within_seconds": 0, "functions": function}})
    try:
        yield
    finally:
        operator.fault({})


def wait_until_at(operator: Operator, execution: str, state: str) -> None:
    """Until the roll, or a node of it, is at the state and the state's function has died there."""
    rolls = operator.rolls
    until(
        lambda: (
            operator.faults()["kills"]
            and state in {rolls.progress(execution).state, *(p.state for p in rolls.nodes_in_flight())}
        ),
        f"the roll is at {state}",
        within_seconds=120,
        pause=0.3,
    )
