"""What a lab needs of the machine beyond Python, and what to install where it is missing."""

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SYSTEM_PROGRAMS = "/usr/sbin:/sbin"
"""Where distributions keep `ip`, which is not on every user's PATH."""


@dataclass(frozen=True)
class Program:
    """A program, the Debian or Ubuntu package that has it, and the part of the lab that needs it (None: all)."""

    name: str
    package: str
    part: str | None = None


PROGRAMS = (
    Program("unshare", "util-linux"),
    Program("nsenter", "util-linux"),
    Program("setpriv", "util-linux"),
    Program("ip", "iproute2"),
    Program("bwrap", "bubblewrap", part="node-agent"),
    Program("redis-server", "redis-server", part="node-agent"),
    Program("redis-sentinel", "redis-sentinel", part="node-agent"),
)


def search_path() -> str:
    """PATH, and the directories in which system programs lie."""
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PROGRAMS}"


def missing(parts: Collection[str], programs: Sequence[Program] = PROGRAMS) -> list[Program]:
    """The programs that these parts of a lab need and this machine lacks."""
    needed = [program for program in programs if program.part is None or program.part in parts]
    return [program for program in needed if shutil.which(program.name, path=search_path()) is None]


def advice(absent: Sequence[Program]) -> str:
    """One sentence that says what is missing and how to install it."""
    names = ", ".join(program.name for program in absent)
    packages = " ".join(sorted({program.package for program in absent}))
    return f"this machine lacks {names}: `apt-get install {packages}`"
