"""What it costs to turn a detector's result into an event, and how far the array path is ahead.

`convert` makes the annotations; `append` makes the event and appends it. Figures are for boxes
without a frame. Run with `./dev bench benchmarks/test_adapters.py`.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vevents import Event, EventLog
from vevents.adapters import VisionEventSink, from_arrays, from_result

NAMES = ["person", "forklift", "pallet"]
EVENT = Event.quality_check(result="fail", use_case_id="press-line", device_id="press-03")


def arrays(count):
    rng = np.random.default_rng(1)
    xyxy = rng.random((count, 4), dtype=np.float32) * 500
    xyxy[:, 2:] += xyxy[:, :2]
    return xyxy, rng.random(count, dtype=np.float32), rng.integers(0, 3, count)


def supervision(count):
    sv = pytest.importorskip("supervision")
    xyxy, confidence, class_id = arrays(count)
    names = np.array(NAMES)[class_id]
    return sv.Detections(xyxy, confidence=confidence, class_id=class_id, data={"class_name": names})


def supervision_masks(count):
    found = supervision(count)
    found.mask = np.zeros((count, 480, 640), bool)
    for i in range(count):
        y, x = np.ogrid[:480, :640]
        found.mask[i] = (x - 100 - i) ** 2 + (y - 200 - i) ** 2 < 40**2
    return found


def inference(count):
    rows = zip(*(each.tolist() for each in arrays(count)), strict=True)
    keys = ("x", "y", "width", "height")
    return {
        "predictions": [
            dict(zip(keys, box, strict=True))
            | {"confidence": score, "class": NAMES[i], "class_id": i}
            for box, score, i in rows
        ]
    }


def ultralytics(count):
    xyxy, conf, cls = arrays(count)
    boxes = SimpleNamespace(xyxy=xyxy, conf=conf, cls=cls.astype(np.float32))
    return SimpleNamespace(names=dict(enumerate(NAMES)), boxes=boxes)


SOURCES = [supervision, supervision_masks, inference, ultralytics]


@pytest.mark.parametrize("count", [5, 100])
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_convert(benchmark, source, count):
    result = source(count)
    benchmark.group = f"convert, {count} detections"
    benchmark(from_result, result)


@pytest.mark.parametrize("count", [5, 100])
def test_convert_arrays(benchmark, count):
    benchmark.group = f"convert, {count} detections"
    benchmark(from_arrays, *arrays(count), NAMES)


@pytest.mark.parametrize("count", [5, 100])
@pytest.mark.parametrize("way", ["arrays to C", "annotations"])
def test_append(benchmark, tmp_path, way, count):
    found = supervision(count)
    benchmark.group = f"append supervision.Detections, {count} detections"
    with EventLog(tmp_path / "log") as log:
        class_names = NAMES if way == "arrays to C" else None
        sink = VisionEventSink(log, EVENT, class_names=class_names)
        benchmark(sink.append, found)
        assert log.stats().conserved
