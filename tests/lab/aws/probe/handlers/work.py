"""What a node of the probe does: it behaves as its name says."""

import os
import sys
import time
from pathlib import Path
from typing import Any


class Transient(Exception):
    """Worth trying again."""


class Permanent(Exception):
    """Not worth trying again."""


def _first_time(node: str) -> bool:
    """Whether no process has seen the node yet."""
    try:
        Path(os.environ["LAMBDA_TASK_ROOT"], f".{node}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Is done in the second round, unless the node's name asks for something else."""
    node = str(event["node"])
    match node.split("-")[0]:
        case "flaky" if _first_time(node):
            raise Transient(f"{node} needs another try")
        case "broken":
            raise Permanent(f'{node} is "broken"')
        case "slow":
            time.sleep(60)
        case "crash":
            os._exit(3)
        case "greedy":
            hoard = bytearray(os.urandom(1024) * 1024 * 512)
            return {"status": "done", "size": len(hoard)}
        case "quick":
            return {"status": "done"}
        case "nap":
            time.sleep(0.25)
        case "whoami":
            return {
                "status": "done",
                "pid": os.getpid(),
                "function": context.function_name,
                "memory": context.memory_limit_in_mb,
                "remaining_ms": context.get_remaining_time_in_millis(),
                "variables": {name: os.environ.get(name) for name in ("GREETING", "AWS_REGION", "AWS_ENDPOINT_URL")},
                "path": [entry for entry in sys.path if entry.endswith("lab/aws")],
            }
    if event["round"] < 1:
        return {"status": "wait", "wait_seconds": 1, "reason": "the first round never is enough"}
    return {"status": "done"}
