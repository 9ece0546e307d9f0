"""What is published: the wheel as hatchling builds it from this repository."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from eks_rolling_cli.exits import Exit, missing_package
from scripts.distribution import REPOSITORY, top_level

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = WheelBuilder(str(REPOSITORY))
    return Path(next(builder.build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_it_installs_nothing_beside_our_own_packages(wheel: Path) -> None:
    assert top_level(wheel) == {"eks_rolling", "eks_rolling_cli", "eks_rolling_config"}


def test_each_package_says_that_it_is_typed_and_the_report_has_its_template(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"{package}/py.typed" for package in top_level(wheel)} <= set(names)
    assert "eks_rolling/report/report.html.j2" in names


def test_its_dependencies_are_ranges_that_hold_what_is_locked(metadata: Message) -> None:
    ranges = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    assert all({s.operator for s in r.specifier} <= {">=", "<"} for r in ranges)
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE))
    assert {r.name: locked[r.name] in r.specifier for r in ranges} == {r.name: True for r in ranges}


def test_what_is_deployed_is_pinned_and_locked_with_hashes() -> None:
    pins = [Requirement(line) for line in PROJECT["dependency-groups"]["functions"]]
    lock = (REPOSITORY / "lambdas" / "requirements.txt").read_text()
    for pin in pins:
        assert f"{pin.name}{pin.specifier} \\\n    --hash=sha256:" in lock


def test_its_page_has_no_link_that_leads_nowhere_outside_of_the_repository(metadata: Message) -> None:
    text = str(metadata.get_payload())
    targets = re.findall(r"\]\(([^)]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    assert len(targets) > 10
    relative = [target for pair in targets if not (target := "".join(pair)).startswith(("https://", "#"))]
    assert relative == []


def test_without_its_dependencies_the_command_says_what_to_install() -> None:
    paths = [str(REPOSITORY), str(REPOSITORY / "lambdas")]
    program = f"import sys; sys.path[:0] = {paths}; from eks_rolling_cli.__main__ import main; main()"
    # Isolated and without site-packages: the standard library and our own code.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == Exit.FAILED
    assert done.stderr.startswith("error: eks-rolling was installed without its dependencies: the Python package typer")
    assert "pipx install --force ." in done.stderr
    # There is no such package on a public index: whoever took the name would be installed.
    assert "install --force eks-rolling" not in done.stderr


def test_a_module_of_our_own_that_is_missing_is_a_fault_not_a_hint() -> None:
    assert missing_package(ModuleNotFoundError(name="eks_rolling.plans")) == ""
    assert missing_package(ImportError("cannot import name", name="typer")) == ""
