"""The process that Lambda environments are forked from: it has imported what the functions' layer brings.

One JSON line asks for an environment, a line with its process id answers, and another tells how it ended. The child
becomes awslambdaric. It has one thread, because a fork copies no other; and it starts with `-P`, so that nothing of the
lab is on the path that functions import from.
"""

import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import sys
import time
import traceback
from typing import Any

LAYER = (
    "aws_lambda_powertools.logging",
    "aws_lambda_powertools.metrics",
    "boto3",
    "botocore.endpoint",
    "botocore.signers",
    "kubernetes.client.api_client",
    "pydantic",
    "redis",
    "simplejson",
)
"""The slow imports besides a function's own code. Not awslambdaric, which reads its variables while it is imported."""

SERVICES = ("autoscaling", "ec2", "eks", "elbv2", "s3")
"""Whose clients most functions make; the descriptions of these services are megabytes of JSON."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_LIBC = ctypes.CDLL(None)


def main(parent: int) -> None:
    """Serves requests on standard input until it ends."""
    _live_no_longer_than(parent)
    for module in LAYER:
        importlib.import_module(module)
    _read_descriptions()
    gc.freeze()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    selector = selectors.DefaultSelector()
    selector.register(wake_read, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    buffer = b""
    while True:
        for key, _ in selector.select():
            if key.fd == wake_read:
                os.read(wake_read, 4096)
                _bury()
                continue
            received = os.read(0, 1 << 20)
            if not received:
                return
            *lines, buffer = (buffer + received).split(b"\n")
            for line in lines:
                _say(started=_fork(json.loads(line)))


def _read_descriptions() -> None:
    """Reads what clients of AWS are made from, and keeps it: each process would read all of it anew."""
    boto3, loaders = importlib.import_module("boto3"), importlib.import_module("botocore.loaders")
    read = loaders.JSONFileLoader().load_file
    kept = functools.cache(read)
    loaders.JSONFileLoader.load_file = lambda _, path: kept(path)
    # With keys, none are looked for.
    session = boto3.session.Session("none", "none", region_name="us-east-1")
    for service in SERVICES:
        session.client(service)


def _fork(request: dict[str, Any]) -> int:
    parent = os.getpid()
    # The child must not run the parent's handler, nor wake its loop.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        _become(request, parent)
    # On both sides, so that whoever learns of the process may kill its group.
    os.setpgid(pid, pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return pid


def _become(request: dict[str, Any], parent: int) -> None:
    """The child's life; never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        _live_no_longer_than(parent)
        # What ps and top show: the step's name.
        _LIBC.prctl(_PR_SET_NAME, request["handler"].split(".")[-2].encode())
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        os.closerange(3, 64)
        os.environ.clear()
        os.environ.update(request["variables"])
        time.tzset()
        os.chdir(request["directory"])
        sys.path.insert(0, request["directory"])
        sys.pycache_prefix = request["variables"].get("PYTHONPYCACHEPREFIX")
        sys.argv[:] = ["awslambdaric", request["handler"]]
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (nothing may run on as a second copy of the parent)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not the interpreter's own end: that would run what the parent has registered.
        os._exit(status)


def _bury() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(ended=pid, status=os.waitstatus_to_exitcode(status))


def _say(**message: int) -> None:
    os.write(1, f"{json.dumps(message)}\n".encode())


def _live_no_longer_than(parent: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before the kernel was asked.
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
