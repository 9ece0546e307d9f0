"""The layers that `make lint` holds: every import that they forbid is planted, and import-linter refuses it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from grimp import ImportGraph, build_graph
from importlinter.application.use_cases import _register_contract_types, read_user_options
from importlinter.application.user_options import UserOptions
from importlinter.configuration import configure
from importlinter.domain.contract import Contract, registry

ROOT = Path(__file__).parents[2]
PACKAGES = ("eks_rolling", "eks_rolling_cli", "eks_rolling_config", "stacks", "lab")
SDKS = ("boto3", "botocore", "kubernetes", "redis", "urllib3", "moto", "aws_cdk", "constructs")
PURE = (
    "plan", "report", "redis", "documents", "observed", "payloads", "settings",
    "errors", "legible", "names", "state_names", "wording",
)  # fmt: skip
"""The parts of eks_rolling that may know no client."""

Edge = tuple[str, str]


@pytest.fixture(scope="module")
def options() -> UserOptions:
    configure()
    read = read_user_options(str(ROOT / "pyproject.toml"))
    _register_contract_types(read)
    return read


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    return build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


@pytest.fixture(scope="module")
def contracts(options: UserOptions) -> list[tuple[Mapping[str, Any], Contract]]:
    return [
        (each, registry.get_contract_class(each["type"])(each["name"], options.session_options, each))
        for each in options.contracts_options
    ]


def planted(graph: ImportGraph, importer: str, imported: str, contract: Contract) -> bool:
    """Whether the contract refuses that import, planted in a module of its own where the importer is a package."""
    module = f"{importer}.planted" if graph.find_children(importer) else importer
    made = module not in graph.modules
    if made:
        graph.add_module(module)
    known = graph.direct_import_exists(importer=module, imported=imported)
    graph.add_import(importer=module, imported=imported)
    kept = contract.check(graph, verbose=False).kept
    if made:
        graph.remove_module(module)
    elif not known:
        graph.remove_import(importer=module, imported=imported)
    return not kept


def layers_of(contract: Mapping[str, Any]) -> list[list[str]]:
    """A layers contract's modules by their full names, the highest layer first."""
    (container,) = contract["containers"]
    return [[f"{container}.{name.strip()}" for name in layer.split(":")] for layer in contract["layers"]]


def upwards(contract: Mapping[str, Any]) -> Iterator[Edge]:
    for above, below in combinations(layers_of(contract), 2):
        yield from product(below, above)


def test_the_tree_as_it_is_keeps_every_contract(
    graph: ImportGraph, contracts: list[tuple[Mapping[str, Any], Contract]]
) -> None:
    assert [c.name for _, c in contracts if not c.check(graph, verbose=False).kept] == []


@pytest.mark.heavy
def test_no_layer_may_import_one_above_it(
    graph: ImportGraph, contracts: list[tuple[Mapping[str, Any], Contract]]
) -> None:
    layered = [(o, c) for o, c in contracts if o["type"] == "layers"]
    assert {o["containers"][0] for o, _ in layered} == set(PACKAGES)
    edges = [(edge, contract) for o, contract in layered for edge in upwards(o)]
    assert len(edges) > 400
    assert [edge for edge, contract in edges if not planted(graph, *edge, contract)] == []


def test_a_new_module_needs_a_layer(graph: ImportGraph, contracts: list[tuple[Mapping[str, Any], Contract]]) -> None:
    for option, contract in contracts:
        if option["type"] == "layers":
            newcomer = f"{option['containers'][0]}.newcomer"
            graph.add_module(newcomer)
            assert not contract.check(graph, verbose=False).kept, newcomer
            graph.remove_module(newcomer)


def test_no_step_may_import_another(graph: ImportGraph, contracts: list[tuple[Mapping[str, Any], Contract]]) -> None:
    (contract,) = [c for o, c in contracts if o["type"] == "independence"]
    evict, gate = "eks_rolling.steps.evict", "eks_rolling.steps.health_gate"
    assert planted(graph, evict, gate, contract)
    assert planted(graph, gate, evict, contract)


def test_an_sdk_is_imported_where_a_contract_names_the_importer_and_nowhere_else(
    graph: ImportGraph, contracts: list[tuple[Mapping[str, Any], Contract]]
) -> None:
    protected = {sdk: (o, c) for o, c in contracts if o["type"] == "protected" for sdk in o["protected_modules"]}
    assert set(protected) == set(SDKS)
    passed = []
    for sdk, (option, contract) in protected.items():
        allowed = tuple(option["allowed_importers"])
        modules = [m for m in graph.modules if m.startswith(PACKAGES) and not m.startswith(allowed)]
        # One module of each part is enough: whoever is allowed is named by package or module.
        parts = {".".join(m.split(".")[:2]): m for m in sorted(modules)}
        parts |= {m: m for m in modules if m.startswith("eks_rolling.")}
        passed += [(m, sdk) for m in parts.values() if not planted(graph, m, sdk, contract)]
    assert passed == []


def test_what_a_contract_forbids_by_name_is_refused(
    graph: ImportGraph, contracts: list[tuple[Mapping[str, Any], Contract]]
) -> None:
    forbidden = [(o, c) for o, c in contracts if o["type"] == "forbidden"]
    edges = [(edge, c) for o, c in forbidden for edge in product(o["source_modules"], o["forbidden_modules"])]
    assert edges
    assert [edge for edge, contract in edges if not planted(graph, *edge, contract)] == []


@pytest.mark.parametrize("line", ["import boto3", "from eks_rolling.clients.protocols import Clients"])
def test_make_lint_fails_on_a_forbidden_import_in_a_decision(tmp_path: Path, line: str) -> None:
    """The command that `make lint` runs, on a copy of the tree."""
    for package in PACKAGES:
        source = ROOT / ("lambdas" if package == "eks_rolling" else ".") / package
        shutil.copytree(source, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    victim = tmp_path / "eks_rolling/redis/sentinel.py"
    victim.write_text(f"{victim.read_text()}\n{line}\n")
    ran = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout
    assert "eks_rolling.redis.sentinel -> " in ran.stdout


def test_pure_packages_know_no_client(graph: ImportGraph) -> None:
    """Not by way of another module either: who imports a pure package gets no SDK with it."""
    for package in PURE:
        squashed = f"eks_rolling.{package}"
        for target in ("eks_rolling.clients", *SDKS):
            chain = graph.find_shortest_chain(importer=squashed, imported=target, as_packages=True)
            assert chain is None, chain


def test_every_package_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    parts = {p.name + ("/" if p.is_dir() else "") for p in (ROOT / "lambdas" / "eks_rolling").iterdir()}
    assert {p for p in parts if not p.startswith("_") and p.endswith((".py", "/")) and f"`{p}`" not in text} == set()


def test_the_architecture_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    deployed = ROOT / "lambdas" / "eks_rolling"
    folders = [ROOT, ROOT / "stacks", deployed, *(p for p in deployed.iterdir() if p.is_dir())]
    names = {name for name in re.findall(r"`([\w./]+)`", text) if "/" in name or name.endswith((".py", ".j2"))}
    assert {name for name in names if not any((folder / name).exists() for folder in folders)} == set()
