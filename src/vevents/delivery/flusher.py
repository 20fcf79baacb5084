"""Hands the events of a log over to the API: images first, then batches, then acknowledgements.

One pass goes through the pending events in the order that `vevents.delivery.backlog` gives. For
each event it uploads the frames that the event names, several at the same time if that helps, then
the event joins a batch, and the batch is posted; there is one request with events at a time. What
the server said is written down in an order that survives a crash at any point:

    1. A frame:   upload it, note its `sourceId` in delivery.ring, mark it delivered. A crash
                  before the note uploads the frame once more; a crash after it does not.
    2. An event:  post it, mark it delivered. A crash between the two posts it once more under the
                  same `eventId`, which overwrites it with itself.
    3. A refusal: note the reason and the payload, mark the record rejected. A crash between the
                  two asks the server once more.

So nothing is ever marked before the server spoke. What the server's refusals and failures do
(`vevents.delivery.sender` says what is repeated before it comes to that):

    a refused batch    is split until the bad event is alone; that one is set aside as rejected
    a batch too large  is halved, and the later batches of the pass are made no larger
    a refused image    is marked rejected; its event goes without it and says so
    a failing request  may be the fault of one event, so a batch that keeps failing is halved as
                       well; what still fails alone stays pending and is passed over, so that it
                       cannot hold up the events behind it
    a default use case that the server does not know is a wrong setting and no fault of the events:
                       they stay pending
    an image that the server knows no more is uploaded again, once; if that does not help, its
                       event goes without it and says so
    a refusal that says nothing of an event (409, 413 for a small one, ...) is believed once the
                       server accepts another; if all meet it, it is the fault of something else

The events leave in the order of the backlog whatever the order in which their images arrive; only
what is passed over falls behind. Of events with the same id the later one never overtakes.

Threads: the one that called `flush` decides everything, posts the events and calls `progress`.
Others upload frames (`Uploads`) and read ahead (`ReadAhead`). With `uploads=1` there are none.

Memory: at most two windows of records that are read ahead, one of records whose images are under
way, one batch of JSON, one frame for each upload, and the ids of images that were uploaded.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vevents.codec import KIND_OF
from vevents.delivery.backlog import (
    DEFAULT_PRIORITIES,
    ORDERS,
    Backlog,
    IdFilter,
    Order,
    SharedIds,
    parse_priorities,
)
from vevents.delivery.client import batch_body
from vevents.delivery.clock import SERVER_TOLERANCE_S, ClockRepair
from vevents.delivery.lanes import Lanes
from vevents.delivery.losses import append_loss_report
from vevents.delivery.notes import Notes
from vevents.delivery.pace import Pace
from vevents.delivery.sender import Limits, RetryPolicy, Sender, StopError, StopReason, Time
from vevents.delivery.uploads import ReadAhead, Upload, Uploads
from vevents.errors import (
    AuthorizationError,
    ConfigurationError,
    DeliveryError,
    EventTooLargeError,
    FlushLockedError,
    LogError,
    NoAnswerError,
    RefusedError,
    ServerError,
)
from vevents.files import held_lock
from vevents.frames import sniff
from vevents.wire import event_to_json, required_frames

if TYPE_CHECKING:
    from vevents.delivery.client import Client
    from vevents.event import Event, EventType, FrameRef
    from vevents.log import EventLog, Record

# The API takes 100 events at once. Its limit on a body is not documented.
_BATCH_COUNT_MAX = 100
_BATCH_SIZE_MAX = 5_000_000
# On a slow link a batch goes before it is full, so that events follow their images soon.
_BATCH_AGE_S_MAX = 5.0
# Events whose images are under way, and bytes of their records.
_WAITING_COUNT_MAX = 100
_WAITING_SIZE_MAX = 4 << 20
_READ_AHEAD_SIZE_MAX = 1 << 20
_LOOK_S = 0.2
# The API refuses what is older than a year or later than tomorrow; we stay a little inside.
EVENT_AGE_S_MAX: Final = 364 * 86_400
_EVENT_AHEAD_S_MAX = 23 * 3_600
# Requests of one pass for nothing but the server's time.
_TIMES_ASKED_MAX = 4
# After so many refusals in a row the next event is probably bad as well: halving costs more then.
_REFUSED_IN_A_ROW_MAX = 4
# So many events that name no use case are refused, and none is accepted: the default is wrong.
_DEFAULT_REFUSED_MAX = 3
# A pass that sees nothing but refusals sets so many events aside and ends: a wrong key, a bad
# release or a middlebox must not empty a backlog.
_REFUSED_ALONE_MAX = 20
# The server takes images and does not say under which id: every try leaves one there.
_UNNAMED_IMAGES_MAX = 3
# A frame is written before its event; a process that dies in between leaves a frame for nobody.
_ORPHAN_AGE_S = 3_600
_ORPHANS_PER_NOTE = 100
_DIGESTS_REMEMBERED_MAX = 65_536
# So many bytes of an image tell its format.
_SNIFF_SIZE = 64
# How long the id of an image may be, to keep room for it within a limit of bytes.
_SOURCE_ID = "x" * 40
# What a server may say of an event whose use case it does not know. These judge what is in an
# event; any other status may come from something that stands before the server.
_MAY_MEAN_USE_CASE = frozenset((400, 404, 422))
# And of one that names an image it does not know.
_MAY_MEAN_IMAGE = frozenset((400, 404, 409, 410, 422))
# So many events in a row meet such a status: it has nothing to do with them.
_DOUBTED_MAX = 20
# No server takes events and finds this too large.
_SURELY_SMALL = 65_536
UPLOADS_MAX: Final = 32
# Made once; and what `event_to_json` returns is a tree, so nobody has to look for circles.
_JSON = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)
_LOCK_NAME = "flush.lock"


class Rejection(StrEnum):
    """Why an event was set aside: the `code` in its note."""

    REFUSED = "refused"
    TOO_LARGE = "too-large"
    UNKNOWN_USE_CASE = "unknown-use-case"
    TOO_OLD = "too-old"
    IN_THE_FUTURE = "in-the-future"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushProgress:
    """How far a pass is; given to the progress callback after every step.

    Attributes:
        total: Events that were pending when the pass began, and live ones taken since.
        delivered: Events that the server accepted in this pass.
        rejected: Events that were set aside in this pass.
        images_delivered: Frames that were uploaded in this pass.
        bytes_sent: Bytes of request bodies sent in this pass.
    """

    total: int
    delivered: int
    rejected: int
    images_delivered: int
    bytes_sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushReport:
    """What one pass did.

    Attributes:
        delivered: Events that the server accepted.
        rejected: Events that were set aside, with their reasons in delivery.ring.
        rejected_by_reason: How many of these for which `Rejection`; without the ones that are 0.
        passed_over: Events that stay pending although the pass went on behind them: the server
            kept failing on them, or they have no use case.
        images_delivered: Frames uploaded.
        images_rejected: Frames that the server refused; their events went without them.
        images_missing: Frames that were not in the log any more; their events went without them.
        orphans: Frames without an event that were set aside.
        bytes_sent: Bytes of request bodies sent, repetitions included.
        requests: Requests made.
        retries: Of these, the ones that repeated a failed one.
        pending_after: Events pending when the pass ended, those appended meanwhile included.
        duration_s: How long the pass took.
        stopped_reason: Why the pass is not complete, or None when it is.
        message: A sentence for `stopped_reason`, or None.
        retry_after_s: Seconds that the server asked to wait before the next pass, or None.
    """

    delivered: int
    rejected: int
    rejected_by_reason: Mapping[str, int]
    passed_over: int
    images_delivered: int
    images_rejected: int
    images_missing: int
    orphans: int
    bytes_sent: int
    requests: int
    retries: int
    pending_after: int
    duration_s: float
    stopped_reason: StopReason | None
    message: str | None
    retry_after_s: float | None

    @property
    def offline(self) -> bool:
        """Whether the pass ended because the API could not be reached."""
        return self.stopped_reason is StopReason.OFFLINE


class Flusher:
    """Hands pending events over. Make one and use it for many passes.

    Args:
        log: The log, open for writing.
        client: The way to the server.
        use_case_id: Use case of the events that name none.
        retry: How failed requests are repeated.
        time: Where time and chance come from.
        order: What goes first: `"oldest"`, `"newest"`, or `"priority"`, by type of event.
        priorities: For `"priority"`: event types, the most important first. The ones that are not
            named come last. Within a type the oldest goes first.
        live_first: Send what is appended during a pass ahead of the rest of the backlog.
        uploads: At most so many images are uploaded at the same time. How many it really are
            follows from how well it goes.
        bytes_per_s: Average bytes of request bodies per second over all requests; None for as
            fast as it goes. A request larger than that is sent, and the ones behind it wait.
        event_age_s_max: Older events are set aside as rejected; at most 364 days, since the
            server refuses what is older than a year.
        loss_report_s: How often in seconds, at most, an event says what was evicted, lost or
            rejected (`vevents.delivery.losses`); None for never.

    Raises:
        ConfigurationError: An argument is out of range.

    Example:
        >>> with EventLog(directory) as log, Client(key) as client:  # doctest: +SKIP
        ...     report = Flusher(log, client, use_case_id="uc7d21f0").flush()
        >>> report.delivered, report.stopped_reason  # doctest: +SKIP
        (120, None)
    """

    def __init__(
        self,
        log: EventLog,
        client: Client,
        *,
        use_case_id: str | None = None,
        retry: RetryPolicy | None = None,
        time: Time | None = None,
        order: Order = "oldest",
        priorities: Sequence[EventType | str] = DEFAULT_PRIORITIES,
        live_first: bool = False,
        uploads: int = 4,
        bytes_per_s: float | None = None,
        event_age_s_max: float = EVENT_AGE_S_MAX,
        loss_report_s: float | None = None,
    ) -> None:
        _check_options(order, uploads, bytes_per_s, event_age_s_max)
        self._priorities = parse_priorities(priorities)
        self._log = log
        self._client = client
        self._use_case_id = use_case_id
        self._retry = RetryPolicy() if retry is None else retry
        self._time = Time() if time is None else time
        self._order = order
        self._live_first = live_first
        self._upload_count = uploads
        self._event_age_s_max = event_age_s_max
        self._loss_report_s = loss_report_s
        # What stays known from one pass to the next.
        self._pace = Pace(bytes_per_s)
        self._notes = Notes(log)
        self._clock = ClockRepair(log, self._notes)
        self._uploaded = _UploadedImages(log)
        self._shared = SharedIds(log)
        self._default_accepted = False

    def flush(
        self,
        *,
        progress: Callable[[FlushProgress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
        timeout_s: float | None = None,
        max_events: int | None = None,
        max_bytes: int | None = None,
    ) -> FlushReport:
        """Hand over what is pending now.

        What is appended meanwhile waits for the next pass, unless `live_first` is set.

        Args:
            progress: Called after every step, by the thread that called `flush`.
            should_stop: Asked before every request and while waiting, by any thread; True ends the
                pass as soon as the requests under way are answered.
            timeout_s: No request begins after so many seconds, and one that is under way then is
                given up when it has taken a second, and another for every 1,000 bytes of its body.
            max_events: At most so many events are handed over.
            max_bytes: No request begins that would send more bytes than this in total; a first
                request larger than the limit is sent all the same, else it could never be sent.

        Returns:
            What happened. Trouble with the delivery is reported there and never raised.

        Raises:
            FlushLockedError: Another flush of this log is running.
            LogError: The log cannot be read or marked.
            OSError: The log's disk fails.
        """
        limits = Limits(
            should_stop=(lambda: False) if should_stop is None else should_stop,
            timeout_s=timeout_s,
            max_bytes=max_bytes,
        )
        with flush_lock(self._log.directory):
            self._notes.expire()
            if self._loss_report_s is not None:
                append_loss_report(
                    self._log,
                    self._notes,
                    period_s=self._loss_report_s,
                    use_case_id=self._use_case_id,
                    now_ns=int(self._time.clock() * 1e9),
                )
            return _Pass(self, limits, max_events, progress).run()


@dataclass(slots=True)
class _Counts:
    delivered: int = 0
    passed_over: int = 0
    images_delivered: int = 0
    images_rejected: int = 0
    images_missing: int = 0
    orphans: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Read:
    """One record that was read and decoded.

    Attributes:
        wall_ns: When it was seen, as far as that is known now.
        fault: Why there is no event, or None.
        frames: What has to be uploaded first.
        body: The event as JSON, if it has no frames.
        size: Bytes of the event as JSON, roughly.
    """

    record: Record
    event_id: str
    wall_ns: int
    event: Event | None = None
    fault: str | None = None
    frames: Sequence[FrameRef] = ()
    body: bytes | None = None
    size: int = 0


@dataclass(slots=True)
class _Waiting:
    """One event whose frames are under way.

    Attributes:
        ways: Each frame with its upload, or with the id it got before; None if it was refused.
    """

    read: _Read
    ways: list[tuple[FrameRef, Upload | str | None]]


@dataclass(slots=True)
class _Images:
    """The images that an event names, in case the server does not know them.

    Attributes:
        source_ids: Their ids, by sequence number of the frame.
        missing: Why others are left out.
        suspects: Sequence numbers of those that may be unknown by now.
        renewed: Whether the suspects were uploaded again.
    """

    event: Event
    frames: Sequence[FrameRef]
    source_ids: dict[int, str]
    missing: dict[int, str]
    suspects: set[int]
    renewed: bool = False


@dataclass(frozen=True, slots=True)
class _Item:
    """One event that is ready to be posted."""

    record: Record
    event_id: str
    body: bytes
    has_default_use_case: bool
    images: _Images | None = None


@dataclass(slots=True)
class _Batch:
    begun_s: float
    items: list[_Item] = field(default_factory=list)
    event_ids: set[str] = field(default_factory=set)
    size: int = len(batch_body([]))

    def takes(self, item: _Item, size_max: int) -> bool:
        if not self.items:
            return True
        return len(self.items) < _BATCH_COUNT_MAX and self.size + len(item.body) + 1 <= size_max

    def add(self, item: _Item) -> None:
        self.items.append(item)
        self.event_ids.add(item.event_id)
        self.size += len(item.body) + 1

    def drop_newest(self) -> None:
        item = self.items.pop()
        self.event_ids.remove(item.event_id)
        self.size -= len(item.body) + 1


class _Digests:
    """What is known of frames by their content; the ones not used for longest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, str] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def get(self, digest: bytes) -> str | None:
        value = self._known.get(digest)
        if value is not None:
            self._known.move_to_end(digest)
        return value

    def forget(self, digest: bytes) -> None:
        self._known.pop(digest, None)

    def put(self, digest: bytes, value: str) -> None:
        self._known[digest] = value
        if len(self._known) > _DIGESTS_REMEMBERED_MAX:
            self._known.popitem(last=False)


