"""The walk over permissions finds what it is for."""

from dataclasses import replace

import pytest

from tests.permissions.collected import Call, Request, Uses
from tests.permissions.exceptions import Exempt
from tests.permissions.granted import CLUSTER_FILE, REDIS_FILE, Action, Roles, Rule, rules
from tests.permissions.walk import Granted, walk

LOOK, NODES = "eks-rolling-look", "eks-rolling-nodes"
LIST, PATCH = Rule(CLUSTER_FILE, LOOK, "list", "", "nodes"), Rule(CLUSTER_FILE, NODES, "patch", "", "nodes")
GRANTED = Granted(
    rules=[LIST, PATCH],
    actions=[Action("taint", "ec2:DescribeInstances")],
    roles={"demo": {"TaintRole": "taint"}},
    groups={"taint": (LOOK, NODES)},
)
LISTED = Request("TaintRole", (LOOK, NODES), "list", "", "nodes", "", "", allowed=True)
PATCHED = replace(LISTED, verb="patch")
CALLED = Call("TaintRole", "ec2:DescribeInstances", allowed=True)


def found(
    granted: Granted = GRANTED,
    requests: tuple[Request, ...] = (LISTED, PATCHED),
    calls: tuple[Call, ...] = (CALLED,),
    exempt: tuple[Exempt, ...] = (),
) -> list[str]:
    return walk(granted, [Uses("small", "demo", frozenset(requests), frozenset(calls))], exempt)


def test_where_what_is_granted_is_what_was_called_nothing_is_found() -> None:
    assert found() == []


def test_a_verb_and_an_action_that_nobody_used_are_found_with_the_file_to_change() -> None:
    (verb,) = found(replace(GRANTED, rules=[*GRANTED.rules, replace(PATCH, verb="delete")]))
    assert verb.startswith("deploy/rbac.yaml: nobody in the group eks-rolling-nodes ever does delete nodes")
    (action,) = found(calls=())
    assert action.startswith("stacks/functions.py: taint may ec2:DescribeInstances and never does")


def test_a_verb_and_an_action_that_were_used_and_are_not_granted_are_found() -> None:
    (verb,) = found(requests=(LISTED, PATCHED, replace(LISTED, verb="delete", name="a", allowed=False)))
    assert verb.startswith("deploy/rbac.yaml: the step taint does delete nodes a, which none of its groups")
    (action,) = found(calls=(CALLED, replace(CALLED, action="ec2:RunInstances")))
    assert action.startswith("stacks/functions.py: taint calls ec2:RunInstances, which its role may not")


def test_a_call_that_was_refused_is_found_even_where_its_action_is_granted_for_other_resources() -> None:
    (action,) = found(calls=(CALLED, replace(CALLED, allowed=False)))
    assert "which its role may not" in action


def test_a_group_that_no_step_of_the_kind_needs_is_found() -> None:
    groups = {"taint": (LOOK, NODES), "alike": (LOOK, NODES), "wait": (NODES,)}
    (group,) = found(replace(GRANTED, groups=groups))
    assert group.startswith("stacks/functions.py: the step wait needs nothing of the group eks-rolling-nodes")


def test_what_is_exempt_is_passed_over_until_it_is_used() -> None:
    never = Exempt("taint", "ec2:*", "why")
    assert found(calls=(), exempt=(never,)) == []
    (stale,) = found(exempt=(never,))
    assert 'Exempt("taint", "ec2:*", ...) is stale' in stale
    assert found(exempt=(replace(never, sometimes=True),)) == []


@pytest.mark.parametrize(
    ("resource", "name", "allowed"),
    [
        ("leases", "eks-rolling-redis-shards", True),
        ("leases", "eks-rolling", False),
        ("secrets", "any", True),
        ("pods", "", False),
    ],
)
def test_a_redis_groups_rules_are_about_its_own_lease_and_the_secrets_that_it_names(
    resource: str, name: str, allowed: bool
) -> None:
    group = "coordination.k8s.io" if resource == "leases" else ""
    request = Request("R", ("eks-rolling-redis-look",), "get", group, resource, "shop", name, allowed=True)
    assert any(rule.allows(request) for rule in rules() if rule.file == REDIS_FILE) is allowed


def test_every_role_of_the_application_is_somebodys() -> None:
    from tests.assembly import synthesize

    roles = Roles(synthesize())
    assert {"plan", "restore", "RollMachineRole", "RollMachineEventsRole"} <= set(roles.who.values())
    assert Action("launch_replacement", "ec2:CreateFleet") in roles.actions()
    assert set(roles.who.values()) == {action.who for action in roles.actions()}
    assert all(len(name) <= 64 for name in roles.names("production"))
