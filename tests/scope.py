"""How much of the tests runs: all of it, what `make test` has time for, or what `make quick` has.

    all     `make test-all`: everything, every kill point
    test    `make test`: not what is marked `long`; of kill points outside a Redis switch, and of the cases of other
            tests that are marked so, a sample
    quick   `make quick`: nor what is marked `heavy`; of all kill points a few

A model test kills a roll after its 1st effect, its 2nd, ... to its last. The points are counted when the test runs: a
product that is broken fails tests, and keeps no others from being collected. Samples are drawn by a seed that stands
at the head of the output; `--sample-seed` draws the same again.
"""

import functools
import inspect
import os
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

ALL, TEST, QUICK = "all", "test", "quick"
SEED = "EKS_ROLLING_SAMPLE_SEED"

SHARES = 16
"""A roll's points are spread over so many tests, which run side by side."""

BESIDE_SWITCHES = 4
"""Of so many shares one more point is drawn where none is left out of those in the middle of a Redis switch."""

FEW = 2
"""So many cases of each test that kills are left in the quick run."""


def add_options(parser: pytest.Parser) -> None:
    parser.addoption("--scope", choices=(ALL, TEST, QUICK), default=ALL, help="how much runs: see tests/scope.py")
    parser.addoption("--sample-seed", type=int, default=None, help="draws the sample that the run with it drew")


def settle_seed(config: pytest.Config) -> None:
    """Every worker draws with the seed of the process that started it, which leaves it in the environment."""
    if config.option.sample_seed is None:
        config.option.sample_seed = int(os.environ.get(SEED, random.SystemRandom().randrange(10**6)))
    os.environ[SEED] = str(config.option.sample_seed)


def told(config: pytest.Config) -> str:
    """What stands at the head of the output."""
    return f"scope: {config.option.scope}, --sample-seed={config.option.sample_seed}"


def dice(config: pytest.Config, what: str) -> random.Random:
    """The same numbers in every worker, and in the next run with the same seed."""
    return random.Random(f"{config.option.sample_seed} {what}")


def at_kill_points(
    count: Callable[[], Sequence[int]], *, every: int = 1, switches: Callable[[], Sequence[int]] = tuple
) -> Callable[[Callable[[int], None]], Callable[..., None]]:
    """Runs the test, which takes a point, at the points that `count` counts, or at every `every`th of them.

    `switches` counts those in the middle of a Redis switch, of which `make test` leaves none out.
    """
    counted, kept = functools.cache(count), functools.cache(lambda: frozenset(switches()))

    def wrap(test: Callable[[int], None]) -> Callable[..., None]:
        @functools.wraps(test)
        def shared(share: int, request: pytest.FixtureRequest) -> None:
            scope = request.config.option.scope
            points = list(counted())[::every][share::SHARES]
            if scope != ALL:
                points = _sample(request.config, test.__name__, share, points, kept() if scope == TEST else frozenset())
            for point in points:
                print("killed at point", point)
                test(point)

        parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("share", "request")]
        shared.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what pytest reads; typeshed does not let it be set
        return pytest.mark.drawn(pytest.mark.parametrize("share", range(SHARES))(shared))

    return wrap


def _sample(config: pytest.Config, test: str, share: int, points: list[int], kept: frozenset[int]) -> list[int]:
    """Those that are kept, and one more: of some shares only, where points are kept."""
    drawing = range(SHARES) if not kept else dice(config, test).sample(range(SHARES), BESIDE_SWITCHES)
    drawn = dice(config, f"{test} {share}").choice(points) if points and share in drawing else None
    return [p for p in points if p == drawn or p in kept]


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Takes out what the scope has no time for, the same in every worker."""
    scope = config.option.scope
    if scope == ALL:
        return
    too_long = ("long", "heavy") if scope == QUICK else ("long",)
    gone = {item for item in items if any(item.get_closest_marker(mark) for mark in too_long)}
    cases: dict[str, list[str]] = defaultdict(list)
    marks: dict[str, pytest.Mark] = {}
    for item in items:
        if item not in gone and (mark := item.get_closest_marker("drawn")) is not None:
            # Those that say among which others they are drawn are one test's cases, wherever they stand.
            test = mark.kwargs.get("among", item.nodeid.partition("[")[0])
            cases[test].append(item.nodeid)
            marks[test] = mark
    kept: set[str] = set()
    for test, ids in cases.items():
        keep = marks[test].kwargs.get("keep", len(ids))
        many = min(FEW, keep) if scope == QUICK else keep
        kept.update(dice(config, test).sample(sorted(ids), min(many, len(ids))))
    gone |= {i for i in items if i.get_closest_marker("drawn") is not None and i.nodeid not in kept}
    if gone:
        config.hook.pytest_deselected(items=[item for item in items if item in gone])
        items[:] = [item for item in items if item not in gone]
