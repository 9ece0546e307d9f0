"""What a lab needs of the machine beyond Python, and what to install where it is missing."""

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SYSTEM_PROGRAMS = "/usr/sbin:/sbin"
"""Where distributions keep `ip`, which is not on every user's PATH."""


@dataclass(frozen=True)
class Program:
    """A program, the Debian or Ubuntu package that has it, and what needs it (every lab, if nothing is named)."""

    name: str
    package: str
    needed_by: str | None = None
    """A part of the lab, or a kind of workload."""


PROGRAMS = (
    Program("unshare", "util-linux"),
    Program("nsenter", "util-linux"),
    Program("setpriv", "util-linux"),
    Program("chrt", "util-linux"),
    Program("ip", "iproute2"),
    Program("bwrap", "bubblewrap", needed_by="node-agent"),
    Program("redis-server", "redis-server", needed_by="redis"),
)


def search_path() -> str:
    """PATH, and the directories in which system programs lie."""
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PROGRAMS}"


def missing(needs: Collection[str], programs: Sequence[Program] = PROGRAMS) -> list[Program]:
    """The programs that this machine lacks and a lab with these parts and workloads needs."""
    needed = [program for program in programs if program.needed_by is None or program.needed_by in needs]
    return [program for program in needed if shutil.which(program.name, path=search_path()) is None]


def advice(absent: Sequence[Program]) -> str:
    """One sentence that says what is missing and how to install it."""
    names = ", ".join(program.name for program in absent)
    packages = " ".join(sorted({program.package for program in absent}))
    return f"this machine lacks {names}: `apt-get install {packages}`"
