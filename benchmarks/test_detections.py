"""From a detector's arrays to the log: the array path beside what a program would write by hand.

By hand means: a dict of the event, an id and a time for it, msgpack, CRC and write(2), which is the
cheapest that keeps an event through SIGKILL. Run with `./dev bench benchmarks/test_detections.py`.
"""

from __future__ import annotations

import os
import time
import uuid
import zlib

import msgpack
import numpy as np
import pytest

from vevents import DetectionWriter, Event, EventLog

NAMES = ["person", "forklift", "pallet"]


def frames(count, total=1000):
    rng = np.random.default_rng(1)
    made = []
    for _ in range(total):
        xyxy = rng.random((count, 4), dtype=np.float32) * 500
        xyxy[:, 2:] += xyxy[:, :2]
        made.append((xyxy, rng.random(count, dtype=np.float32), rng.integers(0, 3, count)))
    return made


def by_hand(descriptor, xyxy, confidence, class_id):
    detections = [
        {
            "class": NAMES[i],
            "x": (left + right) / 2,
            "y": (top + bottom) / 2,
            "width": right - left,
            "height": bottom - top,
            "confidence": score,
        }
        for (left, top, right, bottom), score, i in zip(
            xyxy.tolist(), confidence.tolist(), class_id.tolist(), strict=True
        )
    ]
    event = {
        "eventId": uuid.uuid4().bytes,
        "timestamp": time.time_ns(),
        "eventType": "quality_check",
        "useCaseId": "press-line",
        "deviceId": "press-03",
        "eventData": {"result": "fail"},
        "customMetadata": {"shift": "night"},
        "images": [{"label": "top camera", "objectDetections": detections}],
    }
    body = msgpack.packb(event)
    os.write(descriptor, zlib.crc32(body).to_bytes(4, "little") + body)


@pytest.mark.parametrize("count", [5, 50])
@pytest.mark.parametrize("path", ["arrays", "by hand"])
def test_detections(benchmark, tmp_path, count, path):
    given = frames(count)
    at = 0

    def following():
        nonlocal at
        at += 1
        return given[at % len(given)], {}

    if path == "arrays":
        with EventLog(tmp_path / "log") as log:
            event = Event.quality_check(
                result="fail",
                use_case_id="press-line",
                device_id="press-03",
                metadata={"shift": "night"},
            )
            writer = DetectionWriter(log, event, NAMES, label="top camera")
            benchmark.pedantic(writer.append, setup=following, rounds=20_000)
            assert log.stats().conserved
    else:
        descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        benchmark.pedantic(
            lambda *arrays: by_hand(descriptor, *arrays), setup=following, rounds=20_000
        )
        os.close(descriptor)
