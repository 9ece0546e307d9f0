"""Times, sizes and names as people read them."""

from datetime import UTC, datetime


def spoken(seconds: float) -> str:
    """A duration: "43 s", "4 min 10 s", "2 h 5 min"."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 90:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def size(count: float) -> str:
    """A number of bytes: "512 bytes", "3.4 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"


def clock(when: float) -> str:
    """A moment in UTC, as mails, logs and the console have it; with its date unless that is today's."""
    moment = datetime.fromtimestamp(when, UTC)
    today = datetime.now(UTC).date()
    return f"{moment:%H:%M:%S} UTC" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M} UTC"


def short(node: str) -> str:
    """A node's name without its domain."""
    return node.partition(".")[0]


def brief(roll: str) -> str:
    """A roll's name for a title: those that EventBridge gives, two UUIDs, by their first part, which is enough to name
    it."""
    return roll if len(roll) <= 40 else f"{roll.partition('-')[0]}…"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 pod", "2 pods"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
