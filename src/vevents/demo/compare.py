"""The two tallies: what the log says, what the emulator says, and whether it is the same.

Neither the demo's loop nor the flusher is asked. The events of the log are read back from its
files and decoded; the events of the emulator are taken from its answers over HTTP and parsed by
`Event.from_json()`, not by the code that sent them. Frames are compared by the SHA-256 of the
bytes that the log gives out and of the bytes that the emulator was given.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vevents.event import Event, FrameRef, Image
from vevents.wire import required_frames
from vevents.wire.cloud import MISSING_COUNT_KEY, MISSING_REASON_KEY

if TYPE_CHECKING:
    from vevents.demo.network import Emulator
    from vevents.log import EventLog, State

_MISMATCHES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Tally:
    """What the comparison found.

    Attributes:
        images_delivered: Different frames that the log delivered, by its own account.
        emulator_events: Events that the emulator holds.
        emulator_images: Different images that the emulator was given.
        compared_events: Events compared field by field.
        compared_images: Frames compared by their bytes.
        mismatches: One sentence for each disagreement, at most twenty and a last one that says
            how many more there are.
    """

    images_delivered: int
    emulator_events: int
    emulator_images: int
    compared_events: int
    compared_images: int
    mismatches: tuple[str, ...]


def compare(log: EventLog, emulator: Emulator, progress: Callable[[int, int], object]) -> Tally:
    """Compare a log with the emulator that got its events.

    Args:
        log: The log, with nothing left to deliver.
        emulator: The running emulator.
        progress: Called with how many events were compared, and of how many.
    """
    counts, stored, digests = emulator.counts(), emulator.events(), emulator.image_digests()
    arrived = len(set(digests.values()))
    fewest, images = _count_images(log)
    faults = _count_faults(log, counts)
    if not fewest <= arrived <= images:
        faults.append(f"different frames delivered, and at the emulator: {images} and {arrived}")
    total = log.stats("events").delivered
    compared_events = compared_images = 0
    named: set[int] = set()
    for record in log.read("events", states=("delivered",)):
        event = log.decode(record)
        event_id = event.event_id or record.event_id
        body = stored.get(event_id)
        if body is None:
            faults.append(f"event {event_id} is delivered in the log and not at the emulator")
            continue
        pair = _Pair(log, digests, event, Event.from_json(body))
        faults += [f"event {event_id}: {fault}" for fault in pair.faults()]
        compared_events += 1
        compared_images += pair.compared_images
        named |= {frame.seq for frame in required_frames(event)}
        progress(compared_events, total)
    faults += _frames_left(log, named)
    shown = faults[:_MISMATCHES_SHOWN]
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    return Tally(
        images_delivered=images,
        emulator_events=counts["events"],
        emulator_images=arrived,
        compared_events=compared_events,
        compared_images=compared_images,
        mismatches=tuple(shown),
    )


def _count_images(log: EventLog) -> tuple[int, int]:
    """Count the different frames that the log delivered: at least so many, at most so many.

    The two are the same as long as every delivered frame can still be read. Of those that were
    overwritten since it is known how many they were, but not whether some were the same.
    """
    digests: set[bytes] = set()
    readable = 0
    for record in log.read("media", states=("delivered",)):
        digests.add(record.id)
        readable += 1
    delivered = log.stats("media").delivered
    most = delivered - readable + len(digests)
    return (most if readable == delivered else len(digests)), most


def _frames_left(log: EventLog, named: set[int]) -> list[str]:
    """Check that no frame of a delivered event stayed behind.

    A frame that no event names may well be there: a demo that was killed between the frame and
    its event leaves one, and the flusher sets it aside after a while.
    """
    faults = []
    states: tuple[State, ...] = ("pending", "rejected")
    for state in states:
        left = named & {record.seq for record in log.read("media", states=(state,))}
        if left:
            faults.append(f"{len(left)} frames of delivered events are {state}")
    return faults


def _count_faults(log: EventLog, counts: dict[str, Any]) -> list[str]:
    """Check that the law of conservation holds, and that both sides count the same."""
    faults = []
    for stream in ("events", "media", "delivery"):
        stats = log.stats(stream)
        parts = stats.delivered + stats.pending + stats.rejected + stats.evicted + stats.lost
        if stats.appended != parts:
            faults.append(f"{stream}: {stats.appended} appended, but the states add up to {parts}")
    events = log.stats("events")
    expected = {
        "events pending after the flush": (events.pending, 0),
        "events refused by the emulator": (events.rejected, 0),
        "events delivered, and events at the emulator": (events.delivered, counts["events"]),
        "images that events name and the emulator lacks": (counts["images_missing"], 0),
        "events that were sent again with another content": (counts["overwrites_changed"], 0),
        "events stored with warnings": (counts["events_with_warnings"], 0),
    }
    return faults + [
        f"{what}: {one} and {other}" for what, (one, other) in expected.items() if one != other
    ]


class _Pair:
    """One event as the log has it and as the emulator has it."""

    def __init__(
        self, log: EventLog, digests: dict[str, str], logged: Event, stored: Event
    ) -> None:
        self._log = log
        self._digests = digests
        self._logged = logged
        self._stored = stored
        self.compared_images = 0

    def faults(self) -> list[str]:
        """Return the names of the fields that differ, with both values."""
        stored, missing = self._without_notes()
        logged = replace(self._logged, images=())
        if logged.use_case_id is None:
            logged = replace(logged, use_case_id=stored.use_case_id)
        if logged.event_id is None:
            logged = replace(logged, event_id=stored.event_id)
        images = self._logged.images
        if missing:
            # Of an entry without its frame and without annotations nothing is left to send.
            images = tuple(image for image in images if self._has_content(image))
            if not images:
                logged = replace(logged, display_image_position=None)
        found = [
            f"{one.name} is {getattr(logged, one.name)!r} in the log and "
            f"{getattr(stored, one.name)!r} at the emulator"
            for one in dataclasses.fields(Event)
            if one.name != "images" and not _same(logged, stored, one.name)
        ]
        if len(images) != len(stored.images):
            return [*found, f"{len(images)} images in the log, {len(stored.images)} there"]
        for index, (ours, theirs) in enumerate(zip(images, stored.images, strict=True)):
            found += [f"images[{index}]: {fault}" for fault in self._image(ours, theirs, missing)]
        return found

    def _without_notes(self) -> tuple[Event, int]:
        """Take out what the flusher adds when a frame was gone before it could be sent."""
        metadata = dict(self._stored.metadata or {})
        missing = metadata.pop(MISSING_COUNT_KEY, 0)
        metadata.pop(MISSING_REASON_KEY, None)
        return replace(self._stored, metadata=metadata or None), int(missing)

    def _has_content(self, image: Image) -> bool:
        return self._bytes_of(image.frame) is not None or any(
            (
                image.object_detections,
                image.classifications,
                image.instance_segmentations,
                image.keypoints,
            )
        )

    def _image(self, ours: Image, theirs: Image, missing: int) -> list[str]:
        found = []
        bare = replace(ours, frame=None)
        if bare != replace(theirs, source_id=None):
            found.append(f"{bare!r} in the log and {theirs!r} at the emulator")
        data = self._bytes_of(ours.frame)
        if theirs.source_id is None:
            if ours.frame is not None and (data is not None or not missing):
                found.append("the frame did not arrive")
        elif data is not None:
            self.compared_images += 1
            if hashlib.sha256(data).hexdigest() != self._digests.get(theirs.source_id):
                found.append(f"the bytes of {theirs.source_id} are not those of the frame")
        return found

    def _bytes_of(self, frame: object) -> bytes | None:
        return self._log.frame(frame) if isinstance(frame, FrameRef) else None


def _same(logged: Event, stored: Event, name: str) -> bool:
    ours, theirs = getattr(logged, name), getattr(stored, name)
    # An event without data is sent with empty data.
    return bool(ours == theirs) or (name == "data" and not ours and not theirs)
