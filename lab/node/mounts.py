"""The command line that gives a container its own view of the machine's files (bubblewrap). Nearly pure: looks at the
machine's directories, changes nothing."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from lab.paths import REPOSITORY

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt")
# Of /etc only what programs need: containers get files of their own there, and see no keys of the machine.
_ETC = (
    "alternatives", "ca-certificates", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "mime.types", "nsswitch.conf", "passwd", "pki", "protocols", "services", "ssl", "timezone",
)  # fmt: skip
# What container runtimes leave to a root process by default.
_CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip


@dataclass(frozen=True)
class Mount:
    """A host file or directory, seen in the container at `target`."""

    source: Path
    target: str
    read_only: bool = False


def bubblewrap(
    command: Sequence[str],
    *,
    mounts: Sequence[Mount],
    hostname: str,
    working_directory: str,
    info_fd: int,
    gate_fd: int,
) -> list[str]:
    """Runs `command` as the first process of a container.

    It tells its process id, as JSON, on `info_fd`, and waits until something comes on `gate_fd`.
    """
    arguments = [
        _program("bwrap"), "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--die-with-parent",
        "--hostname", hostname, "--cap-drop", "ALL",
        "--info-fd", str(info_fd), "--block-fd", str(gate_fd),
        *(argument for capability in _CAPABILITIES for argument in ("--cap-add", capability)),
        "--tmpfs", "/", *_machine(),
        "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys",
        "--tmpfs", "/tmp", "--tmpfs", "/run", "--dir", "/root", "--symlink", "../run", "/var/run",  # noqa: S108 (the container's own)
    ]  # fmt: skip
    arguments += _program_files()
    # Outer directories first, so that a mount inside another volume lies on top of it.
    for mount in sorted(mounts, key=lambda m: PurePosixPath(m.target).parts):
        arguments += _room_for(mount.target)
        arguments += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), mount.target]
    return [*arguments, "--dir", working_directory, "--chdir", working_directory, "--", *command]


def in_network(namespace: Path | None, command: Sequence[str]) -> list[str]:
    """Runs `command` in a pod's network namespace, as the same process; None is the lab's own."""
    return [_program("nsenter"), f"--net={namespace}", *command] if namespace else [*command]


def in_container(process: int, command: Sequence[str]) -> list[str]:
    """Runs `command` beside a container's first process, in all of its namespaces."""
    return [_program("nsenter"), "-t", str(process), "-m", "-u", "-i", "-n", "-p", "--", *command]


@cache
def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; the lab's containers need it")
    return found


@cache
def _machine() -> tuple[str, ...]:
    """The machine's programs and libraries, read-only."""
    arguments: list[str] = []
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for path in (Path("/etc") / name for name in _ETC):
        if path.exists():
            arguments += ["--ro-bind", str(path), str(path)]
    return tuple(arguments)


@cache
def _program_files() -> tuple[str, ...]:
    """The lab's interpreter and code, where they are not among the machine's programs."""
    places = {Path(sys.prefix), Path(sys.base_prefix), REPOSITORY / "lab"}
    # A virtual environment may be reached through links: the program names the link, the link its target.
    places |= {place.resolve() for place in places} | {Path(sys.executable).resolve().parent.parent}
    arguments: list[str] = []
    for place in sorted(places):
        if place != Path("/") and not place.is_relative_to("/usr"):
            arguments += ["--ro-bind", str(place), str(place)]
    return tuple(arguments)


def _room_for(target: str) -> Iterator[str]:
    """Makes a directory of the machine writable enough to hold a mount point: a copy of it, made of mounts.

    Needed where `target` is missing below a read-only directory, e.g. /usr/local/etc/redis.
    """
    path = Path(target)
    if path.exists() or not any(path.is_relative_to(place) for place in _SYSTEM):
        return
    nearest = next(parent for parent in path.parents if parent.is_dir())
    yield from ("--tmpfs", str(nearest))
    for entry in sorted(os.scandir(nearest), key=lambda entry: entry.name):
        if entry.is_symlink():
            yield from ("--symlink", str(Path(entry.path).readlink()), entry.path)
        else:
            yield from ("--ro-bind", entry.path, entry.path)
