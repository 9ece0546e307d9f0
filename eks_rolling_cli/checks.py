"""Checks: each is one line, whatever the others found, with what to do."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from rich.console import Group, RenderableType
from rich.text import Text

from eks_rolling_cli.exits import CommandError
from eks_rolling_cli.listing import Fitted, advice, folded, indented
from eks_rolling_cli.target import Target


class Health(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


STYLES = {Health.OK: "green", Health.WARN: "yellow", Health.FAIL: "bold red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was checked, its state, and what to do if it is not well."""

    name: str
    health: Health
    said: str
    remedy: str = ""


class Unwell(Exception):
    """A check that found something: how bad it is, and what to do."""

    def __init__(self, said: str, remedy: str, health: Health = Health.FAIL) -> None:
        super().__init__(said)
        self.remedy = remedy
        self.health = health


Look = Callable[[Target], str]
"""Answers what is well; raises Unwell, or whatever the clients raise."""


def run_checks(target: Target, checks: dict[str, Look], first: str = "") -> Iterator[Check]:
    """Every check, whatever the others found; none after `first` if that fails."""
    for name, look in checks.items():
        check = _checked(name, look, target)
        yield check
        if name == first and check.health is Health.FAIL:
            return


def _checked(name: str, look: Look, target: Target) -> Check:
    from botocore.exceptions import BotoCoreError, ClientError

    from eks_rolling.clients.aws import SIGN_IN, sort_of
    from eks_rolling.clients.aws_errors import Sort
    from eks_rolling.errors import RollError, sentence

    try:
        return Check(name, Health.OK, look(target))
    except Unwell as found:
        return Check(name, found.health, str(found), found.remedy)
    except (CommandError, RollError) as error:
        return Check(name, Health.FAIL, _first_sentence(sentence(error)), _rest(str(error)))
    except SIGN_IN as error:
        return Check(name, Health.FAIL, f"cannot be checked: {str(error).rstrip('.')}", "sign in to AWS again")
    except (BotoCoreError, ClientError) as error:
        sort = sort_of(error) if isinstance(error, ClientError) else Sort.TRANSIENT
        if sort is Sort.GONE:
            return Check(name, Health.FAIL, f"it is gone: {error}", "deploy the stack again: npx cdk deploy --all")
        if sort is Sort.TRANSIENT:
            return Check(name, Health.WARN, f"cannot be checked now: {error}", "try again in a moment")
        return Check(name, Health.WARN, f"cannot be checked: {error}", "ask for the permission to see it")


def _first_sentence(text: str) -> str:
    return text.removeprefix("CommandError: ").partition(". ")[0].rstrip(".")


def _rest(text: str) -> str:
    return " ".join(text.split()).partition(". ")[2].rstrip(".")


NAMES = 16
"""Columns for the names of checks."""


def drawn(checks: Iterable[Check]) -> RenderableType:
    """The checks as people read them."""
    listed = list(checks)
    return Group(*(part for check in listed for part in _lines(check)))


def _lines(check: Check) -> Iterator[RenderableType]:
    health = f"{check.health:<5}"
    named = Text.assemble((health, STYLES[check.health]), f"{check.name:<{NAMES + 1}}")
    indent = len(named.plain)

    def draw(width: int) -> RenderableType:
        first, *rest = folded(Text(check.said), max(20, width - indent)) or [Text()]
        return Group(named + first, *(indented(line, indent) for line in rest))

    yield Fitted(draw)
    if check.remedy:
        yield advice(check.remedy, indent)
