"""What the pages tell people to type is there: commands with their options, and make's targets."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperArgument, TyperGroup

from eks_rolling_cli.app import app
from lab.__main__ import app as lab_app
from lab.paths import REPOSITORY

PAGES = sorted(
    page
    for page in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("deploy/*.md"))
    if page.name != "CHANGELOG.md"
)
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]

FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def lines_to_type(page: Path) -> Iterator[str]:
    """Every line of a block, and everything in backticks."""
    text = page.read_text()
    for block in FENCE.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from QUOTED.findall(FENCE.sub("", text))


def words_after(command: str, line: str) -> list[str] | None:
    """The words behind a command that stands in a line, up to what the shell would end it at; None if it does not."""
    begun = re.search(rf"(?:^\s*|/|-- ){re.escape(command)}(?= |$)", line.partition("#")[0])
    if begun is None:
        return None
    rest = re.split(r"\s#|[;|]|&&", line[begun.end() :])[0]
    return shlex.split(rest)


def unknown(words: list[str], program: typer.Typer) -> str:
    """What the program's parser would not take of these words; "" for nothing. A page may leave out what it needs."""
    known = typer.main.get_command(program)
    if words[0].startswith("-"):
        general = {opt for param in known.params for opt in param.opts}
        return "" if words[0] in general | {"-h", "--help", "--install-completion"} else words[0]
    command = known.commands.get(words[0]) if isinstance(known, TyperGroup) else None
    if command is None:
        return words[0]
    options = {opt: param for param in command.params for opt in (*param.opts, *param.secondary_opts)}
    places = [param for param in command.params if isinstance(param, TyperArgument)]
    rest, given = list(words[1:]), 0
    while rest:
        word = rest.pop(0)
        if word == "--":
            # What follows is another program's.
            return ""
        if not word.startswith("-"):
            given += 1
        elif (name := word.partition("=")[0]) in {"-h", "--help"}:
            continue
        elif name not in options:
            return word
        elif "=" not in word and not getattr(options[name], "is_flag", False) and not (rest and rest.pop(0)):
            return f"{word} without a value"
        if given > len(places):
            return word
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one_that_the_parser_knows(name: str) -> None:
    wrong = []
    for line in lines_to_type(REPOSITORY / name):
        for command, program in (("eks-rolling", app), ("python -m lab", lab_app)):
            words = words_after(command, line)
            if words and re.match(r"[a-z-]", words[0]) and (fault := unknown(words, program)):
                wrong.append(f"{line.strip()}: {fault}")
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("eks-rolling roll-all", "roll-all"),
        ("eks-rolling plan --nodes a", "--nodes"),
        ("eks-rolling abort --reason", "--reason without a value"),
        ("eks-rolling pause roll-1 roll-2", "roll-2"),
        ("eks-rolling report roll-1 --open", ""),
    ],
)
def test_what_no_parser_knows_is_found(line: str, fault: str) -> None:
    assert unknown(words_after("eks-rolling", line) or [], app) == fault


@pytest.mark.parametrize("name", NAMES)
def test_every_target_of_make_is_there(name: str) -> None:
    targets = set(TARGET.findall((REPOSITORY / "Makefile").read_text()))
    lines = (line for line in lines_to_type(REPOSITORY / name) if re.match(r"\s*make ", line))
    said = {words[0] for line in lines if (words := words_after("make", line))}
    assert {word for word in said if re.fullmatch(r"[a-z-]+", word)} - targets == set()
