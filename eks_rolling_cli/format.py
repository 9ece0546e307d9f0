"""What only a terminal words so: sizes, the time of day, names for a title."""

from datetime import UTC, datetime

from eks_rolling.wording import moment


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
    """What of a roll's name is enough to type."""
    if len(roll) <= 40:
        return roll
    # What rolls back such a roll has its name behind a word that all rollbacks begin with.
    kind, name = ("rollback-", roll.removeprefix("rollback-")) if roll.startswith("rollback-") else ("", roll)
    return kind + name.partition("-")[0]
