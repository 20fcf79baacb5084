"""The event log: events and their frames on disk, in a bounded, crash-safe ring.

    append:  Event -> validate -> pressure -> frames to media.ring -> codec -> events.ring
    read:    events.ring -> Record -> codec -> Event

Nothing here knows about the network; the flusher reads and marks.
"""

from __future__ import annotations

import operator
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from numbers import Integral, Real
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgpack

from vevents import _ffi, codec, frames
from vevents._ffi import Moment
from vevents.errors import (
    ConfigurationError,
    EventTooLargeError,
    EventValidationError,
    LogDegradedError,
    LogFullError,
)
from vevents.event import Event, Frame, FrameRef, Picture, uuid_text
from vevents.frames import Action

if TYPE_CHECKING:
    from pathlib import Path

    from vevents.pressure import Filling, Ladder, Pressure, Shedder, Step
else:
    # For who asks for types at run time: the exact ones would be loaded for all who only append.
    Path = os.PathLike[str]
    Ladder = Pressure = Step = Any

Stream = Literal["events", "media", "delivery"]
State = Literal["pending", "delivered", "rejected", "lost"]
# The states of the records that can be read back.
READABLE: Final[tuple[State, ...]] = ("pending", "delivered", "rejected")

_STREAMS: Final[dict[str, int]] = {
    "events": _ffi.EVENTS,
    "media": _ffi.MEDIA,
    "delivery": _ffi.DELIVERY,
}
_STATES: Final[dict[str, int]] = {
    "pending": _ffi.PENDING,
    "delivered": _ffi.DELIVERED,
    "rejected": _ffi.REJECTED,
    "lost": _ffi.LOST,
}
_STATE_NAMES: Final = {number: name for name, number in _STATES.items()}
_READABLE_MASK: Final = 1 << _ffi.PENDING | 1 << _ffi.DELIVERED | 1 << _ffi.REJECTED
_FULL: Final[dict[str, int]] = {
    "drop-oldest": _ffi.FULL_DROP_OLDEST,
    "refuse": _ffi.FULL_REFUSE,
}
_LEVEL_RAW: Final = 100
_SEQ_MAX: Final = 2**64 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Frames remembered by content, so that one used by several events is stored once.
_RECENT_FRAMES: Final = 64
# As large as a reference gets: for the size of an event whose frames are not stored yet.
_ANY_REF: Final = FrameRef(2**63 - 1, bytes(16), 2**32 - 1)


class _Refusal(NamedTuple):
    """What became of the last append that the ring of events refused.

    Attributes:
        error: What it raised.
        size: Bytes of the event.
        settled: Events that were not pending any more then.
    """

    error: LogFullError | LogDegradedError
    size: int
    settled: int


