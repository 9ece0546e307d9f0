"""`make dist`: builds the wheel and the sdist into dist/, checks them, and runs the wheel where nothing else is.

    python -m scripts.distribution [--python 3.13 ...]

The wheel is tried with each Python that `--python` names, by default those from 3.11 to 3.14 that are on this machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
OUTPUT = REPOSITORY / "dist"
BIN = Path(sys.executable).parent
UV = str(BIN / "uv")

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
"""The Pythons that the command runs on (pyproject.toml's requires-python)."""

NOT_FOUND = 4
"""The command's exit code where there is no cluster (`eks_rolling_cli.exits`)."""


NOWHERE = ("--region", "eu-central-1", "--endpoint-url", "http://127.0.0.1:9")
"""An address at which nothing answers."""

IMPORT_EVERYTHING = """
import importlib, pkgutil
for package in ("eks_rolling", "eks_rolling_cli", "eks_rolling_config"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
"""


class Bad(Exception):
    """The distribution is not fit to be published; the sentence says why."""


def top_level(wheel: Path) -> set[str]:
    """What a wheel puts beside all other packages, its own metadata left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for file in archive.namelist() if not (name := file.partition("/")[0]).endswith(".dist-info")}


def build(output: Path) -> tuple[Path, Path]:
    """The wheel and the sdist; the wheel is built from the sdist. Takes what builds it from this environment."""
    shutil.rmtree(output, ignore_errors=True)
    command = [UV, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(output)]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return next(output.glob("*.whl")), next(output.glob("*.tar.gz"))


def check(wheel: Path, sdist: Path) -> None:
    """What a package index would refuse, and names that are not ours to take. Raises Bad."""
    subprocess.run([str(BIN / "twine"), "check", "--strict", str(wheel), str(sdist)], check=True)
    foreign = {name for name in top_level(wheel) if not name.startswith("eks_rolling")}
    if foreign:
        raise Bad(f"the wheel installs {', '.join(sorted(foreign))}: only eks_rolling* is ours")


def run_in_empty_environment(wheel: Path, python: str) -> None:
    """Installs the wheel alone, with what it depends on and without, and runs its command. Raises Bad."""
    with tempfile.TemporaryDirectory(prefix="eks-rolling-dist-") as directory:
        complete, bare = Path(directory) / "complete", Path(directory) / "bare"
        _install(complete, python, str(wheel))
        _expect(complete, ["--version"], 0, wheel.name.split("-")[1])
        _expect(complete, ["--help"], 0, "Exit codes")
        _expect(complete, ["plan", "--cluster", "demo", *NOWHERE], NOT_FOUND, "error: ")
        subprocess.run([str(complete / "bin" / "python"), "-I", "-c", IMPORT_EVERYTHING], check=True)
        _install(bare, python, "--no-deps", str(wheel))
        _expect(bare, ["plan"], 1, "pipx install --force")


def _install(environment: Path, python: str, *arguments: str) -> None:
    subprocess.run([UV, "venv", "--quiet", "--python", python, str(environment)], check=True)
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), *arguments], check=True
    )


def _expect(environment: Path, arguments: list[str], code: int, text: str) -> None:
    """The command's exit code and what it must say, with no cluster, no AWS and no settings of this machine's."""
    own = {"PATH": os.defpath, "HOME": str(environment), "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    done = subprocess.run(
        [str(environment / "bin" / "eks-rolling"), *arguments],
        env=own, cwd=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    if done.returncode != code or text not in said or "Traceback" in said:
        raise Bad(
            f"eks-rolling {' '.join(arguments)} ended with {done.returncode}, not {code}, or without {text!r}:\n{said}"
        )


def interpreter(version: str) -> str:
    """Path of a Python of this version; empty where this machine has none."""
    beside = [Path(sys.executable), *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    named = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    for python in [*beside, *named]:
        asked = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return str(python)
    return ""


def try_with(version: str, wheel: Path, *, required: bool) -> None:
    """Tries the wheel with one version of Python. Raises Bad; also where this machine has none that is required."""
    python = interpreter(version)
    if python:
        run_in_empty_environment(wheel, python)
        print(f"Python {version}: installed into an empty environment, and it runs")
    elif required:
        raise Bad(f"this machine has no Python {version}")
    else:
        print(f"Python {version}: not tried, this machine has none")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", action="append", choices=VERSIONS, help="may be repeated")
    wanted = parser.parse_args().python
    try:
        wheel, sdist = build(OUTPUT)
        check(wheel, sdist)
        print(f"top level of {wheel.name}: {', '.join(sorted(top_level(wheel)))}")
        for version in wanted or VERSIONS:
            try_with(version, wheel, required=bool(wanted))
    except (Bad, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
