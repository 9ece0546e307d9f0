"""What a Lambda environment's process runs first: it ties its life to the AWS server's, then becomes awslambdaric.

Started as a script, so that nothing of the lab is on the path that the function imports from.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
PARENT = "LAB_PARENT_PROCESS"


def main() -> None:
    """Runs awslambdaric with this script's arguments, in a process that the kernel kills when its parent ends."""
    parent = int(os.environ.pop(PARENT))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before the kernel was asked.
        os._exit(1)
    sys.path[0] = os.environ["LAMBDA_TASK_ROOT"]
    sys.argv[0] = "awslambdaric"
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
