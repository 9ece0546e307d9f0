"""What each of the three makes runs, tried on a small suite; and the hash by which the lab counts as proven."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lab_proven import HARNESS, REPOSITORY, digest, sources

SUITE = """
import pytest
from tests.scope import at_kill_points

@at_kill_points(lambda: range(1, 65))
def test_points(point): print("at", point)

@at_kill_points(lambda: range(1, 65), switches=lambda: range(1, 65))
def test_switch(point): print("in", point)

@at_kill_points(lambda: range(1, 65), switches=lambda: [1, 2])
def test_few_switches(point): print("beside", point)

@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("seed", range(5))
def test_seeds(seed): print("seed", seed)

@pytest.mark.drawn(keep=1, among="twins")
def test_one(): print("twin", "one")

@pytest.mark.drawn(keep=1, among="twins")
def test_other(): print("twin", "other")

@pytest.mark.drawn(keep=2)
@pytest.mark.parametrize("case", [*(pytest.param(n, marks=pytest.mark.long) for n in range(60)), 60, 61])
def test_most_cases_are_long(case): print("case", case)

@pytest.mark.long
def test_long(): print("long")

@pytest.mark.heavy
def test_heavy(): print("heavy")
"""

CONFTEST = """
from tests import scope

def pytest_addoption(parser): scope.add_options(parser)
def pytest_configure(config):
    for mark in ("drawn", "long", "heavy"):
        config.addinivalue_line("markers", mark)
    scope.settle_seed(config)
def pytest_report_header(config): return scope.told(config)
def pytest_collection_modifyitems(config, items): scope.leave_out(config, items)
"""


def ran(directory: Path, scope: str, seed: int) -> list[str]:
    (directory / "test_suite.py").write_text(SUITE)
    (directory / "conftest.py").write_text(CONFTEST)
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "--rootdir", str(directory)]
    command += [f"--scope={scope}", f"--sample-seed={seed}", str(directory)]
    done = subprocess.run(
        command, cwd=directory, env={"PYTHONPATH": str(Path.cwd())}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"scope: {scope}, --sample-seed={seed}" in done.stdout
    return sorted(_said(done.stdout))


def _said(output: str) -> list[str]:
    words = ("at ", "in ", "beside ", "seed ", "case ", "twin ", "long", "heavy")
    return [line.lstrip(".") for line in output.splitlines() if line.lstrip(".").startswith(words)]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("all", {"at": 64, "in": 64, "beside": 64, "seed": 5, "twin": 2, "case": 62, "long": 1, "heavy": 1}),
        ("test", {"at": 16, "in": 64, "beside": 2 + 4, "seed": 2, "twin": 1, "case": 2, "heavy": 1}),
        ("quick", {"at": 2, "in": 2, "beside": 2, "seed": 2, "twin": 1, "case": 2}),
    ],
)
def test_how_much_runs_in_each_scope(tmp_path: Path, scope: str, expected: dict[str, int]) -> None:
    said = ran(tmp_path, scope, 7)
    kinds = [line.split()[0] for line in said]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == expected
    assert len(set(said)) == len(said), "no point twice"
    if scope != "all":
        assert ran(tmp_path, scope, 7) == said, "the same seed draws the same"
        assert ran(tmp_path, scope, 8) != said


def test_the_labs_hash_changes_with_its_content_and_with_names_alone(tmp_path: Path) -> None:
    (tmp_path / "lab" / "__pycache__").mkdir(parents=True)
    (tmp_path / "tests" / "lab").mkdir(parents=True)
    code = tmp_path / "lab" / "relay.py"
    code.write_text("a")
    seen = [digest(sources(tmp_path), tmp_path)]
    (tmp_path / "lab" / "__pycache__" / "relay.pyc").write_text("b")
    (tmp_path / "tests" / "lab" / "proven.sha256").write_text("c")
    (tmp_path / "README.md").write_text("d")
    (tmp_path / "tests" / "world.py").write_text("g")
    assert digest(sources(tmp_path), tmp_path) == seen[0]
    code.write_text("e")
    seen.append(digest(sources(tmp_path), tmp_path))
    code.rename(code.with_name("proxy.py"))
    seen.append(digest(sources(tmp_path), tmp_path))
    (tmp_path / "tests" / "waiting.py").write_text("f")
    seen.append(digest(sources(tmp_path), tmp_path))
    assert len(set(seen)) == 4


WHICH_RUN = {"evidence", "scope"}


def test_whatever_tests_of_the_lab_use_of_the_harness_is_hashed_with_it() -> None:
    """Or a change of it would leave the lab proven that is not."""
    tests = REPOSITORY / "tests"
    files = [*(tests / "lab").rglob("*.py"), *(tests / f"{name}.py" for name in HARNESS)]
    used: set[str] = set()
    for file in files:
        text = file.read_text()
        used |= set(re.findall(r"\btests\.(\w+)", text))
        used |= {
            name for names in re.findall(r"^from tests import (.+)$", text, re.MULTILINE) for name in names.split(", ")
        }
    assert {name for name in used if (tests / f"{name}.py").is_file()} == {*HARNESS, *WHICH_RUN} - {
        "__init__",
        "conftest",
    }
