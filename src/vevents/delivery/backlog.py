"""In which order the pending events of a log are handed over.

    oldest     as they were appended
    newest     window by window from the end
    priority   by type of event, within a type the oldest first: the log is read once per type
    live first what is appended meanwhile goes between two windows of the backlog

Events with the same id keep the order in which they were appended, whatever the order of the rest:
the API overwrites, and the last one has to be the last. So where the order is not the log's own,
the ids of the backlog are looked through first, each record once in the life of the process, and
of events that share an id all go when the first of them has its turn. An event that is appended
meanwhile under the id of one that may be pending is not taken as live; it waits for the next pass.

Memory: one window of records; where ids are looked at, also a filter of fixed size and the few ids
that occur twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from vevents.errors import ConfigurationError
from vevents.event import EventType
from vevents.frames import digest

if TYPE_CHECKING:
    from vevents.log import EventLog, Record

Order = Literal["oldest", "newest", "priority"]
ORDERS: Final[tuple[Order, ...]] = ("oldest", "newest", "priority")

DEFAULT_PRIORITIES: Final = (
    EventType.SAFETY_ALERT,
    EventType.QUALITY_CHECK,
    EventType.OPERATOR_FEEDBACK,
    EventType.INVENTORY_COUNT,
    EventType.CUSTOM,
)

_WINDOW: Final = 100
_WINDOW_SIZE_MAX: Final = 2 << 20
_STEP_MAX: Final = 1 << 40
# Eight hundred thousand ids fill about a tenth of the filter, which then errs once in 10,000.
_FILTER_BITS: Final = 1 << 25
_FILTER_HASHES: Final = 4
_FILTERED_IDS_MAX: Final = 2_000_000
_SHARED_RECORDS_MAX: Final = 65_536


def parse_priorities(names: Sequence[EventType | str]) -> tuple[EventType, ...]:
    """Return event types in the order of their importance.

    Args:
        names: Event types, the most important first.

    Raises:
        ConfigurationError: One is no event type, or stands there twice.

    Example:
        >>> [str(kind) for kind in parse_priorities(["custom", "safety_alert"])]
        ['custom', 'safety_alert']
    """
    kinds: list[EventType] = []
    for name in names:
        try:
            kind = EventType(name)
        except ValueError:
            known = ", ".join(map(str, EventType))
            raise ConfigurationError(f"priorities: {name!r}; one of {known}") from None
        if kind in kinds:
            raise ConfigurationError(f"priorities: {str(kind)!r} stands there twice")
        kinds.append(kind)
    return tuple(kinds)


class IdFilter:
    """A set of ids in fixed memory: it never forgets one, and seldom takes one for another."""

    def __init__(self) -> None:
        self._bits = bytearray(_FILTER_BITS // 8)

    def add(self, event_id: str) -> bool:
        """Take an id in. Returns whether it was there before."""
        known = True
        for place, bit in _places(event_id):
            known = known and bool(self._bits[place] & bit)
            self._bits[place] |= bit
        return known

    def __contains__(self, event_id: str) -> bool:
        return all(self._bits[place] & bit for place, bit in _places(event_id))


def _places(event_id: str) -> list[tuple[int, int]]:
    number = int.from_bytes(digest(event_id.encode(errors="surrogatepass")))
    places = []
    for _ in range(_FILTER_HASHES):
        number, place = divmod(number, _FILTER_BITS)
        places.append((place >> 3, 1 << (place & 7)))
    return places


class SharedIds:
    """Which ids occur more than once among the pending events of a log.

    Args:
        log: The log.

    Attributes:
        kinds: Numbers of the event types that were seen.
        overflow: There are more shared ids than memory allows; nobody may rely on `seqs`.
        seqs: For each id that occurs twice, the sequence numbers of its records, in order. Some of
            them may not be pending any more.
        stale: Set it to have everything looked at again by the next `update`.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._forget()

    def _forget(self) -> None:
        self.stale = False
        self.kinds: set[int] = set()
        self.overflow = False
        self.seqs: dict[str, list[int]] = {}
        self._filter: IdFilter | None = None
        self._again: set[str] = set()
        self._count = 0
        self._next_seq = 0

    def __contains__(self, event_id: str) -> bool:
        """Whether a record under this id may have been looked at."""
        return self._filter is not None and event_id in self._filter

    def update(self, last_seq: int, check: Callable[[], None]) -> None:
        """Look at the pending records up to `last_seq` that were not looked at before.

        Args:
            last_seq: The last one to look at.
            check: Called now and then; what it raises breaks the look off, and the next one goes
                on from there.
        """
        if self.stale or self._count > _FILTERED_IDS_MAX:
            self._forget()
        if self._filter is None:
            self._filter = IdFilter()
        for record in _pending(self._log, self._next_seq, last_seq, check):
            self._next_seq = record.seq + 1
            event_id = self._log.event_id(record)
            self.kinds.add(record.kind)
            self._count += 1
            if not self._filter.add(event_id):
                continue
            if event_id in self.seqs:
                self.seqs[event_id].append(record.seq)
            else:
                self._again.add(event_id)
        self._next_seq = max(self._next_seq, last_seq + 1)
        if self._again:
            # The filter tells of the second one only; the first one has to be found.
            found: dict[str, list[int]] = {event_id: [] for event_id in self._again}
            for record in _pending(self._log, 0, last_seq, check):
                event_id = self._log.event_id(record)
                if event_id in found:
                    found[event_id].append(record.seq)
            self.seqs |= {event_id: seqs for event_id, seqs in found.items() if len(seqs) > 1}
            self._again = set()
            self.overflow = sum(map(len, self.seqs.values())) > _SHARED_RECORDS_MAX
            if self.overflow:
                self.seqs = {}


