"""The dependency layer: what the functions import, for Lambda's platform, made by uv without a container.

`scripts/prepare` has uv fetch the packages, so that a synthesis takes them from uv's cache and needs no network. What
functions never import is left out; the rest is compiled beforehand (`stacks.compiling`).
"""

import ast
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks import compiling

LAMBDAS = Path(__file__).resolve().parent.parent / "lambdas"
LOCK = LAMBDAS / "requirements.txt"
RUNTIME = lambda_.Runtime.PYTHON_3_13
ARCHITECTURE = lambda_.Architecture.ARM_64
PLATFORM = "aarch64-manylinux_2_28"
"""The functions' platform as uv calls it: arm64 on Amazon Linux 2023, whose glibc is 2.34."""

ASYNCHRONOUS = ("aiohappyeyeballs", "aiohttp", "aiohttp_retry", "aiosignal", "attr", "attrs", "frozenlist", "multidict",
                "propcache", "yarl")  # fmt: skip
"""Packages that only the Kubernetes client's asyncio side imports."""

UNUSED = (
    *ASYNCHRONOUS,
    "aws_lambda_powertools/event_handler",
    "bin",
    "kubernetes/aio",
    "pydantic/v1",
    "redis/multidb",
)
"""What the functions never import."""

HOLLOW = ("kubernetes/client/api", "kubernetes/client/models")
"""Packages of which only `__init__` is imported: the Kubernetes client is used through its ApiClient alone."""

ALWAYS = frozenset({"sts"})
"""AWS services that are signed for without a client: the sign-in to the cluster."""


def services() -> frozenset[str]:
    """AWS services whose API descriptions stay in the layer (the others are most of botocore's size): those that a
    module of `eks_rolling.clients` makes a client of, by the name that it gives to `client(...)`.
    """
    named = {
        name
        for module in (LAMBDAS / "eks_rolling" / "clients").glob("*.py")
        for name in _clients_of(ast.parse(module.read_text()))
    }
    return ALWAYS | named


def _clients_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="client"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case _:
                pass


def dependency_layer(scope: Construct, construct_id: str) -> lambda_.LayerVersion:
    """The layer; rebuilt when the lock, the platform, the services or this recipe change."""
    recipe = hashlib.sha256(LOCK.read_bytes())
    for part in (Path(__file__), Path(compiling.__file__)):
        recipe.update(part.read_bytes())
    recipe.update(f"{sorted(services())} compiled: {compiling.interpreter() is not None}".encode())
    return lambda_.LayerVersion(
        scope,
        construct_id,
        description="eks-rolling dependencies",
        compatible_runtimes=[RUNTIME],
        compatible_architectures=[ARCHITECTURE],
        code=lambda_.Code.from_asset(
            str(LOCK.parent),
            asset_hash_type=AssetHashType.CUSTOM,
            asset_hash=recipe.hexdigest(),
            bundling=BundlingOptions(image=DockerImage.from_registry("unused"), local=_Local()),
        ),
    )


def install(target: Path, platform: str = PLATFORM) -> None:
    """Installs the locked dependencies into `target`, from uv's cache where it has them, and removes what is never
    imported.

    Raises subprocess.CalledProcessError when uv cannot.
    """
    command = [
        str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--require-hashes",
        "--requirement", str(LOCK), "--target", str(target), "--python", sys.executable,
        "--python-version", compiling.VERSION, "--python-platform", platform, "--only-binary", ":all:",
    ]  # fmt: skip
    cached = subprocess.run([*command, "--offline"], capture_output=True, check=False)
    if cached.returncode != 0:
        subprocess.run(command, check=True)
    trim(target)


def trim(target: Path) -> None:
    """Removes from installed dependencies what is never imported."""
    for part in UNUSED:
        shutil.rmtree(target / part, ignore_errors=True)
    for part in HOLLOW:
        for file in (target / part).iterdir():
            if file.name != "__init__.py":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
    kept = services()
    for service in (target / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in kept:
            shutil.rmtree(service)
    for examples in (target / "botocore" / "data").glob("*/*/examples-1.json*"):
        examples.unlink()


@jsii.implements(ILocalBundling)
class _Local:
    def try_bundle(self, output_dir: str, *, image: DockerImage, **_: Any) -> bool:  # noqa: ARG002 (jsii passes by name)
        target = Path(output_dir) / "python"
        install(target)
        if not compiling.compile_all(target):
            print(
                f"The dependency layer is not compiled, because this machine has no Python {compiling.VERSION}: "
                "cold starts take a second longer. To have one: uv python install 3.13",
                file=sys.stderr,
            )
        return True
