"""The list of corrections to moto, and how each is put in its place."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

CORRECTIONS: dict[str, Callable[[], None]] = {}


def correction(install: Callable[[], None]) -> Callable[[], None]:
    """Registers `install` under its own name. Its docstring says what AWS does and moto does not."""
    CORRECTIONS[install.__name__] = install
    return install


def apply(without: Collection[str] = ()) -> None:
    """Puts every correction in place, once per process.

    `without` leaves some out: the tests show with it that each of them is still needed. Raises KeyError for a name that
    is no correction, AttributeError when the installed moto no longer has what a correction replaces.
    """
    unknown = set(without) - set(CORRECTIONS)
    if unknown:
        raise KeyError(f"no such corrections: {sorted(unknown)}")
    for name, install in CORRECTIONS.items():
        if name not in without:
            install()


def around(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Replaces the function `owner.name` by `replacement(original, *args, **kwargs)`."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    bound = isinstance(inspect.getattr_static(owner, name), classmethod | staticmethod)
    setattr(owner, name, staticmethod(replaced) if bound else replaced)


def replace(owner: Any, name: str, value: Any) -> None:
    """Replaces `owner.name`, which must exist."""
    getattr(owner, name)
    setattr(owner, name, value)
