"""Another public roller, hellofresh's eks-rolling-update, as its README says to run it, on a lab."""

import hashlib
import subprocess
import sys
from pathlib import Path

from lab.lifecycle import Lab, LabError
from lab.paths import REPOSITORY, made_once

FOLDER = REPOSITORY / "lab" / "rollers"
"""Its locked packages, and a kubectl that still has the flag that it calls."""

REQUIREMENTS = FOLDER / "eks-rolling-update.txt"
GIVE_UP_SECONDS = 900.0
INSTALL_SECONDS = 300.0

SETTINGS = {
    # A lab's instances are Ready after seconds: its waits of 90 s for a group and 20 s between looks are cut likewise.
    "CLUSTER_HEALTH_WAIT": "15",
    "CLUSTER_HEALTH_RETRY": "5",
    "GLOBAL_HEALTH_WAIT": "5",
    # As long as a person waits after each drain of the comparison; by itself it goes on at once.
    "BETWEEN_NODES_WAIT": "20",
    "EXTRA_DRAIN_ARGS": "--timeout=180s",
    "K8S_AUTOSCALER_ENABLED": "true",
    "K8S_AUTOSCALER_NAMESPACE": "kube-system",
    "K8S_AUTOSCALER_REPLICAS": "1",
}
"""Of its own, by its README; every other one is as it comes."""


def install(requirements: Path = REQUIREMENTS) -> Path:
    """The Python that has it, in an environment of its own below build/, which is made the first time.

    Raises LabError where its packages cannot be had.
    """
    version = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    home = made_once(
        REPOSITORY / "build" / "rollers" / f"{requirements.stem}-{version}", lambda d: _make(d, requirements)
    )
    return home / "bin" / "python"


def _make(home: Path, requirements: Path) -> None:
    commands = (
        [sys.executable, "-m", "venv", "--without-pip", str(home)],
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps"),
            *("--python", str(home / "bin" / "python"), "--requirements", str(requirements)),
        ],
    )
    for command in commands:
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
            said = "" if done.returncode == 0 else done.stderr
        except subprocess.TimeoutExpired:
            said = f"not within {INSTALL_SECONDS:.0f} s"
        if said:
            raise LabError(
                f"{requirements.stem} cannot be installed from the package index; compare without it: "
                'ROLLERS="drain eks-rolling"',
                details=said,
            )


def replace_every_node(lab: Lab, python: Path) -> None:
    """Has it replace all nodes that are outdated. Raises LabError when it stops half way, with the end of its log."""
    environment = {**lab.environment, **SETTINGS, "PATH": f"{FOLDER}:{lab.environment['PATH']}"}
    log = lab.paths.logs / f"{REQUIREMENTS.stem}.log"
    with log.open("w") as file:
        try:
            # It reads settings from a file `.env` where it runs, too.
            done = subprocess.run(
                lab.command([str(python), "-m", "eksrollup", "-c", lab.spec.cluster], directory=lab.paths.root),
                check=False,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=GIVE_UP_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{REQUIREMENTS.stem} did not end within {GIVE_UP_SECONDS:.0f} s; see {log}") from None
    if done.returncode != 0:
        raise LabError(f"{REQUIREMENTS.stem} gave up with exit code {done.returncode}", details=log.read_text()[-2000:])
