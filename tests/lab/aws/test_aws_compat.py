"""Each correction to moto is needed, and does what AWS does: see `corrections.py`."""

import json
import subprocess
import sys
from typing import Any

import pytest

from lab.aws import compat
from lab.paths import REPOSITORY
from tests.lab.aws.corrections import PROBES

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, bool], str | None]:
    """What came of each probe, by its name and whether its correction was left out."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.lab.aws.corrections"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    lines: list[dict[str, Any]] = [json.loads(line) for line in ran.stdout.splitlines()]
    return {(line["probe"], line["without"]): line["wrong"] for line in lines}


@pytest.mark.parametrize("probe", PROBES)
def test_with_the_correction(answers: dict[tuple[str, bool], str | None], probe: str) -> None:
    assert answers[probe, False] is None


@pytest.mark.parametrize("probe", PROBES)
def test_without_the_correction_it_is_wrong(answers: dict[tuple[str, bool], str | None], probe: str) -> None:
    correction, _ = PROBES[probe]
    assert answers[probe, True] is not None, f"moto does this by itself now: {correction} can go"


def test_every_correction_has_a_probe() -> None:
    assert {correction for correction, _ in PROBES.values()} == set(compat.CORRECTIONS)


def test_an_unknown_correction_cannot_be_left_out() -> None:
    with pytest.raises(KeyError, match="no such corrections"):
        compat.apply(without=["something else"])