class Backlog:
    """The events that were pending at one moment, in order.

    Args:
        log: The log.
        order: What goes first.
        priorities: For `"priority"`: numbers of event types, the most important first.
        live_first: Whether what is appended meanwhile goes in between.
        shared: What is known of the ids in the log; kept for the next time.
        on_live: Called with the number of live events each time there are some.
        check: Called before every window that is read; what it raises ends the iteration.

    Attributes:
        complete: Whether the iteration left out nothing that was pending.
    """

    def __init__(
        self,
        log: EventLog,
        order: Order,
        priorities: Sequence[int],
        live_first: bool,
        shared: SharedIds,
        on_live: Callable[[int], object],
        check: Callable[[], None],
    ) -> None:
        self._log = log
        self._order = order
        self._priorities = priorities
        self._live_first = live_first
        self._shared = shared
        self._on_live = on_live
        self._check = check
        self.complete = True
        self._last_seq = log.stats("events").last_seq
        self._live_seq = self._last_seq + 1

    def __iter__(self) -> Iterator[Record]:
        for count, record in enumerate(self._ordered()):
            if self._live_first and count % _WINDOW == 0:
                # As many live events as old ones at most: so the backlog shrinks and the pass
                # ends, however fast new ones come.
                yield from self._live()
            yield record

    def _ordered(self) -> Iterator[Record]:
        if self._order == "oldest":
            return self._oldest(0, self._last_seq)
        self._shared.update(self._last_seq, self._check)
        if self._shared.overflow:
            return self._oldest(0, self._last_seq)
        found = self._newest() if self._order == "newest" else self._by_priority()
        return self._together(found)

    def _newest(self) -> Iterator[Record]:
        """Window by window from the end; the step follows how many are pending there."""
        first_seq = max(1, self._log.stats("events").first_seq)
        high, step = self._last_seq + 1, _WINDOW
        while high > first_seq:
            low = max(first_seq, high - step)
            found: list[Record] = []
            size = 0
            for record in self._oldest(low, high - 1):
                found.append(record)
                size += len(record.payload)
                if len(found) > 1 and (len(found) > _WINDOW or size > _WINDOW_SIZE_MAX):
                    step = max(1, (high - low) // 2)
                    break
            else:
                yield from reversed(found)
                high = low
                if len(found) < _WINDOW // 2:
                    step = min(2 * step, _STEP_MAX)

    def _by_priority(self) -> Iterator[Record]:
        rank_of = {kind: rank for rank, kind in enumerate(self._priorities)}
        last = len(rank_of)
        for rank in sorted({rank_of.get(kind, last) for kind in self._shared.kinds}):
            for record in self._oldest(0, self._last_seq):
                if rank_of.get(record.kind, last) == rank:
                    yield record

    def _together(self, records: Iterator[Record]) -> Iterator[Record]:
        """Put the events that share an id behind each other, in the order of the log."""
        shared = self._shared
        left = dict(shared.seqs)
        for record in records:
            event_id = self._log.event_id(record)
            if event_id not in shared:
                # It was just being written when the ids were looked through; or it is pending
                # again, and who made it so died before a note said so. The next pass will know it.
                shared.stale = True
                self.complete = False
                continue
            if event_id not in shared.seqs:
                yield record
                continue
            for seq in left.pop(event_id, ()):
                found, _ = self._log.read_batch("events", seq, ("pending",), 1)
                if found and found[0].seq == seq:
                    yield found[0]

    def _live(self) -> Iterator[Record]:
        """What was appended since, one window at most."""
        last_seq = self._log.stats("events").last_seq
        if last_seq < self._live_seq:
            return
        self._shared.update(self._last_seq, self._check)
        records, following = self._log.read_batch("events", self._live_seq, ("pending",), _WINDOW)
        if records:
            self._live_seq = following
        live = [record for record in records if self._log.event_id(record) not in self._shared]
        self._on_live(len(live))
        yield from live

    def _oldest(self, from_seq: int, last_seq: int) -> Iterator[Record]:
        return _pending(self._log, from_seq, last_seq, self._check)


def _pending(
    log: EventLog, from_seq: int, last_seq: int, check: Callable[[], None]
) -> Iterator[Record]:
    """Pending events as they were appended, from one sequence number to another."""
    while from_seq <= last_seq:
        check()
        records, from_seq = log.read_batch("events", from_seq, ("pending",), _WINDOW)
        for record in records:
            if record.seq > last_seq:
                return
            yield record
        if not records:
            return
