"""The frames of a pass: which of them have to be uploaded, and what became of them.

A frame is uploaded once, whatever number of events name it: by its content it is known again, and
the notes in delivery.ring tell under which id the server has it.

A refused image is marked rejected, and its event goes without it and says so. That is final, so a
refusal is believed as one of an event is (`verdicts`): at once if the API says what is wrong with
the image, else when it takes another one. Until then the event waits. If all meet it, or one upload
after the other fails, no more images are tried in this pass; the events that have none go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from vevents.delivery.digests import Digests
from vevents.delivery.doubts import BLOCKED_TRIES, Doubts
from vevents.delivery.lanes import Lanes
from vevents.delivery.sender import Failures, Request, StopError
from vevents.delivery.uploads import Upload, Uploads
from vevents.errors import DeliveryError, NoAnswerError, RefusedError, ServerError
from vevents.frames import sniff

if TYPE_CHECKING:
    from vevents.delivery.api import Api
    from vevents.delivery.client import Client
    from vevents.delivery.items import ItemImages, Read
    from vevents.delivery.notes import Notes
    from vevents.delivery.report import Counts
    from vevents.delivery.sender import Sender, Time
    from vevents.event import FrameRef
    from vevents.log import EventLog

# The server takes images and does not say under which id: every try leaves one there.
_UNNAMED_IMAGES_MAX = 3
# These judge an image, if the API says so; any other may come from something before the server.
_MEANS_IMAGE = frozenset((400, 415, 422))
# And no server takes more than that.
_SURELY_TOO_LARGE = 20_000_000
# A frame is written before its event; a process that dies in between leaves a frame for nobody.
_ORPHAN_AGE_S = 3_600
_ORPHANS_PER_NOTE = 100
# So many bytes of an image tell its format.
_SNIFF_SIZE = 64

Way: TypeAlias = "Upload | str | None"
"""How an event gets an image: an upload under way, an id that is known, or not at all: refused."""


@dataclass(slots=True)
class Outcome:
    """What became of the frames of one event.

    Attributes:
        source_ids: Their ids, by sequence number of the frame.
        missing: Why others are left out.
        reused: Sequence numbers of those that were uploaded for something else.
        failed: Whether one may still be uploaded by a later pass.
        doubted: Whether one was refused and it is not known yet if that is to be believed; the
            other attributes are not valid then.
    """

    source_ids: dict[int, str] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
    reused: set[int] = field(default_factory=set)
    failed: bool = False
    doubted: bool = False


class Images:
    """Uploads the frames of one pass. Make it before the backlog.

    For the thread that flushes; others upload (`Uploads`).

    Args:
        log: The log, open for writing.
        notes: Its notes; they know what was uploaded before.
        client: The way to the server.
        sender: Makes the requests.
        api: The server.
        counts: Where the frames are counted.
        time: Where time comes from.
        count: At most so many frames are uploaded at the same time.
        batch_size: Bytes of the events that are ready and not sent yet.
        changed: Called when an upload is over.

    Attributes:
        uploads: The threads.
        lanes: How many of them may send at the same time; None when there are none.
    """

    def __init__(
        self,
        log: EventLog,
        notes: Notes,
        client: Client,
        sender: Sender,
        api: Api,
        *,
        counts: Counts,
        time: Time,
        count: int,
        batch_size: Callable[[], int],
        changed: Callable[[], object],
    ) -> None:
        self._log = log
        self._notes = notes
        self._client = client
        self._sender = sender
        self._api = api
        self._counts = counts
        self._time = time
        self._batch_size = batch_size
        self._changed = changed
        self._refused = Digests()  # -> reason
        self._doubts: Doubts[Upload] = Doubts("images", "their events stay pending", self._believe)
        self._doubted: set[bytes] = set()
        self._unnamed_images = 0
        self._failures = Failures()
        self._moments = itertools.count(1)
        # Why no more images are uploaded in this pass, or None.
        self._given_up: DeliveryError | None = None
        self.uploads = Uploads(count)
        self.lanes = Lanes(count, time.monotonic) if count > 1 else None
        self._under_way: dict[bytes, Upload] = {}
        # Bytes of the events, as JSON, whose frames were begun, and whose frames are over.
        self._json_size_begun = 0
        self._json_size_ended = 0
        # Before the backlog: a frame up to here has its event in it, or none.
        self._media = log.stats("media")
        self._began_ns = self._now_ns()

    # --- on the way of an event ------------------------------------------------------------

    def begin(self, read: Read) -> list[tuple[FrameRef, Way]]:
        """Bring the frames of an event on their way, in the order of the events."""
        self._json_size_begun += read.size
        return [(frame, self._way_of(frame)) for frame in read.frames]

    def are_settled(self, frames: Sequence[FrameRef]) -> bool:
        """Whether none of these would be uploaded: the server has them, or refused them."""
        return all(
            frame.digest in self._refused or self._notes.source_id(frame.digest) is not None
            for frame in frames
        )

    def kept_free(self) -> Callable[[], int]:
        """Return what tells the bytes that the events before a request need; it begins now."""
        ahead = self._json_size_begun
        return lambda: self._batch_size() + ahead - self._json_size_ended

    def are_over(self, ways: Sequence[tuple[FrameRef, Way]]) -> bool:
        """Whether nothing is under way any more."""
        return all(not isinstance(way, Upload) or way.done for _, way in ways)

    def wait(self, way: Way, timeout_s: float) -> bool:
        """Wait until a frame is over, or so many seconds. Returns whether it is over.

        Raises:
            StopError: An upload found that the pass is to end.
            Exception: The log failed under an upload.
        """
        return not isinstance(way, Upload) or self.uploads.wait(way, timeout_s)

    def end(self, read: Read, ways: list[tuple[FrameRef, Way]]) -> Outcome | None:
        """Mark the frames of an event whose uploads are over.

        Returns:
            What became of them. None if another copy of one is under way now, as the copy that
            was wanted first is gone; `ways` has it.
        """
        for _, way in ways:
            if isinstance(way, Upload):
                self._settle(way)
        if any(frame.digest in self._doubted for frame, _ in ways):
            return Outcome(doubted=True)
        outcome = Outcome()
        outcome.reused = {frame.seq for frame, way in ways if isinstance(way, str)}
        for index, (frame, way) in enumerate(ways):
            if isinstance(way, Upload):
                follower = self._under_way.get(frame.digest)
                if (way.missing and way.frame.seq != frame.seq) or follower is not None:
                    # The copy that was wanted first is gone, and this one may still be there; or
                    # what was blocked is tried again.
                    ways[index] = (frame, self._way_of(frame))
                    return self.end(read, ways) if self.are_over(ways) else None
                if way.error is not None and frame.digest not in self._refused:
                    outcome.failed = True
                if way.missing:
                    outcome.missing[frame.seq] = "evicted"
                    continue
                way = way.source_id
            if way is not None:
                # Also when an earlier pass uploaded it: it may have died before this mark.
                self._log.mark([frame.seq], "delivered", stream="media")
                outcome.source_ids[frame.seq] = way
            elif frame.digest in self._refused:
                self._log.mark([frame.seq], "rejected", stream="media")
                outcome.missing[frame.seq] = "refused"
        self._json_size_ended += read.size
        self._counts.images_missing += list(outcome.missing.values()).count("evicted")
        return outcome

    def renew(self, images: ItemImages, suspects: Sequence[FrameRef]) -> bool:
        """Upload images of an event again that the server knows no more; once, then leave them out.

        Args:
            images: The images of the event; what becomes of them is written there.
            suspects: The frames.

        Returns:
            Whether the event can be posted again; if not, a later pass may get further.
        """
        for frame in suspects:
            source_id = images.source_ids.pop(frame.seq)
            if images.renewed:
                images.missing[frame.seq] = "unknown to the server"
                self._counts.images_missing += 1
                continue
            way = self._upload_again(frame, source_id)
            if isinstance(way, str):
                images.source_ids[frame.seq] = way
            elif way.missing:
                images.missing[frame.seq] = "evicted"
                self._counts.images_missing += 1
            elif frame.digest in self._refused:
                images.missing[frame.seq] = "refused"
            else:
                return False
        images.suspects = {frame.seq for frame in suspects}
        images.renewed = True
        return True

    def give_up(self, frames: Sequence[FrameRef]) -> None:
        """Mark the frames of a rejected event, but not those that go for another."""
        seqs = [
            frame.seq
            for frame in frames
            if frame.digest not in self._under_way and self._notes.source_id(frame.digest) is None
        ]
        if seqs:
            self._log.mark(seqs, "rejected", stream="media")

    # --- the pass ends ---------------------------------------------------------------------

    @property
    def are_doubted(self) -> bool:
        """Whether events wait for a verdict on their images."""
        return bool(self._doubted)

    def conclude(self) -> bool:
        """No more images come: believe what was refused if the server took any.

        Returns:
            Whether nothing is doubted any more.
        """
        if self._doubts and self._given_up is None and self._counts.images_delivered:
            self._doubts.accepted()
        elif self._doubts:
            self._give_up_all(self._doubts.disbelief())
        return not self._doubts

    def raise_failure(self) -> None:
        """Raise what ended an upload's thread, if anything did."""
        self.uploads.raise_failure()

    def finish(self) -> None:
        """Begin nothing more, and wait for what is under way; see `Uploads.finish()`."""
        self.uploads.finish()

    def abandon(self) -> None:
        """Begin nothing more, and wait for nothing; see `Uploads.abandon()`."""
        self.uploads.abandon()

    def set_orphans_aside(self) -> None:
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

    # --- one frame -------------------------------------------------------------------------

    def _way_of(self, frame: FrameRef) -> Way:
        """Return the id that a frame has, or its upload, begun now if it is the first to want it.

        None means that the server refused it before.
        """
        source_id = self._notes.source_id(frame.digest)
        if source_id is not None or frame.digest in self._refused:
            return source_id
        upload = self._under_way.get(frame.digest)
        if upload is None:
            upload = Upload(frame, self._json_size_begun)
            self._under_way[frame.digest] = upload
            self.uploads.add(upload, self._upload)
        return upload

    def _upload_again(self, frame: FrameRef, source_id: str) -> Upload | str:
        """Return another id for a frame than this one, or the upload that came to nothing."""
        known = self._notes.source_id(frame.digest)
        if known is not None and known != source_id:
            return known
        note = {"media": frame.seq, "digest": frame.digest, "at": self._now_ns()}
        with self.uploads.log_lock():
            self._notes.append({"kind": "upload-forgotten", "sourceId": source_id} | note)
        upload = Upload(frame, self._json_size_ended)
        self._under_way[frame.digest] = upload
        self._upload(upload)
        upload.done = True
        self._settle(upload)
        return upload if upload.source_id is None else upload.source_id

    def _upload(self, upload: Upload) -> None:
        """Upload one frame; if the server takes it, note that and mark it. Runs in any thread."""
        frame, log_lock = upload.frame, self.uploads.log_lock()
        if self._given_up is not None:
            upload.error = self._given_up
            return
        with log_lock:
            image = self._log.frame_view(frame)
            upload.begun = next(self._moments)
        if image is None:
            upload.missing = True
            return
        try:
            with image:
                source_id = self._send(upload, image)
        except (RefusedError, ServerError, NoAnswerError) as error:
            upload.error = error
            with log_lock:
                upload.answered = next(self._moments)
                if error.status_code == 201:
                    self._unnamed_images += 1
                    if self._unnamed_images >= _UNNAMED_IMAGES_MAX:
                        self._given_up = error
                if self._failures.are_too_many(self._time.monotonic()):
                    self._given_up = error
            return
        note = {"media": frame.seq, "digest": frame.digest, "at": self._now_ns()}
        with log_lock:
            self._notes.append({"kind": "upload", "sourceId": source_id} | note)
            self._log.mark([frame.seq], "delivered", stream="media")
            self._counts.images_delivered += 1
        upload.source_id = source_id

    def _send(self, upload: Upload, image: memoryview) -> str:
        mime = sniff(bytes(image[:_SNIFF_SIZE])) or "application/octet-stream"
        name = f"{upload.frame.digest.hex()}.{mime.rpartition('/')[2]}"
        return self._api.send(
            Request(
                lambda within_s: self._client.upload_image(
                    image, name=name, mime=mime, within_s=within_s
                ),
                len(image),
                # The events whose images went already come before this image.
                kept_free=lambda: self._batch_size() + upload.ahead - self._json_size_ended,
                lanes=self.lanes,
                check=self.uploads.check,
                failures=self._failures,
            )
        )

    def _settle(self, upload: Upload) -> None:
        """Remember what became of an upload, once."""
        frame = upload.frame
        if self._under_way.get(frame.digest) is not upload or frame.digest in self._doubted:
            return
        self._changed()
        error = upload.error
        if isinstance(error, RefusedError):
            self._judge(upload, error)
            return
        del self._under_way[frame.digest]
        if upload.source_id is not None:
            # They are settled in the order of the events; the answers may have come in another.
            self._doubts.accepted(lambda doubted: doubted.answered < upload.begun)

    def _judge(self, upload: Upload, error: RefusedError) -> None:
        """Believe a refusal, or wait for what the server says of other images."""
        digest, status = upload.frame.digest, error.status_code
        upload.blocked += error.blocked
        if status == 404:
            self._api.confirm()
        means_image = error.from_api and status in _MEANS_IMAGE
        try:
            if means_image or (status == 413 and upload.frame.size > _SURELY_TOO_LARGE):
                del self._under_way[digest]
                self._doubts.count(error)
                self._believe(upload, error)
            else:
                self._doubted.add(digest)
                self._doubts.add(upload, error)
        except StopError as stop:
            self._give_up_all(stop)

    def _believe(self, upload: Upload, error: RefusedError) -> None:
        """Let the events go without an image; one that was blocked is tried again before."""
        frame = upload.frame
        self._doubted.discard(frame.digest)
        self._under_way.pop(frame.digest, None)
        if 0 < upload.blocked < BLOCKED_TRIES:
            follower = Upload(frame, upload.ahead)
            follower.blocked = upload.blocked
            self._under_way[frame.digest] = follower
            self.uploads.add(follower, self._upload)
            return
        note = {"media": frame.seq, "digest": frame.digest, "at": self._now_ns()}
        note |= {"status": error.status_code, "reason": str(error)}
        self._notes.append({"kind": "image-rejected"} | note)
        self._refused.put(frame.digest, str(error))
        self._counts.images_rejected += 1

    def _give_up_all(self, stop: StopError) -> None:
        """Upload no more in this pass; what failed so may go in the next one."""
        self._given_up = self._sender.last_failure = ServerError(str(stop))

    def _now_ns(self) -> int:
        return int(self._time.clock() * 1e9)
