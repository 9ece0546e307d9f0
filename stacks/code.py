"""The functions' code as it is uploaded: the package `eks_rolling`, compiled, beside the cluster's settings in a file.

In a file, because a function's environment holds 4 KB at most, and a long settings file is longer.
"""

import hashlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from aws_cdk import AssetHashType, Stack, Token
from aws_cdk import aws_lambda as lambda_

from eks_rolling.settings import ENVIRONMENT_VARIABLE, FILE, Settings
from stacks import compiling

PACKAGE = Path(__file__).resolve().parent.parent / "lambdas" / "eks_rolling"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def function_code(stack: Stack, settings: Settings) -> lambda_.Code:
    """The code of one cluster's functions. It is not compiled where the stack's assets are not built (tests, lab)."""
    root = Path(tempfile.mkdtemp(dir=_staging().name))
    sources, compiled = _sources(compiled=stack.bundling_required)
    shutil.copytree(sources, root / PACKAGE.name)
    by_file = {k: v for k, v in settings.model_dump(mode="json").items() if not _by_deployment(v)}
    (root / FILE.name).write_text(json.dumps(by_file, indent=2))
    return lambda_.Code.from_asset(
        str(root),
        # Of the sources alone: the same source does not always compile to the same bytes.
        asset_hash_type=AssetHashType.CUSTOM,
        asset_hash=f"{content_hash(root)} compiled: {compiled}",
    )


def environment(stack: Stack, settings: Settings) -> dict[str, str]:
    """The environment of one cluster's functions: the settings that are known only when the stack is deployed."""
    document = {k: v for k, v in settings.model_dump(mode="json").items() if _by_deployment(v)}
    return {ENVIRONMENT_VARIABLE: stack.to_json_string(document), "POWERTOOLS_LOG_LEVEL": "INFO"}


@cache
def _staging() -> tempfile.TemporaryDirectory[str]:
    """Where code lies until CDK has copied it, at the end of the synthesis; gone with this process."""
    return tempfile.TemporaryDirectory(prefix="eks-rolling-code-")


def _by_deployment(value: Any) -> bool:
    return Token.is_unresolved(json.dumps(value))


@cache
def _sources(*, compiled: bool) -> tuple[Path, bool]:
    """What all clusters' functions have in common, and whether it could be compiled."""
    directory = Path(_staging().name) / f"sources-{compiled}"
    shutil.copytree(PACKAGE, directory, ignore=LEFT_OUT)
    return directory, compiled and compiling.compile_all(directory)


def content_hash(root: Path) -> str:
    """What the code is known by: its sources and settings, not what they were compiled to."""
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc"):
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
