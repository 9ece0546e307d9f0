"""Compiling what functions import, before they run: Lambda's own disk is read-only, so what is not compiled beforehand
is compiled again at every cold start.

Bytecode is good for one minor version of Python, whatever the machine. So this needs a CPython of the functions' own
version: `python3.13` on PATH, or one that pyenv or uv installed (`uv python install 3.13` fetches one). Where there is
none, nothing is compiled, and that costs each cold start about a second on Lambda's usual share of a CPU (`make layer`
measures it); nothing else changes.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

VERSION = "3.13"


@cache
def interpreter() -> Path | None:
    """A CPython of the functions' version; None if this machine has none."""
    asks = "import sys; print(sys.implementation.name, *sys.version_info[:2], sep='.')"
    for candidate in _candidates():
        # A name on PATH may be a stub for a version that is not installed.
        answer = subprocess.run([candidate, "-I", "-c", asks], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == f"cpython.{VERSION}":
            return candidate
    return None


def _candidates() -> Iterator[Path]:
    name = f"python{VERSION}"
    for directory in os.get_exec_path():
        if found := shutil.which(name, path=directory):
            yield Path(found)
    home = Path.home()
    for pattern in (
        f".pyenv/versions/{VERSION}.*/bin/{name}",
        f".local/share/uv/python/cpython-{VERSION}.*/bin/{name}",
    ):
        yield from sorted(home.glob(pattern), reverse=True)


def compile_all(directory: Path) -> bool:
    """Compiles every module below the directory; False if this machine cannot.

    `unchecked-hash`: the modules are never compared with their sources again, whose times packing changes. Raises
    subprocess.CalledProcessError for a source that does not compile.
    """
    python = interpreter()
    if python is None:
        return False
    options = ["--invalidation-mode", "unchecked-hash", "-q", "-q", "-j", "0"]
    subprocess.run([python, "-I", "-m", "compileall", *options, directory], check=True)
    return True
