"""How the lab calls kubectl."""

from collections.abc import Iterable


def apply_command(files: Iterable[str], *options: str) -> list[str]:
    """Makes manifests so, whoever changed their objects before."""
    command = ["kubectl", "apply", "--server-side", "--force-conflicts", "--recursive", *options]
    return [*command, *(f"--filename={file}" for file in files)]
