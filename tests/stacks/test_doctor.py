"""What `doctor --deployed` knows of the stack by heart is what the stack makes."""

from eks_rolling_cli.deployed import WITHOUT_CLUSTER
from stacks.functions import HOOKS, STEPS


def test_the_functions_without_an_access_entry_are_those_that_do_not_talk_to_kubernetes() -> None:
    assert {step for step, permissions in {**STEPS, **HOOKS}.items() if not permissions.kubernetes} == WITHOUT_CLUSTER
