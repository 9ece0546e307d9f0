"""`make layer`: builds the dependency layer into build/layer; says how large it is and how fast steps start with it.

Imports are measured with the same packages for this machine's processor (build/layer-here), each in a process of its
own, with the standard library and the layer alone. What counts is CPU time, the least of some runs: on a busy machine
the clock measures the others. On Lambda the layer's disk is read for the first time besides.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stacks import compiling, layer
from stacks.code import LEFT_OUT, PACKAGE

BUILD = Path(__file__).resolve().parent.parent / "build"
MEGABYTE = 1_000_000
LARGEST = 60 * MEGABYTE
SLOWEST = 0.5
RUNS = 3

IMPORT = """
import sys, time
sys.path[:0] = sys.argv[1].split(":")
begun = time.process_time()
for name in sys.argv[2:]:
    __import__(name)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(time.process_time() - begun, peak.split()[1])
"""

CLIENTS = ("eks_rolling.clients.aws", "eks_rolling.clients.eks")
"""What a step imports while Lambda starts it (lambdas/eks_rolling/runtime.py)."""


def main() -> int:
    """Builds, measures and prints; 1 if the layer or a step is over its goal, or cannot be imported."""
    console = Console()
    target = _built(BUILD / "layer" / "python", layer.PLATFORM)
    size = _size(target)
    console.print(_sizes(target, size))
    here = _built(BUILD / "layer-here", f"{platform.machine()}-manylinux_2_28")
    python = compiling.interpreter()
    if python is None:
        console.print(
            f"This machine has no Python {compiling.VERSION}: the layer is not compiled, and imports are not measured. "
            "To have one: uv python install 3.13"
        )
        return int(size > LARGEST)
    with tempfile.TemporaryDirectory() as directory:
        code = Path(directory)
        shutil.copytree(PACKAGE, code / PACKAGE.name, ignore=LEFT_OUT)
        compiling.compile_all(code)
        steps = sorted(p.stem for p in (PACKAGE / "steps").glob("*.py") if p.stem != "__init__")
        measured = {step: _import(python, code, here, f"eks_rolling.steps.{step}", *CLIENTS) for step in steps}
        redis = _import(python, code, here, "eks_rolling.steps.migrate_sentinel", *CLIENTS, "eks_rolling.clients.redis")
        for file in (*code.rglob("*.pyc"), *here.rglob("*.pyc")):
            file.unlink()
        bare = _import(python, code, here, "eks_rolling.steps.evict", *CLIENTS)
    console.print(_times(measured, redis, bare))
    slow = [step for step, (seconds, _) in measured.items() if seconds > SLOWEST]
    return int(size > LARGEST or bool(slow))


def _built(target: Path, system: str) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    layer.install(target, system)
    compiling.compile_all(target)
    return target


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _import(python: Path, code: Path, packages: Path, *modules: str) -> tuple[float, int]:
    """CPU seconds and megabytes of one process that imports the modules. Raises CalledProcessError if it cannot."""
    command = [str(python), "-I", "-S", "-B", "-c", IMPORT, f"{code}:{packages}", *modules]
    runs = []
    for _ in range(RUNS):
        seconds, kilobytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        runs.append((float(seconds), int(kilobytes) * 1024 // MEGABYTE))
    return min(runs)


def _sizes(target: Path, size: int) -> Table:
    archive = Path(shutil.make_archive(str(BUILD / "layer"), "zip", target.parent))
    table = Table(title=f"the layer: {size / MEGABYTE:.1f} MB, {archive.stat().st_size / MEGABYTE:.1f} MB zipped")
    table.add_column("package")
    table.add_column("MB", justify="right")
    parts = sorted(((_size(p) if p.is_dir() else p.stat().st_size, p.name) for p in target.iterdir()), reverse=True)
    for bytes_, name in parts[:12]:
        table.add_row(name, f"{bytes_ / MEGABYTE:.1f}")
    table.add_row(f"{len(parts) - 12} others", f"{sum(b for b, _ in parts[12:]) / MEGABYTE:.1f}")
    return table


def _times(measured: dict[str, tuple[float, int]], redis: tuple[float, int], bare: tuple[float, int]) -> Table:
    table = Table(title="a cold start's imports")
    table.add_column("step, with the AWS and Kubernetes clients")
    table.add_column("CPU s", justify="right")
    table.add_column("MB", justify="right")
    for step, (seconds, megabytes) in measured.items():
        table.add_row(step, f"{seconds:.2f}{' (over the goal)' if seconds > SLOWEST else ''}", str(megabytes))
    table.add_section()
    table.add_row("a step that speaks to Redis, with that client", f"{redis[0]:.2f}", str(redis[1]))
    table.add_row("evict, not compiled", f"{bare[0]:.2f}", str(bare[1]))
    return table


if __name__ == "__main__":
    sys.exit(main())
