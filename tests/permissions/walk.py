"""The walk: what was called against what is granted, both ways. Each finding says which line to change."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.permissions.collected import Request, Uses
from tests.permissions.exceptions import NAMED_BY_TESTS, Exempt
from tests.permissions.granted import Action, Rule

EVERYBODYS = frozenset({("create", "selfsubjectaccessreviews")})
"""What everybody who can sign in may do (Kubernetes docs, the built-in role system:basic-user)."""


@dataclass(frozen=True)
class Granted:
    """`roles` are, per cluster, whose each role is, by name; `groups` are each step's Kubernetes groups."""

    rules: Sequence[Rule]
    actions: Sequence[Action]
    roles: Mapping[str, Mapping[str, str]]
    groups: Mapping[str, Sequence[str]]


def walk(granted: Granted, used: Sequence[Uses], exempt: Sequence[Exempt]) -> list[str]:
    """Everything that is granted and was never used, used and not granted, or exempt without need."""
    requests = {(granted.roles[u.cluster].get(r.role, r.role), r) for u in used for r in u.requests}
    calls = {(granted.roles[u.cluster].get(c.role, c.role), c) for u in used for c in u.calls}
    unused_rules = [rule for rule in granted.rules if not any(rule.allows(r) for _, r in requests)]
    unused_actions = [action for action in granted.actions if not any(action.allows(who, c) for who, c in calls)]
    unneeded = list(_groups_without_need(granted, requests))
    unused = [(r.group, f"{r.verb} {r.resource}") for r in unused_rules] + [(a.who, a.action) for a in unused_actions]
    unused += unneeded

    found = [
        f"{rule.file}: nobody in the group {rule.group} ever does {rule.verb} {rule.resource}"
        f"{f' {rule.name}' if rule.name else ''}: take the verb out, or have a roll in tests/e2e need it"
        for rule in unused_rules
        if not _exempt(exempt, rule.group, f"{rule.verb} {rule.resource}")
    ]
    found += [
        f"stacks/functions.py: {action.who} may {action.action} and never does: take it out, or have a roll in "
        "tests/e2e need it"
        for action in unused_actions
        if not _exempt(exempt, action.who, action.action)
    ]
    found += [
        f"stacks/functions.py: the step {step} needs nothing of the group {group}: take it out of its row"
        for step, group in unneeded
        if not _exempt(exempt, step, group)
    ]
    found += _not_granted(granted, requests)
    found += sorted(
        {
            f"stacks/functions.py: {who} calls {call.action}, which its role may not: add it there"
            for who, call in calls
            if not call.allowed or not any(action.allows(who, call) for action in granted.actions)
        }
    )
    found += [
        f"tests/permissions/exceptions.py: {entry} is stale, for all that it covers is used or not granted: take it out"
        for entry in exempt
        if not entry.sometimes and not any(entry.covers(who, what) for who, what in unused)
    ]
    return found


def _exempt(exempt: Iterable[Exempt], who: str, what: str) -> bool:
    return any(entry.covers(who, what) for entry in exempt)


def _groups_without_need(granted: Granted, requests: Iterable[tuple[str, Request]]) -> Iterator[tuple[str, str]]:
    """Steps of one kind have the same groups: what one of them needs is not too much for the others."""
    needed = {(step, rule.group) for step, r in requests for rule in granted.rules if rule.allows(r)}
    for step, groups in granted.groups.items():
        alike = [other for other, theirs in granted.groups.items() if tuple(theirs) == tuple(groups)]
        for group in groups:
            if not any((other, group) in needed for other in alike):
                yield step, group


def _not_granted(granted: Granted, requests: Iterable[tuple[str, Request]]) -> list[str]:
    found = set()
    for step, r in requests:
        if (
            (r.verb, r.resource) in EVERYBODYS
            or r.name in NAMED_BY_TESTS
            or (r.allowed and any(rule.allows(r) for rule in granted.rules))
        ):
            continue
        where = f" in {r.namespace}" if r.namespace else ""
        what = f"{r.verb} {r.resource}{f' {r.name}' if r.name else ''}{where}"
        found.add(
            f"deploy/rbac.yaml: the step {step} does {what}, which none of its groups ({', '.join(r.groups)}) may: "
            "give the verb to one of them, or name another group in its row in stacks/functions.py"
        )
    return sorted(found)
