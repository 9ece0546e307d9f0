"""What `doctor --deployed` knows of the stack by heart is what the stack makes."""

import json

from eks_rolling_cli.deployed import GROUPS
from eks_rolling_cli.doctor import TRIGGERS
from stacks.functions import HOOKS, ROLLBACK, STEPS, UNJOINED
from tests.assembly import synthesize


def test_the_groups_that_it_looks_for_are_those_of_the_access_entries() -> None:
    steps = {**STEPS, **HOOKS, **ROLLBACK, **UNJOINED}
    wanted = {step: {f"eks-rolling-{name}" for name in names.split()} for step, names in GROUPS.items()}
    assert wanted == {step: set(p.kubernetes) for step, p in steps.items() if p.kubernetes}


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
