"""What tests of rolls over a Redis Cluster ask of its nodes."""

from collections.abc import Sequence

from lab.operator import Operator
from tests.e2e.rolled import addresses, redis

Roles = dict[str, tuple[str, str, tuple[str, ...]]]


def roles(operator: Operator, pods: Sequence[str]) -> Roles:
    """Pod -> id, role, slots, as each says itself."""
    found: Roles = {}
    for pod in pods:
        (line,) = [line for line in redis(operator, pod, "cluster", "nodes") if "myself" in line]
        words = line.split()
        found[pod] = (words[0], words[2].partition(",")[2], tuple(words[8:]))
    return found


def assert_normal(operator: Operator, before: Roles) -> None:
    """C2: same ids, same roles, same slots; every table has exactly the pods, at their addresses; no stand-in."""
    assert roles(operator, tuple(before)) == before
    at = addresses(operator)
    assert not [name for name in at if name.endswith("stand-in")]
    expected = {before[pod][0]: at[pod] for pod in before}
    for pod in before:
        lines = [line.split() for line in redis(operator, pod, "cluster", "nodes") if line]
        assert {words[0]: words[1].partition(":")[0] for words in lines} == expected, pod
        assert "cluster_slots_ok:16384" in {line.strip() for line in redis(operator, pod, "cluster", "info")}
