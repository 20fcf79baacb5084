"""The ladder at work: a small media ring, a long outage, and what arrives when it is over."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vevents import (
    Event,
    EventLog,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
    Receipt,
)
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
from vevents.delivery.report import FlushReport
from vevents.emulator import EmulatorConfig, RunningEmulator
from vevents.frames import digest
from vevents.pressure import Step, parse_ladder

USE_CASE = "uc-1"
KEY = "rf_secret_0123456789"
LADDER = parse_ladder("0.4:quality=40,0.6:scale=0.5,0.75:crops,0.85:none")
ORDER = [None, "quality", "smaller", "crops", "none"]
STREAMS = ("events", "media", "delivery")
BOX = ObjectDetection("burr", 40, 30, 16, 12, 0.5)


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    config = EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE], require_known_images=True)
    with RunningEmulator(config) as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def jpeg(seed: int, width: int = 80, height: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def flush(log: EventLog, emulator: RunningEmulator) -> FlushReport:
    with Client(KEY, api_url=emulator.url) as client:
        return Flusher(log, client).flush()


def assert_conserved(log: EventLog) -> None:
    for stream in STREAMS:
        assert log.stats(stream).conserved, stream  # type: ignore[arg-type]


def small_log(directory: Path, **options: Any) -> EventLog:
    return EventLog(directory, events_size=2 << 20, media_size=1 << 20, **options)


DETECTIONS: dict[str, Any] = {
    "object_detections": [BOX],
    "instance_segmentations": [
        InstanceSegmentation("b", 20, 30, 10, 20, 0.25, [(15, 20), (25, 20), (20.5, 40)])
    ],
    "keypoints": [KeypointDetection("c", 50, 20, 20, 20, 1, [Keypoint(3, 44, 12.5)])],
}
WHOLE = {
    "objectDetections": [
        {"class": "burr", "x": 40, "y": 30, "width": 16, "height": 12, "confidence": 0.5}
    ],
    "instanceSegmentations": [
        {
            **{"class": "b", "x": 20, "y": 30, "width": 10, "height": 20, "confidence": 0.25},
            "points": [[15, 20], [25, 20], [20.5, 40]],
        }
    ],
    "keypoints": [
        {
            **{"class": "c", "x": 50, "y": 20, "width": 20, "height": 20, "confidence": 1},
            "keypoints": [{"id": 3, "x": 44, "y": 12.5}],
        }
    ],
}
HALVED = {
    "objectDetections": [
        {"class": "burr", "x": 20, "y": 15, "width": 8, "height": 6, "confidence": 0.5}
    ],
    "instanceSegmentations": [
        {
            **{"class": "b", "x": 10, "y": 15, "width": 5, "height": 10, "confidence": 0.25},
            "points": [[7.5, 10], [12.5, 10], [10.25, 20]],
        }
    ],
    "keypoints": [
        {
            **{"class": "c", "x": 25, "y": 10, "width": 10, "height": 10, "confidence": 1},
            "keypoints": [{"id": 3, "x": 22, "y": 6.25}],
        }
    ],
}


@pytest.mark.parametrize(
    ("action", "annotations", "size"),
    [
        ("quality", WHOLE, (80, 60)),
        ("smaller", HALVED, (40, 30)),
        ("crops", WHOLE, (80, 60)),
        ("none", WHOLE, None),
    ],
)
def test_what_was_shed_arrives_as_it_was_told(
    tmp_path: Path, emulator: RunningEmulator, action: Any, annotations: Any, size: Any
) -> None:
    shown, seen = jpeg(1), jpeg(2)
    with small_log(tmp_path / "log", pressure=[Step(0, action, 40)]) as log:
        given = Event.quality_check(
            result="fail",
            use_case_id=USE_CASE,
            metadata={"line": "P3"},
            display_image_position=0,
            images=[Image(shown, input_frame=seen, label="top", **DETECTIONS)],
        )
        receipt = log.append(given)
        [record] = log.read()
        [image] = log.decode(record).images
        assert receipt.shed == action
        assert flush(log, emulator).stopped_reason is None
        assert_conserved(log)
        kept = {ref.seq: log.frame(ref) for ref in (image.frame, image.input_frame) if ref}

    [row] = emulator.events()
    arrived = row["event"]
    assert (arrived["eventId"], arrived["eventType"]) == (receipt.event_id, "quality_check")
    assert (arrived["eventData"], arrived["useCaseId"]) == ({"result": "fail"}, USE_CASE)
    assert arrived["displayImagePosition"] == 0
    [entry] = arrived["images"]
    ids = [entry.pop(key) for key in ("sourceId", "inputSourceId") if key in entry]
    assert entry == {"label": "top"} | annotations
    uploaded = {row["source_id"]: row["sha256"] for row in emulator.images()}
    assert set(uploaded) == set(ids)
    assert [uploaded[one] for one in ids] == [
        hashlib.sha256(data or b"").hexdigest() for data in kept.values()
    ]
    for data in kept.values():
        assert PIL.Image.open(io.BytesIO(data or b"")).size == size

    metadata = arrived["customMetadata"]
    assert metadata["line"] == "P3"
    assert (metadata["vevents_frame_step"], metadata["vevents_frames_shed"]) == (action, 2)
    for key, original in (("frame", shown), ("inputFrame", seen)):
        [line] = [
            one
            for one in metadata["vevents_frame_original"].split("; ")
            if one.startswith(f"images[0].{key}: {action}, 80x60")
        ]
        assert f", {len(original)} bytes" in line
        assert line.endswith(f"blake2b-128 {digest(original).hex()}")
    assert metadata.keys() == {
        "line",
        "vevents_frame_step",
        "vevents_frames_shed",
        "vevents_frame_original",
    }


def observe(log: EventLog, number: int) -> Receipt:
    """One event with a frame of its own; every fiftieth is an alert."""
    images = [Image(jpeg(number), object_detections=[BOX])]
    if number % 50 == 0:
        return log.append(
            Event.safety_alert(
                alert_type="fire", description=str(number), use_case_id=USE_CASE, images=images
            )
        )
    return log.append(Event.custom(value=str(number), use_case_id=USE_CASE, images=images))


def assert_arrived(log: EventLog, emulator: RunningEmulator, receipts: list[Receipt]) -> None:
    """Every fact is there, with the frame that the log says or a word about where it went."""
    stored = {row["event"]["eventId"]: row["event"] for row in emulator.events()}
    assert stored.keys() == {receipt.event_id for receipt in receipts}
    digest_of = {row["source_id"]: row["sha256"] for row in emulator.images()}
    for record in log.read(states=("delivered",)):
        event, arrived = log.decode(record), stored[record.event_id]
        assert arrived["eventData"] == event.data
        [image], [entry] = event.images, arrived["images"]
        assert len(entry["objectDetections"]) == 1
        metadata = arrived.get("customMetadata", {})
        if image.frame is None:
            assert metadata["vevents_frame_step"] == "none"
        elif "sourceId" in entry:
            assert isinstance(image.frame, FrameRef)
            data = log.frame(image.frame) or b""
            assert digest_of[entry["sourceId"]] == hashlib.sha256(data).hexdigest()
            width, height = PIL.Image.open(io.BytesIO(data)).size
            [box] = entry["objectDetections"]
            # Where the box is on the picture has not changed.
            assert (box["x"] / width, box["y"] / height) == (0.5, 0.5)
            small = metadata.get("vevents_frame_step") == "smaller"
            assert (width, height) == ((40, 30) if small else (80, 60))
        else:
            assert metadata["vevents_frames_missing_reason"] == "evicted"


def test_a_long_outage_costs_detail_before_moments(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    with small_log(tmp_path / "log", pressure=LADDER) as log:
        receipts = [observe(log, number) for number in range(1_000)]

        shed = [receipt.shed for number, receipt in enumerate(receipts) if number % 50]
        assert [action for action, _ in groupby(shed)] == ORDER
        assert {receipt.shed for receipt in receipts[::50]} == {None}
        pressure = log.pressure()
        assert pressure.action == "none"
        assert pressure.shed == {action: shed.count(action) for action in ORDER[1:]}
        media = log.stats("media")
        assert (media.evicted, media.lost) == (0, 0)
        assert media.pending == sum(action != "none" for action in shed) + 20
        assert (log.stats().pending, log.stats().evicted) == (1_000, 0)

        report = flush(log, emulator)

        assert report.stopped_reason is None
        assert (report.delivered, report.images_missing) == (1_000, 0)
        assert_arrived(log, emulator, receipts)
        assert_conserved(log)
        # The backlog is gone. In the next outage the ladder begins where it did in the first,
        # although the ring is full of delivered frames that are mostly small.
        assert log.pressure()[:2] == (0.0, None)
        whole = shed.index("quality")
        for number in range(2_000, 2_000 + whole + 40):
            if number % 50 and observe(log, number).shed is not None:
                break
            if number % 10 == 0:
                log.pressure()
        assert number - 2_000 == pytest.approx(whole, abs=20)
        assert log.stats("media").pending_share < 0.3


def test_without_a_ladder_the_oldest_frames_go(tmp_path: Path, emulator: RunningEmulator) -> None:
    with small_log(tmp_path / "log") as log:
        receipts = [observe(log, number) for number in range(1_000)]
        assert {receipt.shed for receipt in receipts} == {None}
        assert log.pressure().shed == {}
        assert flush(log, emulator).delivered == 1_000
        assert log.stats("media").evicted > 500
        assert_arrived(log, emulator, receipts)
        assert_conserved(log)


def test_exempt_frames_push_the_oldest_out_when_nothing_else_is_left(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    with small_log(tmp_path / "log", pressure=LADDER) as log:
        receipts = [observe(log, 50 * number) for number in range(400)]
        assert {receipt.shed for receipt in receipts} == {None}
        assert flush(log, emulator).delivered == 400
        assert log.stats("media").evicted > 0
        assert_arrived(log, emulator, receipts)
        assert_conserved(log)


def test_threads_climb_one_ladder(tmp_path: Path, emulator: RunningEmulator) -> None:
    with small_log(tmp_path / "log", pressure=LADDER) as log:
        receipts: list[Receipt] = []

        def produce(first: int) -> None:
            receipts.extend([observe(log, first + number) for number in range(200)])

        threads = [threading.Thread(target=produce, args=(200 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        counted = Counter(receipt.shed for receipt in receipts)
        assert set(counted) == set(ORDER)
        del counted[None]
        assert log.pressure().shed == counted
        assert log.stats("media").evicted == 0
        assert flush(log, emulator).delivered == 800
        assert_arrived(log, emulator, receipts)
        assert_conserved(log)


def test_a_second_process_learns_how_full_the_ring_is(tmp_path: Path) -> None:
    with small_log(tmp_path / "log", pressure=LADDER) as log:
        for number in range(400):
            observe(log, number)
        assert log.pressure().action == "none"
        with small_log(tmp_path / "log", pressure=LADDER) as other:
            assert observe(other, 1_001).shed == "none"


def test_a_child_of_fork_goes_on(tmp_path: Path) -> None:
    program = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from vevents import Event, EventLog, Image\n"
        "from vevents.pressure import Step\n"
        "log = EventLog(sys.argv[1], pressure=[Step(0, 'none')])\n"
        "event = Event.custom(value='x', images=[Image(bytes.fromhex('ffd8ff'))])\n"
        "assert log.append(event).shed == 'none'\n"
        "pid = os.fork()\n"
        "assert log.append(event).shed == 'none'\n"
        "assert log.pressure().shed['none'] == 2\n"
        "log.close()\n"
        "if pid == 0:\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "log")], check=True, timeout=60)
    with EventLog(tmp_path / "log") as log:
        assert log.stats().pending == 3
        assert_conserved(log)
