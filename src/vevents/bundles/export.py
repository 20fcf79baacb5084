"""From a log to bundles: what is pending goes into files, and stays pending until it has arrived.

A stick can get lost, and a file that was copied is not delivered. So exporting marks nothing by
itself: it notes in delivery.ring which events were exported, and the next export passes over them.
They become delivered when a receipt says that they have arrived, which `vevents import` leaves on
the stick. Whoever has other means to know says so (`delivered`). In every doubt an event is
exported once more: it keeps its id, and the server overwrites it with itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from vevents.archive import pack
from vevents.bundles.outbox import Outbox, bundle_name
from vevents.delivery.clock import ClockRepair
from vevents.delivery.lock import flush_lock
from vevents.delivery.notes import Notes
from vevents.errors import EventValidationError
from vevents.wire import required_frames

if TYPE_CHECKING:
    from vevents.event import Event
    from vevents.log import EventLog, Record

_NOTE: Final = "exported"
_DIGEST_SIZE: Final = 8
_CHUNK_COUNT: Final = 100
_CHUNK_SIZE: Final = 64 * 2**20
# Before it the device's clock was not set, and the server refuses the event for good.
_PLAUSIBLE: Final = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        exported: Bundles that are complete in the directory now.
        already_there: Of these, the ones that an export which was broken off had written.
        bytes: Of the bundles written.
        frames_missing: Frames of these events that are gone, or too large for a bundle.
        awaiting_receipt: Events passed over because an earlier export wrote them.
        received: Events marked as delivered because a receipt says so.
        marked: Events marked as delivered because the caller said so.
        clock_not_set: Events that stay because nobody knows their time yet.
        unreadable: Events that stay because their record holds something that is no event.
        stopped_reason: `max-events`, `max-bytes`, or None when all was exported.
    """

    exported: int = 0
    already_there: int = 0
    bytes: int = 0
    frames_missing: int = 0
    awaiting_receipt: int = 0
    received: int = 0
    marked: int = 0
    clock_not_set: int = 0
    unreadable: int = 0
    stopped_reason: str | None = None


@dataclass(slots=True)
class _Chunk:
    """Bundles that are written and neither noted nor marked yet."""

    records: list[Record] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    size: int = 0


