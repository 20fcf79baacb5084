"""Which events were taken lately: a client that repeats its request makes no second event.

The id of an event is made from its body, which holds the moment of inference to the microsecond,
and from a random text of this log's own. So the same body has the same id, whoever asks, however
often, and also after the server was killed between append and answer. Ids are in the log; the
newest are read back at start. What is too old to be remembered is appended again, under the same
id, and the API overwrites the first with the second.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vevents.files import replaced
from vevents.log import READABLE

if TYPE_CHECKING:
    from vevents.log import EventLog

SALT_SIZE: Final = 32
# Half an hour at five events a second, and about 1 MB.
RECENT_COUNT_MAX: Final = 10_000

_LOGGER = logging.getLogger(__name__)


class RecentEvents:
    """The ids of the newest events, and of those that are being appended.

    Threads: any method from any thread.

    Args:
        ids: Known ones, oldest first.
        count_max: How many are remembered; the oldest are forgotten first.
    """

    def __init__(self, ids: Iterable[str] = (), *, count_max: int = RECENT_COUNT_MAX) -> None:
        self._count_max = count_max
        self._known: OrderedDict[str, None] = OrderedDict()
        self._claimed: set[str] = set()
        self._changed = threading.Condition()
        for event_id in ids:
            self._remember(event_id)

    @contextmanager
    def claim(self, event_id: str) -> Iterator[bool]:
        """Hold an id while its event is appended.

        Waits while somebody else holds the same id: a client that lost patience repeats a request
        whose first copy is still under way.

        Args:
            event_id: Remembered at the end, unless the block raises.

        Yields:
            Whether the event is new and has to be appended.
        """
        with self._changed:
            while event_id in self._claimed:
                self._changed.wait()
            new = event_id not in self._known
            if new:
                self._claimed.add(event_id)
        if not new:
            yield False
            return
        try:
            yield True
            with self._changed:
                self._remember(event_id)
        finally:
            with self._changed:
                self._claimed.discard(event_id)
                self._changed.notify_all()

    def _remember(self, event_id: str) -> None:
        self._known[event_id] = None
        self._known.move_to_end(event_id)
        while len(self._known) > self._count_max:
            self._known.popitem(last=False)


def read_back(log: EventLog, count: int = RECENT_COUNT_MAX) -> Iterator[str]:
    """Yield the ids of the newest events of a log, oldest first."""
    from_seq = max(1, log.stats().last_seq - count + 1)
    for record in log.read(from_seq=from_seq, states=READABLE):
        yield record.event_id


def load_salt(directory: Path) -> bytes:
    """Return the random bytes that belong to a log; made and kept at the first call.

    Without them, two devices that report the same at the same whole second would use one id, and
    one event would overwrite the other.

    Raises:
        OSError: The file can be neither read nor made.
    """
    path = directory / "store.salt"
    try:
        salt = path.read_bytes()
        if len(salt) == SALT_SIZE:
            return salt
        _LOGGER.warning("%s is damaged and made anew: older requests may be taken twice", path)
    except FileNotFoundError:
        pass
    salt = secrets.token_bytes(SALT_SIZE)
    with replaced(path, binary=True) as file:
        file.write(salt)
    return salt
