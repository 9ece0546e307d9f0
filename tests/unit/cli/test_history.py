"""What a history says: where an execution is, what holds it and since when."""

import json

from eks_rolling_cli.execution_history import approval_token, plan_answer, position, waves
from tests.unit.cli.histories import History, begun, planned

BUDGET = "pod shop/web-1: budget shop/web allows no disruption"


def test_an_execution_is_where_it_was_entered_last_whatever_its_wait_states_are_called() -> None:
    history = History().done("Launch the replacement").later(3).wait("Wait for the replacement", "i-1 is pending")
    at = position(history.events)
    assert (at.state, at.reason) == ("Wait for the replacement", "i-1 is pending")
    assert at.entered == 1003.5


def test_a_hold_is_as_old_as_its_reason_not_as_the_last_look() -> None:
    history = History()
    for _ in range(5):
        history.wait("Evict pods", BUDGET, seconds=10)
    at = position(history.events)
    assert (at.reason, at.held_since) == (BUDGET, 1000.5)
    history.wait("Evict pods", "web-1 is not Ready elsewhere")
    assert position(history.events).held_since > 1050


def test_a_count_that_goes_down_is_one_hold() -> None:
    history = History().wait("Open the gate to the next wave", "baking for 60 s more", seconds=15)
    history.wait("Open the gate to the next wave", "baking for 45 s more", seconds=15)
    at = position(history.events)
    assert (at.reason, at.held_since) == ("baking for 45 s more", 1000.5)


def test_what_is_done_holds_nothing() -> None:
    history = History().wait("Evict pods", BUDGET).done("Evict pods", "the node is empty")
    assert (position(history.events).reason, position(history.events).held_since) == ("", 0.0)


def test_a_fault_that_is_tried_again_is_told_until_it_is_over() -> None:
    history = History().enter("Task", "Evict pods").fault("the API server cannot be reached")
    assert position(history.events).reason == "tried again after a fault: the API server cannot be reached"
    history.later(2).add(
        "TaskStateExited",
        stateExitedEventDetails={"name": "Evict pods", "output": json.dumps({"status": "done", "reason": ""})},
    )
    assert position(history.events).reason == ""


def test_what_was_done_to_a_redis_group_is_told_while_it_is_looked_at() -> None:
    history = History().done("Fail over to a replica", "r-0 becomes master", redis="shop/cache", switches=[])
    assert position(history.events).reason == ""
    history.enter("Task", "Look at the Redis pods")
    at = position(history.events)
    assert (at.reason, at.held_since) == ("r-0 becomes master", at.entered)
    history.done("Look at the Redis pods", "shop/cache: m-0 moves").enter("Task", "Move the master pod")
    assert (position(history.events).reason, position(history.events).held_since) == ("", 0.0)
    looked = History().done("Fail over to a replica", "another step's turn", redis="shop/cache")
    assert position(looked.enter("Task", "Look at the Redis pods").events).reason == ""


def test_within_a_map_the_roll_is_at_the_map() -> None:
    history = begun(planned("i-1", "i-2"), {"i-1": "a"})
    assert position(history.events).state == "Replace nodes"
    history.add("MapStateExited", stateExitedEventDetails={"name": "Replace nodes"})
    history.wait("Open the gate to the next wave", "baking for 60 s more")
    assert position(history.events).state == "Open the gate to the next wave"


def test_a_redis_synchronization_says_what_is_left_and_for_how_long() -> None:
    history = History().wait(
        "Wait for the pod's sync", "shards-0 synchronizes", redis="shop/shards", bytes_left=3_000_000,
        bytes_per_second=500_000,
    )  # fmt: skip
    at = position(history.events)
    assert (at.redis, at.bytes_left, at.seconds_left) == ("shop/shards", 3_000_000, 6.0)
    assert position(history.done("Wait for the pod's sync").events).bytes_left is None


def test_waves_are_those_that_were_begun() -> None:
    history = begun(planned("i-1", "i-2", "i-3"), {"i-1": "a"}, {"i-2": "b", "i-3": "c"})
    history.done("Pick the next nodes", "every node of the plan is replaced", wave=[], left=0)
    assert [(w.number, list(w.nodes.values())) for w in waves(history.events)] == [(1, ["a"]), (2, ["b", "c"])]


def test_of_two_plans_the_later_one_counts() -> None:
    history = planned("i-1").done("Plan the roll", "no node is outdated", outcome="nothing", nodes=[])
    assert plan_answer(history.events)["output"]["outcome"] == "nothing"


def asks(history: History, token: str) -> History:
    given = json.dumps({"FunctionName": "ask", "Payload": {"roll": "r", "token": token, "plan": "1 node"}})
    history.enter("Task", "Wait for approval").add("TaskScheduled", taskScheduledEventDetails={"parameters": given})
    return history.add("TaskSubmitted")


def test_the_token_is_that_of_the_task_that_waits_now() -> None:
    history = asks(planned("i-1"), "first")
    assert approval_token(history.events) == "first"
    assert position(history.events).reason.startswith("there is no answer yet")
    history.fault("throttled").add(
        "TaskScheduled",
        taskScheduledEventDetails={"parameters": json.dumps({"Payload": {"token": "second"}})},
    )
    assert approval_token(history.events) == "second"
    history.add("TaskStateExited", stateExitedEventDetails={"name": "Wait for approval", "output": "{}"})
    assert approval_token(history.events) == ""


def test_no_other_tasks_token_is_taken() -> None:
    parameters = json.dumps({"Payload": {"token": "other"}})
    history = planned("i-1").enter("Task", "Take the lock")
    history.add("TaskScheduled", taskScheduledEventDetails={"parameters": parameters})
    assert approval_token(history.events) == ""
