"""A person at a terminal of a lab: types a line, says yes when asked, and reads what comes."""

import os
import pty
import select
import termios
import time
from typing import TYPE_CHECKING

from lab.operator import Operator
from tests.e2e.conftest import REPOSITORY
from tests.waiting import patience

if TYPE_CHECKING:
    import subprocess

COLUMNS = 80
QUESTION = b"[y/N]"


def typed_at_terminal(operator: Operator, line: str, *, within_seconds: float = 400.0) -> tuple[int, str]:
    """The line's exit code and all that it wrote, on a terminal of 80 columns; every question is answered with yes.

    Fails as an assertion if it does not end in time.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, COLUMNS))
    process = operator.lab.popen(
        ["sh", "-c", line], cwd=REPOSITORY, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        said = _read(ours, process, patience(within_seconds), line)
    finally:
        process.kill()
        os.close(ours)
    text = said.decode(errors="replace")
    print("$", line, "\n", text, "\nexit code", process.returncode)
    return process.returncode, text


def _read(terminal: int, process: "subprocess.Popen[str]", seconds: float, line: str) -> bytes:
    said, answered, deadline = b"", 0, time.monotonic() + seconds
    while True:
        assert time.monotonic() < deadline, f"{line} does not end: {said[-2000:]!r}"
        readable, _, _ = select.select([terminal], [], [], 0.2)
        more = b""
        if readable:
            try:
                more = os.read(terminal, 65536)
            except OSError:
                # Nobody has the other end any more.
                more = b""
            said += more
        if said.count(QUESTION) > answered:
            answered += 1
            os.write(terminal, b"y\n")
        if process.poll() is not None and not readable:
            return said
        if readable and not more:
            process.wait(30)
            return said
