"""Time windows and the gate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vevents.delivery.pause import pause, resume
from vevents.delivery.schedule import Gate, is_open, opens_in_s
from vevents.delivery.sender import StopError, StopReason
from vevents.settings import parse_windows

# Summer time from the last Sunday of March, 02:00, to the last one of October, 03:00.
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
# 2026-11-23 is a Monday.
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(autouse=True)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", getattr(request, "param", "UTC"))
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(day: int, clock: str) -> float:
    """Seconds since 1970 of a time so many days after that Monday, UTC."""
    hours, minutes = map(int, clock.split(":"))
    return (MONDAY + timedelta(days=day, hours=hours, minutes=minutes)).timestamp()


@pytest.mark.parametrize(
    ("text", "day", "clock", "opened"),
    [
        ("09:00-17:00", 0, "08:59", False),
        ("09:00-17:00", 0, "09:00", True),
        ("09:00-17:00", 6, "16:59", True),
        ("09:00-17:00", 0, "17:00", False),
        ("22:00-06:00", 0, "21:59", False),
        ("22:00-06:00", 0, "22:00", True),
        ("22:00-06:00", 1, "00:00", True),
        ("22:00-06:00", 1, "05:59", True),
        ("22:00-06:00", 1, "06:00", False),
        ("22:00-24:00", 0, "23:59", True),
        ("22:00-24:00", 1, "00:00", False),
        ("22:00-00:00", 0, "23:59", True),
        ("22:00-00:00", 1, "00:00", False),
        ("00:00-24:00", 3, "12:00", True),
        # The day is the one on which it begins.
        ("Fri 22:00-06:00", 4, "23:00", True),
        ("Fri 22:00-06:00", 5, "05:00", True),
        ("Fri 22:00-06:00", 4, "05:00", False),
        ("Sun 22:00-06:00", 7, "05:00", True),
        ("Mon-Wed 09:00-10:00", 2, "09:30", True),
        ("Mon-Wed 09:00-10:00", 3, "09:30", False),
        ("Sat-Mon 09:00-10:00", 7, "09:30", True),
        ("Mon 09:00-10:00, 12:00-13:00; Tue 14:00-15:00", 0, "12:30", True),
        ("Mon 09:00-10:00, 12:00-13:00; Tue 14:00-15:00", 1, "12:30", False),
        ("Mon 09:00-10:00, 12:00-13:00; Tue 14:00-15:00", 1, "14:30", True),
    ],
)
def test_windows(text: str, day: int, clock: str, opened: bool) -> None:
    assert is_open(parse_windows(text), at(day, clock)) is opened


def test_without_windows_it_is_always_open() -> None:
    assert is_open((), at(0, "03:00"))
    assert opens_in_s((), at(0, "03:00")) == 0.0


@pytest.mark.parametrize(
    ("text", "day", "clock", "opens_day", "opens_clock"),
    [
        ("22:00-06:00", 0, "21:59", 0, "22:00"),
        ("22:00-06:00", 0, "06:00", 0, "22:00"),
        ("01:00-02:00", 0, "02:00", 1, "01:00"),
        ("Mon 09:00-10:00", 0, "10:00", 7, "09:00"),
        ("Wed 09:00-10:00; Tue 12:00-13:00", 0, "10:00", 1, "12:00"),
        ("Sun 23:00-01:00", 0, "01:00", 6, "23:00"),
    ],
)
def test_when_the_next_one_opens(
    text: str, day: int, clock: str, opens_day: int, opens_clock: str
) -> None:
    now_s = at(day, clock)
    wait_s = opens_in_s(parse_windows(text), now_s)

    assert now_s + wait_s == at(opens_day, opens_clock)
    assert is_open(parse_windows(text), now_s + wait_s)
    assert not is_open(parse_windows(text), now_s + wait_s - 1)


def test_next_opening_always_opens_and_nothing_opens_before_it() -> None:
    windows = parse_windows("Mon-Fri 22:00-06:00; Sat 00:00-24:00; Sun 12:00-12:30")
    for minute in range(0, 7 * 1440, 37):
        now_s = at(0, "00:00") + minute * 60
        wait_s = opens_in_s(windows, now_s)
        assert is_open(windows, now_s + wait_s)
        assert wait_s == 0 or not is_open(windows, now_s + wait_s - 60)


@pytest.mark.parametrize("zone", [BERLIN], indirect=True)
def test_local_time_and_summer_time() -> None:
    windows = parse_windows("22:00-06:00")

    assert is_open(windows, datetime(2026, 1, 10, 21, 0, tzinfo=UTC).timestamp())
    assert not is_open(windows, datetime(2026, 1, 10, 20, 59, tzinfo=UTC).timestamp())
    assert is_open(windows, datetime(2026, 7, 10, 20, 0, tzinfo=UTC).timestamp())
    # In the night of 2026-03-29 the clock goes from 02:00 to 03:00; the window from 02:30 has no
    # beginning on that day, and opening late is right, never is not.
    short = parse_windows("02:30-04:00")
    before_s = datetime(2026, 3, 29, 0, 30, tzinfo=UTC).timestamp()
    assert (
        before_s + opens_in_s(short, before_s) <= datetime(2026, 3, 29, 2, tzinfo=UTC).timestamp()
    )


def test_gate_names_the_window(tmp_path: Path) -> None:
    now_s = at(0, "12:00")
    gate = Gate(tmp_path, parse_windows("22:00-06:00"), clock=lambda: now_s)

    stop = gate.closed()
    assert stop is not None
    assert (stop.reason, stop.retry_after_s) == (StopReason.OUTSIDE_WINDOW, 36_000.0)
    assert "opens on Mon 22:00 local time" in str(stop)
    with pytest.raises(StopError, match="opens on Mon 22:00"):
        gate.check()

    now_s = at(0, "22:00")
    assert gate.closed() is None
    gate.check()


def test_gate_follows_the_switch_while_it_is_open(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    assert gate.closed() is None
    pause(tmp_path, for_s=60, reason="roaming")

    stop = gate.closed()
    assert stop is not None
    assert stop.reason is StopReason.PAUSED
    assert stop.retry_after_s == pytest.approx(60, abs=5)
    assert "roaming" in str(stop)
    assert "vevents resume" in str(stop)
    resume(tmp_path)
    assert gate.closed() is None


def test_pause_is_named_before_the_window(tmp_path: Path) -> None:
    pause(tmp_path)
    gate = Gate(tmp_path, parse_windows("22:00-06:00"), clock=lambda: at(0, "12:00"))

    stop = gate.closed()
    assert stop is not None
    assert (stop.reason, stop.retry_after_s) == (StopReason.PAUSED, None)