class Receipt(NamedTuple):
    """What an append returned: where the event stands and under which id it will be delivered.

    `shed` is the harshest thing that the pressure ladder did to a frame of the event, or None.
    """

    seq: int
    event_id: str
    timestamp: datetime
    shed: Action | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read back.

    Attributes:
        seq: Sequence number in its ring; the first is 1.
        id: 16 bytes: an event's UUID, or a frame's digest.
        wall_ns: Nanoseconds since 1970, UTC: the time given with the event, else the clock.
        mono_ns: Nanoseconds since boot, time in suspend included.
        boot: Tag of the boot in which it was appended.
        kind: Number of the event type or of the image format.
        state: Delivery state at the moment of reading.
        time_given: Whether the caller gave the time; if so it is not to be repaired.
        payload: The event's msgpack map, or the image.
        stored_size: Bytes on disk, header included.
    """

    seq: int
    id: bytes
    wall_ns: int
    mono_ns: int
    boot: int
    kind: int
    state: State
    time_given: bool
    # As frames in an event: megabytes do not belong in a log line.
    payload: bytes = field(repr=False)
    stored_size: int

    @property
    def event_id(self) -> str:
        """The UUID in the header; an id of another form stands in the payload."""
        return uuid_text(self.id)

    @property
    def timestamp(self) -> datetime:
        """`wall_ns` as an aware datetime in UTC, cut to microseconds."""
        return _EPOCH + timedelta(microseconds=self.wall_ns // 1000)


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Figures of one ring; `appended` is the sum of the five that follow it.

    Attributes:
        evicted_by_kind: Of `evicted`, by kind of record, 8 entries.
        lost_unfinished: Of `lost`: their writers died inside append.
        lost_damaged: Of `lost`: their bytes are not what was written.
        lost_missing: Of `lost`: they were in whole segments that are gone.
        durable_seq: Up to here a power cut loses nothing.
        bytes_on_disk: Size of the ring's file.
        bytes_used: Bytes of records in it that are not reclaimed yet.
        max_payload: Largest payload in bytes that the ring takes.
        degraded: 0, or the errno that stopped appends or syncs.
        set_aside: 1 if this open found an unusable file and moved it out of the way.
    """

    appended: int
    delivered: int
    pending: int
    rejected: int
    evicted: int
    lost: int
    evicted_by_kind: list[int]
    lost_unfinished: int
    lost_damaged: int
    lost_missing: int
    first_seq: int
    last_seq: int
    durable_seq: int
    bytes_on_disk: int
    bytes_used: int
    max_payload: int
    segment_size: int
    segment_count: int
    degraded: int
    set_aside: int

    @property
    def conserved(self) -> bool:
        """Whether everything appended is accounted for."""
        return self.appended == (
            self.delivered + self.pending + self.rejected + self.evicted + self.lost
        )

    @property
    def settled(self) -> int:
        """Records that are not pending any more; while it stays, a full ring stays full."""
        return self.appended - self.pending

    @property
    def capacity(self) -> int:
        """Bytes of records that fit until the oldest are reclaimed: one segment is kept free."""
        return (self.segment_count - 1) * self.max_payload

    @property
    def pending_share(self) -> float:
        """How much of the ring is not delivered, 0 to 1; at 1 the next to be reclaimed is.

        Delivered records stay until they are overwritten, so that a ring is full of records from
        its second lap on. The sizes of the pending ones are not known by themselves: each is taken
        as the mean of all that are readable.
        """
        readable = self.last_seq - self.first_seq + 1
        if readable <= 0:
            return 0.0
        filled = 1.0 if self.first_seq > 1 else min(1.0, self.bytes_used / self.capacity)
        return min(1.0, filled * self.pending / readable)


class Damage(NamedTuple):
    """Bytes of a ring's file that hold something else than they should.

    Attributes:
        offset: In the file, in bytes; 0 with size 0 when a whole segment is gone.
        size: Bytes.
        first_seq: Sequence number of the first record lost by it.
        record_count: How many records; 0 for a dictionary, whose records are named one by one.
    """

    offset: int
    size: int
    first_seq: int
    record_count: int


class Verification(NamedTuple):
    """What reading a whole ring showed.

    Attributes:
        good: Records that check and decompress.
        damaged: How many ranges do not.
        ranges: The first 1,000 of them, oldest first.
    """

    good: int
    damaged: int
    ranges: list[Damage]


class PersistReport(NamedTuple):
    """What it took to bring the copy of a RAM-first log up to date.

    Attributes:
        bytes_written: To the copy's files; pages that did not change are not written.
        writes: In how many writes.
        syncs: How often the flash was asked to keep them.
        durable_seq: Of the events: the copy holds everything up to here.
    """

    bytes_written: int
    writes: int
    syncs: int
    durable_seq: int


@dataclass(frozen=True, slots=True)
class CopyInfo:
    """The copy of a RAM-first log, as the last pass of any process left it.

    Attributes:
        directory: Where it is.
        age_s: Seconds since it was up to date; None: not yet, since the log was restored.
        interval_s: Longest time in seconds until it is up to date again; 0: only when asked.
        error: Why the last pass failed, or None.
        passes: How often it was brought up to date since the log was restored.
        bytes_written: Bytes that this took, written to the copy's files.
        since_s: Seconds since the log was restored.
    """

    directory: Path
    age_s: float | None
    interval_s: float
    error: str | None
    passes: int
    bytes_written: int
    since_s: float


