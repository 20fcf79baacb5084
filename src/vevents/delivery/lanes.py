"""How many uploads go side by side: one more while that helps, half as many at every trouble.

Nobody knows the right number beforehand: it depends on the link, on the server and on everybody
else who uses them. So it starts low and is measured. After each round of uploads the bytes per
second are compared with those before the last step up; a step that brought nothing is taken back
and not tried again for some rounds. Throttling, timeouts and 5xx halve the number at once, but only
once for what was under way together: several answers may tell of the same moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

_AT_FIRST: Final = 2
_ROUND_COUNT_MIN: Final = 4
_GAIN_MIN: Final = 1.05
_ROUNDS_OF_REST: Final = 8
_LOOK_S: Final = 0.2


class Lanes:
    """A number of places for requests, which adapts itself.

    Args:
        most: Never more than so many.
        monotonic: Seconds of a clock that never goes back.

    Attributes:
        limit: How many there are at the moment.
    """

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        self.limit = min(_AT_FIRST, most)
        self._most = most
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._under_way = 0
        self._halved_s = float("-inf")
        self._rate_before: float | None = None
        self._rest = 0
        self._begin_round()

    def enter(self, check: Callable[[], None]) -> float:
        """Wait for a free lane.

        Args:
            check: Called now and then; what it raises ends the wait.

        Returns:
            When the lane was free; to be given back to `leave`.
        """
        with self._changed:
            while self._under_way >= self.limit:
                check()
                self._changed.wait(_LOOK_S)
            self._under_way += 1
            return self._monotonic()

    def leave(self, entered_s: float, size: int, *, good: bool, bad: bool) -> None:
        """Give a lane back.

        Args:
            entered_s: What `enter` returned.
            size: Bytes that went.
            good: The request succeeded at its first attempt. One that was repeated shows no room
                for more.
            bad: It was throttled, failed or timed out.
        """
        with self._changed:
            if self._under_way < self.limit:
                self._full = False
            self._under_way -= 1
            now_s = self._monotonic()
            if bad:
                if entered_s >= self._halved_s:
                    self.limit = max(1, self.limit // 2)
                    self._halved_s = now_s
                    self._rate_before = None
                    self._rest = 0
                self._begin_round()
            elif good:
                self._count += 1
                self._bytes += size
                if self._count >= max(_ROUND_COUNT_MIN, 2 * self.limit):
                    self._end_round(now_s)
            self._changed.notify_all()

    def _begin_round(self) -> None:
        self._began_s = self._monotonic()
        self._count = 0
        self._bytes = 0
        self._full = True

    def _end_round(self, now_s: float) -> None:
        """Step up, or back, by what this round carried."""
        rate = self._bytes / max(now_s - self._began_s, 1e-6)
        if not self._full:
            # There was not enough to send; that says nothing about the link.
            self._begin_round()
            return
        if self._rest:
            self._rest -= 1
            self._rate_before = None
        elif self._rate_before is not None and rate < self._rate_before * _GAIN_MIN:
            self.limit = max(1, self.limit - 1)
            self._rate_before = None
            self._rest = _ROUNDS_OF_REST
        elif self.limit < self._most:
            self.limit += 1
            self._rate_before = rate
        self._begin_round()
