"""Not more bytes per second than the link may carry, over all threads and passes."""

from __future__ import annotations

import threading


class Pace:
    """Says when a request may begin, so that the average stays below the cap.

    A request of any size may go as soon as the ones before it are paid for; its own size is paid
    for by those behind it. So a large image cannot starve, and requests go in the order in which
    they asked.

    Args:
        bytes_per_s: The cap; None for none.

    Example:
        >>> pace = Pace(1_000)
        >>> pace.reserve(500, now_s=0.0), pace.reserve(2_000, now_s=0.0), pace.reserve(1, now_s=9.0)
        (0.0, 0.5, 9.0)
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._paid_until_s = float("-inf")

    def reserve(self, size: int, now_s: float) -> float:
        """Take the next place in the line.

        Args:
            size: Bytes of the request.
            now_s: Seconds of the clock that never goes back.

        Returns:
            When the request may begin, on the same clock.
        """
        if self._bytes_per_s is None:
            return now_s
        with self._lock:
            begin_s = max(now_s, self._paid_until_s)
            self._paid_until_s = begin_s + size / self._bytes_per_s
            return begin_s

    def give_back(self, size: int) -> None:
        """Take back a reservation of which no use was made, else it would be paid for all the same.

        Args:
            size: Bytes of the request that was not made.
        """
        if self._bytes_per_s is not None:
            with self._lock:
                self._paid_until_s -= size / self._bytes_per_s
