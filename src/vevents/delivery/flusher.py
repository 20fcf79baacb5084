"""Hands the events of a log over to the API: images first, then batches, then acknowledgements.

One pass goes through the pending events from the oldest to the newest. For each event it uploads
the frames that the event names, then the event joins a batch, and the batch is posted. What the
server said is written down in an order that survives a crash at any point:

    1. A frame:   upload it, note its `sourceId` in delivery.ring, mark it delivered. A crash
                  before the note uploads the frame once more; a crash after it does not.
    2. An event:  post it, mark it delivered. A crash between the two posts it once more under the
                  same `eventId`, which overwrites it with itself.
    3. A refusal: note the reason and the payload, mark the record rejected. A crash between the
                  two asks the server once more.

So nothing is ever marked before the server spoke. What the server's refusals and failures do
(`vevents.delivery.sender` says what is repeated before it comes to that):

    a refused batch    is halved until the bad event is alone; that one is set aside as rejected
    a refused image    is marked rejected; its event goes without it and says so
    a failing request  may be the fault of one event, so a batch that keeps failing is halved as
                       well; what still fails alone stays pending and is passed over, so that it
                       cannot hold up the events behind it

Memory: at most one window of records, one batch of JSON and one frame are held at a time, and the
ids of images that were uploaded.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vevents.delivery.backlog import DEFAULT_PRIORITIES, ORDERS, Order, parse_priorities
from vevents.delivery.client import batch_body
from vevents.delivery.sender import Limits, RetryPolicy, Sender, StopError, StopReason, Time
from vevents.errors import (
    AuthorizationError,
    ConfigurationError,
    EventTooLargeError,
    FlushLockedError,
    NoAnswerError,
    RefusedError,
    ServerError,
)
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
# The API refuses what is older than a year or later than tomorrow; we stay a little inside.
EVENT_AGE_S_MAX: Final = 364 * 86_400
_EVENT_AHEAD_S_MAX = 23 * 3_600
# A frame is written before its event; a process that dies in between leaves a frame for nobody.
_ORPHAN_AGE_S = 3_600
_ORPHANS_PER_NOTE = 100
_DIGESTS_REMEMBERED_MAX = 65_536
_HELD_IDS_MAX = 10_000
UPLOADS_MAX: Final = 32
_LOCK_NAME = "flush.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushProgress:
    """How far a pass is; given to the progress callback after every step.

    Attributes:
        total: Events that were pending when the pass began.
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
    """Hands pending events over; one request at a time.

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
    ) -> None:
        _check_options(order, uploads, bytes_per_s, event_age_s_max)
        self._priorities = parse_priorities(priorities)
        self._log = log
        self._client = client
        self._use_case_id = use_case_id
        self._retry = RetryPolicy() if retry is None else retry
        self._time = Time() if time is None else time

    def flush(
        self,
        *,
        progress: Callable[[FlushProgress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
        timeout_s: float | None = None,
        max_events: int | None = None,
        max_bytes: int | None = None,
    ) -> FlushReport:
        """Hand over what is pending now. What is appended meanwhile waits for the next pass.

        Args:
            progress: Called after every step.
            should_stop: Asked before every request and while waiting; True ends the pass.
            timeout_s: No request begins after so many seconds.
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
        with _lock(self._log.directory):
            return _Pass(
                self._log,
                self._client,
                self._use_case_id,
                self._retry,
                self._time,
                limits,
                max_events,
                progress,
            ).run()


@dataclass(slots=True)
class _Counts:
    delivered: int = 0
    rejected: int = 0
    passed_over: int = 0
    images_delivered: int = 0
    images_rejected: int = 0
    images_missing: int = 0
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class _Item:
    """One event that is ready to be posted."""

    record: Record
    event_id: str
    body: bytes


@dataclass(slots=True)
class _Batch:
    begun_s: float
    items: list[_Item] = field(default_factory=list)
    size: int = len(batch_body([]))

    def takes(self, item: _Item) -> bool:
        if not self.items:
            return True
        return (
            len(self.items) < _BATCH_COUNT_MAX and self.size + len(item.body) + 1 <= _BATCH_SIZE_MAX
        )

    def add(self, item: _Item) -> None:
        self.items.append(item)
        self.size += len(item.body) + 1

    def drop_newest(self) -> None:
        self.size -= len(self.items.pop().body) + 1


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

    def put(self, digest: bytes, value: str) -> None:
        self._known[digest] = value
        if len(self._known) > _DIGESTS_REMEMBERED_MAX:
            self._known.popitem(last=False)


