"""Environment variables of what runs inside a lab."""

import os
from collections.abc import Mapping

from lab.addresses import AWS_URL
from lab.paths import REPOSITORY, LabPaths
from lab.spec import LabSpec

LAB_VARIABLE = "EKS_ROLLING_LAB"
"""Set to the lab's directory for everything that runs inside."""


def part_environment(paths: LabPaths, spec: LabSpec) -> dict[str, str]:
    """For the lab's own parts: where the AWS server is, but no access to Kubernetes that isn't theirs."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KUBE"))},
        "PATH": f"{paths.binaries}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        LAB_VARIABLE: str(paths.root),
        **_aws(spec),
    }


def command_environment(paths: LabPaths, spec: LabSpec) -> dict[str, str]:
    """For people's commands inside: kubectl and aws work without further ado. Only what is to be changed."""
    return {
        "PATH": f"{paths.binaries}:{os.environ.get('PATH', os.defpath)}",
        "KUBECONFIG": str(paths.kubeconfig),
        LAB_VARIABLE: str(paths.root),
        **_aws(spec),
    }


def _aws(spec: LabSpec) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": AWS_URL,
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        # The lab's AWS server takes any; real ones must not get into it by accident.
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_SESSION_TOKEN": "",
        "AWS_PROFILE": "",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
