"""The dependency layer: what the functions import, for Lambda's platform, made by pip without a container."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

LOCK = Path(__file__).resolve().parent.parent / "lambdas" / "requirements.txt"
RUNTIME = lambda_.Runtime.PYTHON_3_13
ARCHITECTURE = lambda_.Architecture.ARM_64
PYTHON_VERSION = "3.13"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux2014_aarch64")

UNUSED = ("kubernetes/aio", "kubernetes/client/api", "kubernetes/client/models", "bin")
"""Parts of packages that the functions never import (the Kubernetes client is used through its ApiClient alone)."""

SERVICES = frozenset({"autoscaling", "cloudwatch", "ec2", "eks", "elb", "elbv2", "s3", "sns", "stepfunctions", "sts"})
"""AWS services whose API descriptions stay in the layer; the others are most of botocore's size."""


def dependency_layer(scope: Construct, construct_id: str) -> lambda_.LayerVersion:
    """The layer; made anew when the lock, the platform or this recipe changes."""
    recipe = LOCK.read_bytes() + Path(__file__).read_bytes()
    return lambda_.LayerVersion(
        scope,
        construct_id,
        description="eks-rolling dependencies",
        compatible_runtimes=[RUNTIME],
        compatible_architectures=[ARCHITECTURE],
        code=lambda_.Code.from_asset(
            str(LOCK.parent),
            asset_hash_type=AssetHashType.CUSTOM,
            asset_hash=hashlib.sha256(recipe).hexdigest(),
            bundling=BundlingOptions(image=DockerImage.from_registry("unused"), local=_Pip()),
        ),
    )


def install(target: Path) -> None:
    """Installs the locked dependencies for Lambda into `target` and removes what is never imported.

    Raises subprocess.CalledProcessError when pip cannot.
    """
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(LOCK),
            "--target", str(target), "--python-version", PYTHON_VERSION, "--implementation", "cp",
            "--only-binary=:all:", *platforms,
        ],
        check=True,
    )  # fmt: skip
    for part in UNUSED:
        shutil.rmtree(target / part, ignore_errors=True)
    for service in (target / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)


@jsii.implements(ILocalBundling)
class _Pip:
    def try_bundle(self, output_dir: str, *, image: DockerImage, **_: Any) -> bool:  # noqa: ARG002
        install(Path(output_dir) / "python")
        return True
