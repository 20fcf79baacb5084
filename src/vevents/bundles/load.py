"""From bundles to a log: each event is appended with its id, its time and its images."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vevents.bundles.archive import unpack
from vevents.bundles.outbox import Outbox
from vevents.errors import ConfigurationError, EventValidationError, LogFullError

if TYPE_CHECKING:
    from vevents.event import Event
    from vevents.log import EventLog

Progress = Callable[[int, int], None]

_CHUNK_COUNT: Final = 100
_REASONS_MAX: Final = 100
_RECORD_OVERHEAD: Final = 64


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        imported: Events that are safe at their new place.
        refused: Bundles that are none, or whose event breaks the contract. They stay.
        already: Bundles passed over because a receipt says that they have arrived.
        reasons: Name and reason of the first 100 that were refused.
        stopped_reason: `log-full` when the log has no more room, or None; an upload has those of
            a flush.
        message: What ended it.
    """

    imported: int = 0
    refused: int = 0
    already: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    stopped_reason: str | None = None
    message: str | None = None

    def refuse(self, path: Path, reason: str) -> None:
        """Count a bundle that is not taken."""
        self.refused += 1
        if len(self.reasons) < _REASONS_MAX:
            self.reasons.append((path.name, reason))


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

    def run(
        self, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> ImportReport:
        """Import everything that is there; after every hundred bundles with a receipt.

        Raises:
            OSError: The directory cannot be read or takes no receipt.
            LogError: The log cannot be written.
        """
        report = ImportReport()
        paths = waiting(self._outbox, report, again=self._again)
        arrived: dict[str, str] = {}
        try:
            for done, path in enumerate(paths):
                progress(done, len(paths))
                try:
                    event = unpack(self._outbox.read(path))
                    self._check_room(event)
                    receipt = self._log.append(event)
                except LogFullError:
                    report.stopped_reason = "log-full"
                    report.message = "the log is full of undelivered events; flush it, then go on"
                    break
                except EventValidationError as error:
                    report.refuse(path, str(error))
                    continue
                report.imported += 1
                arrived[path.name] = receipt.event_id
                if len(arrived) >= _CHUNK_COUNT:
                    self._settle(arrived)
                    arrived = {}
        finally:
            self._settle(arrived)
        progress(len(paths), len(paths))
        return report

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

    def _settle(self, arrived: dict[str, str]) -> None:
        if arrived:
            # A receipt lets the other side forget the event: it is written last.
            self._log.sync()
            self._outbox.write_receipt(arrived, datetime.now(UTC))


def waiting(outbox: Outbox, report: ImportReport, *, again: bool) -> list[Path]:
    """Return the bundles without a receipt, and count the others."""
    if not os.access(outbox.directory, os.W_OK):
        raise ConfigurationError(
            f"{outbox.directory} cannot be written, and so takes no receipt of what has arrived"
        )
    known = {name for receipt in outbox.receipts() for name in receipt}
    paths = outbox.bundles()
    wanted = paths if again else [path for path in paths if path.name not in known]
    report.already = len(paths) - len(wanted)
    return wanted
