"""What `doctor --deployed` knows of the stack by heart is what the stack makes."""

import json

from eks_rolling_cli.deployed import WITHOUT_CLUSTER
from eks_rolling_cli.doctor import TRIGGERS
from stacks.functions import HOOKS, STEPS
from tests.assembly import synthesize


def test_the_functions_without_an_access_entry_are_those_that_do_not_talk_to_kubernetes() -> None:
    assert {step for step, permissions in {**STEPS, **HOOKS}.items() if not permissions.kubernetes} == WITHOUT_CLUSTER


def test_the_rules_that_it_looks_for_are_those_of_the_stack() -> None:
    made = synthesize()
    machines = {what: made.machine_id(what) for what in ("roll", "restore")}
    rules = {
        (what, source)
        for rule in made.of_type("AWS::Events::Rule").values()
        for source in rule.get("EventPattern", {}).get("source", [""])
        for what, machine in machines.items()
        if machine in json.dumps([target["Arn"] for target in rule["Targets"]])
    }
    assert rules == set(TRIGGERS)
