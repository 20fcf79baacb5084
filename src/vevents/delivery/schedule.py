"""When delivery may run: inside the windows of the settings, and while nobody has paused it.

A window goes by the wall: it is open while the device's local clock shows a time within it, and so
it follows TZ, summer time and a clock that is set. A day with a changed clock has a longer or a
shorter window, like everything else on that day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vevents.delivery.pause import held_back_s, read_pause
from vevents.delivery.sender import StopError, StopReason
from vevents.settings import Window

_DAY_MIN = 1440


def is_open(windows: Sequence[Window], now_s: float) -> bool:
    """Whether one of the windows is open.

    Args:
        windows: None at all means always.
        now_s: Seconds since 1970.
    """
    local = time.localtime(now_s)
    minute = local.tm_hour * 60 + local.tm_min
    return not windows or any(_holds(window, local.tm_wday, minute) for window in windows)


def opens_in_s(windows: Sequence[Window], now_s: float) -> float:
    """Return after how many seconds the next window opens; 0 if one is open."""
    if is_open(windows, now_s):
        return 0.0
    local = time.localtime(now_s)
    begins = []
    # Eight days: the window may be today's, already over, and come again in a week.
    for ahead in range(8):
        day = (local.tm_wday + ahead) % 7
        for window in windows:
            if day in window.days:
                # The C library finds the day of the month that is meant, and summer time.
                date = (local.tm_year, local.tm_mon, local.tm_mday + ahead)
                hour, minute = divmod(window.begin_min, 60)
                begins.append(time.mktime((*date, hour, minute, 0, 0, 0, -1)))
    return min(begin for begin in begins if begin > now_s) - now_s


def _holds(window: Window, day: int, minute: int) -> bool:
    if window.begin_min < window.end_min:
        return day in window.days and window.begin_min <= minute < window.end_min
    # Over midnight: the evening of its day, and the morning after it.
    return (day in window.days and minute >= window.begin_min) or (
        (day - 1) % 7 in window.days and minute < window.end_min
    )


class Gate:
    """Says whether delivery may run now.

    Args:
        directory: The log's, where the pause switch is.
        windows: When delivery may run; none means always.
        any_time: Whether to pass over the windows and over the time for which the server asked to
            be left alone; never over a pause.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        directory: Path,
        windows: Sequence[Window] = (),
        *,
        any_time: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._windows = () if any_time else tuple(windows)
        self._any_time = any_time
        self._clock = clock

    def closed(self) -> StopError | None:
        """Return why delivery may not run now, or None. Costs some microseconds.

        `retry_after_s` says when it may again, as far as that is known.
        """
        pause = read_pause(self._directory)
        if pause is not None:
            return StopError(
                StopReason.PAUSED, f"{pause}; `vevents resume` ends that", pause.left_s
            )
        now_s = self._clock()
        if not is_open(self._windows, now_s):
            wait_s = opens_in_s(self._windows, now_s)
            opens = time.strftime("%a %H:%M", time.localtime(now_s + wait_s))
            return StopError(
                StopReason.OUTSIDE_WINDOW,
                f"the next window for delivery opens on {opens} local time; --now does not wait",
                wait_s,
            )
        left_s = None if self._any_time else held_back_s(self._directory)
        if left_s is not None:
            until = time.strftime("%a %H:%M:%S", time.localtime(now_s + left_s))
            return StopError(
                StopReason.THROTTLED,
                f"the server asked to be left alone until {until} local time; --now does not wait",
                left_s,
            )
        return None

    def check(self) -> None:
        """Raise `StopError` if delivery may not run now."""
        stop = self.closed()
        if stop is not None:
            raise stop
