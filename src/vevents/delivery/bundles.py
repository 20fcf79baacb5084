"""Events that go together with their frames, in one request: both arrive, or neither does.

A bundle is one event with its frames as a tar (`vevents.archive`). Several are under way at the
same time, on the threads that upload images. The server keeps one event for each id, so a bundle
that is sent twice overwrites itself.

These go the ordinary way all the same, frames first:

    an event that is larger than the API takes in one piece
    an event of which no frame is left in the log, or of which the server has all of them already
    what the server refuses as a bundle, or keeps failing on: the ordinary way finds out which part
                it means
    all that follow in a pass when that happened to three in a row: the server takes no bundles
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vevents.delivery.items import Item
from vevents.delivery.sender import Request
from vevents.errors import NoAnswerError, RefusedError, ServerError

if TYPE_CHECKING:
    from vevents.delivery.api import Api
    from vevents.delivery.client import Client
    from vevents.delivery.images import Images
    from vevents.delivery.items import Read
    from vevents.delivery.report import Counts
    from vevents.delivery.verdicts import Verdicts
    from vevents.log import EventLog

_FAILED_IN_A_ROW_MAX = 3


@dataclass(slots=True, eq=False)
class Bundle:
    """One event with its frames on its way.

    Attributes:
        read: The event.
        kept_free: Tells how many bytes of a limit the events before it still need.
        done: Whether it is over; what follows is valid then.
        sent: Sequence numbers of the frames that arrived with the event; empty if it did not.
    """

    read: Read
    kept_free: Callable[[], int]
    done: bool = False
    sent: list[int] = field(default_factory=list)


class Bundles:
    """Sends the bundles of one pass. For the thread that flushes; others send.

    Args:
        log: The log, open for writing.
        client: The way to the server.
        api: Makes the requests.
        images: Has the threads, and knows which frames the server has.
        verdicts: Hears what was delivered.
        counts: Where events and frames are counted.
        use_case_id: Use case of the events that name none.
        wanted: Whether bundles are sent at all.

    Attributes:
        wanted: Likewise; False as soon as it turns out that the server takes none.
    """

    def __init__(
        self,
        log: EventLog,
        client: Client,
        api: Api,
        images: Images,
        verdicts: Verdicts,
        *,
        counts: Counts,
        use_case_id: str | None,
        wanted: bool,
    ) -> None:
        self._log = log
        self._client = client
        self._api = api
        self._images = images
        self._verdicts = verdicts
        self._counts = counts
        self._use_case_id = use_case_id
        self.wanted = wanted
        self._failed_in_a_row = 0
        self._lock = threading.Lock()

    def begin(self, read: Read) -> Bundle | None:
        """Bring an event with its frames on its way; None if it is to go the ordinary way.

        No other event of the same id may be under way.
        """
        if not self.wanted or not read.frames:
            return None
        from vevents.archive import BUNDLE_SIZE_MAX

        size = sum(frame.size for frame in read.frames)
        if size > BUNDLE_SIZE_MAX or self._images.are_settled(read.frames):
            return None
        bundle = Bundle(read, self._images.kept_free())
        self._images.uploads.add(bundle, self._send)
        return bundle

    def end(self, bundle: Bundle) -> bool:
        """Write down what became of a bundle that is over.

        Returns:
            Whether it arrived; if not, its event is to go the ordinary way.
        """
        read = bundle.read
        if not bundle.sent:
            return False
        # Frames first: a crash in between leaves the event pending, and it overwrites itself.
        self._log.mark(bundle.sent, "delivered", stream="media")
        self._counts.bundles += 1
        self._counts.images_delivered += len(bundle.sent)
        self._counts.images_missing += len(read.frames) - len(bundle.sent)
        self._verdicts.accept([Item(read.record, read.event_id, b"", not read.names_use_case)])
        return True

    def _send(self, bundle: Bundle) -> None:
        """Send one. Runs in any thread."""
        # Few want bundles, and what packs them takes 1 MiB.
        from vevents.archive import BUNDLE_SIZE_MAX, pieces

        read, uploads = bundle.read, self._images.uploads
        assert read.event is not None
        if not self.wanted:
            return
        with ExitStack() as stack:
            frames: dict[int, memoryview] = {}
            missing: dict[int, str] = {}
            with uploads.log_lock():
                for frame in read.frames:
                    view = self._log.frame_view(frame)
                    if view is None:
                        missing[frame.seq] = "evicted"
                    else:
                        frames[frame.seq] = stack.enter_context(view)
            if not frames:
                return
            archive = pieces(read.event, frames, missing=missing, use_case_id=self._use_case_id)
            size = sum(map(len, archive))
            if size > BUNDLE_SIZE_MAX:
                return
            try:
                named = self._api.send(
                    Request(
                        lambda within_s: self._client.create_bundle(archive, within_s=within_s),
                        size,
                        kept_free=bundle.kept_free,
                        lanes=self._images.lanes,
                        check=uploads.check,
                    )
                )
            except (RefusedError, ServerError, NoAnswerError):
                self._count(sent=False)
            else:
                if named != read.event_id:
                    self._api.confirm()
                self._count(sent=True)
                bundle.sent = list(frames)

    def _count(self, *, sent: bool) -> None:
        with self._lock:
            self._failed_in_a_row = 0 if sent else self._failed_in_a_row + 1
            if self._failed_in_a_row >= _FAILED_IN_A_ROW_MAX:
                self.wanted = False
