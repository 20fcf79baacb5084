"""From bundles to a log: each event is appended with its id, its time and its images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from vevents.archive import unpack
from vevents.bundles.intake import ImportReport, IntakeEndedError, Progress, take_in
from vevents.errors import LogFullError

if TYPE_CHECKING:
    from vevents.bundles.outbox import Outbox
    from vevents.event import Event
    from vevents.log import EventLog

_CHUNK_COUNT: Final = 100
_RECORD_OVERHEAD: Final = 64


class Importer:
    """Appends the bundles in a directory to a log.

    Importing the same bundle twice appends the event twice under one id, which the server keeps
    once. The receipts in the directory see to it that this happens after a crash only.

    Args:
        log: The log, opened with `full="refuse"`: nothing pending is to go for what is imported.
        outbox: The directory.
        again: Import what has a receipt, too: the log that it went into was lost.
    """

    def __init__(self, log: EventLog, outbox: Outbox, *, again: bool = False) -> None:
        self._log = log
        self._outbox = outbox
        self._again = again
        # No record spans two segments, so what fits is counted in segments and not in bytes. Where
        # the current one ends is not known: it counts as full.
        self._media = log.stats("media")
        segments = self._media.segment_count - 1
        self._segments_left = segments - math.ceil(self._media.pending_share * segments)
        self._segment_room = 0

    def run(self, progress: Progress = lambda _done, _total: None) -> ImportReport:
        """Import everything that is there; after every hundred bundles with a receipt.

        Raises:
            ConfigurationError: The directory cannot be written.
            OSError: The directory cannot be read or takes no receipt.
            LogError: The log cannot be written.
        """
        return take_in(
            self._outbox,
            self._append,
            chunk_count=_CHUNK_COUNT,
            again=self._again,
            make_safe=self._log.sync,
            progress=progress,
        )

    def _append(self, archive: bytes) -> str:
        event = unpack(archive)
        try:
            self._check_room(event)
            return self._log.append(event).event_id
        except LogFullError:
            raise IntakeEndedError(
                "log-full", "the log is full of undelivered events; flush it, then go on"
            ) from None

    def _check_room(self, event: Event) -> None:
        """Raise before frames would push out undelivered ones, which no ring refuses by itself."""
        frames = [f for image in event.images for f in (image.frame, image.input_frame)]
        for size in [len(frame) for frame in frames if isinstance(frame, bytes)]:
            if size + _RECORD_OVERHEAD > self._segment_room:
                self._segments_left -= 1
                self._segment_room = self._media.max_payload
            self._segment_room -= size + _RECORD_OVERHEAD
        if self._segments_left < 0:
            raise LogFullError("media.ring is full of undelivered frames")
