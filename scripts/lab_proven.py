"""Whether the lab is the one that its tests last passed on: `python -m scripts.lab_proven [--record]`.

What the lab's tests depend on is hashed by content: the lab with its control plane, its tests, the harness by which
they reach it and judge, and the locked packages. A green `make test-lab` records the hash in tests/lab/proven.sha256,
and that file is committed. Exits 0 if the hash is the recorded one, and 1, saying so, if the lab is to be proven again.
"""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROVEN = REPOSITORY / "tests" / "lab" / "proven.sha256"
HARNESS = ("__init__", "aws_lab", "aws_standin", "blocking_kube", "cluster", "conftest", "fake_kubelet", "lab_fixtures",
           "node_lab", "waiting")  # fmt: skip
"""Modules of tests/ that tests of the lab use. Not those that say which tests run, and what is kept of failed ones."""

SOURCES = ("lab", "tests/lab", *(f"tests/{name}.py" for name in HARNESS), "requirements.txt", "package-lock.json")
IGNORED = {"__pycache__", PROVEN.name}


def sources(root: Path = REPOSITORY) -> list[Path]:
    """Every file that the lab's tests depend on, in order."""
    found: set[Path] = set()
    for pattern in SOURCES:
        for path in root.glob(pattern):
            found.update(f for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file())
    return sorted(f for f in found if not IGNORED & set(f.relative_to(root).parts))


def digest(files: Iterable[Path], root: Path = REPOSITORY) -> str:
    """One hash of names and contents."""
    told = hashlib.sha256()
    for file in files:
        told.update(f"{file.relative_to(root).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return told.hexdigest()


def main() -> int:
    now = digest(sources())
    if "--record" in sys.argv:
        PROVEN.write_text(f"{now}\n")
        print(f"The lab is proven; commit {PROVEN.relative_to(REPOSITORY)}.")
        return 0
    if PROVEN.exists() and PROVEN.read_text().strip() == now:
        print("The lab has not changed since its tests last passed.")
        return 0
    print("The lab, or what its tests depend on, has changed since they last passed.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
