"""Writes docs/settings.md: every option of the settings file, from the schema that checks it."""

from pathlib import Path

from eks_rolling_config.file import SET_BY_THE_STACK, File
from eks_rolling_config.options import Option, options

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
BEGIN, END = "<!-- options -->", "<!-- end of options -->"


def table() -> str:
    """The table of all options, one cluster's without their prefix."""
    rows = ["| option | type | default | allowed | meaning |", "|---|---|---|---|---|"]
    rows += [_row(o) for o in options(File) if o.path.rpartition(".")[2] not in SET_BY_THE_STACK]
    return "\n".join(rows)


def _row(option: Option) -> str:
    path = option.path.removeprefix("clusters[].")
    default = f"`{option.default}`" if option.default else "must be given"
    cells = (f"`{path}`", option.type, default, option.allowed, option.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written(text: str) -> str:
    """The document with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