def restore(
    directory: str | os.PathLike[str],
    persist_dir: str | os.PathLike[str],
    interval_s: float = 600.0,
) -> bool:
    """Make a log RAM-first: it lives in memory, and a copy of it is kept on flash.

    When the directory has no log, the one in the copy is put there. From then on every process that
    opens the log finds the copy: a sync brings it up to date, and `durable_seq` says what it holds.

    Args:
        directory: Of the log, on a tmpfs; made if absent, its parent must exist.
        persist_dir: Of the copy, on flash; likewise.
        interval_s: Longest time in seconds until an event is in the copy; 0: only when asked.

    Returns:
        Whether the log was taken from the copy; False when it is there already.

    Raises:
        LogForeignError: The copy is of another log, or the log has another copy.
        ConfigurationError: The interval is out of range, or both directories are one.
        OSError: A directory cannot be made or read, or the log does not fit into memory.
    """
    _check_number("persist_interval", interval_s, 0, 7 * 86_400, "seconds, up to 7 days")
    from pathlib import Path

    to, of = _path("directory", directory), _path("persist_dir", persist_dir)
    if Path(to).resolve() == Path(of).resolve():
        raise ConfigurationError(f"persist_dir: {persist_dir} is the log's own; it is for flash")
    return _ffi.restore(to, os.fspath(Path(of).absolute()), round(interval_s * 1000))


