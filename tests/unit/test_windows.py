"""When changes may start rolls, by the clock on the wall."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eks_rolling.errors import BadRequest
from eks_rolling.roll.windows import describe, is_open, next_opening
from eks_rolling.settings import DAYS, Settings, Window

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def window(start: str, end: str, *days: str, zone: str = BERLIN) -> Window:
    return Window.model_validate({"days": days or DAYS, "start": start, "end": end, "time_zone": zone})


NIGHT = window("22:00", "04:00", "fri")


@pytest.mark.parametrize(
    ("moment", "is_open_then"),
    [
        ("2026-11-27 21:59", False),
        ("2026-11-27 22:00", True),
        ("2026-11-28 03:59:59", True),
        ("2026-11-28 04:00", False),
        ("2026-11-28 23:00", False),
        ("2026-11-27 03:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens(moment: str, is_open_then: bool) -> None:
    assert is_open(NIGHT, at(moment)) is is_open_then


def test_without_windows_it_is_always_time() -> None:
    assert next_opening([], 1234.5) == 1234.5


def test_inside_a_window_it_is_time_at_once() -> None:
    assert next_opening([NIGHT], at("2026-11-28 01:00")) == at("2026-11-28 01:00")


def test_the_earliest_of_several_windows_counts_each_by_its_own_clock() -> None:
    tokyo = window("09:00", "10:00", "mon", zone="Asia/Tokyo")
    monday = at("2026-11-29 20:00")
    assert next_opening([window("06:00", "07:00", "mon"), tokyo], monday) == utc("2026-11-30 00:00")
    assert describe([tokyo], utc("2026-11-30 00:00")) == "Mon 30 Nov 09:00 Asia/Tokyo"


def test_a_window_that_is_missed_comes_again_in_a_week() -> None:
    assert next_opening([NIGHT], at("2026-11-28 04:00")) == at("2026-12-04 22:00")


def test_the_same_wall_time_is_another_hour_of_utc_after_clocks_were_changed() -> None:
    daily = window("12:00", "13:00")
    assert next_opening([daily], at("2026-10-24 14:00")) == utc("2026-10-25 11:00")
    assert next_opening([daily], at("2026-10-23 14:00")) == utc("2026-10-24 10:00")


def test_a_window_that_begins_in_the_hour_that_is_lost_opens_when_it_is_over() -> None:
    """Clocks in Berlin go from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC."""
    assert next_opening([window("02:30", "04:00")], utc("2026-03-29 00:30")) == utc("2026-03-29 01:00")


def test_a_window_within_the_hour_that_is_lost_waits_for_the_next_day() -> None:
    assert next_opening([window("02:15", "02:45")], utc("2026-03-29 00:30")) == at("2026-03-30 02:15")
    assert next_opening([window("02:15", "02:45", "sun")], utc("2026-03-29 00:30")) == at("2026-04-05 02:15")


def test_a_time_that_comes_twice_opens_twice() -> None:
    """Clocks in Berlin go from 03:00 back to 02:00 on 25 October 2026, at 01:00 UTC."""
    early = window("02:15", "02:45")
    assert next_opening([early], utc("2026-10-25 00:50")) == utc("2026-10-25 01:15")
    assert [is_open(early, utc(f"2026-10-25 {t}")) for t in ("00:14", "00:15", "00:45", "01:15", "01:45")] == [
        False,
        True,
        False,
        True,
        False,
    ]


TIMES = st.builds(lambda h, m: f"{h:02}:{m:02}", st.integers(0, 23), st.integers(0, 59))
WINDOWS = st.builds(
    lambda days, start, end, zone: Window(days=tuple(days), start=start, end=end, time_zone=zone),
    st.lists(st.sampled_from(DAYS), min_size=1, max_size=3),
    TIMES,
    TIMES,
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)


@settings(max_examples=40, deadline=None)
@given(windows=st.lists(WINDOWS, min_size=1, max_size=3), now=st.floats(utc("2026-01-01"), utc("2027-12-31")))
def test_an_opening_is_open_and_nothing_before_it_is(windows: list[Window], now: float) -> None:
    opens = next_opening(windows, now)
    assert opens >= now
    assert any(is_open(w, opens) for w in windows)
    between = (now + (opens - now) * share / 50 for share in range(50))
    assert opens == now or not any(is_open(w, t) for t in between for w in windows)


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"start": "25:00", "end": "04:00"}, "windows.0.start"),
            ({"start": "22:00", "end": "04:00", "days": ["Friday"]}, "windows.0.days.0"),
            ({"start": "22:00", "end": "04:00", "days": []}, "windows.0.days"),
            ({"start": "22:00", "end": "04:00", "time_zone": "CEST/Berlin"}, "there is no such time zone"),
        ],
    )
    def test_a_wrong_window_is_named(self, wrong: dict[str, object], said: str) -> None:
        with pytest.raises(BadRequest, match=said):
            Settings.parse({"cluster": "demo", "windows": [wrong]})
