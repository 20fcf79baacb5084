#!/usr/bin/env python3
"""Heads without a helmet, from `supervision.Detections`, as safety alerts with their pictures.

    pip install vevents supervision
    python examples/supervision_sink.py LOG

The detector is a stand-in that makes its finds up; what Ultralytics or inference return goes to the
sink in the same way. An alert is made for heads alone: frames on which everybody wears a helmet
leave nothing but a count.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import supervision as sv

from vevents import Event, Image
from vevents.adapters import VisionEventSink

NAMES = np.array(["helmet", "head"])


def look(count: int) -> Iterator[tuple[np.ndarray, sv.Detections]]:
    """Yield frames of 320 x 240, as OpenCV has them, and what is on them."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        frame = rng.integers(0, 255, (240, 320, 3), np.uint8)
        corners = rng.uniform(0, 200, (3, 2))
        class_id = (rng.random(3) < 0.2).astype(int)
        yield (
            frame,
            sv.Detections(
                xyxy=np.hstack([corners, corners + 30]).astype(np.float32),
                confidence=rng.uniform(0.5, 1, 3).astype(np.float32),
                class_id=class_id,
                data={"class_name": NAMES[class_id]},
            ),
        )


def decide(image: Image) -> Event | None:
    """Say what a frame is to be reported as; None for nothing."""
    heads = [found for found in image.object_detections if found.class_name == "head"]
    if not heads:
        return None
    return Event.safety_alert(
        alert_type="no_helmet",
        severity="high" if len(heads) > 1 else "medium",
        device_id="gate-7",
        metadata={"heads": len(heads)},
    )


def main() -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser(description="Report heads without a helmet.")
    parser.add_argument("log", help="directory of the log; made if it is not there")
    parser.add_argument("--frames", type=int, default=40)
    given = parser.parse_args()

    alerts = quiet = 0
    with VisionEventSink(given.log, decide, label="gate") as sink:
        for frame, detections in look(given.frames):
            if sink.append(detections, frame=frame) is None:
                quiet += 1
            else:
                alerts += 1
    print(f"{alerts} alerts, {quiet} frames with nothing to report")


if __name__ == "__main__":
    main()
