"""When changes may start a roll: windows by the clock on the wall, wherever that is.

A window is open while its zone's clock reads a time within it. So one over midnight belongs to the day on which it
opens; when clocks go back, a time that comes twice opens it twice; when they go forward, a window that lies in the lost
hour does not open on that day, and one that begins in it opens when the hour is over.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from zoneinfo import ZoneInfo

from eks_rolling.settings import DAYS, Window

MINUTE = 60


def is_open(window: Window, now: float) -> bool:
    """Whether the window is open at `now` (epoch seconds). One whose end is its start lasts for a whole day."""
    local = datetime.fromtimestamp(now, ZoneInfo(window.time_zone))
    clock = f"{local:%H:%M}"
    today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
    if window.start < window.end:
        return today in window.days and window.start <= clock < window.end
    return (today in window.days and clock >= window.start) or (yesterday in window.days and clock < window.end)


def next_opening(windows: Sequence[Window], now: float) -> float:
    """The first moment from `now` on (both epoch seconds) at which a window is open; `now` where there is none.

    Clocks are set by whole minutes everywhere, so it is enough to look at each.
    """
    if not windows or any(is_open(w, now) for w in windows):
        return now
    first = now - now % MINUTE + MINUTE
    return next(t for t in count(first, MINUTE) if any(is_open(w, t) for w in windows))


def describe(windows: Sequence[Window], moment: float) -> str:
    """A moment as people of the window that is open then would say it: "Sat 28 Nov 02:00 Europe/Berlin"."""
    zone = next((w.time_zone for w in windows if is_open(w, moment)), "UTC")
    return f"{datetime.fromtimestamp(moment, ZoneInfo(zone)):%a %d %b %H:%M} {zone}"
