"""What a pass did: the counts while it runs, and the report when it is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vevents.delivery.sender import StopReason


class Rejection(StrEnum):
    """Why an event was set aside: the `code` in its note."""

    REFUSED = "refused"
    BLOCKED = "blocked"
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
        bundles: Of the delivered events, the ones that went together with their frames.
        images_delivered: Frames that arrived.
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
    bundles: int
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


@dataclass(slots=True)
class Counts:
    """What a pass has done so far; the fields are those of its report.

    Attributes:
        rejected: Events that were set aside, by `Rejection`.
    """

    delivered: int = 0
    passed_over: int = 0
    bundles: int = 0
    images_delivered: int = 0
    images_rejected: int = 0
    images_missing: int = 0
    orphans: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
