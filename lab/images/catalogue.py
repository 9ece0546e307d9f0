"""Image names as manifests have them, and the command each stands for on this machine."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from lab.paths import REPOSITORY

_IMAGES = REPOSITORY / "lab" / "images"


class UnknownImageError(Exception):
    """No image of the lab has this name."""


@dataclass(frozen=True)
class Image:
    """What runs for a container that names neither command nor args, and how those replace it."""

    name: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_directory: str = "/"
    programs: str | None = None
    """A directory whose programs come before the machine's."""
    takes_options: str | None = None
    """The program that args go to when the first of them is an option or a configuration file: what an image's
    entrypoint script does."""

    def command_line(self, command: Sequence[str], args: Sequence[str]) -> list[str]:
        """The process's arguments: `command` replaces entrypoint and cmd, `args` the cmd alone."""
        if command:
            return [*command, *args]
        rest = list(args) or list(self.cmd)
        if self.takes_options and rest and (rest[0].startswith("-") or rest[0].endswith(".conf")):
            rest.insert(0, self.takes_options)
        return [*self.entrypoint, *rest]


def _python(module: str) -> tuple[str, ...]:
    """Isolated and without site-packages: these programs need the standard library only and start twice as fast."""
    return (sys.executable, "-I", "-S", "-u", str(_IMAGES / f"{module}.py"))


def _redis(name: str, program: str) -> Image:
    return Image(
        name, cmd=(program,), takes_options=program, working_directory="/data", programs=str(_IMAGES / "redis")
    )


_CATALOGUE = {
    image.name: image
    for image in (
        Image("web", entrypoint=_python("web")),
        Image("worker", entrypoint=_python("worker")),
        Image("controller", entrypoint=_python("controller")),
        Image("cluster-autoscaler", entrypoint=_python("autoscaler")),
        # As its container's first process a program that handles no SIGTERM would sit out the whole grace period.
        Image("pause", entrypoint=("sh", "-c", 'trap "exit 0" TERM INT; sleep infinity & wait')),
        Image("busybox", cmd=("sh",)),
        _redis("redis", "redis-server"),
        _redis("redis-sentinel", "redis-sentinel"),
    )
}


def short_name(reference: str) -> str:
    """The last part of an image's name, without registry, tag and digest."""
    return reference.partition("@")[0].rpartition("/")[2].partition(":")[0]


def find_image(reference: str) -> Image:
    """The image that a manifest means, whatever its registry and tag. Raises UnknownImageError."""
    try:
        return _CATALOGUE[short_name(reference)]
    except KeyError:
        known = ", ".join(sorted(_CATALOGUE))
        raise UnknownImageError(f"the lab has no image {short_name(reference)!r}; it has {known}") from None
