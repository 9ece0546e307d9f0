"""Every finding is in the documents, with what it does; and the documents have no other."""

import ast
import re
from pathlib import Path

from eks_rolling.documents.finding import Severity
from eks_rolling.plan.checks import ACCEPTABLE
from eks_rolling.plan.placement import Cause

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SEVERITIES = {"blocks", "holds", "note"}
TABLED = re.compile(r"^\| ([a-z, -]+) \| ((?:blocks|holds|note)[a-z, *]*) \|", re.MULTILINE)


def documented() -> dict[str, set[str]]:
    """Code -> severities, and "*" for what can be accepted."""
    found = {}
    for codes, what in TABLED.findall((REPOSITORY / "docs" / "plan.md").read_text()):
        for code in codes.split(", "):
            found[code] = set(what.replace(",", " ").split())
    return found


def made() -> dict[str, set[str]]:
    """What the code makes: calls of blocks, holds, note and Finding whose code is written out."""
    found: dict[str, set[str]] = {}
    folder = REPOSITORY / "lambdas" / "eks_rolling" / "plan" / "checks"
    files = sorted(folder.glob("*.py"))
    for call in (n for f in files for n in ast.walk(ast.parse(f.read_text())) if isinstance(n, ast.Call)):
        match call:
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(code)), *_]) if name in SEVERITIES:
                found.setdefault(code, set()).add(name)
            case ast.Call(
                func=ast.Name(id="Finding"), keywords=[ast.keyword("code", ast.Constant(str(code))), said, *_]
            ):
                severities = {n.attr.lower() for n in ast.walk(said.value) if isinstance(n, ast.Attribute)} & SEVERITIES
                found.setdefault(code, set()).update(severities)
    return found | {cause.value: {"blocks"} for cause in Cause}


def test_the_documents_have_every_finding_and_what_it_does() -> None:
    suspended = {"launch-suspended": {"blocks"}, "terminate-suspended": {"blocks"}}
    wanted = {code: what | ({"*"} if code in ACCEPTABLE else set()) for code, what in (made() | suspended).items()}
    assert documented() == wanted
    assert set(Severity) == SEVERITIES


def test_what_can_be_accepted_is_a_finding() -> None:
    assert set(made()) >= ACCEPTABLE
