"""When an event was really seen, on a device whose clock was wrong then.

Boards without a battery start in 1970, or where they stopped, and learn the time minutes or days
later; a clock may also be set by hand. Every record carries the wall time as the clock stood, the
time since boot, and a tag of that boot. Within one boot the two clocks run side by side, so that

    base = wall time - time since boot                        (the moment of the boot, as believed)

changes only when the wall clock is set. Once the true base of a boot is known, the true time of
every record of that boot is: base + time since boot. It is known, in this order,

    measured    for the boot that runs now: from the clock if the kernel says that it follows a
                reference, else from the server's; noted in delivery.ring, and so known for that
                boot later on
    recorded    for a boot that ended before anybody noted it: its last record, if the time in it
                can be true, shows how the clock stood after all that happened to it
    estimated   for a boot that never knew the time: it ended at the latest when the next one began

Times that the caller gave are the caller's business and stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from vevents.delivery.notes import clock_note
from vevents.event import METADATA_KEY_COUNT_MAX

if TYPE_CHECKING:
    from vevents.delivery.notes import Notes
    from vevents.event import Event
    from vevents.log import EventLog, Record

# Below this a difference is left alone: clocks are stepped by parts of a second now and then.
_TOLERANCE_NS: Final = 2_000_000_000
# The server's clock is read from a header in whole seconds, after a way of unknown length.
SERVER_TOLERANCE_S: Final = 60.0
# No record was made before 2024.
_PLAUSIBLE_NS: Final = 1_704_067_200 * 10**9
_BOOTS_FOLLOWED_MAX: Final = 1000

Source = Literal["measured", "recorded", "estimated"]
_ALL_STATES: Final = ("pending", "delivered", "rejected", "lost")


@dataclass(frozen=True, slots=True)
class Base:
    """The wall time at which a boot began, in ns since 1970, and how that is known."""

    wall_ns: int
    source: Source


@dataclass(frozen=True, slots=True)
class Correction:
    """The true time of a record, by how much the clock was behind, and how that is known."""

    wall_ns: int
    by_ns: int
    source: Source

    def apply(self, event: Event) -> Event:
        """Return the event with the true time, and with the correction in its metadata."""
        from datetime import UTC, datetime, timedelta

        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        metadata = dict(event.metadata or {})
        if len(metadata) <= METADATA_KEY_COUNT_MAX - 2:
            metadata["vevents_clock_behind_s"] = round(self.by_ns / 1e9, 3)
            metadata["vevents_clock_source"] = self.source
        moment = epoch + timedelta(microseconds=self.wall_ns // 1000)
        return replace(event, timestamp=moment, metadata=metadata)


@dataclass(slots=True)
class _Boot:
    """What the log says of a boot that has ended.

    Attributes:
        last_mono_ns: Of its last record.
        base_ns: Of its last record whose time is the clock's.
        last_wall_ns: Likewise.
        following: The boot of the next record; None when there is none yet.
        following_seq: Of that record.
    """

    last_mono_ns: int
    base_ns: int
    last_wall_ns: int
    following: int | None = None
    following_seq: int = 0


class ClockRepair:
    """Knows the bases of the boots whose records are in a log. For one thread.

    Args:
        log: The log.
        notes: Its notes, to write to.
    """

    def __init__(self, log: EventLog, notes: Notes) -> None:
        self._log = log
        self._notes = notes
        self._now = log.now()
        self._bases: dict[int, Base | None] = {}
        self._boots: dict[int, _Boot] = {}

    def begin(self) -> None:
        """Look at the clock; before every pass."""
        self._now = self._log.now()
        self._bases |= {
            boot: Base(base_ns, "measured") for boot, base_ns in self._notes.update().clocks.items()
        }
        # What was not known may be by now, and what was estimated may be better.
        known = {boot: base for boot, base in self._bases.items() if base is not None}
        self._bases = {b: base for b, base in known.items() if base.source != "estimated"}
        if self._now.synced:
            self._settle(self._now.wall_ns)

    @property
    def needs_server(self) -> bool:
        """Whether nobody vouches for this device's clock: then ask the server for the time."""
        return not self._now.synced

    def ask_server(self, clock_offset_s: float | None) -> None:
        """Take the server's time.

        Args:
            clock_offset_s: Seconds by which the server's clock is ahead of ours; None: it did not
                say.
        """
        # The clock may have been set while the server was asked.
        self._now = self._log.now()
        if clock_offset_s is None:
            return
        if self._now.synced:
            clock_offset_s = 0.0
        if abs(clock_offset_s) < SERVER_TOLERANCE_S:
            clock_offset_s = 0.0
        self._settle(self._now.wall_ns + int(clock_offset_s * 1e9))

    def correct(self, record: Record) -> Correction | None:
        """Return what is to be corrected of a record's time; None: nothing."""
        if record.time_given:
            return None
        base = self._base_of(record.boot, record.seq)
        if base is None:
            return None
        wall_ns = base.wall_ns + record.mono_ns
        by_ns = wall_ns - record.wall_ns
        if abs(by_ns) <= _TOLERANCE_NS:
            return None
        return Correction(wall_ns, by_ns, base.source)

    def _settle(self, wall_ns: int) -> None:
        """Keep what the true time is now, also for those who come after this boot."""
        base = Base(wall_ns - self._now.mono_ns, "measured")
        self._bases[self._now.boot] = base
        noted_ns = self._notes.clocks.get(self._now.boot)
        if noted_ns is None or abs(noted_ns - base.wall_ns) > _TOLERANCE_NS:
            self._notes.append(clock_note(self._now.boot, base.wall_ns))

    def _base_of(self, boot: int, seq: int) -> Base | None:
        """Find the base of a boot that has a record `seq`."""
        if boot in self._bases:
            return self._bases[boot]
        if boot == self._now.boot:
            return None  # nobody vouches for the clock
        # Boots that never knew the time lean on the one after them, and that may, too.
        chain: list[int] = []
        found: Base | None = None
        at: int | None = boot
        at_seq = seq
        while at is not None and at not in chain and len(chain) < _BOOTS_FOLLOWED_MAX:
            if at in self._bases:
                found = self._bases[at]
                break
            if at == self._now.boot:
                break
            here = self._look(at, at_seq)
            if here.last_wall_ns >= _PLAUSIBLE_NS:
                found = self._bases[at] = Base(here.base_ns, "recorded")
                break
            chain.append(at)
            at, at_seq = here.following, here.following_seq
        else:
            if at is None:
                found = self._bases.get(self._now.boot)
        for each in reversed(chain):
            if found is not None:
                # The last record was made before the next boot began, and mostly shortly before.
                found = Base(found.wall_ns - self._boots[each].last_mono_ns, "estimated")
            self._bases[each] = found
        return found

    def _look(self, boot: int, seq: int) -> _Boot:
        """Read on from a record to the end of its boot."""
        here = _Boot(0, 0, 0)
        for record in self._log.read("events", from_seq=seq, states=_ALL_STATES):
            if record.boot != boot:
                here.following, here.following_seq = record.boot, record.seq
                break
            here.last_mono_ns = record.mono_ns
            if not record.time_given:
                here.last_wall_ns = record.wall_ns
                here.base_ns = record.wall_ns - record.mono_ns
        self._boots[boot] = here
        return here
