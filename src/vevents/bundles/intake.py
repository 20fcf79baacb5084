"""Going through a directory of bundles: what is taken, what is refused, and the receipts for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vevents.errors import (
    ConfigurationError,
    DeliveryError,
    EventValidationError,
    RefusedError,
)

if TYPE_CHECKING:
    from vevents.bundles.outbox import Outbox

Progress = Callable[[int, int], None]

_REASONS_MAX: Final = 100


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        imported: Events that are safe at their new place.
        refused: Bundles that are none, or whose event breaks the contract. They stay.
        already: Bundles passed over because a receipt says that they have arrived.
        failed: Bundles that an upload passed over because the server kept failing on them. They
            stay, and the next upload tries them again.
        reasons: Name and reason of the first 100 that were refused or failed.
        stopped_reason: `log-full` when the log has no more room, or None; an upload has those of
            a flush.
        message: What ended it.
    """

    imported: int = 0
    refused: int = 0
    already: int = 0
    failed: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    stopped_reason: str | None = None
    message: str | None = None

    def note(self, path: Path, error: Exception) -> None:
        """Keep why a bundle was not taken."""
        if len(self.reasons) < _REASONS_MAX:
            self.reasons.append((path.name, str(error)))


class IntakeEndedError(Exception):
    """Nothing more can be taken for now; the message says why.

    Attributes:
        reason: For `ImportReport.stopped_reason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def take_in(
    outbox: Outbox,
    take: Callable[[bytes], str],
    *,
    chunk_count: int,
    again: bool,
    make_safe: Callable[[], object] = lambda: None,
    progress: Progress = lambda _done, _total: None,
) -> ImportReport:
    """Hand every bundle without a receipt over, the oldest event first.

    Args:
        outbox: The directory.
        take: Is given an archive, and returns the id of its event. A bundle for which it raises
            `EventValidationError` or `RefusedError` stays and is counted as refused, and with any
            other `DeliveryError` as failed; `IntakeEndedError` ends the run.
        chunk_count: So many bundles have one receipt.
        again: Take what has a receipt, too.
        make_safe: Called before each receipt: a receipt lets the other side forget its events.
        progress: Told how many bundles were looked at, and of how many.

    Raises:
        ConfigurationError: The directory cannot be written.
        OSError: The directory cannot be read or takes no receipt.
        Exception: What `take` raises besides. What was taken before has its receipt in any case.
    """
    if not os.access(outbox.directory, os.W_OK):
        raise ConfigurationError(
            f"{outbox.directory} cannot be written, and so takes no receipt of what has arrived"
        )
    paths, already = _waiting(outbox, again=again)
    report = ImportReport(already=already)
    arrived: dict[str, str] = {}

    def settle() -> None:
        if arrived:
            make_safe()
            outbox.write_receipt(arrived, datetime.now(UTC))
            arrived.clear()

    try:
        for done, path in enumerate(paths):
            progress(done, len(paths))
            try:
                arrived[path.name] = take(outbox.read(path))
            except (EventValidationError, RefusedError) as error:
                report.refused += 1
                report.note(path, error)
                continue
            except DeliveryError as error:
                report.failed += 1
                report.note(path, error)
                continue
            report.imported += 1
            if len(arrived) >= chunk_count:
                settle()
    except IntakeEndedError as end:
        report.stopped_reason, report.message = end.reason, str(end)
    finally:
        settle()
    progress(len(paths), len(paths))
    return report


def _waiting(outbox: Outbox, *, again: bool) -> tuple[list[Path], int]:
    """Return the bundles to take, and how many have arrived already."""
    paths = outbox.bundles()
    if again:
        return paths, 0
    known = {name for receipt in outbox.receipts() for name in receipt}
    wanted = [path for path in paths if path.name not in known]
    return wanted, len(paths) - len(wanted)
