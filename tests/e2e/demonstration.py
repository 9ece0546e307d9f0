"""`make demo`, as the tests of whole clusters run it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.paths import REPOSITORY


def demonstrated(directory: Path, cluster: str) -> tuple[int, dict[str, Any], str]:
    """Runs the demo of a cluster with its lab in `directory`: its exit code, its result file, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "lab", "demo", "--cluster", cluster, "--no-tty"],
        cwd=REPOSITORY,
        env=os.environ | {"EKS_ROLLING_LABS": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done.returncode, json.loads((directory / cluster / "result.json").read_text()), done.stdout
