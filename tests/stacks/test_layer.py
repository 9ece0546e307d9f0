"""The dependency layer and the functions' code: small, compiled, and nothing missing from it."""

import os
import re
import shutil
import struct
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stacks import code, compiling
from stacks.layer import ASYNCHRONOUS, HOLLOW, LOCK, UNUSED, install, services, trim

REPOSITORY = Path(__file__).resolve().parent.parent.parent

EVERYTHING = """
import importlib, pathlib, sys
sys.path[:0] = {path}
for file in sorted(pathlib.Path({lambdas!r}).rglob("*.py")):
    name = ".".join(file.relative_to({lambdas!r}).with_suffix("").parts)
    importlib.import_module(name.removesuffix(".__init__"))
import boto3
session = boto3.session.Session("a", "b", region_name="eu-central-1")
for service in {services}:
    session.client(service)
"""


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The locked packages as they are installed here, trimmed as the layer is: the lock is the same."""
    target = tmp_path_factory.mktemp("layer")
    for line in re.findall(r"^[^#\s][^\\\n]*", LOCK.read_text(), re.MULTILINE):
        locked = Requirement(line)
        if locked.marker is not None and not locked.marker.evaluate():
            continue
        found = distribution(locked.name)
        for file in found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." not in file.parts and "__pycache__" not in file.parts and source.exists():
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target / file)
    trim(target)
    return target


@pytest.mark.heavy
def test_every_module_and_every_client_works_with_what_is_left(layer: Path) -> None:
    program = EVERYTHING.format(
        path=[str(code.PACKAGE.parent), str(layer)],
        lambdas=str(code.PACKAGE.parent),
        services=sorted(services() - {"sts"}),
    )
    environment = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    result = subprocess.run(
        # Isolated and without site-packages: nothing but the layer, the code and the standard library.
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


@pytest.mark.heavy
def test_what_is_trimmed_is_there_before_and_gone_afterwards(layer: Path) -> None:
    """A package that was renamed would otherwise stay in the layer unnoticed."""
    site = Path(str(distribution("kubernetes").locate_file("")))
    installed = {name for name in (*UNUSED, *HOLLOW) if (site / name).exists()}
    assert {*UNUSED, *HOLLOW} - installed <= {"bin"}
    assert not [name for name in UNUSED if (layer / name).exists()]
    assert ASYNCHRONOUS[0] in UNUSED
    kept = {p.name for p in (layer / "botocore" / "data").iterdir() if p.is_dir()}
    assert kept == services()


@pytest.mark.heavy
def test_the_layer_for_lambdas_platform_is_made_without_a_network_and_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make prepare` has had its packages fetched; compiled it has about half as much again (60 MB are the goal)."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    install(tmp_path)
    libraries = [p.name for p in tmp_path.rglob("*.so")]
    assert libraries
    assert all("aarch64" in name or name.endswith(".abi3.so") for name in libraries), libraries
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 40_000_000


def test_services_are_those_that_clients_are_made_of() -> None:
    assert {"autoscaling", "ec2", "eks", "elb", "elbv2", "s3", "sns", "stepfunctions", "sts"} <= services()
    assert "dynamodb" not in services()


def test_modules_are_compiled_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hash and unchecked (PEP 552: flags 0b01): packing gives files other times."""
    monkeypatch.setattr(compiling, "interpreter", lambda: Path(sys.executable))
    (tmp_path / "module.py").write_text("ANSWER = 42\n")
    assert compiling.compile_all(tmp_path)
    (compiled,) = tmp_path.rglob("*.pyc")
    assert struct.unpack("<I", compiled.read_bytes()[4:8]) == (1,)


def test_a_machine_without_the_functions_python_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "interpreter", lambda: None)
    (tmp_path / "module.py").write_text("ANSWER = 42\n")
    assert not compiling.compile_all(tmp_path)
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_stub_is_not_taken_for_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = tmp_path / f"python{compiling.VERSION}"
    stub.write_text("#!/bin/sh\nexit 127\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert compiling.interpreter.__wrapped__() is None


def test_the_code_is_hashed_by_its_sources_alone(tmp_path: Path) -> None:
    """The same source does not always compile to the same bytes, and a function would be deployed anew."""
    (tmp_path / "module.py").write_text("ANSWER = 42\n")
    before = code.content_hash(tmp_path)
    (tmp_path / "module.cpython-313.pyc").write_bytes(b"whatever")
    assert code.content_hash(tmp_path) == before
    (tmp_path / "module.py").write_text("ANSWER = 43\n")
    assert code.content_hash(tmp_path) != before
