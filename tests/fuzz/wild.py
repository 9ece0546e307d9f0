"""Draws what tenants, nodes, servers and people might write.

Not by Hypothesis: its engine takes 99 % of the time of such a case, 8 ms for a JSON document beside 0.05 ms of the
product's own, and shrinking is not needed, since each case is small and comes again by its seed and number.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

SPICE = (
    "..", "/", "../../shop/secrets/redis-auth", "%2e%2e", "%2F", "?", "#", "&", "=", "\\", ":", "@", ",", ";", "|", "-",
    "\n", "\r\n", "\t", "\0", "\x1b[31m", "\x7f", "<script>", "{}", "[", "]", "\"", "'", "`", "$(id)", "{{x}}",
    "²", "٣",
    "\u202e", "\u2028", "\ud800", "\udfff", "\U0001d7d9", "null", "true", "NaN", "Infinity", "-1", "0",
    "1e999", "9" * 20,
)  # fmt: skip
"""Pieces that mean something to somebody: paths, encodings, digits that are none, halves of characters."""

LENGTHS = (0, 1, 1, 2, 3, 5, 8, 13)
DEPTH = 3


class Wild:
    """Draws from one case's random numbers."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def chance(self, share: float) -> bool:
        return self.dice.random() < share

    def text(self) -> str:
        """Spice, any characters, or very much of one."""
        kind = self.dice.random()
        if kind < 0.5:
            return "".join(self.dice.choices(SPICE, k=self.dice.choice(LENGTHS)))
        if kind < 0.95:
            return "".join(map(self._character, range(self.dice.choice(LENGTHS))))
        return self.dice.choice(("a", "9", "[", '{"a":', " ", "\u0301")) * self.dice.choice((64, 300, 5_000))

    def _character(self, _: int) -> str:
        limit = self.dice.choice((0x7F, 0x7F, 0xFF, 0xFFFF, 0x10FFFF))
        return chr(self.dice.randrange(limit))

    def near(self, right: Sequence[str]) -> str:
        """One of those, as it is or almost; else anything."""
        kind = self.dice.random()
        if kind < 0.15:
            return self.text()
        text = self.dice.choice(right)
        return text if kind < 0.4 else self._spoilt(text)

    def _spoilt(self, text: str) -> str:
        for _ in range(self.dice.choice((1, 1, 2, 4))):
            at, until = sorted(self.dice.randrange(len(text) + 1) for _ in "ab")
            piece = self.dice.choice(("", text[at:until] * 2, *self.dice.sample(SPICE, 2), self.text()))
            text = text[:at] + piece + text[until:]
        return text

    def some(self, keys: Sequence[str], draw: Callable[[str], Any], share: float = 0.5) -> dict[str, Any]:
        """Values for a share of the keys."""
        return {key: draw(key) for key in keys if self.chance(share)}

    def json(self, depth: int = DEPTH) -> Any:
        """Anything that `json.loads` might answer."""
        kind = self.dice.randrange(10 if depth else 8)
        if kind < 3:
            return self.text()
        if kind < 8:
            return self.dice.choice(
                (None, True, False, 0, -1, 1.5, 10**30, -(10**400), float("nan"), float("inf"), self.dice.randrange(99))
            )
        items = [self.json(depth - 1) for _ in range(self.dice.randrange(4))]
        return items if kind == 8 else {self.text(): item for item in items}
