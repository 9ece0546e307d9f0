"""The application under test in a lab: synthesized by CDK, deployed into the AWS server, let into the cluster."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.lifecycle import Lab, LabError
from lab.paths import REPOSITORY, cache_directory, made_once

RBAC = REPOSITORY / "deploy" / "rbac.yaml"

SETTINGS: dict[str, Any] = {
    # What takes minutes in a cloud takes seconds here, and people watch.
    "bake_seconds": 2,
    "lease_seconds": 30,
    "debounce_seconds": 1,
    # Most labs' stand-in scales nothing: what a roll does about it is what there is to see.
    "autoscaler": {"mode": "pause"},
}
"""Settings of every lab's application, over which its spec's and a caller's own go."""


def synthesize(cluster: str, settings: dict[str, Any] | None = None) -> Path:
    """The cloud assembly of a lab's application. Raises LabError with what the app said."""
    return assembly({"settings": {"cluster": cluster, **SETTINGS, **(settings or {})}})


def assembly(document: dict[str, Any] | str) -> Path:
    """The cloud assembly for the context key `eks-rolling`, made by `app.py` as a deployment's would be; kept.

    Only the dependency layer is left out: functions in a lab run in this environment. Raises LabError with what the
    app said.
    """

    def make(directory: Path) -> None:
        result = subprocess.run(
            [sys.executable, "app.py"],
            cwd=REPOSITORY,
            env=_environment({"eks-rolling": document, "aws:cdk:bundling-stacks": []}, directory),
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise LabError("the application cannot be synthesized", details=result.stderr or result.stdout)

    return made_once(cache_directory() / "assemblies" / _key(document), make)


def deploy(lab: Lab, settings: dict[str, Any] | None = None) -> dict[str, str]:
    """Synthesizes and deploys, and applies the RBAC that ships with it; answers the stack's outputs.

    Raises LabError.
    """
    directory = synthesize(lab.spec.cluster, {**lab.spec.settings, **(settings or {})})
    result = lab.run(
        [sys.executable, "-m", "lab.aws.deploy", str(lab.paths.root), str(directory)],
        cwd=REPOSITORY,
        capture_output=True,
    )
    if result.returncode != 0:
        raise LabError("the application cannot be deployed", details=result.stderr)
    apply = lab.run(["kubectl", "apply", "-f", str(RBAC)], capture_output=True)
    if apply.returncode != 0:
        raise LabError("deploy/rbac.yaml cannot be applied", details=apply.stderr)
    (outputs,) = json.loads(result.stdout).values()
    return {str(k): str(v) for k, v in outputs.items()}


def _key(document: dict[str, Any] | str) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    if isinstance(document, str):
        digest.update((REPOSITORY / document).read_bytes())
    files = [
        REPOSITORY / "app.py",
        *sorted(f for d in ("eks_rolling_config", "stacks") for f in (REPOSITORY / d).glob("*.py")),
    ]
    files += sorted(p for p in (REPOSITORY / "lambdas").rglob("*") if p.suffix in {".py", ".j2", ".txt"})
    for file in files:
        digest.update(str(file.relative_to(REPOSITORY)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _environment(context: dict[str, Any], directory: Path) -> dict[str, str]:
    return {
        **os.environ,
        # jsii starts `node`, which comes with this environment.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "CDK_CONTEXT_JSON": json.dumps(context),
        "CDK_OUTDIR": str(directory),
    }
