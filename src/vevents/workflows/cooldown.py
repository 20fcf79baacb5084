"""At most one event per cooldown, and nothing forgotten.

    first event        goes out at once and begins a window
    during the window  the most important event is held, the others are counted
    end of the window  what is held goes out with the counts, and begins the next window

Every event offered is either kept or in the counts of one that is kept later. This module reads no
clock and writes nothing: the caller says what time it is, and what became of a write.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

Importance = tuple[float, ...]


class Kept(NamedTuple, Generic[T]):
    """One item that goes out.

    Attributes:
        item: As it was offered.
        kind: As it was offered.
        counts: How many others it stands for, by kind.
    """

    item: T
    kind: str
    counts: Mapping[str, int]


class Cooldown(Generic[T]):
    """The windows of one stream. For one thread at a time.

    Times are seconds of any clock that never goes back.

    Example:
        >>> cooldown = Cooldown()
        >>> cooldown.release(0.0, cooldown_s=5.0)
        >>> cooldown.offer("a", "pass", (1.0,), 0.0)
        Kept(item='a', kind='pass', counts={})
        >>> cooldown.offer("b", "pass", (1.0,), 1.0)
        >>> cooldown.offer("c", "fail", (2.0,), 2.0)
        >>> cooldown.release(5.0)
        Kept(item='c', kind='fail', counts={'pass': 1})
    """

    def __init__(self) -> None:
        self._began_s = -math.inf
        self._cooldown_s = 0.0
        self._held: tuple[T, str, Importance] | None = None
        self._counts: Counter[str] = Counter()

    @property
    def due_s(self) -> float | None:
        """When what is held is to be released; None: nothing is held."""
        return None if self._held is None else self._began_s + self._cooldown_s

    def is_idle(self, now_s: float) -> bool:
        """Whether this object could be thrown away and made anew without a difference."""
        return self._held is None and not self._counts and not self._is_open(now_s)

    def release(self, now_s: float, cooldown_s: float | None = None) -> Kept[T] | None:
        """Return what is held if its window is over; it begins the next one.

        Args:
            now_s: The time.
            cooldown_s: How long the window under way is meant to be now; None: as before.
        """
        if cooldown_s is not None:
            self._cooldown_s = cooldown_s
        return None if self._is_open(now_s) else self.drain(now_s)

    def drain(self, now_s: float) -> Kept[T] | None:
        """Return what is held, whether its window is over or not."""
        if self._held is None:
            return None
        item, kind, _ = self._held
        return self._keep(item, kind, now_s)

    def keeps(self, importance: Importance, now_s: float) -> bool:
        """Whether an item of this importance would be kept or held, and not merely counted."""
        return not self._is_open(now_s) or self._held is None or importance > self._held[2]

    def offer(self, item: T, kind: str, importance: Importance, now_s: float) -> Kept[T] | None:
        """Offer an item. Call `release()` first: what is overdue goes before what is new.

        Args:
            item: Anything.
            kind: Under which name it is counted if another one is kept.
            importance: The greatest is kept; of equals, the first.
            now_s: The time.

        Returns:
            The item, if it goes out at once.
        """
        if not self.keeps(importance, now_s):
            self.count(kind)
            return None
        if self._held is not None:
            self.count(self._held[1])
        if not self._is_open(now_s):
            return self._keep(item, kind, now_s)
        self._held = (item, kind, importance)
        return None

    def count(self, kind: str) -> None:
        """Count an item that was not offered, because `keeps()` said so."""
        self._counts[kind] += 1

    def give_back(self, kept: Kept[T]) -> None:
        """Take back what could not be written: it is counted, and the next one may go at once."""
        self._counts.update(kept.counts)
        self._counts[kept.kind] += 1
        self._began_s = -math.inf

    def _is_open(self, now_s: float) -> bool:
        return now_s < self._began_s + self._cooldown_s

    def _keep(self, item: T, kind: str, now_s: float) -> Kept[T]:
        kept = Kept(item, kind, dict(self._counts))
        self._held = None
        self._counts.clear()
        self._began_s = now_s
        return kept
