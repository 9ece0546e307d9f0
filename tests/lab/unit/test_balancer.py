"""Health of targets, and which of them get new connections."""

import pytest

from lab.network.balancer import Backend, Health, TargetState, candidates


@pytest.mark.parametrize(
    ("checks", "verdicts"),
    [
        ("+", "+"),
        ("-", "-"),
        ("+-", "++"),
        ("+--", "++-"),
        ("+-+-", "++++"),
        ("--+", "---"),
        ("--++", "---+"),
    ],
)
def test_the_first_check_decides_and_then_two_in_a_row_do(checks: str, verdicts: str) -> None:
    health = Health()
    seen = ""
    for check in checks:
        changed = health.note(check == "+")
        seen += "+" if health.healthy else "-"
        assert changed == (len(seen) == 1 or seen[-1] != seen[-2])
    assert seen == verdicts


def targets(*states: TargetState) -> list[Backend]:
    return [Backend(f"i-{number}", 30080, state) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        (("healthy", "healthy"), [0, 1]),
        (("healthy", "unhealthy", "initial"), [0]),
        (("draining", "healthy"), [1]),
        (("unhealthy", "initial", "draining"), [0, 1]),
        (("draining",), []),
        ((), []),
    ],
)
def test_new_connections_go_to_healthy_targets_or_to_all_that_stay_if_none_is(
    states: tuple[TargetState, ...], chosen: list[int]
) -> None:
    everything = targets(*states)
    assert candidates(everything) == [everything[number] for number in chosen]
