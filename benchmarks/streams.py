"""Streams of events as different devices make them, for what compression makes of them.

Moving boxes are 1 to 5 of three classes, a crowd is 40 to 60 of them. Coordinates in pixels are
what Roboflow's inference gives: whole pixels for the size, halves for the center; confidences are
arbitrary float32 everywhere, as models leave them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from vevents import Classification, Event, Image, ObjectDetection
from workload import float32, typical_event

METADATA_KEYS = 8


@dataclass
class _Track:
    """An object on its way through a picture of 1920 x 1080."""

    rng: random.Random
    class_name: str
    x: float = field(init=False)
    y: float = field(init=False)
    width: float = field(init=False)
    height: float = field(init=False)
    pace: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        rng = self.rng
        self.x, self.y = rng.uniform(0, 1920), rng.uniform(0, 1080)
        self.width = rng.uniform(40, 300)
        self.height = self.width * rng.uniform(1, 2.5)
        self.pace = rng.gauss(0, 12), rng.gauss(0, 4)

    def box(self, place: Callable[[float], float], size: Callable[[float], float]) -> list[float]:
        """Move on, and return where the model sees it: a little beside where it is."""
        rng = self.rng
        self.x, self.y = (self.x + self.pace[0]) % 1920, (self.y + self.pace[1]) % 1080
        seen = self.x + rng.gauss(0, 1), self.y + rng.gauss(0, 1)
        measures = self.width + rng.gauss(0, 2), self.height + rng.gauss(0, 2)
        confidence = 1 / (1 + math.exp(-rng.gauss(2, 0.5)))
        return [*map(place, seen), *map(size, map(abs, measures)), float32(confidence)]


def _halves(value: float) -> float:
    return round(value * 2) / 2


def _whole(value: float) -> float:
    return float(round(value))


def _tracked(
    rng: random.Random,
    low: int,
    high: int,
    place: Callable[[float], float],
    size: Callable[[float], float],
) -> Iterator[list[ObjectDetection]]:
    """Yield the detections of frame after frame: objects come, move and go."""
    classes = ("person", "forklift", "pallet")
    tracks: list[_Track] = []
    while True:
        tracks = [track for track in tracks if rng.random() > 0.01 or len(tracks) <= low]
        while len(tracks) < low or (len(tracks) < high and rng.random() < 0.02):
            tracks.append(_Track(rng, rng.choice(classes)))
        yield [ObjectDetection(t.class_name, *t.box(place, size)) for t in tracks]


def _alerts(rng: random.Random, detections: Iterator[list[ObjectDetection]]) -> Iterator[Event]:
    for found in detections:
        yield Event.safety_alert(
            alert_type="forklift_near_person",
            severity=rng.choice(("low", "medium", "high")),
            use_case_id="uc-dock-safety",
            device_id="dock-07",
            stream_id="dock-07-cam-2",
            images=[Image(label="workflow", object_detections=found)],
        )


def _moving(rng: random.Random) -> Iterator[Event]:
    return _alerts(rng, _tracked(rng, 1, 5, _halves, _whole))


def _moving_float32(rng: random.Random) -> Iterator[Event]:
    return _alerts(rng, _tracked(rng, 1, 5, float32, float32))


def _crowded(rng: random.Random) -> Iterator[Event]:
    return _alerts(rng, _tracked(rng, 40, 60, _halves, _whole))


def _with_metadata(rng: random.Random) -> Iterator[Event]:
    for count, event in enumerate(_moving(rng)):
        metadata = {
            "shift": ("early", "late", "night")[count // 3000 % 3],
            "line": "dock-west",
            "model": "forklifts/12",
            "operator": f"op-{rng.randrange(20):03}",
            "temperature": round(18 + 6 * math.sin(count / 2000) + rng.gauss(0, 0.2), 1),
            "exposure_ms": rng.choice((4, 8, 16)),
            "fps": round(rng.gauss(29.9, 0.3), 2),
            "door_open": rng.random() < 0.1,
        }
        assert len(metadata) == METADATA_KEYS
        yield replace(event, metadata=metadata)


def _classified(rng: random.Random) -> Iterator[Event]:
    number = 0
    while True:
        number += 1
        score = float32(rng.betavariate(8, 1))
        good = rng.random() < 0.97
        names = ("good", "chipped") if good else ("chipped", "good")
        found = [Classification(names[0], score), Classification(names[1], float32(1 - score))]
        yield Event.quality_check(
            result="pass" if good else "fail",
            external_id=f"SN{31_400_000 + number:08}",
            use_case_id="uc-tiles",
            device_id="kiln-2",
            images=[Image(label="workflow", classifications=found)],
        )


def _arbitrary(rng: random.Random) -> Iterator[Event]:
    while True:
        yield typical_event(rng)


def rounded(event: Event, step_px: float, step_confidence: float) -> Event:
    """The typical event with its numbers rounded to multiples of these."""
    (image,) = event.images
    found = [
        ObjectDetection(
            d.class_name,
            *(round(value / step_px) * step_px for value in (d.x, d.y, d.width, d.height)),
            float32(min(1.0, round(d.confidence / step_confidence) * step_confidence)),
        )
        for d in image.object_detections
    ]
    return replace(event, images=(replace(image, object_detections=tuple(found)),))


STREAMS: dict[str, Callable[[random.Random], Iterator[Event]]] = {
    "moving boxes, pixels": _moving,
    f"moving boxes, {METADATA_KEYS} metadata entries": _with_metadata,
    "moving boxes, float32": _moving_float32,
    "crowd, pixels": _crowded,
    "classifications": _classified,
    "arbitrary boxes, float32": _arbitrary,
}


# ---- how small it can get ----


def float32_bits(limit: float) -> float:
    """Entropy, in bits, of a number drawn uniformly from [0, limit) and rounded to float32.

    Within one power of two, [2^e, 2^(e+1)), float32 values are 2^(e-23) apart and equally likely:
    a value there takes log2(limit / 2^(e-23)) bits. Below 2^-40 nothing is worth counting.
    """
    bits = 0.0
    for exponent in range(-40, math.frexp(limit)[1]):
        low, high = 2.0**exponent, min(limit, 2.0 ** (exponent + 1))
        bits += (high - low) / limit * math.log2(limit / 2.0 ** (exponent - 23))
    return bits


def arbitrary_floor_bytes() -> dict[str, float]:
    """What `typical_event` cannot be told in less than, on average, by any code whatsoever.

    Its fields are independent, so their entropies add up; all else is the same in every event.
    """
    numbers = sum(map(float32_bits, (1920, 1080, 300, 300, 1)))
    return {
        "5 boxes of 5 numbers": 5 * numbers / 8,
        "5 classes, one of 3 each": 5 * math.log2(3) / 8,
        "result and lot number": (1 + math.log2(10**5) + math.log2(10**4)) / 8,
    }
