"""Exit codes, and errors that are one sentence."""

from enum import IntEnum

from eks_rolling.errors import AccessDenied, BadRequest, LockLost, NotFound, Refused, Transient


class Exit(IntEnum):
    """What the command's exit code means; `docs/command.md` and `--help` say the same."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    BLOCKED = 3
    NOT_FOUND = 4
    DENIED = 5
    INTERRUPTED = 130


MEANINGS = {
    Exit.FINE: "success",
    Exit.FAILED: "the roll failed, or something is wrong that the output names",
    Exit.USAGE: "the command line or the request is wrong",
    Exit.BLOCKED: "the plan is blocked, or the request is refused",
    Exit.NOT_FOUND: "something is not there or cannot be reached",
    Exit.DENIED: "access is denied",
    Exit.INTERRUPTED: "interrupted, its output was closed, or answered with no",
}


CODES = {
    BadRequest: Exit.USAGE,
    Refused: Exit.BLOCKED,
    LockLost: Exit.BLOCKED,
    AccessDenied: Exit.DENIED,
    NotFound: Exit.NOT_FOUND,
    Transient: Exit.NOT_FOUND,
}
"""Fault -> exit code; faults of other classes are failures."""


class CommandError(Exception):
    """Ends the command: a sentence for people, with what to do, and the exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def exit_for(error: Exception) -> Exit:
    """The exit code of a fault, by its class."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), Exit.FAILED)


def missing_package(error: ImportError) -> str:
    """A sentence for a package that is not installed; empty where the fault is another, such as a module of ours."""
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not name or name.startswith("eks_rolling"):
        return ""
    return (
        f"eks-rolling was installed without its dependencies: the Python package {name} is missing. "
        "Install it with them: `pipx install --force .` in a clone of its repository, or `pipx install --force FILE` "
        "with its wheel."
    )
