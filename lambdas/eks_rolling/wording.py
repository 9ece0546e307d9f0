"""Numbers, times and names as people read them: the same in messages, reports and on the terminal."""

from datetime import UTC, datetime


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 pod", "2 pods"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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


def moment(when: float) -> str:
    """Date and time in UTC; `when` is epoch seconds."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def short(node: str) -> str:
    """A node's name without its domain."""
    return node.partition(".")[0]
