"""Rows that can be read at any width. Nothing is cut: what has no room in a row goes to a line of its own below it.

A terminal of 200 columns shows everything side by side; one of 60 shows the name, and the rest beneath. Off a terminal
there is no width, so nothing is folded either (`eks_rolling_cli.cli_context.show`).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

GAP = 2
"""Spaces between two columns."""

WORDS = re.compile(r"(?:`[^`]*`|[^\s`])+")
"""Words, and commands with what stands beside them."""

INDENT = 4
"""Spaces before what stands below a row."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. The lower `keep`, the sooner it leaves the row where room is short; `below` comes before its values
    there, since there is no title then. None: it is not needed there."""

    title: str
    keep: int
    below: str | None = ""
    right: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its cells, `notes` on lines of their own below it, and a `heading` above it where a part begins."""

    cells: tuple[str | Text, ...]
    notes: tuple[Text, ...] = ()
    heading: str = ""
    style: str = ""


class Fitted:
    """What is drawn by the width that there is."""

    def __init__(self, draw: Callable[[int], RenderableType]) -> None:
        self._draw = draw

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._draw(options.max_width)


class Listing:
    """A table of rows; columns that are empty everywhere are left out."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        used = [i for i in range(len(columns)) if any(str(row.cells[i]) for row in rows)]
        self._columns = [columns[i] for i in used]
        self._rows = rows
        self._cells = [[_text(row.cells[i]) for i in used] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [
            max(len(column.title), *(cells[i].cell_len for cells in self._cells))
            for i, column in enumerate(self._columns)
        ]
        kept = self._kept(widths, options.max_width)
        if any(self._columns[i].title for i in kept):
            titles = [Text(column.title) for column in self._columns]
            yield _stylized(self._line(titles, widths, kept), "bold")
        for row, cells in zip(self._rows, self._cells, strict=True):
            if row.heading:
                yield Text(row.heading, style="bold")
            yield _stylized(self._line(cells, widths, kept), row.style)
            if below := self._below(cells, kept):
                yield indented(below)
            for note in row.notes:
                yield indented(note)

    def _kept(self, widths: Sequence[int], room: int) -> list[int]:
        kept = list(range(len(self._columns)))
        while len(kept) > 1 and sum(widths[i] + GAP for i in kept) - GAP > room:
            kept.remove(min(kept, key=lambda i: self._columns[i].keep))
        return kept

    def _line(self, cells: Sequence[Text], widths: Sequence[int], kept: Sequence[int]) -> Text:
        line = Text()
        for i in kept:
            room = " " * (widths[i] - cells[i].cell_len)
            line.append(room if self._columns[i].right else "")
            line.append_text(cells[i])
            line.append((" " * GAP) if self._columns[i].right else room + " " * GAP)
        line.rstrip()
        return line

    def _below(self, cells: Sequence[Text], kept: Sequence[int]) -> Text | None:
        parts = [
            Text(column.below).append_text(cells[i])
            for i, column in enumerate(self._columns)
            if i not in kept and cells[i].plain and column.below is not None
        ]
        return Text(" · ").join(parts) if parts else None


def folded(text: Text, width: int) -> list[Text]:
    """The text in lines of so many columns at most, broken between words, never inside `a command`: what is copied from
    two lines is typed as two commands. A word or a command that is longer stays whole."""
    lines: list[Text] = []
    for part in text.split("\n", allow_blank=True):
        starts = [0]
        for word in WORDS.finditer(part.plain):
            if cell_len(part.plain[starts[-1] : word.end()]) > width and word.start() > starts[-1]:
                starts.append(word.start())
        lines += part.divide(starts[1:])
    for line in lines:
        line.rstrip()
    return lines


def indented(text: Text, spaces: int = INDENT) -> Padding:
    """A text whose every line, folded ones too, begins so far from the left."""
    content = Fitted(lambda width: Group(*folded(text, width))) if "`" in text.plain else text
    return Padding(content, (0, 0, 0, spaces), expand=False)


def advice(text: str, spaces: int = 0, *, arrow: str = "→ ", style: str = "green") -> Fitted:
    """What to do, a command in it whole."""
    return whole(Text(f"{arrow}{text}", style=style), spaces)


def whole(text: Text, spaces: int = 0) -> Fitted:
    """A text with commands. One that is longer than the terminal goes over its edge, and stays one line to whoever
    copies it; a frame, or a picture that is redrawn, would cut it."""

    def draw(width: int) -> RenderableType:
        lines: list[RenderableType] = []
        for line in folded(text, max(1, width - spaces)):
            if "`" in line.plain:
                command = Text(" " * spaces, no_wrap=True, overflow="ignore")
                lines.append(command.append_text(line))
            else:
                lines.append(Padding(line, (0, 0, 0, spaces), expand=False))
        return Group(*lines)

    return Fitted(draw)


def joined(parts: Sequence[str], style: str = "") -> Fitted:
    """Short facts beside each other, as many on a line as it has room for: none is broken."""

    def draw(width: int) -> RenderableType:
        lines = [""]
        for part in parts:
            more = f"{lines[-1]} · {part}" if lines[-1] else part
            lines[-1:] = [more] if not lines[-1] or cell_len(more) <= width else [lines[-1], part]
        return Text("\n".join(lines), style=style)

    return Fitted(draw)


def facts(named: Sequence[tuple[str, Text]], titles: int = 14) -> Fitted:
    """Named facts: beside their names where there is room, else below them."""
    return Fitted(lambda width: _Facts(named, titles, beside=width >= 4 * titles))


class _Facts:
    def __init__(self, named: Sequence[tuple[str, Text]], titles: int, *, beside: bool) -> None:
        self._named, self._titles, self._beside = named, titles, beside

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._besides(console, options) if self._beside else self._belows()

    def _besides(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The name, and the fact with its folded lines hanging under its first."""
        for name, fact in self._named:
            lines = fact.wrap(console, max(20, options.max_width - self._titles))
            for number, line in enumerate(lines):
                title = name if number == 0 else ""
                yield Text(f"{title:<{self._titles}}", style="dim").append_text(_stylized(line, "not dim"))

    def _belows(self) -> Iterator[RenderableType]:
        for name, fact in self._named:
            yield Text(name, style="dim")
            yield indented(fact, 2)


def _text(cell: str | Text) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(cell)


def _stylized(text: Text, style: str) -> Text:
    styled = text.copy()
    if style:
        styled.stylize_before(style)
    return styled
