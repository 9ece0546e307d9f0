"""What CONTRIBUTING says of tests, where a machine can look: they wait for conditions, and judge no durations."""

import ast
from collections import Counter
from pathlib import Path

import pytest

INSTEAD = "wait for a condition with `until` of tests/waiting.py, or say here why there is none"
TESTS = Path(__file__).resolve().parent.parent
THIS = Path(__file__).resolve()

SLEEPS = {
    "waiting.py": (1, "the pause between two looks of `until`"),
    "contract/cluster_pods.py": (2, "the pace of a client that writes, and before it tries again"),
    "contract/kubernetes_sides.py": (1, "lets time pass on the real side, as the world in memory advances its clock"),
    "contract/redis_pods.py": (5, "the pace of clients that write; the workflow's waits; a function that comes again"),
    "contract/redis_servers.py": (1, "lets time pass on the real side"),
    "contract/redis_sides.py": (1, "lets time pass on the real side"),
    "contract/test_aws_client.py": (1, "lets time pass on the real side"),
    "contract/test_cluster_client.py": (1, "lets time pass on the real side"),
    "e2e/test_blockers.py": (2, "nothing is to happen meanwhile"),
    "e2e/test_command.py": (1, "nothing is to happen meanwhile"),
    "lab/aws/probe/handlers/work.py": (2, "a function that takes its time, or hangs: it is the thing that is tried"),
    "lab/aws/test_aws_tokens.py": (1, "a signature's own seconds run out; AWS's clock is nobody's to turn"),
    "lab/test_images.py": (2, "a broker's long poll; nothing is to happen meanwhile; a request is to be on its way"),
}
"""Where tests sleep: file -> how often, and why no condition can be waited for instead."""

DURATIONS = {
    "contract/test_redis_access.py": (1, "a client's own time-outs are tried: 20 s, where it would hang for ever"),
    "e2e/terminal.py": (1, "a deadline for a command that would never end"),
}
"""Where an assertion says that something took less than so long: file -> how often, and why."""


def called(node: ast.AST, module: str, name: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == module
    )


def tells_time(node: ast.AST) -> bool:
    """Whether a clock is read in the expression, or two times are subtracted."""
    clocks = ("monotonic", "perf_counter", "time")
    return any(
        any(called(part, "time", clock) for clock in clocks)
        or (isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "total_seconds")
        for part in ast.walk(node)
    )


def judges_a_duration(node: ast.AST) -> bool:
    """Whether it asserts that a clock says less than something: not that enough time has passed."""
    if not isinstance(node, ast.Assert):
        return False
    for part in ast.walk(node.test):
        if isinstance(part, ast.Compare):
            sides = [part.left, *part.comparators]
            for left, operator, right in zip(sides, part.ops, sides[1:], strict=False):
                if isinstance(operator, ast.Lt | ast.LtE) and tells_time(left):
                    return True
                if isinstance(operator, ast.Gt | ast.GtE) and tells_time(right):
                    return True
    return False


def counted(source: str) -> tuple[int, int]:
    """How often it sleeps, and judges durations."""
    nodes = list(ast.walk(ast.parse(source)))
    return sum(called(n, "time", "sleep") for n in nodes), sum(map(judges_a_duration, nodes))


def found() -> tuple[Counter[str], Counter[str]]:
    sleeps: Counter[str] = Counter()
    durations: Counter[str] = Counter()
    for file in TESTS.rglob("*.py"):
        if file != THIS:
            name = file.relative_to(TESTS).as_posix()
            sleeps[name], durations[name] = counted(file.read_text())
    return +sleeps, +durations


def test_tests_wait_for_conditions_and_sleep_only_where_it_says_why() -> None:
    sleeps, _ = found()
    assert dict(sleeps) == {file: count for file, (count, _) in SLEEPS.items()}, INSTEAD


def test_tests_judge_what_happened_and_not_how_long_it_took() -> None:
    _, durations = found()
    assert dict(durations) == {file: count for file, (count, _) in DURATIONS.items()}, INSTEAD


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("import time\ntime.sleep(1)", (1, 0)),
        ("assert time.monotonic() < deadline, 'late'", (0, 1)),
        ("assert time.monotonic() - began < 20", (0, 1)),
        ("assert 5 > time.time() - began", (0, 1)),
        ("assert 2 <= (end - begin).total_seconds() < 3.5", (0, 1)),
        ("assert time.monotonic() - began >= 1.0", (0, 0)),
        ("assert len(seen) < 20", (0, 0)),
        ("clock.sleep(1)", (0, 0)),
    ],
)
def test_what_it_takes_for_one(source: str, seen: tuple[int, int]) -> None:
    assert counted(source) == seen
