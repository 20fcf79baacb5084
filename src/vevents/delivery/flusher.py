"""Hands the events of a log over to the API: images first, then batches, then acknowledgements.

One pass goes through the pending events in the order that `backlog` gives. Data flows one way
through the rooms beside this one, and the pass in here conducts:

    backlog -> items (decode) -> images (upload) -> batches (post) -> verdicts (mark)

For each event the frames that it names are uploaded, several at the same time if that helps, then
the event joins a batch, and the batch is posted; there is one request with events at a time. Where
that is wanted, an event goes together with its frames instead, as one of `bundles`, several at the
same time. What the server said is written down in an order that survives a crash at any point:

    1. A frame:   upload it, note its `sourceId` in delivery.ring, mark it delivered. A crash
                  before the note uploads the frame once more; a crash after it does not.
    2. An event:  post it, mark it delivered. A crash between the two posts it once more under the
                  same `eventId`, which overwrites it with itself.
    3. A refusal: note the reason and the payload, mark the record rejected. A crash between the
                  two asks the server once more.

So nothing is ever marked before the server spoke. `sender` says which requests are repeated,
`batches` what refusals and failures of a batch do, and `verdicts` which refusals are believed.

The events leave in the order of the backlog whatever the order in which their images arrive; only
what is passed over falls behind. Bundles that are under way together may arrive in any order, but
never two of one id.

Threads: the one that called `flush` decides everything, posts the events and calls `progress`.
Others upload frames (`Uploads`) and read ahead (`ReadAhead`). With `uploads=1` there are none.

Memory: at most two windows of records that are read ahead, one of records whose images are under
way, one batch of JSON, one frame for each upload, and the ids of images that were uploaded.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vevents.codec import KIND_OF
from vevents.delivery.api import Api
from vevents.delivery.backlog import (
    DEFAULT_PRIORITIES,
    ORDERS,
    Backlog,
    Order,
    SharedIds,
    parse_priorities,
)
from vevents.delivery.batches import Batches
from vevents.delivery.bundles import Bundle, Bundles
from vevents.delivery.clock import ClockRepair
from vevents.delivery.images import Images, Outcome, Way
from vevents.delivery.items import Item, ItemImages, Read, Reader
from vevents.delivery.lock import flush_lock
from vevents.delivery.losses import append_loss_report
from vevents.delivery.notes import Notes
from vevents.delivery.pace import Pace
from vevents.delivery.report import Counts, FlushProgress, FlushReport, Rejection
from vevents.delivery.sender import Limits, RetryPolicy, Sender, StopError, StopReason, Time
from vevents.delivery.uploads import ReadAhead
from vevents.delivery.verdicts import DefaultUseCase, Verdicts
from vevents.errors import ConfigurationError
from vevents.settings import EVENT_AGE_MAX_S, UPLOADS_MAX

if TYPE_CHECKING:
    from vevents.delivery.client import Client
    from vevents.event import EventType, FrameRef
    from vevents.log import EventLog

# Events whose images are under way, and bytes of their records.
_WAITING_COUNT_MAX = 100
_WAITING_SIZE_MAX = 4 << 20
_READ_AHEAD_SIZE_MAX = 1 << 20
# Events with an image that was refused, until it is known whether that is to be believed.
_DOUBTFUL_MAX = 100
_LOOK_S = 0.2


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
        bundle: Send an event together with its frames, in one request, where that is possible.
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
        bundle: bool = False,
        bytes_per_s: float | None = None,
        event_age_s_max: float = EVENT_AGE_MAX_S,
        loss_report_s: float | None = None,
    ) -> None:
        _check_options(order, uploads, bytes_per_s, event_age_s_max)
        self._priorities = parse_priorities(priorities)
        self._log = log
        self._client = client
        self._retry = RetryPolicy() if retry is None else retry
        self._time = Time() if time is None else time
        self._order = order
        self._live_first = live_first
        self._upload_count = uploads
        self._bundles_wanted = bundle
        self._event_age_s_max = event_age_s_max
        self._loss_report_s = loss_report_s
        # What stays known from one pass to the next.
        self._pace = Pace(bytes_per_s)
        self._notes = Notes(log)
        self._clock = ClockRepair(log, self._notes)
        self._shared = SharedIds(log)
        self._default = DefaultUseCase(use_case_id)

    def flush(
        self,
        *,
        progress: Callable[[FlushProgress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
        timeout_s: float | None = None,
        max_events: int | None = None,
        max_bytes: int | None = None,
        wait_s: float = 0.0,
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
            wait_s: How long to wait for another flush of the log to end. `timeout_s` counts from
                the end of the wait.

        Returns:
            What happened. Trouble with the delivery is reported there and never raised.

        Raises:
            FlushLockedError: Another flush of this log is running, and still was after `wait_s` or
                when `should_stop` said so.
            LogError: The log cannot be read or marked.
            OSError: The log's disk fails.
        """
        should_stop = should_stop or (lambda: False)
        limits = Limits(
            should_stop=should_stop,
            timeout_s=timeout_s,
            max_bytes=max_bytes,
        )
        with flush_lock(self._log.directory, self._patience(wait_s, should_stop)):
            self._notes.expire()
            # While delivery is paused a report would only lie there, and not know what comes.
            if self._loss_report_s is not None and not _is_stopped(should_stop):
                append_loss_report(
                    self._log,
                    self._notes,
                    period_s=self._loss_report_s,
                    use_case_id=self._default.id,
                    now_ns=int(self._time.clock() * 1e9),
                )
            return _Pass(self, limits, max_events, progress).run()

    def _patience(self, wait_s: float, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return what waits for the lock a little, and tells whether to try again."""
        until_s = self._time.monotonic() + wait_s

        def wait() -> bool:
            if _is_stopped(should_stop):
                return False
            left_s = until_s - self._time.monotonic()
            if left_s > 0:
                self._time.sleep(min(left_s, _LOOK_S))
            return left_s > 0

        return wait


@dataclass(slots=True, eq=False)
class _Waiting:
    """One event whose frames are under way.

    Attributes:
        ways: Each frame with how it gets there.
        bundle: What goes in place of them, the event included, or None.
        outcome: What became of them, or None as long as that is not known.
    """

    read: Read
    ways: list[tuple[FrameRef, Way]]
    bundle: Bundle | None = None
    outcome: Outcome | None = None


class _Pass:
    """One pass through the log, and what it has to remember."""

    def __init__(
        self,
        flusher: Flusher,
        limits: Limits,
        max_events: int | None,
        progress: Callable[[FlushProgress], object] | None,
    ) -> None:
        log, time = flusher._log, flusher._time
        self._log = log
        self._notes = flusher._notes
        self._clock = flusher._clock
        self._shared = flusher._shared
        self._monotonic = time.monotonic
        self._max_events = max_events
        self._progress = progress
        self._thread = threading.get_ident()
        self._counts = Counts()
        self._began_s = time.monotonic()
        self._total = 0
        self._taken = 0
        self._ending = False
        self._threaded = flusher._upload_count > 1
        self._waiting: deque[_Waiting] = deque()
        self._waiting_size = 0
        self._bundled: list[_Waiting] = []  # those of them that go as bundles
        self._doubtful: list[_Waiting] = []
        # The rooms, from the server back to the log.
        self._sender = Sender(flusher._retry, limits, time, self._report_progress, flusher._pace)
        self._api = Api(flusher._client, self._sender)
        self._verdicts = Verdicts(
            log,
            self._notes,
            self._api,
            flusher._default,
            counts=self._counts,
            clock=time.clock,
            is_vouched_for=lambda: not self._clock.needs_server,
            event_age_s_max=flusher._event_age_s_max,
            changed=self._report_progress,
        )
        self._reader = Reader(log, self._clock, flusher._default.id)
        self._images = Images(
            log,
            self._notes,
            flusher._client,
            self._sender,
            self._api,
            counts=self._counts,
            time=time,
            count=flusher._upload_count,
            batch_size=lambda: self._batches.size,
            changed=self._report_progress,
        )
        self._bundles = Bundles(
            log,
            flusher._client,
            self._api,
            self._images,
            self._verdicts,
            counts=self._counts,
            use_case_id=flusher._default.id,
            wanted=flusher._bundles_wanted,
        )
        self._batches = Batches(
            flusher._client,
            self._api,
            self._sender,
            self._verdicts,
            self._images,
            self._reader,
            attempts=flusher._retry.attempts,
            monotonic=time.monotonic,
        )
        self._backlog = Backlog(
            log,
            flusher._order,
            [KIND_OF[kind] for kind in flusher._priorities],
            flusher._live_first,
            self._shared,
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
                if self._notes.has_retried():
                    # What is pending again may never have been looked at.
                    self._shared.stale = True
                self._api.teach_time(self._clock)
                self._drain()
            stop = self._verdicts.left_behind(self._sender.last_failure)
            if stop is None and self._backlog.complete:
                self._images.set_orphans_aside()
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
            passed_over=counts.passed_over + self._verdicts.undecided,
            bundles=counts.bundles,
            images_delivered=counts.images_delivered,
            images_rejected=counts.images_rejected,
            images_missing=counts.images_missing,
            orphans=counts.orphans,
            bytes_sent=sender.bytes_sent,
            requests=sender.requests,
            retries=sender.retries,
            pending_after=self._log.stats("events").pending,
            duration_s=self._monotonic() - self._began_s,
            stopped_reason=None if stop is None else stop.reason,
            message=None if stop is None else str(stop),
            retry_after_s=None if stop is None else stop.retry_after_s,
        )

    def _drain(self) -> None:
        reads = map(self._reader.read, self._backlog)
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
                    self._images.finish()
                    self._end_bundles(pass_is_over=True)
        except BaseException as error:
            if _is_final(error):
                self._images.abandon()
            raise
        finally:
            self._ending = True
            if ahead is not None:
                ahead.close()

    def _take_all(self, reads: Iterable[Read]) -> None:
        try:
            try:
                for read in reads:
                    self._sender.check_stop()
                    self._images.raise_failure()
                    self._take(read)
            except StopError as stop:
                if stop.reason is StopReason.MAX_EVENTS:
                    self._release_all()
                raise
            self._release_all()
        except StopError as stop:
            if stop.reason is StopReason.MAX_BYTES:
                # What is left of the limit is for the events whose images went.
                self._images.finish()
                with suppress(StopError):
                    self._release_ready()
                self._batches.post_what_fits()
            raise

    def _take(self, read: Read) -> None:
        """Bring one event on its way: its frames, then into the batch."""
        record = read.record
        if read.fault is not None:
            self._verdicts.reject(record, read.event_id, Rejection.UNREADABLE, read.fault)
            return
        if self._may_overtake(read):
            self._release_line()
            self._batches.post()
        if self._verdicts.passes_over(read):
            return
        outside = self._verdicts.outside_window(read.wall_ns)
        if outside is not None:
            # Frames first: a crash in between then leaves the event pending, to be looked at again.
            self._images.give_up(read.frames)
            self._verdicts.reject(record, read.event_id, *outside)
            return
        if self._max_events is not None and self._taken >= self._max_events:
            raise StopError(
                StopReason.MAX_EVENTS, f"the limit of {self._max_events} events is reached"
            )
        self._taken += 1
        if not self._waiting:
            self._batches.begin()
        # Nothing overtakes an event of its id, and those wait for the verdict on an image.
        bundle = None if self._is_behind_doubtful(read) else self._bundles.begin(read)
        ways = self._images.begin(read) if bundle is None else []
        self._waiting.append(_Waiting(read, ways, bundle))
        if bundle is not None:
            self._bundled.append(self._waiting[-1])
        self._waiting_size += len(record.payload)
        self._release_ready()
        while len(self._waiting) >= _WAITING_COUNT_MAX or self._waiting_size >= _WAITING_SIZE_MAX:
            self._release_next()

    def _may_overtake(self, read: Read) -> bool:
        """Whether an event, going as a bundle, might arrive before an earlier one of its id."""
        if not (self._bundles.wanted and read.frames):
            return False
        return self._batches.holds(read.event_id) or any(
            waiting.read.event_id == read.event_id for waiting in self._waiting
        )

    def _release_all(self) -> None:
        while self._waiting or self._images.are_doubted:
            self._release_line()
            if not self._images.conclude():
                break
            self._release_doubtful()
        for waiting in self._doubtful:
            self._taken -= 1
            self._verdicts.pass_over(waiting.read.event_id)
        self._batches.conclude()

    def _release_line(self) -> None:
        while self._waiting:
            self._release_next()

    def _release_ready(self) -> None:
        """Pass on the events at the head of the line whose frames are there."""
        self._end_bundles()
        while self._waiting and self._is_over(self._waiting[0]):
            self._release(self._waiting[0])

    def _release_next(self) -> None:
        """Wait for the frames of the event at the head of the line, and pass it on."""
        head = self._waiting[0]
        while not self._wait(head):
            self._sender.check_stop()
            self._report_progress()
            self._batches.post_if_old()
        self._release_ready()

    def _wait(self, waiting: _Waiting) -> bool:
        """Wait a moment for what an event needs. Returns whether all of it is over."""
        if waiting.bundle is not None:
            return self._images.uploads.wait(waiting.bundle, _LOOK_S)
        return all(self._images.wait(way, _LOOK_S) for _, way in waiting.ways)

    def _is_over(self, waiting: _Waiting) -> bool:
        return waiting.bundle is None and self._images.are_over(waiting.ways)

    def _release(self, head: _Waiting) -> None:
        """Pass on the event at the head of the line; its uploads are over."""
        if not self._end(head):
            return
        self._waiting.popleft()
        self._waiting_size -= len(head.read.record.payload)
        self._pass_on(head)
        if not self._images.are_doubted:
            self._release_doubtful()

    def _release_doubtful(self) -> None:
        """Pass on the events that wait for a verdict on their images, as far as there is one."""
        doubtful, self._doubtful = self._doubtful, []
        for index, waiting in enumerate(doubtful):
            if not self._end(waiting):
                # Back into the line, and all behind it, since one may have the same id.
                self._waiting.extendleft(reversed(doubtful[index:]))
                self._waiting_size += sum(len(w.read.record.payload) for w in doubtful[index:])
                break
            self._pass_on(waiting)

    def _end(self, waiting: _Waiting) -> bool:
        """Find out what became of the frames of an event. Returns whether that is known."""
        if waiting.outcome is None or waiting.outcome.doubted:
            waiting.outcome = self._images.end(waiting.read, waiting.ways)
        return waiting.outcome is not None

    def _pass_on(self, waiting: _Waiting) -> None:
        """Let an event join the batch, or wait for the verdict on an image."""
        read, outcome = waiting.read, waiting.outcome
        assert outcome is not None
        doubtful = outcome.doubted or self._is_behind_doubtful(read)
        if doubtful and len(self._doubtful) < _DOUBTFUL_MAX:
            self._doubtful.append(waiting)
            return
        if doubtful or outcome.failed or self._verdicts.is_held(read.event_id):
            self._taken -= 1
            self._verdicts.pass_over(read.event_id)
            return
        body, images = read.body, None
        if body is None:
            assert read.event is not None
            body = self._reader.encode(read.event, outcome.source_ids, outcome.missing)
            if outcome.source_ids:
                images = ItemImages(
                    read.event, read.frames, outcome.source_ids, outcome.missing, outcome.reused
                )
        self._batches.add(Item(read.record, read.event_id, body, not read.names_use_case, images))

    def _end_bundles(self, *, pass_is_over: bool = False) -> None:
        """Take the bundles that are over out of the line, whatever is before them.

        Events that did not arrive so keep their place, and go the ordinary way, unless the pass is
        over.
        """
        under_way = []
        for waiting in self._bundled:
            bundle = waiting.bundle
            assert bundle is not None
            if not bundle.done:
                under_way.append(waiting)
            elif self._bundles.end(bundle):
                self._waiting.remove(waiting)
                self._waiting_size -= len(waiting.read.record.payload)
            elif not pass_is_over:
                waiting.bundle, waiting.ways = None, self._images.begin(waiting.read)
        self._bundled = under_way

    def _is_behind_doubtful(self, read: Read) -> bool:
        return any(waiting.read.event_id == read.event_id for waiting in self._doubtful)

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


def _check_options(
    order: Order, uploads: int, bytes_per_s: float | None, event_age_s_max: float
) -> None:
    if order not in ORDERS:
        raise ConfigurationError(f"order: {order!r}; one of {', '.join(map(repr, ORDERS))}")
    if not 1 <= uploads <= UPLOADS_MAX:
        raise ConfigurationError(f"uploads: {uploads}; from 1 to {UPLOADS_MAX}")
    if bytes_per_s is not None and not 1 <= bytes_per_s < float("inf"):
        raise ConfigurationError(f"bytes_per_s: {bytes_per_s}; at least 1, or None for no cap")
    if not 0 < event_age_s_max <= EVENT_AGE_MAX_S:
        raise ConfigurationError(
            f"event_age_s_max: {event_age_s_max}; more than 0, at most {EVENT_AGE_MAX_S:.0f} "
            "(364 days)"
        )


def _is_stopped(should_stop: Callable[[], bool]) -> bool:
    try:
        return should_stop()
    except StopError:
        return True


def _is_final(error: BaseException | None) -> bool:
    """Whether an error leaves no time to wait for anything: a Ctrl-C that nobody caught."""
    return error is not None and not isinstance(error, Exception)
