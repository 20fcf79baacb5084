"""Refusals that are not believed at once: of events, and of images.

What is set aside does not come back by itself, so a refusal has to be the server's, and of that
very thing. Many that come one after the other with nothing accepted in between are neither: a wrong
key, a bad release or something that stands before the server must not empty a backlog.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from vevents.delivery.sender import StopError, StopReason
from vevents.errors import RefusedError

_Thing = TypeVar("_Thing")

# So many refusals in a row that say nothing of the thing: it has nothing to do with it.
_DOUBTED_MAX: Final = 20
# A thing that something before the server blocks is set aside after so many tries, with another
# accepted before each: a guest network's login page may have come and gone.
BLOCKED_TRIES: Final = 3
# So many in a row that do, and the thing is set aside: beyond that they are not believed.
_REFUSED_ALONE_MAX: Final = 20


class Doubts(Generic[_Thing]):
    """The refusals of one kind of things in one pass. For the thread that flushes.

    Args:
        things: What they are called, in the plural.
        staying: What happens to those that are not set aside, for messages.
        believe: Sets one aside for good.
    """

    def __init__(
        self, things: str, staying: str, believe: Callable[[_Thing, RefusedError], object]
    ) -> None:
        self._things = things
        self._staying = staying
        self._believe = believe
        self._doubted: list[tuple[_Thing, RefusedError]] = []
        self._believed = 0  # since one was accepted

    def __len__(self) -> int:
        return len(self._doubted)

    def add(self, thing: _Thing, error: RefusedError) -> None:
        """Take in a refusal that says nothing of the thing: it is believed when another goes.

        Raises:
            StopError: All meet it.
        """
        self._doubted.append((thing, error))
        if len(self._doubted) >= _DOUBTED_MAX:
            raise self.disbelief()

    def count(self, error: RefusedError) -> None:
        """Count a refusal that says what is wrong with the thing; it can be set aside.

        Raises:
            StopError: One is refused after the other and none accepted; leave it as it is.
        """
        self._believed += 1
        if self._believed > _REFUSED_ALONE_MAX:
            raise StopError(
                StopReason.SERVER,
                f"{_REFUSED_ALONE_MAX} {self._things} were refused and none accepted, so it may "
                f"not be their fault; {self._staying}: {error}",
            )

    def accepted(self, was_doubted: Callable[[_Thing], bool] = lambda _: True) -> None:
        """The server takes such things: what was doubted is set aside.

        Args:
            was_doubted: Whether one was refused before the server took this one.
        """
        self._believed = 0
        doubted, self._doubted = self._doubted, []
        for thing, error in doubted:
            if was_doubted(thing):
                self._believe(thing, error)
            else:
                self._doubted.append((thing, error))

    def disbelief(self) -> StopError:
        """Say why those that are doubted are not set aside."""
        _, error = self._doubted[-1]
        return StopError(
            StopReason.SERVER,
            f"{len(self._doubted)} {self._things} were refused with {error.status_code} ({error}) "
            f"and none was accepted since, so it is not believed; {self._staying}: is there a "
            "proxy or firewall that does not let them through?",
        )
