"""What is kept of a failed test, to see why it failed: build/failures/TIME-TEST has it, and the output names it.

The test's report and output, the seed, the machine's load before and after, what else ran, and the logs of every lab
that this process had at the time.
"""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parent.parent / "build" / "failures"
LONGEST_LOG = 2_000_000
"""Bytes, from the end, of a log."""

_began: dict[str, tuple[float, tuple[float, float, float]]] = {}


def begin(item: pytest.Item) -> None:
    """Notes when the test began, and how busy the machine was."""
    _began[item.nodeid] = (time.time(), os.getloadavg())


def keep(item: pytest.Item, report: pytest.TestReport) -> Path:
    """Writes the folder of a test that failed."""
    now = time.time()
    name = re.sub(r"[^\w.-]+", "-", item.nodeid.rpartition("/")[2])[:100].strip("-")
    folder = DIRECTORY / f"{time.strftime('%H%M%S', time.gmtime(now))}-{name}-{report.when}"
    folder.mkdir(parents=True, exist_ok=True)
    began, load = _began.get(item.nodeid, (now, os.getloadavg()))
    about = {
        "test": item.nodeid, "failed in": report.when, "began": began, "ended": now,
        "seed": item.config.option.sample_seed, "scope": item.config.option.scope,
        "worker": os.environ.get("PYTEST_XDIST_WORKER", "alone"),
        "load before": load, "load after": os.getloadavg(), "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about, indent=1))
    sections = [f"--- {title}\n{text}" for title, text in report.sections]
    (folder / "report.txt").write_text("\n".join([report.longreprtext, *sections]))
    running = subprocess.run(
        ["ps", "-eo", "pcpu,etimes,args", "--sort=-pcpu"], capture_output=True, text=True, check=False
    )
    (folder / "processes.txt").write_text("\n".join(line[:200] for line in running.stdout.splitlines()[:60]))
    for logs in labs_logs(item.config):
        _copy(logs, folder / "logs" / logs.parent.name)
    return folder


def labs_logs(config: pytest.Config) -> list[Path]:
    """The folders of logs of this process's labs, whatever fixture or test started them."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is None:
        return []
    found = {p.resolve() for depth in ("*/logs", "*/*/logs", "*/*/*/logs") for p in factory.getbasetemp().glob(depth)}
    return sorted(p for p in found if p.is_dir())


def _copy(logs: Path, to: Path) -> None:
    for file in logs.rglob("*"):
        if not file.is_file():
            continue
        target = to / file.relative_to(logs)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.stat().st_size <= LONGEST_LOG:
            shutil.copy(file, target)
            continue
        with file.open("rb") as log:
            log.seek(-LONGEST_LOG, os.SEEK_END)
            target.write_bytes(log.read())
