"""A cut between zones needs a packet filter, so tests that cut have a network of their own.

Such a test is started by another one, in another process: `run_inside`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

PRIVATE = "EKS_ROLLING_TEST_PRIVATE_NETWORK"

_NFT = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin") or "nft"
_FILTER = """table ip cut {{
  chain incoming {{
    type filter hook input priority 0
    ip saddr {{ {first} }} ip daddr {{ {second} }} drop
    ip saddr {{ {second} }} ip daddr {{ {first} }} drop
  }}
}}
"""


def is_private() -> bool:
    return PRIVATE in os.environ


def cut(first: Iterable[str], second: Iterable[str]) -> None:
    """Packets between the addresses vanish, as in a network that is cut: nothing is refused or reset."""
    table = _FILTER.format(first=", ".join(first), second=", ".join(second))
    subprocess.run([_NFT, "-f", "-"], input=table, text=True, check=True)


def heal() -> None:
    subprocess.run([_NFT, "delete", "table", "ip", "cut"], check=True)


def run_inside(file: str, test: str) -> None:
    """Runs that test of the file in a network of its own. Fails as an assertion unless it passes there."""
    inside = f"{Path(file).relative_to(Path.cwd())}::{test}"
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-n", "0", inside]
    script = 'ip link set lo up && exec "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", script, "sh", *command],
        env=os.environ | {PRIVATE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "1 passed" in done.stdout


def faults_cost_as_much(missing: int, lost_without_a_roll: Callable[[], int]) -> bool:
    """Whether the same fault, without a roll, costs about as many writes, at least one time of three: how many clients
    write into the void until they notice differs from run to run."""
    for _ in range(3):
        compared = lost_without_a_roll()
        print(f"lost: {missing}, without a roll {compared}")
        if missing <= compared * 1.2:
            return True
    return False