class Exporter:
    """Writes what is pending in a log to a directory.

    Args:
        log: The log, open for writing.
        outbox: The directory.
        use_case_id: Put into bundles of events that name none. Without it they name none: whoever
            sends them says it, and no cloud id enters the closed network.
        delivered: Mark what was written as delivered, without waiting for a receipt.
        again: Export what was exported before and is still pending, too: the stick was lost.
    """

    def __init__(
        self,
        log: EventLog,
        outbox: Outbox,
        *,
        use_case_id: str | None = None,
        delivered: bool = False,
        again: bool = False,
    ) -> None:
        self._log = log
        self._outbox = outbox
        self._use_case_id = use_case_id
        self._delivered = delivered
        self._again = again
        self._notes = Notes(log)
        self._clock = ClockRepair(log, self._notes)

    def run(
        self,
        *,
        max_events: int | None = None,
        max_bytes: int | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> ExportReport:
        """Export everything that is pending now.

        Bundles are noted a hundred at a time. Whatever ends it in between leaves complete files,
        which the next export finds.

        Args:
            max_events: At most so many bundles.
            max_bytes: Begin no bundle once so many bytes are written.
            progress: Told how many events were looked at, and of how many.

        Raises:
            FlushLockedError: A flush or another export of this log is running.
            OSError: The directory cannot be written, for example because the stick is full. What
                was written until then is noted.
        """
        with flush_lock(self._log.directory):
            self._outbox.clean()
            self._clock.begin()
            report = ExportReport()
            exported = self._exported()
            self._take_receipts(exported, report)
            total = self._log.stats().pending
            last_seq = self._log.stats().last_seq
            chunk = _Chunk()
            try:
                for done, record in enumerate(self._pending(last_seq)):
                    progress(done, total)
                    if not self._again and exported.get(record.seq, (b"",))[0] == record.id:
                        report.awaiting_receipt += 1
                        continue
                    if max_events is not None and report.exported >= max_events:
                        report.stopped_reason = "max-events"
                        break
                    if max_bytes is not None and report.bytes >= max_bytes:
                        report.stopped_reason = "max-bytes"
                        break
                    self._write(record, chunk, report)
                    if len(chunk.records) >= _CHUNK_COUNT or chunk.size >= _CHUNK_SIZE:
                        chunk = self._settle(chunk, report)
            finally:
                self._settle(chunk, report)
            progress(total, total)
            return report

    def _pending(self, last_seq: int) -> Iterable[Record]:
        for record in self._log.read():
            if record.seq > last_seq:
                return
            yield record

    def _exported(self) -> dict[int, tuple[bytes, bytes]]:
        """Return the ids in the records that were exported and their bundles, by sequence number.

        The number alone does not say: a ring that was unusable begins anew.
        """
        found: dict[int, tuple[bytes, bytes]] = {}
        for _, note in self._log.notes():
            if note.get("kind") != _NOTE:
                continue
            # A note that is not as it should be only means that its events are exported again.
            with suppress(KeyError, TypeError):
                ids, names = note["ids"], note["names"]
                for i, seq in enumerate(note["seqs"]):
                    found[seq] = ids[i * 16 :][:16], names[i * _DIGEST_SIZE :][:_DIGEST_SIZE]
        return found

    def _take_receipts(
        self, exported: dict[int, tuple[bytes, bytes]], report: ExportReport
    ) -> None:
        arrived = {_digest(name) for receipt in self._outbox.receipts() for name in receipt}
        if not arrived:
            return
        chunk = _Chunk()
        for record in self._log.read():
            record_id, name = exported.get(record.seq, (b"", b""))
            if record_id != record.id or name not in arrived:
                continue
            chunk.records.append(record)
            event = self._decode(record)
            chunk.frames += [] if event is None else [ref.seq for ref in required_frames(event)]
            if len(chunk.records) >= _CHUNK_COUNT:
                report.received += self._mark(chunk)
                chunk = _Chunk()
        report.received += self._mark(chunk)

    def _write(self, record: Record, chunk: _Chunk, report: ExportReport) -> None:
        event = self._decode(record)
        if event is None:
            report.unreadable += 1
            return
        correction = self._clock.correct(record)
        if correction is not None:
            event = correction.apply(event)
        assert event.timestamp is not None
        assert event.event_id is not None
        if event.timestamp < _PLAUSIBLE and not record.time_given:
            report.clock_not_set += 1
            return
        frames: dict[int, bytes] = {}
        missing: dict[int, str] = {}
        for ref in required_frames(event):
            data = self._log.frame(ref)
            if data is None:
                missing[ref.seq] = "evicted"
            else:
                frames[ref.seq] = data
        archive, left_out = pack(event, frames, missing=missing, use_case_id=self._use_case_id)
        name, is_new = self._outbox.write_bundle(
            bundle_name(event.event_id, event.timestamp), archive
        )
        if is_new:
            report.bytes += len(archive)
        else:
            report.already_there += 1
        report.exported += 1
        report.frames_missing += left_out
        chunk.records.append(record)
        chunk.names.append(_digest(name))
        chunk.frames += frames
        chunk.size += len(archive)

    def _decode(self, record: Record) -> Event | None:
        try:
            return self._log.decode(record)
        except EventValidationError:
            return None

    def _settle(self, chunk: _Chunk, report: ExportReport) -> _Chunk:
        """Note, or mark, what is safely in the directory. Returns an empty chunk."""
        if chunk.records:
            self._outbox.sync()
            if self._delivered:
                report.marked += self._mark(chunk)
            else:
                note: dict[str, Any] = {
                    "kind": _NOTE,
                    "seqs": [record.seq for record in chunk.records],
                    "ids": b"".join(record.id for record in chunk.records),
                    "names": b"".join(chunk.names),
                    "at": self._log.now().wall_ns,
                }
                self._notes.append(note)
        return _Chunk()

    def _mark(self, chunk: _Chunk) -> int:
        if not chunk.records:
            return 0
        count = self._log.ack([record.seq for record in chunk.records])
        self._log.mark(sorted(set(chunk.frames)), "delivered", "media")
        return count


def _digest(name: str) -> bytes:
    """Return what notes name a bundle by: names are long, and the ring is small."""
    return hashlib.blake2b(name.encode(), digest_size=_DIGEST_SIZE).digest()
