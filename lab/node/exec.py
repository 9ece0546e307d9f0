"""Running commands inside containers: what `kubectl exec` is to a cluster.

python -m lab.node.exec LAB NAMESPACE/POD[/CONTAINER] COMMAND...      inside the lab
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.node.mounts import in_container
from lab.paths import LabPaths


class NoSuchContainerError(Exception):
    """No container of that name runs."""


@dataclass(frozen=True)
class ContainerCommand:
    """A command for inside a container, to be run inside the lab."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


def write_pid(pod_directory: Path, container: str, pid: int) -> None:
    """Notes where a container runs, for `container_command`."""
    directory = pod_directory / "pids"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / container).write_text(str(pid))


def container_command(
    paths: LabPaths, namespace: str, pod: str, command: Sequence[str], container: str | None = None
) -> ContainerCommand:
    """`command` as it is to be run to run beside a container's own, the pod's first by name unless one is named.

    Raises NoSuchContainerError.
    """
    for pid_file in sorted(paths.pods.glob(f"{namespace}_{pod}_*/pids/{container or '*'}")):
        pid = int(pid_file.read_text())
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue  # it has ended
        pairs = (entry.partition("=") for entry in variables.decode(errors="replace").split("\0") if entry)
        return ContainerCommand(in_container(pid, command), {name: value for name, _, value in pairs})
    wanted = f" called {container}" if container else ""
    raise NoSuchContainerError(f"pod {namespace}/{pod} has no running container{wanted}")


def main() -> None:
    paths = LabPaths(Path(sys.argv[1]))
    namespace, pod, *container = sys.argv[2].split("/")
    try:
        found = container_command(paths, namespace, pod, sys.argv[3:], container[0] if container else None)
    except NoSuchContainerError as error:
        sys.exit(str(error))
    os.execve(found.arguments[0], list(found.arguments), dict(found.environment))  # noqa: S606 (becomes that program, on purpose)


if __name__ == "__main__":
    main()
