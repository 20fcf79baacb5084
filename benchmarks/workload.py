"""The events that are measured: a typical one, and how long each call took."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterable

from vevents import Event, Image, ObjectDetection, codec


def float32(value: float) -> float:
    """Round to what a detector's float32 tensor holds."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def typical_event(rng: random.Random, detections: int = 5) -> Event:
    """An event with boxes at arbitrary float32 coordinates: the worst case for compression.

    Its device, classes and numbers are not among those the shipped dictionary was trained on.
    """
    return Event.quality_check(
        result=rng.choice(("pass", "fail")),
        external_id=f"lot-{rng.randrange(10**5)}-{rng.randrange(10**4)}",
        use_case_id="uc7d21f0",
        device_id="press-03-cam-1",
        stream_id="press-03",
        images=[
            Image(
                label="workflow",
                object_detections=[
                    ObjectDetection(
                        rng.choice(("burr", "scratch", "dent")),
                        float32(rng.random() * 1920),
                        float32(rng.random() * 1080),
                        float32(rng.random() * 300),
                        float32(rng.random() * 300),
                        float32(rng.random()),
                    )
                    for _ in range(detections)
                ],
            )
        ],
    )


def typical_payloads(count: int, *, seed: int = 1, detections: int = 5) -> list[bytes]:
    """Encoded typical events, all different."""
    rng = random.Random(seed)
    return [codec.encode(typical_event(rng, detections)) for _ in range(count)]


def latencies_ns(call: Callable[[bytes], object], payloads: Iterable[bytes]) -> list[int]:
    """Call with each payload; return the sorted durations. The clock itself costs about 50 ns."""
    clock = time.perf_counter_ns
    taken = []
    for payload in payloads:
        before = clock()
        call(payload)
        taken.append(clock() - before)
    taken.sort()
    return taken


def summary(sorted_ns: list[int]) -> dict[str, float]:
    """Median and tails in microseconds."""
    count = len(sorted_ns)
    marks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    out = {f"{name}_us": sorted_ns[int(count * mark)] / 1000 for name, mark in marks.items()}
    out["max_us"] = sorted_ns[-1] / 1000
    return out
