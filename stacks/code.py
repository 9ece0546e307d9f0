"""The functions' code as it is uploaded: `lambdas/`, compiled, and beside it the cluster's settings in a file.

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

from lambdas.settings import ENVIRONMENT_VARIABLE, FILE, Settings
from stacks import compiling

LAMBDAS = Path(__file__).resolve().parent.parent / "lambdas"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "requirements.txt")


def function_code(stack: Stack, settings: Settings) -> lambda_.Code:
    """The code of one cluster's functions. It is not compiled where the stack's assets are not built (tests, lab)."""
    root = Path(tempfile.mkdtemp(dir=_staging().name))
    _stage(root, {k: v for k, v in settings.model_dump(mode="json").items() if not _by_deployment(v)})
    content = _hash(root)
    compiled = stack.bundling_required and compiling.compile_all(root)
    return lambda_.Code.from_asset(
        str(root),
        # Of the sources alone: the same source does not always compile to the same bytes.
        asset_hash_type=AssetHashType.CUSTOM,
        asset_hash=f"{content} compiled: {compiled}",
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


def _stage(root: Path, settings: dict[str, Any]) -> None:
    shutil.copytree(LAMBDAS, root / LAMBDAS.name, ignore=LEFT_OUT)
    (root / FILE.name).write_text(json.dumps(settings, indent=2))


def _hash(root: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
