"""Kubernetes quantities ("250m", "64Mi") as numbers."""

import math
from decimal import Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip


def parse_quantity(text: str) -> Decimal:
    """In base units: cores, bytes. Raises decimal.InvalidOperation."""
    for length in (2, 1):
        suffix = text[-length:]
        if suffix in _SUFFIXES and len(text) > length:
            return Decimal(text[:-length]) * _SUFFIXES[suffix]
    return Decimal(text)


def in_units_of(amount: Decimal, divisor: Decimal) -> int:
    """Rounded up, as the downward API does."""
    return math.ceil(amount / (divisor or Decimal(1)))
