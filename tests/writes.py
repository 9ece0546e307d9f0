"""The numbers of writes that a server in memory holds.

A replica takes all of its master's at every tick, for thousands of ticks: as the bits of one integer they are shared
and not copied, and what two servers differ by costs next to nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Writes:
    """A set of small numbers, which never changes."""

    bits: int = 0

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "Writes":
        bits = 0
        for number in numbers:
            bits |= 1 << number
        return cls(bits)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __contains__(self, number: int) -> bool:
        return bool(self.bits >> number & 1)

    def __iter__(self) -> Iterator[int]:
        return (number for number in range(self.bits.bit_length()) if number in self)

    def __or__(self, other: "Writes") -> "Writes":
        return Writes(self.bits | other.bits)

    def __and__(self, other: "Writes") -> "Writes":
        return Writes(self.bits & other.bits)

    def __sub__(self, other: "Writes") -> "Writes":
        return Writes(self.bits & ~other.bits)

    def is_copy_of(self, other: "Writes", but: int) -> bool:
        """Whether it holds some of them, and lacks so many at most."""
        return bool(self.bits & other.bits) and (other.bits & ~self.bits).bit_count() <= but

    def also(self, number: int) -> "Writes":
        """With one more."""
        return Writes(self.bits | 1 << number)


NONE = Writes()
