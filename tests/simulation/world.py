"""True time, what is due in it, chance, and the record of what happened."""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime

S = 10**9
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
_EPOCH_NS = int(datetime(2027, 3, 1, 6, tzinfo=UTC).timestamp()) * S


class PowerLost(BaseException):
    """The process is gone, at this very moment. No `except Exception` may see it."""


class BrokenPromiseError(AssertionError):
    """A promise was broken."""


class World:
    """The one time line. What is due happens as time passes, whoever lets it pass.

    Args:
        seed: Everything follows from it.
        show: Called with every line of the trace as it is written, or None.

    Attributes:
        now_ns: True time, nanoseconds since 1970.
        trace: Moments and what happened.
        on_time: Called whenever the time has changed.
    """

    def __init__(self, seed: int, show: Callable[[str], object] | None = None) -> None:
        self.seed = seed
        self.start_ns = self.now_ns = _EPOCH_NS
        self.trace: list[tuple[int, str]] = []
        self.on_time: Callable[[], object] = lambda: None
        # Uploads may go in several threads; each moment belongs to one of them.
        self.lock = threading.RLock()
        self._show = show
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0

    def dice(self, what: str) -> random.Random:
        """Return the dice of one part of the world: more throws here change nothing there."""
        return random.Random(f"{self.seed} {what}")

    @property
    def now_s(self) -> float:
        return self.now_ns / S

    @property
    def elapsed_s(self) -> float:
        return (self.now_ns - self.start_ns) / S

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Let something happen later."""
        self._count += 1
        heapq.heappush(self._due, (self.now_ns + int(seconds * S), self._count, action))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due meanwhile."""
        with self.lock:
            # Rounded up: whoever waits for a moment would else stand right before it for ever.
            end_ns = self.now_ns + int(seconds * S) + 1
            while self._due and self._due[0][0] <= end_ns:
                self._happen()
            self._set(max(end_ns, self.now_ns))

    def pass_on(self) -> None:
        """Let the time pass until something has happened."""
        with self.lock:
            self._happen()

    def _happen(self) -> None:
        when_ns, _, action = heapq.heappop(self._due)
        # What was due while somebody else let the time pass is late.
        self._set(max(when_ns, self.now_ns))
        action()

    def note(self, text: str) -> None:
        """Write down what happened."""
        self.trace.append((self.now_ns, text))
        if self._show is not None:
            self._show(self.line(self.now_ns, text))

    def line(self, when_ns: int, text: str) -> str:
        """Return one line of the trace, with the day and the time of the simulation."""
        seconds = (when_ns - self.start_ns) / S
        day, second = divmod(seconds, DAY_S)
        hour, second = divmod(second, HOUR_S)
        minute, second = divmod(second, MINUTE_S)
        return f"day {day:3.0f} {hour:02.0f}:{minute:02.0f}:{second:06.3f}  {text}"

    def _set(self, now_ns: int) -> None:
        if now_ns != self.now_ns:
            self.now_ns = now_ns
            self.on_time()
