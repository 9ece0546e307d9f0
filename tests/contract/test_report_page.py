"""The report's page in a real browser: every ending, on a desk and on a phone, in light and in darkness."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from eks_rolling.report.page import page
from eks_rolling_cli import rolls_page
from tests import reports
from tests.browser import PHONE, Scheme, chromium, look, problems

pytestmark = pytest.mark.xdist_group("browser")

TOLD = {
    "replaced": ("4 of 4 nodes replaced", "480 ms", "cluster-autoscaler", "maximum size back to 3", "28 pods evicted"),
    "failed": ("The roll failed: 1 of 6 nodes replaced", "2 things", "keeps the maximum size 5 (was 3)", "not begun"),
    "aborted": ("The roll was aborted: 2 of 6 nodes replaced", "the shop has its sale tonight"),
    "stopped": ("The roll was stopped: 1 of 6 nodes replaced", "lunch", "its record was not there yet"),
    "blocked": ("blocked by 2 findings; nothing was changed", "set maxUnavailable to 1, or add a replica"),
    "dry-run": ("6 nodes would be replaced; nothing was changed", "lt-0c3f:8"),
    "nothing": ("No node is outdated",),
    "refused": ("failed before anything was changed", "grups is not a known field", "does not know"),
    "not-approved": ("The roll was not approved; nothing was changed", "user/ana: not today"),
    "large": ("300 of 300 nodes replaced", "240 more are in the table"),
    "hostile": ("<script>alert('no')</script>",),
}
"""What a person must find on the page."""


ENDED = {
    "began": 2e9 - 9000, "ended": 2e9 - 5000, "reason": "", "held_lock": True, "left_behind": [], "outcome": "",
    "replaced": 0, "planned": 0, "longest_stall_ms": None, "report": "",
}  # fmt: skip
ROLLS = [
    ENDED | {
        "roll": "roll-4", "status": "FAILED", "outcome": "failed", "replaced": 3, "planned": 12, "report": "https://x.example/y",
        "reason": f"arn:aws:iam::123456789012:role/{'eks-rolling-production-Evict' * 4} may not call ec2:CreateTags",
        "left_behind": ["group blue keeps its maximum"],
    },
    ENDED | {"roll": "roll-3", "status": "RUNNING", "ended": None},
    ENDED | {"roll": "roll-2", "status": "SUCCEEDED", "outcome": "replaced", "longest_stall_ms": 240},
    ENDED | {"roll": "roll-1", "status": "ABORTED"},
]  # fmt: skip
"""What `rolls --json` has of rolls."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, PHONE])
@pytest.mark.parametrize("name", reports.ALL)
def test_the_page_shows_how_a_roll_ended(
    browser: Browser, tmp_path: Path, name: str, width: int, scheme: Scheme
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(reports.ALL[name]()))
    seen = look(browser, file, width, scheme)
    assert problems(seen, width) == []
    assert [words for words in TOLD[name] if words not in " ".join(seen.text.split())] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, PHONE])
def test_the_page_of_all_rolls_is_readable_too(browser: Browser, tmp_path: Path, width: int, scheme: Scheme) -> None:
    file = tmp_path / "rolls.html"
    place, start = "production (account 123456789012, eu-central-1)", "eks-rolling start --cluster production"
    file.write_text(rolls_page.page("production", place, ROLLS, 2e9, start))
    seen = look(browser, file, width, scheme)
    assert problems(seen, width) == []
    told = " ".join(seen.text.split())
    for words in (
        "The latest 4 rolls", "failed roll-4", "3 of 12 nodes replaced", "left behind: group blue keeps its maximum",
        "→ eks-rolling start --cluster production shows a plan", "running roll-3", "running for 2 h",
        "longest stall of writes 240 ms", "aborted roll-1",
    ):  # fmt: skip
        assert words in told


def test_a_page_with_faults_would_be_noticed(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text(
        "<!doctype html><html><body><h3 id=a style='color:#ccc'>pale</h3><p id=a style='width:2000px'>wide</p>"
        "<img src='https://example.invalid/x.png'><script>console.error('no')</script></body></html>"
    )
    found = " ".join(problems(look(browser, file, PHONE, "light"), PHONE))
    for expected in ("https://example.invalid/x.png", "error: no", "contrast of pale", "pixels wide", "no language"):
        assert expected in found
