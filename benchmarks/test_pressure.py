"""What does the pressure ladder cost the thread that appends: each step, and none of them?"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vevents import Event, EventLog, Image, ObjectDetection
from vevents.pressure import Filling, Gauge, Ladder, Shedder, Step
from workload import summary

BOXES = [ObjectDetection("burr", 300 * i + 200, 400, 120, 200, 0.9) for i in range(5)]


def photograph_1080p(seed: int = 1) -> bytes:
    """A JPEG of quality 85 with about as many bytes as one of a street or a workshop."""
    rng = np.random.default_rng(seed)
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (68, 120, 3), np.uint8))
    smooth = np.asarray(coarse.resize((1920, 1080), PIL.Image.Resampling.BICUBIC)).astype(np.int16)
    grain = rng.normal(0, 4, smooth.shape).astype(np.int16)
    pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@pytest.mark.parametrize("library", ["opencv", "pillow"])
@pytest.mark.parametrize("action", ["quality", "smaller", "crops", "none"])
def test_step(benchmark: Any, action: Any, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "pillow":
        monkeypatch.setitem(sys.modules, "cv2", None)
    data = photograph_1080p()
    full = Filling(1.0, 100, 100.0, 10_000)
    shedder = Shedder(Ladder([Step(0.5, action)]), Gauge(lambda: full), 85)
    event = Event.custom(value="x", images=[Image(data, object_detections=BOXES)])

    result, done = benchmark.pedantic(
        shedder.shed, args=(event, lambda _: False), rounds=20, warmup_rounds=2
    )

    assert done == action
    shedder.gauge.close()
    frame = result.images[0].frame
    benchmark.extra_info |= {
        "bytes": len(data),
        "shed_to": 0 if frame is None else len(frame),
    }


@pytest.mark.parametrize("ladder", [False, True], ids=["without", "waiting"])
def test_append_below_the_first_step(benchmark: Any, tmp_path: Path, ladder: bool) -> None:
    data = photograph_1080p()
    steps = [Step(1, "none")] if ladder else []
    taken: list[int] = []

    def run() -> None:
        # Ten seconds of 30 frames a second, so that the ring is measured four or five times.
        for number in range(300):
            frame = data + number.to_bytes(4)
            event = Event.custom(value="x", images=[Image(frame, object_detections=BOXES)])
            began = time.perf_counter_ns()
            log.append(event)
            taken.append(time.perf_counter_ns() - began)
            time.sleep(1 / 30)

    with EventLog(tmp_path / "log", media_size=256 << 20, pressure=steps) as log:
        benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= summary(sorted(taken))


def test_measure(benchmark: Any, tmp_path: Path) -> None:
    data = photograph_1080p()
    with EventLog(tmp_path / "log", media_size=256 << 20) as log:
        for number in range((256 << 20) // len(data)):
            log.append_frame(data + number.to_bytes(4))
        benchmark.extra_info["frames"] = log.stats("media").pending
        benchmark(log.stats, "media")
