"""Namespaces of a lab: how they are made and how a command gets into them (util-linux: unshare, nsenter, setpriv).

As an ordinary user a lab needs a user namespace, in which that user is root. Where the kernel refuses those, root can
do without.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PROBE_SECONDS = 10


class NamespaceError(Exception):
    """This machine lets this user make no namespaces; the message says what helps."""


def create_command(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` as the first process of new namespaces.

    It waits for it, and passes on its exit code. If it is killed, so is `command`, and with it all that runs inside.
    Raises NamespaceError.
    """
    options = ["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    if _works(["--user", "--map-root-user", *options]):
        options = ["--user", "--map-root-user", *options]
    elif os.geteuid() != 0 or not _works(options):
        raise NamespaceError(remedy())
    return ["unshare", *options, "--", *command]


def enter_command(pid: int, command: Sequence[str], *, directory: Path | None = None) -> list[str]:
    """The command line that runs `command` in the namespaces of process `pid`, and passes on its exit code.

    If the waiting process outside is killed, `command` is too. `directory` is where it runs, by default here.
    """
    namespaces = ["--net", "--pid", "--mount"]
    if Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink():
        namespaces.append("--user")
    return [
        "nsenter", f"--target={pid}", *namespaces, "--preserve-credentials", "--",
        "setpriv", "--pdeathsig", "KILL", "--",
        "env", f"--chdir={directory or Path.cwd()}", *command,
    ]  # fmt: skip


def _works(options: Sequence[str]) -> bool:
    probe = subprocess.run(
        ["unshare", *options, "--", "true"], capture_output=True, timeout=_PROBE_SECONDS, check=False
    )
    return probe.returncode == 0


def remedy(sysctls: Path = Path("/proc/sys")) -> str:
    """One sentence: why there are no user namespaces, and what to do about it."""
    why = "this machine lets this user make no user namespaces, which the lab needs"
    if _sysctl(sysctls, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        setting = "kernel.apparmor_restrict_unprivileged_userns=0"
        return f"{why}: AppArmor restricts them; allow them with `sudo sysctl -w {setting}`, or run the lab as root"
    if _sysctl(sysctls, "kernel/unprivileged_userns_clone") == "0":
        return f"{why}: allow them with `sudo sysctl -w kernel.unprivileged_userns_clone=1`, or run the lab as root"
    if _sysctl(sysctls, "user/max_user_namespaces") == "0":
        return f"{why}: allow them with `sudo sysctl -w user.max_user_namespaces=10000`, or run the lab as root"
    return (
        f"{why}, perhaps because a container confines it: run it there with the capability SYS_ADMIN, "
        "an unmasked /proc and no seccomp profile, or outside of the container"
    )


def _sysctl(sysctls: Path, name: str) -> str | None:
    try:
        return (sysctls / name).read_text().strip()
    except FileNotFoundError:
        return None