class _PassOverError(Exception):
    """This event cannot be handed over now; the ones behind it can. Never leaves this module."""


class _Pass:
    """One pass through the log, and what it has to remember."""

    def __init__(
        self,
        log: EventLog,
        client: Client,
        use_case_id: str | None,
        retry: RetryPolicy,
        time: Time,
        limits: Limits,
        max_events: int | None,
        progress: Callable[[FlushProgress], object] | None,
    ) -> None:
        self._log = log
        self._client = client
        self._use_case_id = use_case_id
        self._retry = retry
        self._time = time
        self._max_events = max_events
        self._progress = progress
        self._sender = Sender(retry, limits, time, self._report_progress)
        self._counts = _Counts()
        self._began_s = time.monotonic()
        self._total = 0
        self._taken = 0
        self._without_use_case = 0
        self._batch = _Batch(self._began_s)
        self._uploaded = _Digests()  # -> sourceId
        self._refused = _Digests()  # -> reason
        self._held_ids: set[str] = set()
        self._api_confirmed = False

    def run(self) -> FlushReport:
        stop: StopError | None = None
        self._total = self._log.stats("events").pending
        try:
            self._load_notes()
            self._drain()
            stop = self._left_behind()
            if stop is None:
                self._set_orphans_aside()
        except StopError as error:
            stop = error
        counts, sender = self._counts, self._sender
        if sender.requests or counts.rejected or counts.orphans:
            # Otherwise a power cut in the next seconds would send all of it again.
            self._log.sync()
        return FlushReport(
            delivered=counts.delivered,
            rejected=counts.rejected,
            passed_over=counts.passed_over,
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
        try:
            for record in self._pending():
                self._sender.check_stop()
                self._take(record)
            self._post_batch()
        except StopError as stop:
            if stop.reason in (StopReason.MAX_EVENTS, StopReason.MAX_BYTES):
                while not self._sender.has_room(self._batch.size) and self._batch.items:
                    self._batch.drop_newest()
                self._post_batch()
            raise

    def _pending(self) -> Iterator[Record]:
        """The events that were pending when the pass began, oldest first."""
        last_seq = self._log.stats("events").last_seq
        next_seq = 0
        while True:
            records, next_seq = self._log.read_batch(
                "events", next_seq, ("pending",), _BATCH_COUNT_MAX
            )
            for record in records:
                if record.seq > last_seq:
                    return
                yield record
            if not records:
                return

    def _take(self, record: Record) -> None:
        """Bring one event on its way: its frames, then into the batch."""
        try:
            event = self._log.decode(record)
        except ValueError as error:
            self._reject(record, record.event_id, f"the record cannot be read: {error}")
            return
        event_id = event.event_id or record.event_id
        if any(item.event_id == event_id for item in self._batch.items):
            # The same id twice in one batch: which of the two the server keeps is not documented.
            self._post_batch()
        if event_id in self._held_ids:
            # An earlier event with this id has to wait; it would overwrite this one later.
            self._pass_over(event_id)
            return
        if event.use_case_id is None and self._use_case_id is None:
            self._without_use_case += 1
            self._pass_over(event_id)
            return
        frames = required_frames(event)
        reason = self._outside_window(record)
        if reason is not None:
            # Frames first: a crash in between then leaves the event pending, to be looked at again.
            self._give_up_frames(frames)
            self._reject(record, event_id, reason)
            return
        if self._max_events is not None and self._taken >= self._max_events:
            raise StopError(
                StopReason.MAX_EVENTS, f"the limit of {self._max_events} events is reached"
            )
        if not self._batch.items:
            self._batch.begun_s = self._time.monotonic()
        try:
            source_ids, missing = self._bring(frames)
        except _PassOverError:
            self._pass_over(event_id)
            return
        self._taken += 1
        self._add(_Item(record, event_id, self._encode(event, source_ids, missing)))

    def _encode(self, event: Event, source_ids: dict[int, str], missing: dict[int, str]) -> bytes:
        obj = event_to_json(
            event, source_ids=source_ids, missing=missing, use_case_id=self._use_case_id
        )
        return json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def _outside_window(self, record: Record) -> str | None:
        """Why the server would refuse this event for its time, or None."""
        reason = self._window_reason(record.wall_ns)
        if reason is not None and self._client.clock_offset_s is None:
            # Our own clock may be the wrong one; ask the server for its time before judging.
            self._confirm_api()
            reason = self._window_reason(record.wall_ns)
        return reason

    def _window_reason(self, wall_ns: int) -> str | None:
        server_s = self._time.clock() + (self._client.clock_offset_s or 0.0)
        age_s = server_s - wall_ns / 1e9
        if age_s > EVENT_AGE_S_MAX:
            return f"its time is {age_s / 86_400:.1f} days ago; the server takes at most 365"
        if -age_s > _EVENT_AHEAD_S_MAX:
            return f"its time is {-age_s / 3_600:.1f} hours ahead; the server takes at most 24"
        return None

    # --- frames ----------------------------------------------------------------------------

    def _bring(self, frames: Sequence[FrameRef]) -> tuple[dict[int, str], dict[int, str]]:
        """Upload the frames that are not uploaded yet.

        Returns:
            The `sourceId` of each frame by its sequence number; and in the same way, for each
            frame that the event has to go without, the reason.

        Raises:
            _PassOverError: The server keeps failing on a frame.
        """
        source_ids: dict[int, str] = {}
        missing: dict[int, str] = {}
        for frame in frames:
            source_id = self._uploaded.get(frame.digest)
            if source_id is None and frame.digest not in self._refused:
                image = self._log.frame(frame)
                if image is None:
                    self._counts.images_missing += 1
                    missing[frame.seq] = "evicted"
                    continue
                source_id = self._upload(frame, image)
            if source_id is None:
                self._log.mark([frame.seq], "rejected", stream="media")
                missing[frame.seq] = "refused"
            else:
                # Also when an earlier pass uploaded it: it may have died before this mark.
                self._log.mark([frame.seq], "delivered", stream="media")
                source_ids[frame.seq] = source_id
        return source_ids, missing

    def _upload(self, frame: FrameRef, image: bytes) -> str | None:
        """Upload one frame and note what the server said; None when it refuses the frame."""
        mime = sniff(image) or "application/octet-stream"
        name = f"{frame.digest.hex()}.{mime.rpartition('/')[2]}"
        # The events whose images went already come before this image.
        self._sender.check_room(len(image) + self._batch.size)
        note = {"media": frame.seq, "digest": frame.digest, "at": self._now_ns()}
        try:
            source_id = self._sender.send(
                lambda: self._client.upload_image(image, name=name, mime=mime), len(image)
            )
        except RefusedError as error:
            self._confirm_if_not_found(error)
            note |= {"status": error.status_code, "reason": str(error)}
            self._log.append_note({"kind": "image-rejected"} | note)
            self._refused.put(frame.digest, str(error))
            self._counts.images_rejected += 1
            return None
        except (ServerError, NoAnswerError) as error:
            raise _PassOverError from error
        self._log.append_note({"kind": "upload", "sourceId": source_id} | note)
        self._uploaded.put(frame.digest, source_id)
        self._counts.images_delivered += 1
        return source_id

    def _load_notes(self) -> None:
        for _, note in self._log.notes():
            digest, source_id = note.get("digest"), note.get("sourceId")
            if note.get("kind") == "upload" and digest and source_id:
                self._uploaded.put(bytes(digest), str(source_id))

    def _give_up_frames(self, frames: Sequence[FrameRef]) -> None:
        """Mark the frames of a rejected event, but not those that were uploaded for another."""
        seqs = [frame.seq for frame in frames if frame.digest not in self._uploaded]
        if seqs:
            self._log.mark(seqs, "rejected", stream="media")

    # --- batches ---------------------------------------------------------------------------

    def _add(self, item: _Item) -> None:
        if not self._batch.takes(item):
            self._post_batch()
        self._batch.add(item)
        if self._time.monotonic() - self._batch.begun_s >= _BATCH_AGE_S_MAX:
            self._post_batch()

    def _post_batch(self) -> None:
        if not self._batch.items:
            return
        self._sender.check_room(self._batch.size)
        items, self._batch = self._batch.items, _Batch(self._time.monotonic())
        self._post(items, self._retry.attempts)

    def _post(self, items: Sequence[_Item], attempts: int) -> None:
        if len(items) == 1:
            self._post_alone(items[0], attempts)
            return
        bodies = [item.body for item in items]
        try:
            accepted = set(
                self._sender.send(
                    lambda: self._client.create_batch(bodies),
                    len(batch_body(bodies)),
                    attempts=attempts,
                )
            )
        except RefusedError:
            self._post_halves(items, attempts)
        except (ServerError, NoAnswerError):
            # Repeating the whole did not help, so each part gets one try.
            self._post_halves(items, 1)
        else:
            self._accept([item for item in items if item.event_id in accepted])
            for item in items:
                if item.event_id not in accepted:
                    self._post_alone(item, attempts)

    def _post_halves(self, items: Sequence[_Item], attempts: int) -> None:
        middle = len(items) // 2
        self._post(items[:middle], attempts)
        self._post(items[middle:], attempts)

    def _post_alone(self, item: _Item, attempts: int) -> None:
        try:
            accepted = self._sender.send(
                lambda: self._client.create_event(item.body), len(item.body), attempts=attempts
            )
        except RefusedError as error:
            self._confirm_if_not_found(error)
            self._reject(item.record, item.event_id, str(error), error.status_code)
        except (ServerError, NoAnswerError):
            self._pass_over(item.event_id)
        else:
            if accepted == item.event_id:
                self._accept([item])
            else:
                self._sender.last_failure = ServerError(
                    f"the server answered for event {accepted!r} when sent {item.event_id!r}"
                )
                self._pass_over(item.event_id)

    # --- what becomes of an event ----------------------------------------------------------

    def _accept(self, items: Sequence[_Item]) -> None:
        if items:
            self._log.ack([item.record.seq for item in items])
            self._counts.delivered += len(items)
            self._report_progress()

    def _reject(
        self, record: Record, event_id: str, reason: str, status: int | None = None
    ) -> None:
        """Set an event aside for good."""
        note: dict[str, Any] = {
            "kind": "rejected",
            "seq": record.seq,
            "eventId": event_id,
            "status": status,
            "reason": reason,
            "at": self._now_ns(),
            "wall_ns": record.wall_ns,
            "payload": record.payload,
        }
        try:
            self._log.append_note(note)
        except EventTooLargeError:
            # delivery.ring may take smaller records than events.ring. The reason matters most, and
            # the event itself stays readable in events.ring until that is overwritten.
            self._log.append_note(note | {"payload": None})
        self._log.mark([record.seq], "rejected")
        self._counts.rejected += 1
        self._report_progress()

    def _pass_over(self, event_id: str) -> None:
        self._counts.passed_over += 1
        if len(self._held_ids) < _HELD_IDS_MAX:
            self._held_ids.add(event_id)

    def _left_behind(self) -> StopError | None:
        """What to say of the events that were passed over, if there are any."""
        if self._without_use_case:
            return StopError(
                StopReason.NO_USE_CASE,
                f"{self._without_use_case} events name no use case and there is no default; they "
                "stay pending: set VEVENTS_USE_CASE, or use_case in vevents.toml",
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
        before_ns = self._now_ns() - _ORPHAN_AGE_S * 10**9
        last_seq = self._log.stats("media").last_seq
        orphans: list[int] = []
        for record in self._log.read("media", states=("pending",)):
            if record.seq > last_seq:
                break
            if record.wall_ns < before_ns:
                orphans.append(record.seq)
        for start in range(0, len(orphans), _ORPHANS_PER_NOTE):
            seqs = orphans[start : start + _ORPHANS_PER_NOTE]
            self._log.append_note({"kind": "orphan", "media": seqs, "at": self._now_ns()})
            self._log.mark(seqs, "rejected", stream="media")
            self._counts.orphans += len(seqs)

    # --- the server itself -----------------------------------------------------------------

    def _confirm_if_not_found(self, error: RefusedError) -> None:
        if error.status_code == 404:
            self._confirm_api()

    def _confirm_api(self) -> None:
        """Make sure, once per pass, that the API is where we think it is.

        A 404 can mean an unknown use case or a wrong address. With a wrong address the whole log
        would be set aside as rejected. The answer also tells the server's time.
        """
        if self._api_confirmed:
            return
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

    def _ask_for_use_cases(self) -> None:
        try:
            self._client.list_use_cases()
        except AuthorizationError as error:
            # A device's key may be allowed to send and not to read; that answer is the API's, too.
            if error.status_code != 403:
                raise

    def _report_progress(self) -> None:
        if self._progress is not None:
            self._progress(
                FlushProgress(
                    total=self._total,
                    delivered=self._counts.delivered,
                    rejected=self._counts.rejected,
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


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold the log's flush lock. The system takes it back when the process dies."""
    path = directory / _LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FlushLockedError(
                f"another flush of {directory} is running; it holds {path.name}"
            ) from None
        yield
    finally:
        os.close(descriptor)
