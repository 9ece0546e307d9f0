"""docs/threat-model.md names tests that are there, and each test of a party's credentials has its row."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_every_row_names_its_test_and_every_test_has_its_row() -> None:
    source = ast.parse((REPOSITORY / "tests" / "contract" / "test_identities.py").read_text())
    tests = {n.name for n in source.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}
    named = re.findall(r"`(test_[a-z0-9_]+)` \|$", (REPOSITORY / "docs" / "threat-model.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(tests)
