"""Builds the control plane's binary: `python -m lab.controlplane.build`.

The binary is kept in the cache directory under a key of what it is made from, so it is built once per version.
Ready-made programs can be used instead: EKS_ROLLING_CONTROL_PLANE (or KUBEBUILDER_ASSETS) names a directory holding
etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.controlplane.start import PROGRAMS
from lab.controlplane.toolchain import MODULE, Go, ToolchainError, find_go, go_environment
from lab.paths import cache_directory

_OVERRIDES = ("EKS_ROLLING_CONTROL_PLANE", "KUBEBUILDER_ASSETS")
_DOWNLOADING = "go: downloading "
_ERROR_LINES = 30


class BuildError(Exception):
    """The binary could not be built; the message ends with the compiler's own words."""


class NotBuiltError(Exception):
    """The binary is not there yet."""


@dataclass(frozen=True)
class Progress:
    """How far a build is."""

    stage: Literal["waiting", "fetching", "compiling", "linking"]
    what: str
    done: int = 0
    total: int = 0
    """Packages to compile; 0 as long as that is not known."""


OnProgress = Callable[[Progress], None]


def programs() -> Path:
    """The directory with the control plane's programs and kubectl.

    Raises NotBuiltError if `build` has not run for this version, BuildError if an override lacks a program.
    """
    directory = _override() or _directory(find_go())
    if not directory.is_dir():
        raise NotBuiltError("the control plane is not built yet; `python -m lab.controlplane.build` does that")
    return directory


def build(on_progress: OnProgress = lambda _: None) -> Path:
    """Builds the binary unless it is there; returns the directory that `programs` returns from then on.

    Ten minutes on two cores at first, seconds once Go has compiled its packages. Raises BuildError.
    """
    override = _override()
    if override is not None:
        return override
    go = find_go()
    directory = _directory(go)
    if directory.is_dir():
        return directory
    with _build_lock(directory.parent, on_progress):
        if directory.is_dir():
            return directory
        try:
            if not go.executable.exists():
                on_progress(Progress("fetching", f"Go SDK {go.version}"))
                go.fetch()
            unfinished = _empty(directory.parent / "unfinished")
            _compile(go, unfinished / "controlplane", on_progress)
        except ToolchainError as error:
            raise BuildError(str(error)) from error
        for name in PROGRAMS:
            (unfinished / name).symlink_to("controlplane")
        unfinished.rename(directory)
    return directory


def kubernetes_version() -> str:
    """The version that go.mod requires, e.g. "v1.37.2"."""
    match = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BuildError("go.mod does not require k8s.io/kubernetes")
    return match[1]


def build_key(module: Path, go_version: str) -> str:
    """What the binary depends on, as a short hash: the sources, the versions of all modules, the compiler."""
    digest = hashlib.sha256(go_version.encode())
    for path in sorted([module / "go.mod", module / "go.sum", *module.glob("*.go")]):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _directory(go: Go) -> Path:
    return cache_directory() / "controlplane" / build_key(MODULE, go.version)


def _override() -> Path | None:
    for variable in _OVERRIDES:
        if value := os.environ.get(variable):
            directory = Path(value).absolute()
            if missing := [name for name in PROGRAMS if not os.access(directory / name, os.X_OK)]:
                raise BuildError(
                    f"{variable} names {directory}, which lacks {', '.join(missing)}: add them or unset it"
                )
            return directory
    return None


def _compile(go: Go, target: Path, on_progress: OnProgress) -> None:
    total = 0
    listing = [str(go.executable), "list", "-trimpath", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", "."]
    on_progress(Progress("fetching", "looking what there is to compile"))
    for line in _output(listing):
        if line.startswith(_DOWNLOADING):
            on_progress(Progress("fetching", line.removeprefix(_DOWNLOADING)))
        elif line:
            total += 1

    version = kubernetes_version()
    stamps = {"gitVersion": version, "gitTreeState": "clean"}
    link_flags = " ".join(["-s", "-w", *(f"-X k8s.io/component-base/version.{k}={v}" for k, v in stamps.items())])
    # Two at a time: the largest packages take a gigabyte each.
    command = [str(go.executable), "build", "-v", "-p", "2", "-trimpath", "-buildvcs=false",
               "-ldflags", link_flags, "-o", str(target), "."]  # fmt: skip
    done = 0
    on_progress(Progress("compiling", version, done, total))
    for line in _output(command):
        if line.startswith("go: "):
            continue
        done += 1
        stage: Literal["linking", "compiling"] = "linking" if done >= total else "compiling"
        on_progress(Progress(stage, line, min(done, total), total))


def _output(command: Sequence[str]) -> Iterator[str]:
    """The command's lines as they come; BuildError with the last of them if it fails. It dies with this process."""
    last: deque[str] = deque(maxlen=_ERROR_LINES)
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        cwd=MODULE,
        env=go_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                yield last[-1]
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        said = "\n".join(last)
        raise BuildError(f"`go {command[1]}` failed:\n{said}")


def _empty(directory: Path) -> Path:
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir()
    return directory


@contextmanager
def _build_lock(directory: Path, on_progress: OnProgress) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(Progress("waiting", "another build to end"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    from lab.terminal import BuildReporter

    began = time.monotonic()
    try:
        with BuildReporter() as reporter:
            directory = build(reporter)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Kubernetes {kubernetes_version()} is built ({time.monotonic() - began:.0f} s): {directory}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
