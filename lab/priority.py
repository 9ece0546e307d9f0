"""Who goes first on a machine whose processors everything of a lab shares, and all else that runs on it.

A client that waits for a processor takes that for a server that does not answer. In an account clients have machines of
their own, so here they go first, where that is permitted: as root, outside of a container that forbids it. Servers,
functions and the control plane share the rest as before: what clients see of them is theirs.
"""

import subprocess
from collections.abc import Sequence

_FIRST = ("chrt", "--rr", "1")
"""util-linux, as what enters namespaces. The kernel leaves all others a twentieth of the time, whatever happens."""

_PROBE_SECONDS = 10


def going_first(command: Sequence[str]) -> list[str]:
    """The command line that runs `command`, and all that it starts, before whatever else has something to do; just
    `command` where that is not permitted."""
    return [*_FIRST, *command] if may_go_first() else list(command)


def may_go_first() -> bool:
    """Whether this user may have processes go first."""
    probe = subprocess.run([*_FIRST, "true"], capture_output=True, timeout=_PROBE_SECONDS, check=False)
    return probe.returncode == 0
