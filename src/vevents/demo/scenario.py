"""The demo's three phases: watching while the network is down, flushing, comparing.

    watch     photographs -> detector -> Event with its frame -> EventLog.append(); a flush in the
              middle of the outage has to say that it is offline and to leave everything pending
    flush     the emulator comes up where nothing listened before; everything is handed over
    compare   the log and the emulator say independently what they hold (`compare`)

A directory can be used again: new events go behind the old ones, events that an earlier run left
pending are delivered now, and the emulator goes on with its database. The figures are those of the
whole log, and so are the emulator's.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vevents.demo.compare import compare
from vevents.demo.detector import Detector, confidence_max
from vevents.demo.network import Emulator, Network
from vevents.demo.packages import opencv, photograph_directory
from vevents.demo.photographs import Camera, Frame
from vevents.demo.report import DemoProgress, DemoReport
from vevents.errors import ConfigurationError
from vevents.event import Event, Image

if TYPE_CHECKING:
    from vevents.delivery.report import FlushReport
    from vevents.log import EventLog

USE_CASE_ID: Final = "vevents-demo"
DATABASE_NAME: Final = "emulator.db"
_MARKER_NAME: Final = "demo.lock"
_RING_NAME: Final = "events.ring"

# What happens at the four places, over and over; "verdict" is a person who checks the last count.
_ROUND = ("pad", "door", "bench", "tray", "door", "verdict", "pad", "bench")
_CONFIDENCE_SURE = 0.9
_CONFIDENCE_COUNTED = 0.5


def run(
    directory: str | os.PathLike[str],
    *,
    events: int = 200,
    seed: int = 0,
    events_size: int | None = None,
    media_size: int | None = None,
    progress: Callable[[DemoProgress], object] | None = None,
) -> DemoReport:
    """Run the demo.

    Args:
        directory: Where the log and the emulator's database go. It is made if it does not exist
            (its parent must); one that an earlier demo used is continued.
        events: How many events to append, at least 1.
        seed: The photographs are framed differently for another seed.
        events_size: Bytes on disk of a new events ring; None leaves it to the log.
        media_size: Bytes on disk of a new media ring; None leaves it to the log. With a small one
            frames are overwritten during the outage: their events go without them and say so.
        progress: Called after every event of every phase.

    Returns:
        The figures; `ok` only if the log and the emulator agree on everything.

    Raises:
        ConfigurationError: A package of the extra `demo` is missing, `events` is below 1, the
            directory holds a log that no demo made, or another demo is using it.
        LogError: The log cannot be written or read.
        OSError: The disk fails or is full.
    """
    if events < 1:
        raise ConfigurationError(f"the demo needs at least 1 event, not {events}")
    opencv()
    photograph_directory()
    path = Path(directory)
    tell = progress if progress is not None else _silent
    # Imported here: the command line loads this module to say what the demo is.
    from vevents.log import EventLog

    with (
        _own(path),
        EventLog(path, events_size=events_size, media_size=media_size) as log,
        Network(path / DATABASE_NAME, USE_CASE_ID) as network,
    ):
        before = log.stats("events")
        watch = _watch(log, first=before.appended, count=events, seed=seed, tell=tell)
        outage_reported = _flush_offline(log, network)
        network.come_back()
        flushed = _flush(log, network, tell)
        with Emulator(network.url) as emulator:
            tally = compare(log, emulator, lambda done, total: tell(_step("compare", done, total)))
        after, media = log.stats("events"), log.stats("media")
        mismatches = tally.mismatches
        if not outage_reported:
            mismatches = ("the flush during the outage did not report it as one", *mismatches)
        if after.appended - before.appended != events:
            mismatches = (
                f"{events} events were to be appended, the log took "
                f"{after.appended - before.appended}",
                *mismatches,
            )
        latencies_us = sorted(nanoseconds / 1e3 for nanoseconds in watch.append_ns)
        return DemoReport(
            ok=not mismatches,
            appended=after.appended,
            delivered=after.delivered,
            pending=after.pending,
            rejected=after.rejected,
            evicted=after.evicted,
            lost=after.lost,
            images_appended=media.appended,
            images_delivered=tally.images_delivered,
            images_evicted=media.evicted,
            bytes_on_disk=sum(
                log.stats(stream).bytes_on_disk for stream in ("events", "media", "delivery")
            ),
            emulator_events=tally.emulator_events,
            emulator_images=tally.emulator_images,
            compared_events=tally.compared_events,
            compared_images=tally.compared_images,
            outage_reported=outage_reported,
            new_events=after.appended - before.appended,
            frames=watch.frames,
            detections=watch.detections,
            detector_s=round(watch.detector_s, 3),
            events_per_s=round(len(latencies_us) / (sum(watch.append_ns) / 1e9), 1),
            append_p50_us=round(_percentile(latencies_us, 0.50), 1),
            append_p99_us=round(_percentile(latencies_us, 0.99), 1),
            flush_s=round(flushed.duration_s, 3),
            directory=str(path),
            mismatches=mismatches,
        )


@dataclass(slots=True)
class _Watch:
    """What the demo measured of itself while it watched; it counts no events."""

    frames: int = 0
    detections: int = 0
    detector_s: float = 0.0
    append_ns: list[int] = field(default_factory=list)


def _watch(
    log: EventLog, *, first: int, count: int, seed: int, tell: Callable[[DemoProgress], object]
) -> _Watch:
    """Look at the places in turn, and append one event for every look."""
    camera, detector, watch = Camera(seed), Detector(), _Watch()
    last_count: tuple[str, int, int] | None = None  # event id, faces counted, faces really there
    for number in range(first, first + count):
        place = _ROUND[number % len(_ROUND)]
        frame = None
        if place == "verdict" and last_count is not None:
            event_id, counted, really = last_count
            event = Event.operator_feedback(
                related_event_id=event_id,
                feedback="correct" if counted == really else "incorrect",
                device_id="demo-gateway",
                metadata={"counted": counted, "labelled": really},
            )
        else:
            frame = camera.take(number, "door" if place == "verdict" else place)
            began = time.perf_counter()
            event = look(detector, frame)
            watch.detector_s += time.perf_counter() - began
            watch.frames += 1
            watch.detections += sum(
                len(image.object_detections)
                + len(image.classifications)
                + len(image.instance_segmentations)
                + len(image.keypoints)
                for image in event.images
            )
        began_ns = time.perf_counter_ns()
        receipt = log.append(event)
        watch.append_ns.append(time.perf_counter_ns() - began_ns)
        if frame is not None and frame.face_count is not None and event.data is not None:
            last_count = (receipt.event_id, event.data["itemCount"], frame.face_count)
        tell(_step("detect", number - first + 1, count))
    return watch


def look(detector: Detector, frame: Frame) -> Event:
    """Let the detector look at a frame and say what it saw.

    pad     a safety alert if somebody is on it, otherwise a custom event
    door    an inventory count of faces
    bench   a quality check of the picture: is it in focus?
    tray    an inventory count of coins
    """
    fields: Any = {
        "device_id": "demo-gateway",
        "stream_id": frame.place,
        "workflow_id": "vevents-demo",
        "display_image_position": 0,
        "metadata": {"frame": frame.number},
    }
    name = f"{frame.place}-{frame.number:06d}"
    if frame.place == "pad":
        faces, keypoints = detector.people(frame.pixels)
        image = Image(frame.jpeg, label=frame.place, object_detections=faces, keypoints=keypoints)
        if not faces:
            return Event.custom(value="nobody on the pad", images=[image], **fields)
        sure = confidence_max(faces)
        return Event.safety_alert(
            alert_type="person_on_pad",
            severity="high" if sure >= _CONFIDENCE_SURE else "medium",
            description=f"{len(faces)} people, the clearest with a confidence of {sure:.2f}",
            external_id=name,
            images=[image],
            **fields,
        )
    if frame.place == "door":
        found = detector.faces(frame.pixels)
        return Event.inventory_count(
            item_count=sum(face.confidence >= _CONFIDENCE_COUNTED for face in found),
            item_type="face",
            location="door",
            external_id=name,
            images=[Image(frame.jpeg, label=frame.place, object_detections=found)],
            **fields,
        )
    if frame.place == "bench":
        verdict = detector.focus(frame.pixels)
        return Event.quality_check(
            result="pass" if verdict.class_name == "in focus" else "fail",
            external_id=name,
            images=[Image(frame.jpeg, label=frame.place, classifications=[verdict])],
            **fields,
        )
    coins = detector.coins(frame.pixels)
    return Event.inventory_count(
        item_count=len(coins),
        item_type="coin",
        location="tray",
        external_id=name,
        images=[Image(frame.jpeg, label=frame.place, instance_segmentations=coins)],
        **fields,
    )


def _flush_offline(log: EventLog, network: Network) -> bool:
    """Flush while nothing listens: it has to say so, and no event may change its state."""
    before = log.stats("events")
    report = _flush(log, network, _silent)
    after = log.stats("events")
    return (
        report.offline
        and report.delivered == report.images_delivered == 0
        and before.pending == after.pending == report.pending_after > 0
        and before.delivered == after.delivered
    )


def _flush(log: EventLog, network: Network, tell: Callable[[DemoProgress], object]) -> FlushReport:
    import httpx

    from vevents.delivery.client import Client
    from vevents.delivery.flusher import Flusher
    from vevents.delivery.report import FlushProgress

    def show(progress: FlushProgress) -> None:
        tell(_step("flush", progress.delivered + progress.rejected, progress.total))

    # A transport of its own: what is on this machine must not be looked for behind a proxy.
    transport = httpx.HTTPTransport()
    with Client(network.api_key, api_url=network.url, transport=transport) as client:
        return Flusher(log, client, use_case_id=USE_CASE_ID).flush(progress=show)


@contextmanager
def _own(directory: Path) -> Iterator[None]:
    """Make the directory this demo's own, or refuse it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    marker = directory / _MARKER_NAME
    if (directory / _RING_NAME).exists() and not marker.exists():
        raise ConfigurationError(
            f"{directory} holds a log that no demo made; the demo needs a directory of its own"
        )
    descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another demo is running in {directory}") from None
        yield
    finally:
        os.close(descriptor)


def _step(phase: str, done: int, total: int) -> DemoProgress:
    return DemoProgress(phase, done, total)


def _silent(_: DemoProgress) -> None:
    """Take no notice."""


def _percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return ordered[math.ceil(len(ordered) * share) - 1]
