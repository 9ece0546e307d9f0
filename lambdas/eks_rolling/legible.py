"""Text that others wrote, made harmless to read: names, reasons and answers of tenants, nodes, servers and people.

Everything that people see passes here, once, where it goes out: the terminal, the report's page, messages, logs.
"""

import re

_UNSEEN = "\\u061c\\u200b\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2060-\\u2069\\ufeff\\ud800-\\udfff"
"""Marks of direction and of no width, separators, halves of characters: what is read is not what is there."""

_HARMFUL = re.compile(f"[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f{_UNSEEN}]")
"""Control characters but tabs and line breaks; without its first one an escape sequence is only text."""

SHOWN = "\N{REPLACEMENT CHARACTER}"

_MARKUP = str.maketrans("<>", "\u2039\u203a")
"""What chat programs take for a mention or a link is between these (api.slack.com, Formatting text): look-alikes."""


def lines(text: str) -> str:
    """The text with what would steer a terminal or deceive a reader made visible; its lines stay."""
    return _HARMFUL.sub(SHOWN, text.replace("\r\n", "\n")) if _HARMFUL.search(text) else text


def line(text: str) -> str:
    """The same on one line: nobody's word begins a line of its own."""
    return lines(" ".join(text.split("\n")) if "\n" in text else text)


def short(text: str, most: int) -> str:
    """The text, or its beginning: what others wrote may have no end."""
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def in_chat(text: str) -> str:
    """The same without markup of chat programs: no mention, no link behind other words."""
    return lines(text).translate(_MARKUP).replace("](", "] (")
