"""What a node of the probe does: it behaves as its name says."""

import os
import sys
import time
from typing import Any


class Transient(Exception):  # noqa: N818 (the state machine's own name for it)
    """Worth trying again."""


class Permanent(Exception):  # noqa: N818
    """Not worth trying again."""


_seen: set[str] = set()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Is done in the second round, unless the node's name asks for something else."""
    node = str(event["node"])
    match node.split("-")[0]:
        case "flaky" if node not in _seen:
            _seen.add(node)
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
            time.sleep(0.4)
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
