"""From a detector's arrays to the log: the array path beside what a program would write by hand.

By hand means: a dict of the event, an id and a time for it, msgpack (or JSON), and one of the ways
to keep it of peers.py; with write(2) that is the cheapest that keeps an event through SIGKILL.

    ./dev bench benchmarks/test_detections.py
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peers import PEERS
from vevents import DetectionWriter, Event, EventLog
from vevents.adapters import from_arrays
from workload import arrays_of, by_turns, told

NAMES = ["person", "forklift", "pallet"]
COMMON = {"use_case_id": "press-line", "device_id": "press-03", "metadata": {"shift": "night"}}
BY_HAND = [
    "write(2) append, length + CRC",
    "LMDB, writemap, nosync",
    "RocksDB, WAL",
    "MCAP, no chunks",
    "SQLite WAL, NORMAL",
    "logging to JSON lines",
]


def as_dict(xyxy: Any, confidence: Any, class_id: Any) -> dict[str, Any]:
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
    return {
        "eventId": uuid.uuid4().hex,
        "timestamp": time.time_ns(),
        "eventType": "quality_check",
        "useCaseId": "press-line",
        "deviceId": "press-03",
        "eventData": {"result": "fail"},
        "customMetadata": {"shift": "night"},
        "images": [{"label": "top camera", "objectDetections": detections}],
    }


def by_hand(encode: Callable[[Any], Any], append: Callable[[Any], object]) -> Any:
    return lambda *arrays: append(encode(as_dict(*arrays)))


@pytest.mark.parametrize("count", [5, 50])
def test_detections(benchmark: Any, tmp_path: Path, count: int, scale: float) -> None:
    common = Event.quality_check(result="fail", **COMMON)
    arrays = arrays_of(count)
    rows = [(np.column_stack(each).astype(np.float32),) for each in arrays]
    calls: dict[str, Callable[..., object]] = {}
    with ExitStack() as closing:

        def log(name: str, level: int = 1) -> EventLog:
            return closing.enter_context(EventLog(tmp_path / name, level=level))

        def writer(log: EventLog) -> DetectionWriter:
            return DetectionWriter(log, common, NAMES, label="top camera")

        def as_objects(*found: Any) -> object:
            images = [from_arrays(*found, NAMES, label="top camera").image]
            return objects.append(Event.quality_check(result="fail", images=images, **COMMON))

        logs = [log("arrays"), log("rows"), log("raw", level=100), objects := log("objects")]
        calls["DetectionWriter"] = writer(logs[0]).append
        calls["DetectionWriter, append_rows"] = writer(logs[1]).append_rows
        calls["DetectionWriter, level 100"] = writer(logs[2]).append
        calls["Event objects"] = as_objects
        for number, name in enumerate(BY_HAND):
            if PEERS[name].installed:
                folder = tmp_path / str(number)
                folder.mkdir()
                opened = PEERS[name].open(folder)
                closing.callback(opened.close)
                calls[name] = by_hand(PEERS[name].encode, opened.append)

        taken = benchmark.pedantic(
            by_turns,
            args=(calls, {name: rows if "rows" in name else arrays for name in calls}),
            kwargs={"rounds": max(2, int(300 * scale))},
        )

        for each in logs:
            assert each.stats().conserved
    benchmark.extra_info |= {
        "left_out": sorted(set(BY_HAND) - set(taken)),
        "figures": {name: told(durations) for name, durations in taken.items()},
    }