class EventLog:
    """A log in a directory: `events.ring`, `media.ring`, `delivery.ring`.

    Any number of threads and processes may have the same directory open and append. What `append`
    returned survives the death of the process at once, and a power cut as soon as `durable_seq`
    has reached it.

    Args:
        directory: Created with mode 0700 if absent; its parent must exist.
        events_size: Bytes on disk for events; 64 MiB unless given. Sizes apply to new files only.
        media_size: Bytes on disk for frames; 256 MiB unless given.
        delivery_size: Bytes on disk for the flusher's notes; 4 MiB unless given.
        segment_size: Bytes of events reclaimed at once, a multiple of 64 KiB; by ring size unless
            given.
        full: What happens to a new event when the ring is full of undelivered ones:
            `"drop-oldest"` makes room, `"refuse"` raises `LogFullError`.
        sync_interval_s: Longest time in seconds that an event waits for a background sync; 0 for
            none.
        level: zstd level, -7 to 9; 100 stores uncompressed, None is the library's choice, -2.
        read_only: Change and repair nothing; the log must exist.
        jpeg_quality: For frames given as arrays, 1 to 100.
        persist_dir: Directory on flash for a copy, when `directory` is in memory: see `restore`,
            which this calls first. Without it a log that is RAM-first already stays so.
        persist_interval_s: Longest time in seconds until an event is in the copy. It counts in
            place of `sync_interval_s`.
        pressure: What becomes of new frames while media.ring fills up with undelivered ones, see
            `vevents.pressure`. Without steps they are stored whole, and `full` decides.

    Raises:
        OSError: The directory or a file in it cannot be made, opened or filled (ENOSPC).
        LogVersionError: Written by a newer vevents.
        LogForeignError: The copy in `persist_dir` is of another log.
        ConfigurationError: An argument is out of range.

    Example:
        >>> with EventLog(directory) as log:
        ...     receipt = log.append(Event.custom(value="door opened", use_case_id="dock-7"))
        ...     log.stats().pending
        1
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        events_size: int | None = None,
        media_size: int | None = None,
        delivery_size: int | None = None,
        segment_size: int | None = None,
        full: Literal["drop-oldest", "refuse"] = "drop-oldest",
        sync_interval_s: float = 5.0,
        level: int | None = None,
        read_only: bool = False,
        jpeg_quality: int = 85,
        persist_dir: str | os.PathLike[str] | None = None,
        persist_interval_s: float = 600.0,
        pressure: Ladder | Sequence[Step] = (),
    ) -> None:
        self._directory = _path("directory", directory)
        _check_options(
            {
                "events_size": events_size,
                "media_size": media_size,
                "delivery_size": delivery_size,
            },
            segment_size,
            full,
            sync_interval_s,
            level,
            jpeg_quality,
        )
        self._jpeg_quality = jpeg_quality
        # Without a lock: a thread may be in here when another one forks, or when a signal's handler
        # appends. Each step is one of the interpreter's.
        self._recent: OrderedDict[bytes, FrameRef] = OrderedDict()
        self._refusal: _Refusal | None = None
        if persist_dir is not None and not read_only:
            restore(directory, persist_dir, persist_interval_s)
        self._shedder = self._make_shedder(pressure, jpeg_quality) if pressure else None
        self._handle = _ffi.Handle(
            self._directory,
            events_size=events_size,
            media_size=media_size,
            delivery_size=delivery_size,
            segment_size=segment_size,
            full_policy=_FULL[full],
            sync_interval_ms=round(sync_interval_s * 1000),
            level=level,
            read_only=read_only,
        )
        self._append_encoded = self._handle.append_encoded

    def __repr__(self) -> str:
        return f"EventLog({self._directory!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "an EventLog cannot be pickled or copied; open the directory again in each process"
        )

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """Where the log is."""
        # Whoever only appends does without: 0.6 MiB.
        from pathlib import Path

        return Path(self._directory)

    def close(self) -> None:
        """Sync and close; closing twice is fine.

        A call that another thread is inside of ends as if nothing were, and the log is closed when
        it has; the next one raises `LogError`.
        """
        if self._shedder is not None:
            self._shedder.gauge.close()
        self._handle.close()

    # ---- append ----

    def append(self, event: Event, *, sync: bool = False) -> Receipt:
        """Append one event with its frames.

        Args:
            event: Checked against the contract first; nothing is written if it breaks it.
            sync: Return only when the event would survive a power cut: for what must not wait
                for the background sync.

        Returns:
            Sequence number, event id and timestamp, all fixed for good.

        Raises:
            EventValidationError: A field breaks the contract; the message names it.
            EventTooLargeError: The event or a frame is larger than its ring accepts.
            LogFullError: No room, and the log was opened with `full="refuse"`.
            LogDegradedError: The disk failed earlier, or the files are gone.
            OSError: The disk fails now. With `sync`, the event is in the log but not durable.
        """
        if not isinstance(event, Event):
            raise EventValidationError("event", f"must be an Event, not {type(event).__name__}")
        event.validate()
        shed = None
        if event.images:
            if self._refusal is not None:
                self._refuse_before_its_frames(event, self._refusal)
            if self._shedder is not None:
                event, shed = self._shedder.shed(event, self._is_stored)
            event = self._keep_frames(event)
        flags = _ffi.APPEND_SYNC if sync else 0
        wall_ns = 0
        if event.timestamp is not None:
            flags |= _ffi.APPEND_TIME
            wall_ns = _to_ns(event.timestamp)
        record_id = codec.header_id(event.event_id)
        if record_id is not None:
            flags |= _ffi.APPEND_ID
        payload = codec.encode(event)
        try:
            seq, made_id, made_ns = self._handle.append(
                _ffi.EVENTS,
                payload,
                flags,
                codec.KIND_OF[event.event_type],
                record_id=record_id,
                wall_ns=wall_ns,
            )
        except EventTooLargeError:
            limit = self.stats().max_payload
            reason = f"{len(payload)} bytes, events.ring takes at most {limit}"
            raise EventTooLargeError("event", reason) from None
        except (LogFullError, LogDegradedError) as error:
            self._refusal = _Refusal(error, len(payload), self.stats().settled)
            raise
        return Receipt(
            seq,
            event.event_id if event.event_id is not None else uuid_text(made_id),
            event.timestamp or _EPOCH + timedelta(microseconds=made_ns // 1000),
            shed,
        )

    def _refuse_before_its_frames(self, event: Event, refusal: _Refusal) -> None:
        """Raise what the last refused event met, if this one would meet it as well.

        Frames go into media.ring before their event does, and there the oldest make room: those of
        events that are refused would push out those of events that are kept.
        """
        error = refusal.error
        if isinstance(error, LogFullError):
            if self.stats().settled != refusal.settled:
                self._refusal = None
                return
            images = [
                replace(
                    image,
                    frame=None if image.frame is None else _ANY_REF,
                    input_frame=None if image.input_frame is None else _ANY_REF,
                )
                for image in event.images
            ]
            if len(codec.encode(replace(event, images=tuple(images)))) < refusal.size:
                return
        # A disk that failed is not asked again before the log is opened anew.
        raise type(error)(*error.args)

    def append_encoded(self, payload: bytes, kind: int = 0, *, sync: bool = False) -> int:
        """Append an event that is encoded already (`codec.encode`, or the C event builder).

        The payload is not checked: this is the way for code that has proved its encoder.

        Args:
            payload: One msgpack map as specified in docs/format.md.
            kind: Number of the event type, `codec.KIND_OF`.
            sync: As for `append`.

        Returns:
            The sequence number.

        Raises:
            EventValidationError: The kind is above 7, or the payload empty.
            TypeError, ValueError: The payload is not bytes, or the kind no number from 0 on.
            EventTooLargeError, LogFullError, LogDegradedError, OSError: As for `append`.
        """
        try:
            return self._append_encoded(payload, kind, _ffi.APPEND_SYNC if sync else 0)
        except TypeError as error:
            name = "kind" if isinstance(payload, bytes | bytearray | memoryview) else "payload"
            raise TypeError(f"{name}: {error}") from None
        except OverflowError:
            raise ValueError(f"kind: {kind!r}; a whole number, 0 to 7") from None

    def box_writer(
        self,
        kind: int,
        texts: Mapping[str, str | None],
        data: Mapping[str, Any],
        metadata: Mapping[str, Any],
        class_names: Sequence[str | None],
    ) -> Any:
        """Return what `vevents.detections.DetectionWriter` appends with; see `_ffi.box_writer`."""
        return _ffi.box_writer(self._handle, kind, texts, data, metadata, class_names)

    def append_frame(self, data: Picture) -> FrameRef:
        """Put an image into media.ring, or find it there if it was put recently.

        Args:
            data: JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF, the path of one, or an array as in
                an `Image`. It is stored whole, whatever the pressure: there is no event yet that
                could say otherwise.

        Returns:
            The reference to use as `Image.frame`.

        Raises:
            EventTooLargeError: Larger than the ring accepts (`stats("media").max_payload`).
            EventValidationError: Not an image.
            ConfigurationError: An array was given, and neither OpenCV nor Pillow is installed.
            OSError: The file cannot be read, or the disk fails.
        """
        return self._keep_frame(frames.encode_frame(data, quality=self._jpeg_quality), "frame")

    def _keep_frames(self, event: Event) -> Event:
        """Replace every frame in the event's images by a reference into media.ring."""
        images = list(event.images)
        for i, image in enumerate(images):
            frame = self._keep(image.frame, f"images[{i}].frame")
            input_frame = self._keep(image.input_frame, f"images[{i}].inputFrame")
            if frame is not image.frame or input_frame is not image.input_frame:
                images[i] = replace(image, frame=frame, input_frame=input_frame)
        kept = all(map(operator.is_, images, event.images))
        return event if kept else replace(event, images=tuple(images))

    def _keep(self, frame: Frame | None, field: str) -> FrameRef | None:
        if frame is None or isinstance(frame, FrameRef):
            return frame
        data = frames.encode_frame(frame, quality=self._jpeg_quality, field=field)
        return self._keep_frame(data, field)

    def _keep_frame(self, data: bytes, field: str) -> FrameRef:
        digest = frames.digest(data)
        known = self._stored(digest)
        if known is not None:
            return known
        try:
            seq, _, _ = self._handle.append(
                _ffi.MEDIA,
                data,
                _ffi.APPEND_ID | _ffi.APPEND_RAW,
                frames.media_kind(frames.sniff(data)),
                record_id=digest,
            )
        except EventTooLargeError:
            limit = self.stats("media").max_payload
            reason = f"{len(data)} bytes, media.ring takes at most {limit}"
            raise EventTooLargeError(field, reason) from None
        if self._shedder is not None:
            self._shedder.gauge.add(len(data))
        ref = FrameRef(seq, digest, len(data))
        self._recent[digest] = ref
        while len(self._recent) > _RECENT_FRAMES:
            self._recent.popitem(last=False)
        return ref

    def _stored(self, digest: bytes) -> FrameRef | None:
        """Find a frame that was stored recently and is still there."""
        known = self._recent.get(digest)
        return known if known is not None and self.frame(known) is not None else None

    def _is_stored(self, digest: bytes) -> bool:
        return self._stored(digest) is not None

    def _make_shedder(self, pressure: Ladder | Sequence[Step], jpeg_quality: int) -> Shedder | None:
        # Loaded here, because most logs have no ladder and `import vevents` is to be fast.
        from vevents.pressure import Gauge, Ladder, Shedder

        ladder = pressure if isinstance(pressure, Ladder) else Ladder(pressure)
        return Shedder(ladder, Gauge(self._measure_media), jpeg_quality) if ladder.steps else None

    def _measure_media(self) -> Filling:
        from vevents.pressure import Filling

        stats = self.stats("media")
        mean_size = stats.bytes_used / max(1, stats.last_seq - stats.first_seq + 1)
        return Filling(stats.pending_share, stats.pending, mean_size, stats.capacity)

    # ---- read ----

    def read_batch(
        self,
        stream: Stream = "events",
        from_seq: int = 0,
        states: Sequence[State] = ("pending",),
        limit: int = 256,
    ) -> tuple[list[Record], int]:
        """Read some records in sequence order.

        Args:
            stream: Which ring.
            from_seq: First sequence number wanted; older than the oldest starts at the oldest.
            states: Records in other states are passed over.
            limit: At most so many; at most 256 and about 1 MiB come at once.

        Returns:
            The records, and the sequence number from which to go on. No records: nothing more.
        """
        found, following = self._handle.read(
            _stream(stream),
            _whole("from_seq", from_seq),
            _mask(states),
            _whole("limit", limit),
        )
        records = [
            Record(
                raw.seq,
                raw.id,
                raw.wall_ns,
                raw.mono_ns,
                raw.boot,
                raw.kind,
                _STATE_NAMES[raw.state],  # type: ignore[arg-type]
                bool(raw.flags & _ffi.APPEND_TIME),
                raw.payload,
                raw.stored_size,
            )
            for raw in found
        ]
        return records, following

    def read(
        self,
        stream: Stream = "events",
        *,
        from_seq: int = 0,
        states: Sequence[State] = ("pending",),
        limit: int | None = None,
    ) -> Iterator[Record]:
        """Iterate over records in sequence order, in bounded memory; see `read_batch`.

        Only what is pending comes unless `states` says more, for example `READABLE` of this module.

        Example:
            >>> with EventLog(directory, read_only=True) as log:
            ...     for record in log.read(states=READABLE):
            ...         event = log.decode(record)
            ...         for image in event.images:
            ...             for box in image.object_detections:
            ...                 print(record.seq, event.timestamp, box.class_name, box.x, box.y)
        """
        left = limit if limit is None else _whole("limit", limit)
        while left is None or left > 0:
            records, from_seq = self.read_batch(
                stream, from_seq, states, 256 if left is None else min(left, 256)
            )
            if not records:
                return
            yield from records
            if left is not None:
                left -= len(records)

    def decode(self, record: Record) -> Event:
        """Return the event that a record of the events ring holds.

        Raises:
            PayloadError: Of `vevents.codec`: it holds none, or one of a newer vevents.
        """
        _check_record(record)
        return codec.decode(record.payload, event_id=record.event_id, timestamp=record.timestamp)

    def event_id(self, record: Record) -> str:
        """Return the id under which an event is delivered, without decoding the rest of it."""
        _check_record(record)
        return codec.payload_id(record.payload) or record.event_id

    def frame(self, frame: FrameRef | int) -> bytes | None:
        """Return a frame's bytes, or None when it has been evicted or lost.

        Args:
            frame: A reference, whose digest is compared, or a sequence number.

        Raises:
            OSError: The disk fails.
        """
        seq = frame.seq if isinstance(frame, FrameRef) else frame
        if not isinstance(seq, Integral):
            raise TypeError(
                f"frame: must be a FrameRef or a sequence number, not {type(frame).__name__}"
            )
        found, _ = self._handle.read(_ffi.MEDIA, _whole("frame", seq), _READABLE_MASK, 1)
        if not found or found[0].seq != seq:
            return None
        if isinstance(frame, FrameRef) and found[0].id != frame.digest:
            return None
        return found[0].payload

    def frame_view(self, frame: FrameRef) -> memoryview | None:
        """Return a frame's bytes without a second copy, or None when it has been evicted or lost.

        Args:
            frame: Its digest is compared.

        Returns:
            A view to be released (`with`), which gives the memory back to the system.
        """
        if not isinstance(frame, FrameRef):
            raise TypeError(f"frame: must be a FrameRef, not {type(frame).__name__}")
        # What the event says of the size may be anything.
        size = min(max(1, frame.size), frames.FRAME_SIZE_MAX)
        found = self._handle.view(_ffi.MEDIA, _whole("frame", frame.seq), _READABLE_MASK, size)
        if found is None:
            return None
        seq, digest, view = found
        if seq != frame.seq or digest != frame.digest:
            view.release()
            return None
        return view

    # ---- delivery ----

    def mark(self, seqs: Sequence[int], state: State, stream: Stream = "events") -> int:
        """Set the delivery state of records. Returns how many changed.

        Survives the death of the process at once and a power cut after the next sync; a power
        cut before that makes the records pending again.
        """
        try:
            return self._handle.mark(_stream(stream), list(seqs), _state(state))
        except (TypeError, OverflowError) as error:
            raise ValueError(f"seqs: must be sequence numbers in a list: {error}") from None

    def ack(self, seqs: Sequence[int]) -> int:
        """Mark events as delivered. Returns how many changed."""
        return self.mark(seqs, "delivered")

    def append_note(self, note: Mapping[str, Any], *, sync: bool = False) -> int:
        """Write a note of the flusher to delivery.ring, the oldest of which are overwritten.

        Args:
            note: What msgpack can hold; at most `stats("delivery").max_payload` bytes of it.
            sync: As for `append`.

        Returns:
            Its sequence number in delivery.ring.

        Raises:
            TypeError, ValueError: It is no mapping, or holds what msgpack has no form for.
        """
        seq, _, _ = self._handle.append(
            _ffi.DELIVERY, _packed(note), _ffi.APPEND_SYNC if sync else 0, 0
        )
        return seq

    def notes(
        self, from_seq: int = 0, states: Sequence[State] = READABLE
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Iterate over the notes that are still there, oldest first, with sequence numbers.

        What is no map of msgpack is passed over: whoever wrote it, it must not stop every flush.

        Args:
            from_seq: First sequence number wanted.
            states: Notes in other states are passed over.
        """
        for record in self.read("delivery", from_seq=from_seq, states=states):
            try:
                note = msgpack.unpackb(record.payload, strict_map_key=False)
            except (ValueError, TypeError):  # TypeError: a key that is none in Python
                continue
            if isinstance(note, dict):
                yield record.seq, note

    # ---- state ----

    def stats(self, stream: Stream = "events") -> StreamStats:
        """Return the figures of one ring."""
        return StreamStats(**self._handle.stats(_stream(stream)))

    def pressure(self) -> Pressure:
        """Return how full media.ring is of undelivered frames, and what was shed since opening.

        Measures the ring, so that the next frame is judged by it: worth a call after a flush.
        """
        from vevents.pressure import Pressure

        if self._shedder is None:
            return Pressure(self.stats("media").pending_share, None, {})
        return self._shedder.look()

    def verify(self, stream: Stream = "events") -> Verification:
        """Read and decompress every record of a ring, and name what is damaged.

        Changes nothing; works on a read-only log and beside writers.
        """
        found, damaged, good = self._handle.verify(_stream(stream), 1000)
        return Verification(good, damaged, [Damage(*one) for one in found])

    @staticmethod
    def now() -> Moment:
        """Return the moment as a record appended now would be stamped with it."""
        return _ffi.now()

    def sync(self) -> int:
        """Make everything appended so far survive a power cut. Returns `durable_seq`.

        Raises:
            OSError: A sync failed; nothing is counted as durable by it.
            LogBusyError: A stopped process holds the change of segments.
            LogForeignError: As for `persist`, of a RAM-first log.
        """
        return self._handle.sync()

    def persist(self) -> PersistReport:
        """Bring the copy of a RAM-first log up to date: `sync`, with figures.

        Raises:
            LogError: The log is not RAM-first.
            LogReadOnlyError: It was opened for reading only.
            LogForeignError: The copy is of another log; nothing was written.
            LogBusyError: Another process writes the copy, and does not end.
            OSError: The flash is not there, or fails; the copy holds at least what it held before.
        """
        return PersistReport(*self._handle.persist())

    @property
    def copy(self) -> CopyInfo | None:
        """How the copy of a RAM-first log is; None for any other log."""
        info = self._handle.copy_info()
        if info is None:
            return None
        from pathlib import Path

        directory, age_ms, interval_ms, error, passes, bytes_written, since_ms = info
        return CopyInfo(
            Path(directory),
            None if age_ms < 0 else age_ms / 1000,
            interval_ms / 1000,
            error or None,
            passes,
            bytes_written,
            since_ms / 1000,
        )

    @property
    def durable_seq(self) -> int:
        """Sequence number of the events up to which a power cut loses nothing."""
        return self._handle.durable_seq(_ffi.EVENTS)


def _to_ns(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1000


def _path(name: str, given: object) -> str:
    """Return a path as the library takes it, where it ends at the first NUL."""
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(path, str):
        raise ConfigurationError(f"{name}: must be a str or a path, not {type(path).__name__}")
    if not path or "\0" in path:
        what = "has a NUL character" if path else "an empty path"
        raise ConfigurationError(f"{name}: {what}")
    return path


def _check_options(
    sizes: Mapping[str, int | None],
    segment_size: int | None,
    full: str,
    sync_interval_s: float,
    level: int | None,
    jpeg_quality: int,
) -> None:
    """Name the argument that is out of range; the library only says that one is."""
    for name, size in sizes.items():
        if size is not None:
            _check_number(name, size, 1 << 20, 1 << 40, "bytes, from 1 MiB to 1 TiB", Integral)
    if segment_size is not None:
        rule = "a multiple of 64 KiB up to 64 MiB"
        _check_number("segment_size", segment_size, 65_536, 64 << 20, rule, Integral)
        if segment_size % 65_536 != 0:
            raise ConfigurationError(f"segment_size: {segment_size}; {rule}")
    if not isinstance(full, str) or full not in _FULL:
        raise ConfigurationError(f"full: {full!r}; one of {', '.join(map(repr, _FULL))}")
    _check_number("sync_interval_s", sync_interval_s, 0, 86_400, "from 0 to 86400")
    if level is not None and level != _LEVEL_RAW:
        rule = f"from -7 to 9, or {_LEVEL_RAW} for no compression"
        _check_number("level", level, -7, 9, rule, Integral)
    _check_number("jpeg_quality", jpeg_quality, 1, 100, "from 1 to 100", Integral)


def _check_number(
    name: str, given: Any, low: float, high: float, rule: str, kind: Any = Real
) -> None:
    if not isinstance(given, kind) or not low <= given <= high:
        raise ConfigurationError(f"{name}: {given!r}; {rule}")


def _check_record(given: object) -> None:
    if not isinstance(given, Record):
        raise TypeError(f"record: must be a Record, not {type(given).__name__}")


def _stream(name: object) -> int:
    return _one_of(_STREAMS, "stream", name)


def _state(name: object) -> int:
    return _one_of(_STATES, "state", name)


def _mask(states: Sequence[State]) -> int:
    if isinstance(states, str):
        raise ValueError(f"states: {states!r} is one; several are given, as ({states!r},)")
    if not isinstance(states, Iterable):
        raise ValueError(f"states: {states!r}; some of {', '.join(map(repr, _STATES))}")
    mask = 0
    for state in states:
        mask |= 1 << _state(state)
    return mask


def _one_of(numbers: Mapping[str, int], what: str, name: object) -> int:
    number = numbers.get(name) if isinstance(name, str) else None
    if number is None:
        raise ValueError(f"{what}: {name!r}; one of {', '.join(map(repr, numbers))}")
    return number


def _whole(name: str, given: object) -> int:
    number = int(given) if isinstance(given, Integral) else -1
    if not 0 <= number <= _SEQ_MAX:
        raise ValueError(f"{name}: {given!r}; a whole number, 0 or more")
    return number


def note_size(note: Mapping[str, Any]) -> int:
    """Return the bytes of a note as `EventLog.append_note` writes it, uncompressed."""
    return len(_packed(note))


def _packed(note: Mapping[str, Any]) -> bytes:
    if not isinstance(note, Mapping):
        raise TypeError(f"note: must be a mapping, not {type(note).__name__}")
    try:
        packed: bytes = msgpack.packb(note)
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(f"note: {error}") from None
    return packed
