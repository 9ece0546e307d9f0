"""What end-to-end rolls really called is what is granted: nothing more, nothing less.

The end-to-end tests leave what their labs recorded in build/permissions; this only compares.
"""

import pytest

from stacks.functions import HOOKS, ROLLBACK, STEPS, UNJOINED
from tests.assembly import with_hooks
from tests.permissions.collected import DIRECTORY, FORBIDDEN, Uses, load
from tests.permissions.exceptions import EXEMPT
from tests.permissions.granted import Roles, rules
from tests.permissions.walk import Granted, walk

LABS = {"cache", "demo", "hooks", "shards", "small", FORBIDDEN}
"""Labs without whose records the walk would prove nothing."""


@pytest.fixture(scope="module")
def used() -> list[Uses]:
    found = [load(file) for file in sorted(DIRECTORY.glob("*.json"))]
    if missing := LABS - {uses.lab for uses in found}:
        pytest.fail(
            f"{DIRECTORY} has no records of the labs {', '.join(sorted(missing))}: run all of tests/e2e first "
            "(make test does)"
        )
    return found


@pytest.mark.long
def test_no_permission_is_unused_and_none_is_missing(used: list[Uses]) -> None:
    roles = Roles(with_hooks())
    granted = Granted(
        rules(),
        roles.actions(),
        {uses.cluster: roles.names(uses.cluster) for uses in used},
        {step: permissions.kubernetes for step, permissions in {**STEPS, **HOOKS, **ROLLBACK, **UNJOINED}.items()},
    )
    found = walk(granted, used, EXEMPT)
    assert not found, "\n" + "\n".join(found)
