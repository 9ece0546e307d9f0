"""Environment variables of what runs inside a lab."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.addresses import AWS_URL
from lab.paths import REPOSITORY, LabPaths
from lab.prerequisites import search_path
from lab.spec import LabSpec

_FOREIGN = ("AWS_", "KUBE")
"""The user's own accounts and clusters, which must not get into a lab by accident."""

LAB_VARIABLE = "EKS_ROLLING_LAB"
"""Set to the lab's directory for everything that runs inside."""


def part_environment(paths: LabPaths, spec: LabSpec) -> dict[str, str]:
    """For the lab's own parts: where the AWS server is, but no access to Kubernetes that isn't theirs."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
        "PATH": f"{paths.binaries}:{search_path()}",
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
        LAB_VARIABLE: str(paths.root),
        **_aws(spec),
    }


def command_environment(paths: LabPaths, spec: LabSpec) -> dict[str, str]:
    """For people's commands inside: kubectl, aws and eks-rolling work without further ado, and reach nothing but the
    lab."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
        # What is installed beside this interpreter comes last: the user's own python stays what it is.
        "PATH": f"{paths.binaries}:{search_path()}:{Path(sys.executable).parent}",
        "KUBECONFIG": str(paths.kubeconfig),
        LAB_VARIABLE: str(paths.root),
        **_aws(spec),
    }


def python_path() -> str:
    """PYTHONPATH with which `python -m lab.…` works from any directory."""
    before = os.environ.get("PYTHONPATH")
    return ":".join([str(REPOSITORY), str(REPOSITORY / "lambdas"), *([before] if before else [])])


def inside(paths: LabPaths) -> bool:
    """Whether this very process runs inside that lab."""
    return os.environ.get(LAB_VARIABLE) == str(paths.root)


def _aws(spec: LabSpec) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": AWS_URL,
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
