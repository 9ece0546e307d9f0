"""Plants faults, one at a time, in a copy of the repository: `python -m tests.planted [PART OF A NAME...]`.

Scopes lie in each other: what `make quick` finds, `make test` and `make test-all` find too. So the quick one is tried
first, and a larger one only where it finds nothing. Tests of which `make quick` and `make test` draw samples do not
count there: whether they find a fault is luck. Exits 1 if a fault is found by none, or by `make test-all` alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.planted.faults import FAULTS, Fault
from tests.scope import ALL, QUICK, TEST

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WITHOUT_LABS = ("tests/unit", "tests/model", "tests/stacks", "tests/hostile")
MAKE = {QUICK: "make quick", TEST: "make test", ALL: "make test-all"}


@dataclass(frozen=True)
class Found:
    """The smallest suite that finds a fault, and the first test of it that does; "" if none does."""

    suite: str
    test: str = ""


def copy_to(directory: Path) -> Path:
    """The repository's files, as they are now, without what is made from them."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name)
    for made in (".venv", "node_modules"):
        (directory / made).symlink_to(REPOSITORY / made)
    return directory


def plant(fault: Fault, copy: Path) -> None:
    """Raises ValueError where the product has changed so that the fault has no place any more."""
    file = copy / fault.file
    text = file.read_text()
    if text.count(fault.right) != 1:
        raise ValueError(f"{fault.name}: {fault.file} has {text.count(fault.right)} times: {fault.right}")
    file.write_text(text.replace(fault.right, fault.wrong))


def failure(fault: Fault, copy: Path, scope: str) -> str:
    """The first test of that scope that fails with the fault, whatever is drawn; "" if none does."""
    paths = [f"tests/{test}" for test in fault.tests]
    if scope == QUICK:
        paths = [path for path in paths if path.startswith(WITHOUT_LABS)]
    undrawn = () if scope == ALL else ("-m", "not drawn")
    environment = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'lambdas'}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=no", "--exitfirst", "-p", "no:cacheprovider", f"--scope={scope}",
         "--sample-seed=1", *undrawn, *paths],
        cwd=copy, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # 5: all of them are drawn.
    if done.returncode not in {0, 1, 5}:
        raise RuntimeError(f"{fault.name}: pytest could not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    # Without the parameters, which may have spaces.
    first = re.search(r"^(?:FAILED|ERROR) ([^\s\[]+)", done.stdout, re.MULTILINE)
    return first[1] if first else ""


def find(fault: Fault) -> Found:
    with tempfile.TemporaryDirectory(prefix="planted-") as directory:
        copy = copy_to(Path(directory))
        plant(fault, copy)
        for scope in (QUICK, TEST, ALL):
            if test := failure(fault, copy, scope):
                return Found(MAKE[scope], test)
    return Found("")


def main() -> int:
    wanted = [f for f in FAULTS if not sys.argv[1:] or any(part in f.name for part in sys.argv[1:])]
    table = Table("fault", "breaks", "found by", "by, first")
    fine = True
    for fault in wanted:
        try:
            found = find(fault)
        except ValueError as gone:
            # The others are tried all the same.
            found = Found(f"no place: {gone}")
        fine = fine and found.suite in {MAKE[QUICK], MAKE[TEST]}
        print(f"{fault.name}: {found.suite or 'NOT FOUND'} {found.test}", flush=True)
        table.add_row(fault.name, fault.breaks, found.suite or "nothing", found.test)
    Console(width=200).print(table)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
