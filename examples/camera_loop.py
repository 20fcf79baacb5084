#!/usr/bin/env python3
"""An inspection loop: every part is counted, and a bad one is reported with its picture.

    python examples/camera_loop.py LOG                  # a made-up camera, 20 frames
    python examples/camera_loop.py LOG --camera 0       # a real one, until Ctrl-C; needs OpenCV

The detector is a stand-in that finds dark spots on a bright part. The loop never waits for a
network; `vevents flush --dir LOG` delivers what it wrote, now or in a week.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from vevents import DetectionWriter, Event, EventLog
from vevents.adapters import from_arrays, rgb

CLASSES = ["burr"]


def made_up_camera(count: int) -> Iterator[np.ndarray]:
    """Yield gray frames of 320 x 240; every fourth part has a dark spot."""
    rng = np.random.default_rng(1)
    for number in range(count):
        frame = rng.integers(190, 210, (240, 320), np.uint8)
        if number % 4 == 3:
            x, y = rng.integers(20, 200, 2)
            frame[y : y + 20, x : x + 30] = 20
        yield frame


def real_camera(index: int) -> Iterator[np.ndarray]:
    """Yield frames of a camera, as RGB."""
    import cv2

    camera = cv2.VideoCapture(index)
    while True:
        ok, frame = camera.read()
        if not ok:
            return
        yield rgb(frame)


def detect(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (left, top, right, bottom), confidences and class ids."""
    gray = frame if frame.ndim == 2 else frame.mean(axis=2)
    rows, columns = np.nonzero(gray < 60)
    if rows.size == 0:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    filled = rows.size / ((box[2] - box[0]) * (box[3] - box[1]))
    return np.array([box], np.float32), np.array([filled], np.float32), np.array([0])


def main() -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser(description="An inspection loop that writes to a log.")
    parser.add_argument("log", help="directory of the log; made if it is not there")
    parser.add_argument("--frames", type=int, default=20, help="of the made-up camera")
    parser.add_argument("--camera", type=int, help="index of a real camera")
    given = parser.parse_args()
    frames = made_up_camera(given.frames) if given.camera is None else real_camera(given.camera)

    with EventLog(given.log) as log:
        # What all good parts have in common is checked and encoded once, here.
        passed = DetectionWriter(
            log, Event.quality_check(result="pass", device_id="press-03"), CLASSES, label="top"
        )
        bad = 0
        for frame in frames:
            xyxy, confidence, class_id = detect(frame)
            if len(xyxy) == 0:
                passed.append(xyxy, confidence, class_id)
                continue
            bad += 1
            seen = from_arrays(xyxy, confidence, class_id, CLASSES, frame=frame, label="top")
            failed = Event.quality_check(
                result="fail", device_id="press-03", images=[seen.image], metadata=seen.metadata
            )
            # A bad part must not be forgotten in a power cut a second from now.
            log.append(failed, sync=True)
        print(f"{log.stats().pending} events are pending, {bad} of this run with a picture")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; everything that was appended is in the log")
