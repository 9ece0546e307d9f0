"""The documents: every relative link leads to a file, and every anchor to a heading."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?)\)|(?:src|srcset|href)=\"([^\"]+)\"")

FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)

ELSEWHERE = ("http://", "https://", "mailto:")


def documents() -> list[Path]:
    """Every Markdown file of the repository, by git: what is installed beside it is not ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPOSITORY / name for name in listed.stdout.split("\n") if name and (REPOSITORY / name).exists()]


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, punctuation gone, spaces to hyphens, numbered when repeated."""
    found: dict[str, int] = {}
    slugs = set()
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", FENCE.sub("", document.read_text()), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        slugs.add(f"{slug}-{count}" if count else slug)
    return slugs


def broken(document: Path) -> list[str]:
    problems = []
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", document.read_text()))
    for match in LINK.finditer(text):
        link = match.group(1) or match.group(2)
        if link.startswith(ELSEWHERE):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists():
            problems.append(f"{link}: there is no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            problems.append(f"{link}: {target.name} has no such heading")
    return problems


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_and_anchor_leads_somewhere(document: Path) -> None:
    assert broken(document) == []


def test_every_document_is_in_the_index() -> None:
    """Decisions are found by their folder."""
    index = (REPOSITORY / "docs" / "README.md").read_text()
    listed = {(REPOSITORY / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#]+)", index)}
    missing = [d for d in (REPOSITORY / "docs").glob("*.md") if d.name != "README.md" and d.resolve() not in listed]
    assert missing == []


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading, with `code`\n```\n[no](link.md)\n```\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md) [b](there.md#a-heading-with-code) [c](gone.md) [d](there.md#none) `[e](x.md)`\n")
    assert broken(page) == ["gone.md: there is no such file", "there.md#none: there.md has no such heading"]
