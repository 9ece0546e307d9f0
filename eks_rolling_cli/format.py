"""What only a terminal words so: sizes, the time of day, names for a title."""

import re
from datetime import UTC, datetime

from eks_rolling.wording import moment

_GIVEN = re.compile(r"(?P<beginning>(?:rollback-)?[0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}_", re.ASCII)
"""A name that EventBridge gives, two UUIDs, or that of the roll that goes back after such a one, which is cut off."""


def size(count: float) -> str:
    """A number of bytes: "512 bytes", "3.4 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"


def clock(when: float) -> str:
    """A moment in UTC, as mails, logs and the console have it; with its date unless that is today's."""
    then = datetime.fromtimestamp(when, UTC)
    return f"{then:%H:%M:%S} UTC" if then.date() == datetime.now(UTC).date() else moment(when)


def brief(roll: str) -> str:
    """A roll's name for a title: those that EventBridge gives, two UUIDs, by their first part, which is enough to name
    it."""
    begun = beginning(roll)
    return roll if begun == roll else f"{begun}…"


def beginning(roll: str) -> str:
    """What of a roll's name is enough to type: of one that a person chose all of it, as others may begin alike."""
    given = _GIVEN.match(roll)
    return given["beginning"] if given else roll
