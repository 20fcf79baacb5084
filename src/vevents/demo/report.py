"""What the demo found out, and how far it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DemoProgress:
    """Given to the progress callback of `run()`.

    Attributes:
        phase: `detect`, `flush` or `compare`.
        done: How many events this phase is through with.
        total: How many it has.
    """

    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """The figures of one run.

    The first group is what the log says of itself, over its whole life. Events and images at the
    emulator were counted by asking the emulator. None of these were counted by the demo's loop.
    The times are those of this run.

    Attributes:
        ok: Whether the two tallies agree and nothing is missing; then `mismatches` is empty.
        appended: Events ever appended to the log. The next five add up to it.
        delivered: Events that the API accepted.
        pending: Events that still wait.
        rejected: Events that the API refused.
        evicted: Events that were overwritten before they were delivered.
        lost: Events that were damaged, or never finished by a process that died.
        images_appended: Frames ever appended.
        images_delivered: Different frames that the API has, as the log counts them.
        images_evicted: Frames that were overwritten before they were delivered.
        bytes_on_disk: Size of the log's three files.
        emulator_events: Events at the emulator.
        emulator_images: Different images at the emulator.
        compared_events: Events compared field by field between the log and the emulator.
        compared_images: Frames whose bytes in the log were compared with those at the emulator.
        outage_reported: Whether the flush during the outage said that it was offline and left
            every event pending.
        new_events: Events that this run added to the log, as the log counts them.
        frames: Frames that the detector looked at.
        detections: What it found on them: boxes, outlines, faces with eyes, verdicts on focus.
        detector_s: Seconds that the detector took.
        events_per_s: Events appended per second of append calls, frames included.
        append_p50_us: Half of the append calls took at most so many microseconds.
        append_p99_us: Ninety-nine in a hundred took at most so many microseconds.
        flush_s: Seconds from the first request to the last acknowledgement.
        directory: Where the log is.
        mismatches: One sentence for each disagreement.
    """

    ok: bool
    appended: int
    delivered: int
    pending: int
    rejected: int
    evicted: int
    lost: int
    images_appended: int
    images_delivered: int
    images_evicted: int
    bytes_on_disk: int
    emulator_events: int
    emulator_images: int
    compared_events: int
    compared_images: int
    outage_reported: bool
    new_events: int
    frames: int
    detections: int
    detector_s: float
    events_per_s: float
    append_p50_us: float
    append_p99_us: float
    flush_s: float
    directory: str
    mismatches: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as a JSON object has them."""
        return asdict(self)
