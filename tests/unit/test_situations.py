"""docs/situations.md: every test that it names is there, and every situation has one."""

import re

import pytest

from lab.paths import REPOSITORY

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split(" | ")]
    for line in (REPOSITORY / "docs" / "situations.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| situation")
]
NAMED = re.compile(r"`([\w/]+\.py)::([^`]+)`")


def test_every_situation_says_what_a_roll_does_and_what_proves_it() -> None:
    assert len(ROWS) > 20
    assert [row[0] for row in ROWS if not row[1] or not NAMED.search(row[-1])] == []


@pytest.mark.parametrize(("file", "what"), sorted({named for row in ROWS for named in NAMED.findall(" ".join(row))}))
def test_a_test_that_is_named_is_there(file: str, what: str) -> None:
    """A function, or a case of a table by the text that stands there."""
    text = (REPOSITORY / "tests" / file).read_text()
    assert f"def {what}(" in text or f'"{what}"' in text
