"""Where a lab keeps its files."""

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def cache_directory() -> Path:
    """Where built binaries are kept between runs: $EKS_ROLLING_CACHE, else the user's cache directory."""
    chosen = os.environ.get("EKS_ROLLING_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eks-rolling"


def made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """`directory`, which `make` fills the first time; whoever comes meanwhile waits. Raises what `make` raises."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            making = directory.with_name(f"{directory.name}.making")
            shutil.rmtree(making, ignore_errors=True)
            make(making)
            making.rename(directory)
    return directory


def labs_directory() -> Path:
    """Where labs keep their files: $EKS_ROLLING_LABS, else `.lab` in the repository."""
    chosen = os.environ.get("EKS_ROLLING_LABS")
    return Path(chosen).absolute() if chosen else REPOSITORY / ".lab"


@dataclass(frozen=True)
class LabPaths:
    """One lab's directory and what is in it."""

    root: Path

    @classmethod
    def of(cls, name: str) -> "LabPaths":
        """The lab called `name`."""
        return cls(labs_directory() / name)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def spec(self) -> Path:
        """The lab's shape, `lab.spec.LabSpec` as JSON."""
        return self.root / "spec.json"

    @property
    def pid(self) -> Path:
        """The supervisor's process id, as seen from outside the namespaces."""
        return self.root / "pid"

    @property
    def status(self) -> Path:
        """What the supervisor is doing: JSON lines, the last one is current."""
        return self.root / "status.jsonl"

    @property
    def lock(self) -> Path:
        """Locked (flock) for as long as the lab lives."""
        return self.root / "lock"

    @property
    def gate(self) -> Path:
        """A Unix socket that leads into the lab's network (`lab.gate`)."""
        return self.root / "gate"

    @property
    def logs(self) -> Path:
        """One file per process of the lab."""
        return self.root / "logs"

    @property
    def pki(self) -> Path:
        """Certificates and keys of the control plane."""
        return self.root / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The cluster administrator's kubeconfig (people and tests; no Lambda ever sees it)."""
        return self.root / "kubeconfig"

    def kubeconfig_of(self, identity: str) -> Path:
        """The kubeconfig of one of the lab's own parts, e.g. "node-agent"."""
        return self.pki / f"{identity}.kubeconfig"

    @property
    def etcd(self) -> Path:
        """The cluster's data; of no use once the lab has ended."""
        return self.root / "etcd"

    @property
    def binaries(self) -> Path:
        """Links to kubectl and the control plane's programs, for PATH."""
        return self.root / "bin"

    @property
    def audit_log(self) -> Path:
        """Every request that the API server answered, as JSON lines of audit.k8s.io/v1 at level Metadata."""
        return self.logs / "audit.jsonl"

    @property
    def calls(self) -> Path:
        """Every AWS call of a role, as JSON lines (`lab.aws.calls.Call`)."""
        return self.logs / "calls.jsonl"

    @property
    def pods(self) -> Path:
        """Per pod, while it is there: its volumes, its files in /etc."""
        return self.root / "pods"

    @property
    def pod_logs(self) -> Path:
        """Per pod and container, a file per run. They outlive the pod."""
        return self.logs / "pods"

    @property
    def network_namespaces(self) -> Path:
        """What keeps the pods' network namespaces: mounts that only the lab itself sees."""
        return self.root / "netns"

    @property
    def volumes(self) -> Path:
        """EBS-like volumes: one directory each, below its zone; they outlive pods."""
        return self.root / "volumes"

    @property
    def traffic(self) -> Path:
        """What clients saw: `live.json` while they run, `record.json` at the end."""
        return self.root / "traffic"