class _UploadedImages(_Digests):
    """The `sourceId`s of frames by content, as the notes in delivery.ring tell of them."""

    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self._log = log
        self._next_seq = 0

    def update(self) -> None:
        """Read the notes that were written since the last time."""
        for seq, note in self._log.notes(self._next_seq):
            self._next_seq = seq + 1
            digest, source_id = note.get("digest"), note.get("sourceId")
            if note.get("kind") == "upload" and digest and source_id:
                self.put(bytes(digest), str(source_id))
            elif note.get("kind") == "upload-forgotten" and digest:
                self.forget(bytes(digest))


class _Pass:
    """One pass through the log, and what it has to remember."""

    def __init__(
        self,
        flusher: Flusher,
        limits: Limits,
        max_events: int | None,
        progress: Callable[[FlushProgress], object] | None,
    ) -> None:
        self._log = flusher._log
        self._notes = flusher._notes
        self._client = flusher._client
        self._use_case_id = flusher._use_case_id
        self._retry = flusher._retry
        self._time = flusher._time
        self._event_age_s_max = flusher._event_age_s_max
        self._max_events = max_events
        self._progress = progress
        self._thread = threading.get_ident()
        self._sender = Sender(
            flusher._retry, limits, flusher._time, self._report_progress, flusher._pace
        )
        self._counts = _Counts()
        self._began_s = self._time.monotonic()
        self._total = 0
        self._taken = 0
        self._without_use_case = 0
        self._batch = _Batch(self._began_s)
        self._batch_size_max = _BATCH_SIZE_MAX
        self._refused_in_a_row = 0
        self._held_ids: IdFilter | None = None
        # Frames
        self._uploaded = flusher._uploaded
        self._uploaded_is_current = False
        self._refused = _Digests()  # -> reason
        self._unnamed_images = 0
        self._unnamed: DeliveryError | None = None
        self._threaded = flusher._upload_count > 1
        self._uploads = Uploads(flusher._upload_count, self._upload)
        self._lanes = Lanes(flusher._upload_count, self._time.monotonic) if self._threaded else None
        self._under_way: dict[bytes, Upload] = {}
        self._waiting: deque[_Waiting] = deque()
        self._waiting_size = 0
        self._json_size_taken = 0
        self._json_size_released = 0
        # The API
        self._use_cases: set[str] | None = None
        self._api_confirmed = False
        self._times_asked = 0
        self._clock = flusher._clock
        self._flusher = flusher
        self._refused_alone = 0  # since one was accepted
        self._default_refusals = 0  # likewise
        self._default_refused: list[tuple[_Item, RefusedError]] = []
        self._doubted: list[tuple[_Item, RefusedError]] = []
        # Before the backlog: a frame up to here has its event in it, or none.
        self._media = self._log.stats("media")
        self._began_ns = self._now_ns()
        # Reading
        self._ending = False
        self._backlog = Backlog(
            self._log,
            flusher._order,
            [KIND_OF[kind] for kind in flusher._priorities],
            flusher._live_first,
            flusher._shared,
            self._add_to_total,
            self._check_reading,
        )

    def run(self) -> FlushReport:
        stop: StopError | None = None
        self._total = self._log.stats("events").pending
        try:
            if self._total:
                # Now, since nothing may delay a note once the server has spoken.
                self._notes.update()
                self._learn_time()
                self._drain()
            stop = self._left_behind()
            if stop is None and self._backlog.complete:
                self._set_orphans_aside()
        except StopError as error:
            stop = error
        counts, sender = self._counts, self._sender
        rejected = counts.rejected.total()
        if sender.requests or rejected or counts.orphans:
            # Otherwise a power cut in the next seconds would send all of it again.
            self._log.sync()
        return FlushReport(
            delivered=counts.delivered,
            rejected=rejected,
            rejected_by_reason=dict(counts.rejected),
            passed_over=counts.passed_over + len(self._default_refused) + len(self._doubted),
            images_delivered=counts.images_delivered,
            images_rejected=counts.images_rejected,
            images_missing=counts.images_missing,
            orphans=counts.orphans,
            bytes_sent=sender.bytes_sent,
            requests=sender.requests,
            retries=sender.retries,
            pending_after=self._log.stats("events").pending,
            duration_s=self._time.monotonic() - self._began_s,
            stopped_reason=None if stop is None else stop.reason,
            message=None if stop is None else str(stop),
            retry_after_s=None if stop is None else stop.retry_after_s,
        )

    # --- the way of an event ---------------------------------------------------------------

    def _drain(self) -> None:
        reads = map(self._read, self._backlog)
        ahead = (
            ReadAhead(reads, lambda read: len(read.record.payload), _READ_AHEAD_SIZE_MAX)
            if self._threaded
            else None
        )
        try:
            try:
                self._take_all(reads if ahead is None else ahead)
            finally:
                if not _is_final(sys.exception()):
                    self._uploads.finish()
        except BaseException as error:
            if _is_final(error):
                self._uploads.abandon()
            raise
        finally:
            self._ending = True
            if ahead is not None:
                ahead.close()

    def _take_all(self, reads: Iterable[_Read]) -> None:
        try:
            try:
                for read in reads:
                    self._sender.check_stop()
                    self._uploads.raise_failure()
                    self._take(read)
            except StopError as stop:
                if stop.reason is StopReason.MAX_EVENTS:
                    self._release_all()
                raise
            self._release_all()
        except StopError as stop:
            if stop.reason is StopReason.MAX_BYTES:
                self._post_what_fits()
            raise

    def _post_what_fits(self) -> None:
        """Use what is left of the limit of bytes for the events whose images went."""
        self._uploads.finish()
        with suppress(StopError):
            self._release_ready()
        while not self._sender.has_room(self._batch.size) and self._batch.items:
            self._batch.drop_newest()
        self._post_batch()

    def _read(self, record: Record) -> _Read:
        """Decode a record. Changes nothing: this may run in another thread, ahead of the rest."""
        read = _Read(record, record.event_id, record.wall_ns)
        try:
            event = self._log.decode(record)
            correction = self._clock.correct(record)
            if correction is not None:
                event = correction.apply(event)
                read.wall_ns = correction.wall_ns
            read.event_id = event.event_id or record.event_id
            read.frames = required_frames(event)
            if event.use_case_id is not None or self._use_case_id is not None:
                # With frames it is encoded again when their ids are known. Small beside the images,
                # and so the size is known, and that it can be encoded at all.
                named = {frame.seq: _SOURCE_ID for frame in read.frames}
                body = self._encode(event, named, {})
                read.body, read.size = None if read.frames else body, len(body)
            read.event = event
        except (MemoryError, OSError, LogError):
            raise  # no fault of this record
        except Exception as error:
            # The bytes passed their checksum, so whatever wrote them did not keep to the format.
            # No such record may ever stop the ones behind it.
            read.fault = f"the record cannot be read: {error}"
        return read

    def _take(self, read: _Read) -> None:
        """Bring one event on its way: its frames, then into the batch."""
        record, event = read.record, read.event
        if event is None:
            self._reject(record, read.event_id, Rejection.UNREADABLE, read.fault or "")
            return
        if self._is_held(read.event_id):
            # An earlier event with this id has to wait; it would overwrite this one later.
            self._pass_over(read.event_id)
            return
        if event.use_case_id is None and (self._use_case_id is None or self._default_is_unknown()):
            self._without_use_case += self._use_case_id is None
            self._pass_over(read.event_id)
            return
        outside = self._outside_window(read.wall_ns)
        if outside is not None:
            # Frames first: a crash in between then leaves the event pending, to be looked at again.
            self._give_up_frames(read.frames)
            self._reject(record, read.event_id, *outside)
            return
        if self._max_events is not None and self._taken >= self._max_events:
            raise StopError(
                StopReason.MAX_EVENTS, f"the limit of {self._max_events} events is reached"
            )
        self._taken += 1
        if not self._batch.items and not self._waiting:
            self._batch.begun_s = self._time.monotonic()
        self._json_size_taken += read.size
        waiting = _Waiting(read, [(frame, self._way_of(frame)) for frame in read.frames])
        self._waiting.append(waiting)
        self._waiting_size += len(record.payload)
        self._release_ready()
        while len(self._waiting) >= _WAITING_COUNT_MAX or self._waiting_size >= _WAITING_SIZE_MAX:
            self._release_next()

    def _encode(
        self, event: Event, source_ids: Mapping[int, str], missing: Mapping[int, str]
    ) -> bytes:
        obj = event_to_json(
            event, source_ids=source_ids, missing=missing, use_case_id=self._use_case_id
        )
        return _JSON.encode(obj).encode()

    def _outside_window(self, wall_ns: int) -> tuple[Rejection, str] | None:
        """Why the server would refuse this event for its time, or None."""
        outside = self._judge_time(wall_ns)
        while outside is not None and not self._client.clock_is_sure:
            # Our own clock may be the wrong one, or one date of the server: ask before judging.
            if not self._ask_time():
                break
            outside = self._judge_time(wall_ns)
        return outside

    def _judge_time(self, wall_ns: int) -> tuple[Rejection, str] | None:
        server_s = self._time.clock() + (self._client.clock_offset_s or 0.0)
        age_s = server_s - wall_ns / 1e9
        if age_s > self._event_age_s_max:
            limit = (
                "the server takes at most 365"
                if self._event_age_s_max == EVENT_AGE_S_MAX
                else f"the limit is {self._event_age_s_max / 86_400:.4g}"
            )
            return Rejection.TOO_OLD, f"its time is {age_s / 86_400:.1f} days ago; {limit}"
        if -age_s > _EVENT_AHEAD_S_MAX:
            return (
                Rejection.IN_THE_FUTURE,
                f"its time is {-age_s / 3_600:.1f} hours ahead; the server takes at most 24",
            )
        return None

    # --- frames ----------------------------------------------------------------------------

    def _way_of(self, frame: FrameRef) -> Upload | str | None:
        """Return the id that a frame has, or its upload, begun now if it is the first to want it.

        None means that the server refused it before.
        """
        if not self._uploaded_is_current:
            self._uploaded.update()
            self._uploaded_is_current = True
        source_id = self._uploaded.get(frame.digest)
        if source_id is not None or frame.digest in self._refused:
            return source_id
        upload = self._under_way.get(frame.digest)
        if upload is None:
            upload = Upload(frame, self._json_size_taken)
            self._under_way[frame.digest] = upload
            self._uploads.add(upload)
        return upload

    def _upload(self, upload: Upload) -> None:
        """Upload one frame; if the server takes it, note that and mark it. Runs in any thread."""
        frame, log_lock = upload.frame, self._uploads.log_lock()
        if self._unnamed_images >= _UNNAMED_IMAGES_MAX:
            upload.error = self._unnamed
            return
        with log_lock:
            image = self._log.frame_view(frame)
        if image is None:
            upload.missing = True
            return
        try:
            with image:
                source_id = self._send_image(upload, image)
        except (RefusedError, ServerError, NoAnswerError) as error:
            upload.error = error
            if error.status_code == 201:
                with log_lock:
                    self._unnamed_images += 1
                    self._unnamed = error
            return
        note = {"media": frame.seq, "digest": frame.digest, "at": self._now_ns()}
        with log_lock:
            self._notes.append({"kind": "upload", "sourceId": source_id} | note)
            self._log.mark([frame.seq], "delivered", stream="media")
            self._counts.images_delivered += 1
        upload.source_id = source_id

    def _send_image(self, upload: Upload, image: memoryview) -> str:
        mime = sniff(bytes(image[:_SNIFF_SIZE])) or "application/octet-stream"
        name = f"{upload.frame.digest.hex()}.{mime.rpartition('/')[2]}"
        return self._sender.send(
            lambda within_s: self._client.upload_image(
                image, name=name, mime=mime, within_s=within_s
            ),
            len(image),
            # The events whose images went already come before this image.
            kept_free=lambda: self._batch.size + upload.ahead - self._json_size_released,
            lanes=self._lanes,
            check=self._uploads.check,
        )

    def _release_all(self) -> None:
        while self._waiting:
            self._release_next()
        self._post_batch()

    def _release_ready(self) -> None:
        """Pass on the events at the head of the line whose frames are there."""
        while self._waiting and self._is_ready(self._waiting[0]):
            self._release(self._waiting[0])

    def _release_next(self) -> None:
        """Wait for the frames of the event at the head of the line, and pass it on."""
        head = self._waiting[0]
        for _, way in head.ways:
            while isinstance(way, Upload) and not self._uploads.wait(way, _LOOK_S):
                self._sender.check_stop()
                self._report_progress()
                self._post_if_old()
        self._release(head)

    def _is_ready(self, waiting: _Waiting) -> bool:
        return all(not isinstance(way, Upload) or way.done for _, way in waiting.ways)

    def _release(self, head: _Waiting) -> None:
        """Let the event at the head of the line join the batch; its uploads are over."""
        read = head.read
        assert read.event is not None
        source_ids: dict[int, str] = {}
        missing: dict[int, str] = {}
        reused = {frame.seq for frame, way in head.ways if isinstance(way, str)}
        failed = False
        for index, (frame, way) in enumerate(head.ways):
            if isinstance(way, Upload):
                self._settle(way)
                if way.missing and way.frame.seq != frame.seq:
                    # The copy that was wanted first is gone; this one may still be there.
                    head.ways[index] = (frame, self._way_of(frame))
                    if not self._is_ready(head):
                        return
                    self._release(head)
                    return
                failed = failed or (way.error is not None and frame.digest not in self._refused)
                if way.missing:
                    missing[frame.seq] = "evicted"
                    continue
                way = way.source_id
            if way is not None:
                # Also when an earlier pass uploaded it: it may have died before this mark.
                self._log.mark([frame.seq], "delivered", stream="media")
                source_ids[frame.seq] = way
            elif frame.digest in self._refused:
                self._log.mark([frame.seq], "rejected", stream="media")
                missing[frame.seq] = "refused"
        self._waiting.popleft()
        self._waiting_size -= len(read.record.payload)
        self._json_size_released += read.size
        self._counts.images_missing += sum(reason == "evicted" for reason in missing.values())
        if failed or self._is_held(read.event_id):
            self._taken -= 1
            self._pass_over(read.event_id)
            return
        body = read.body or self._encode(read.event, source_ids, missing)
        images = None
        if source_ids:
            images = _Images(read.event, read.frames, source_ids, missing, reused)
        has_default = read.event.use_case_id is None
        self._add(_Item(read.record, read.event_id, body, has_default, images))

    def _settle(self, upload: Upload) -> None:
        """Remember what became of an upload, once."""
        frame = upload.frame
        if self._under_way.get(frame.digest) is not upload:
            return
        del self._under_way[frame.digest]
        self._report_progress()
        if upload.source_id is not None:
            self._uploaded.put(frame.digest, upload.source_id)
        elif isinstance(upload.error, RefusedError):
            error = upload.error
            if error.status_code == 404:
                self._confirm_api()
            note = {"media": frame.seq, "digest": frame.digest, "at": self._now_ns()}
            note |= {"status": error.status_code, "reason": str(error)}
            self._notes.append({"kind": "image-rejected"} | note)
            self._refused.put(frame.digest, str(error))
            self._counts.images_rejected += 1

    def _give_up_frames(self, frames: Sequence[FrameRef]) -> None:
        """Mark the frames of a rejected event, but not those that go for another."""
        if frames and not self._uploaded_is_current:
            self._uploaded.update()
            self._uploaded_is_current = True
        seqs = [
            frame.seq
            for frame in frames
            if frame.digest not in self._uploaded and frame.digest not in self._under_way
        ]
        if seqs:
            self._log.mark(seqs, "rejected", stream="media")

    # --- batches ---------------------------------------------------------------------------

    def _add(self, item: _Item) -> None:
        # The same id twice in one batch: which of the two the server keeps is not documented.
        if item.event_id in self._batch.event_ids or not self._batch.takes(
            item, self._batch_size_max
        ):
            self._post_batch()
            if self._is_held(item.event_id):
                self._pass_over(item.event_id)
                return
        self._batch.add(item)
        self._post_if_old()

    def _post_if_old(self) -> None:
        if self._time.monotonic() - self._batch.begun_s >= _BATCH_AGE_S_MAX:
            self._post_batch()

    def _post_batch(self) -> None:
        if not self._batch.items:
            return
        self._sender.check_room(self._batch.size)
        items, self._batch = self._batch.items, _Batch(self._time.monotonic())
        self._post(items, self._retry.attempts)

    def _post(self, items: Sequence[_Item], attempts: int) -> bool:
        """Post events. Returns whether all of them were accepted."""
        if self._default_is_unknown():
            self._pass_over_default(items)
            items = [item for item in items if not item.has_default_use_case]
        if not items:
            return False
        if len(items) == 1:
            return self._post_alone(items[0], attempts)
        bodies = [item.body for item in items]
        size = len(batch_body(bodies))
        try:
            accepted = set(
                self._sender.send(
                    lambda within_s: self._client.create_batch(bodies, within_s=within_s),
                    size,
                    attempts=attempts,
                )
            )
        except RefusedError as error:
            if error.status_code == 413:
                self._batch_size_max = max(1, min(self._batch_size_max, size // 2))
                self._post_halves(items, attempts)
            else:
                self._find_refused(items, attempts)
            return False
        except (ServerError, NoAnswerError):
            # Repeating the whole did not help, so each part gets one try.
            self._post_halves(items, 1)
            return False
        self._accept([item for item in items if item.event_id in accepted])
        missing = [item for item in items if item.event_id not in accepted]
        alone = [self._post_alone(item, attempts) for item in missing]
        return all(alone)

    def _post_halves(self, items: Sequence[_Item], attempts: int) -> None:
        middle = len(items) // 2
        self._post(items[:middle], attempts)
        self._post(items[middle:], attempts)

    def _find_refused(self, items: Sequence[_Item], attempts: int) -> None:
        """Find the bad ones among events that were refused together."""
        while len(items) > 1:
            if self._refused_in_a_row >= _REFUSED_IN_A_ROW_MAX:
                # All of them may be bad, and their halves would be refused as well.
                accepted = self._post([items[0]], attempts)
                items = items[1:]
                if accepted:
                    self._post(items, attempts)
                    return
                continue
            middle = len(items) // 2
            left, right = items[:middle], items[middle:]
            if not self._post(left, attempts):
                self._post(right, attempts)
                return
            # The left half is good, so the bad one is on the right: no need to ask about the whole.
            items = right
        self._post(items, attempts)

    def _post_alone(self, item: _Item, attempts: int) -> bool:
        try:
            accepted = self._sender.send(
                lambda within_s: self._client.create_event(item.body, within_s=within_s),
                len(item.body),
                attempts=attempts,
            )
        except RefusedError as error:
            suspects = self._suspect_images(item, error)
            if suspects:
                return self._post_with_other_images(item, suspects, attempts)
            self._refused_in_a_row += 1
            self._judge_refusal(item, error)
            return False
        except (ServerError, NoAnswerError):
            self._pass_over(item.event_id)
            return False
        if accepted != item.event_id:
            self._sender.last_failure = ServerError(
                f"the server answered for event {accepted!r} when sent {item.event_id!r}"
            )
            self._pass_over(item.event_id)
            return False
        self._accept([item])
        return True

    def _suspect_images(self, item: _Item, error: RefusedError) -> list[FrameRef]:
        """Return the images for which the server may have refused an event.

        These are the ones that it names, and those that were uploaded for something else, perhaps
        long ago.
        """
        images = item.images
        if images is None or error.status_code not in _MAY_MEAN_IMAGE:
            return []
        words = str(error)
        return [
            frame
            for frame in images.frames
            if frame.seq in images.source_ids
            and (frame.seq in images.suspects or images.source_ids[frame.seq] in words)
        ]

    def _post_with_other_images(
        self, item: _Item, suspects: Sequence[FrameRef], attempts: int
    ) -> bool:
        """Post an event again, with its images uploaded anew; if they were, without them."""
        images = item.images
        assert images is not None
        for frame in suspects:
            source_id = images.source_ids.pop(frame.seq)
            if images.renewed:
                images.missing[frame.seq] = "unknown to the server"
                self._counts.images_missing += 1
                continue
            way = self._renew(frame, source_id)
            if isinstance(way, str):
                images.source_ids[frame.seq] = way
            elif way.missing:
                images.missing[frame.seq] = "evicted"
                self._counts.images_missing += 1
            elif frame.digest in self._refused:
                images.missing[frame.seq] = "refused"
            else:
                self._pass_over(item.event_id)
                return False
        images.suspects = {frame.seq for frame in suspects}
        images.renewed = True
        body = self._encode(images.event, images.source_ids, images.missing)
        return self._post_alone(replace(item, body=body), attempts)

    def _renew(self, frame: FrameRef, source_id: str) -> Upload | str:
        """Return another id for a frame than this one, or the upload that came to nothing."""
        known = self._uploaded.get(frame.digest)
        if known is not None and known != source_id:
            return known
        self._uploaded.forget(frame.digest)
        note = {"media": frame.seq, "digest": frame.digest, "at": self._now_ns()}
        with self._uploads.log_lock():
            self._notes.append({"kind": "upload-forgotten", "sourceId": source_id} | note)
        upload = Upload(frame, self._json_size_released)
        self._under_way[frame.digest] = upload
        self._upload(upload)
        upload.done = True
        self._settle(upload)
        return upload if upload.source_id is None else upload.source_id

    # --- what becomes of an event ----------------------------------------------------------

    def _accept(self, items: Sequence[_Item]) -> None:
        if not items:
            return
        self._notes.settle({item.record.seq: item.event_id for item in items})
        self._log.ack([item.record.seq for item in items])
        self._counts.delivered += len(items)
        self._refused_in_a_row = self._refused_alone = 0
        default_accepted = any(item.has_default_use_case for item in items)
        if default_accepted:
            self._default_refusals = 0
        self._believe_doubted()
        if default_accepted and not self._flusher._default_accepted:
            # So it was not the use case that the server refused before.
            self._flusher._default_accepted = True
            refused, self._default_refused = self._default_refused, []
            for item, error in refused:
                self._reject(
                    item.record, item.event_id, Rejection.REFUSED, str(error), error.status_code
                )
        self._report_progress()

    def _judge_refusal(self, item: _Item, error: RefusedError) -> None:
        """Set an event aside that was refused alone, unless the setting is to blame for it."""
        status = error.status_code
        if status not in _MAY_MEAN_USE_CASE:
            self._doubted.append((item, error))
            if status == 413 and len(item.body) > _SURELY_SMALL:
                self._believe_doubted(len(self._doubted) - 1)
                return
            self._hold(item.event_id)
            if len(self._doubted) >= _DOUBTED_MAX:
                raise self._refused_for_nothing()
            return
        if item.has_default_use_case:
            self._default_refusals += 1
            if self._default_refusals > _DEFAULT_REFUSED_MAX:
                # It was accepted once, but what is missing by now may be the use case.
                self._flusher._default_accepted = False
        if status == 404 or (item.has_default_use_case and not self._flusher._default_accepted):
            self._confirm_api()
        self._believe_one_more(error)
        if not item.has_default_use_case:
            known = self._use_cases
            use_case_id = self._log.decode(item.record).use_case_id
            unknown = status == 404 and known is not None and use_case_id not in known
            code = Rejection.UNKNOWN_USE_CASE if unknown else Rejection.REFUSED
            self._reject(item.record, item.event_id, code, str(error), status)
        elif self._flusher._default_accepted or self._use_case_id in (self._use_cases or ()):
            self._reject(item.record, item.event_id, Rejection.REFUSED, str(error), status)
        else:
            # Not judged yet: the list may not show all of them.
            self._default_refused.append((item, error))
            self._hold(item.event_id)

    def _believe_one_more(self, error: RefusedError) -> None:
        """End the pass if the server refuses one event after the other and accepts none."""
        self._refused_alone += 1
        if self._refused_alone > _REFUSED_ALONE_MAX:
            raise StopError(
                StopReason.SERVER,
                f"{_REFUSED_ALONE_MAX} events were refused and none accepted, so it may not be "
                f"their fault; the others stay pending: {error}",
            )

    def _believe_doubted(self, start: int = 0) -> None:
        """Set the events aside whose refusal was not believed until the server took another."""
        doubted, self._doubted = self._doubted[start:], self._doubted[:start]
        for item, error in doubted:
            code = Rejection.TOO_LARGE if error.status_code == 413 else Rejection.REFUSED
            self._reject(item.record, item.event_id, code, str(error), error.status_code)

    def _refused_for_nothing(self) -> StopError:
        _, error = self._doubted[-1]
        return StopError(
            StopReason.SERVER,
            f"{len(self._doubted)} events were refused with {error.status_code} ({error}) and "
            "none was accepted since, so it is not believed; they stay pending: is there a proxy "
            "or firewall that does not let them through?",
        )

    def _default_is_unknown(self) -> bool:
        return len(self._default_refused) >= _DEFAULT_REFUSED_MAX

    def _pass_over_default(self, items: Sequence[_Item]) -> None:
        for item in items:
            if item.has_default_use_case:
                self._pass_over(item.event_id)

    def _reject(
        self,
        record: Record,
        event_id: str,
        code: Rejection,
        reason: str,
        status: int | None = None,
    ) -> None:
        """Set an event aside for good."""
        note: dict[str, Any] = {
            "kind": "rejected",
            "seq": record.seq,
            "eventId": event_id,
            "code": str(code),
            "status": status,
            "reason": reason,
            "at": self._now_ns(),
            "wall_ns": record.wall_ns,
            "payload": record.payload,
        }
        try:
            self._notes.append(note)
        except EventTooLargeError:
            # delivery.ring may take smaller records than events.ring. The reason matters most, and
            # the event itself stays readable in events.ring until that is overwritten.
            self._notes.append(note | {"payload": None})
        self._log.mark([record.seq], "rejected")
        self._counts.rejected[str(code)] += 1
        self._report_progress()

    def _pass_over(self, event_id: str) -> None:
        self._counts.passed_over += 1
        self._hold(event_id)

    def _hold(self, event_id: str) -> None:
        """Let no later event with this id go before this one."""
        if self._held_ids is None:
            self._held_ids = IdFilter()
        self._held_ids.add(event_id)

    def _is_held(self, event_id: str) -> bool:
        return self._held_ids is not None and event_id in self._held_ids

    def _left_behind(self) -> StopError | None:
        """What to say of the events that were passed over, if there are any."""
        if self._doubted:
            if not self._counts.delivered:
                return self._refused_for_nothing()
            self._believe_doubted()
        if self._without_use_case:
            return StopError(
                StopReason.NO_USE_CASE,
                f"{self._without_use_case} events name no use case and there is no default; they "
                "stay pending: set VEVENTS_USE_CASE, or use_case in vevents.toml",
            )
        if self._default_refused:
            _, error = self._default_refused[0]
            return StopError(
                StopReason.NO_USE_CASE,
                f"the server refuses the events that name no use case ({error}), and the default "
                f"use case {self._use_case_id!r} is not among the active ones of the workspace; "
                "they stay pending: check VEVENTS_USE_CASE, or use_case in vevents.toml",
            )
        if self._counts.passed_over:
            return StopError(
                StopReason.SERVER,
                f"{self._counts.passed_over} events stay pending: {self._sender.last_failure}",
            )
        return None

    def _set_orphans_aside(self) -> None:
        """Mark the frames that no event names.

        Only after a complete pass: then every event that was pending has gone, and a pending frame
        that is older than an append takes has lost its event.
        """
        if not self._media.pending or not self._log.stats("media").pending:
            return
        before_ns = self._began_ns - _ORPHAN_AGE_S * 10**9
        orphans: list[int] = []
        for record in self._log.read("media", states=("pending",)):
            if record.seq > self._media.last_seq:
                break
            if record.wall_ns < before_ns:
                orphans.append(record.seq)
        for start in range(0, len(orphans), _ORPHANS_PER_NOTE):
            seqs = orphans[start : start + _ORPHANS_PER_NOTE]
            self._notes.append({"kind": "orphan", "media": seqs, "at": self._now_ns()})
            self._log.mark(seqs, "rejected", stream="media")
            self._counts.orphans += len(seqs)

    # --- the server itself -----------------------------------------------------------------

    def _confirm_api(self) -> None:
        """Make sure, once per pass, that the API is where we think it is.

        A 404 can mean an unknown use case or a wrong address. With a wrong address the whole log
        would be set aside as rejected. The answer also tells the server's time.
        """
        if not self._api_confirmed:
            self._ask_api()

    def _ask_api(self) -> None:
        try:
            self._sender.send(self._ask_for_use_cases, 0)
        except RefusedError as error:
            if error.status_code == 404:
                raise StopError(
                    StopReason.OFFLINE, f"the API is not at this address, check API_URL: {error}"
                ) from error
        except (ServerError, NoAnswerError) as error:
            raise StopError.because_of(error) from error
        self._api_confirmed = True

    def _ask_time(self) -> bool:
        """Ask the server for its time; False when it would be asked too often in this pass."""
        self._times_asked += 1
        if self._times_asked > _TIMES_ASKED_MAX:
            return False
        self._ask_api()
        return True

    def _learn_time(self) -> None:
        """Find out what the true time is, and so when the events of this boot were seen.

        Where nobody vouches for our clock, the server is asked: once if it agrees with us, often
        enough to be sure if it does not.
        """
        self._clock.begin()
        if not self._clock.needs_server:
            return
        while not self._client.clock_is_sure:
            offset_s = self._client.clock_offset_s
            if offset_s is not None and abs(offset_s) < SERVER_TOLERANCE_S:
                break
            if not self._ask_time():
                return
        self._clock.ask_server(self._client.clock_offset_s)

    def _ask_for_use_cases(self, within_s: float | None) -> None:
        try:
            listed = self._client.list_use_cases(within_s=within_s)
        except AuthorizationError as error:
            # A device's key may be allowed to send and not to read; that answer is the API's, too.
            if error.status_code != 403:
                raise
        else:
            self._use_cases = {use_case.id for use_case in listed.use_cases}

    def _add_to_total(self, count: int) -> None:
        self._total += count

    def _check_reading(self) -> None:
        if self._ending:
            raise StopError(StopReason.INTERRUPTED, "the pass is ending")
        self._sender.check_stop()

    def _report_progress(self) -> None:
        if self._progress is not None and threading.get_ident() == self._thread:
            self._progress(
                FlushProgress(
                    total=self._total,
                    delivered=self._counts.delivered,
                    rejected=self._counts.rejected.total(),
                    images_delivered=self._counts.images_delivered,
                    bytes_sent=self._sender.bytes_sent,
                )
            )

    def _now_ns(self) -> int:
        return int(self._time.clock() * 1e9)


def _check_options(
    order: Order, uploads: int, bytes_per_s: float | None, event_age_s_max: float
) -> None:
    if order not in ORDERS:
        raise ConfigurationError(f"order: {order!r}; one of {', '.join(map(repr, ORDERS))}")
    if not 1 <= uploads <= UPLOADS_MAX:
        raise ConfigurationError(f"uploads: {uploads}; from 1 to {UPLOADS_MAX}")
    if bytes_per_s is not None and not 1 <= bytes_per_s < float("inf"):
        raise ConfigurationError(f"bytes_per_s: {bytes_per_s}; at least 1, or None for no cap")
    if not 0 < event_age_s_max <= EVENT_AGE_S_MAX:
        raise ConfigurationError(
            f"event_age_s_max: {event_age_s_max}; more than 0, at most {EVENT_AGE_S_MAX} (364 days)"
        )


def _is_final(error: BaseException | None) -> bool:
    """Whether an error leaves no time to wait for anything: a Ctrl-C that nobody caught."""
    return error is not None and not isinstance(error, Exception)


@contextmanager
def flush_lock(directory: Path) -> Iterator[None]:
    """Hold the log's flush lock. The system takes it back when the process dies.

    Raises:
        FlushLockedError: Another process holds it.
    """
    message = f"another flush of {directory} is running; it holds {_LOCK_NAME}"
    with held_lock(directory / _LOCK_NAME, lambda: FlushLockedError(message)):
        yield
