"""What the benchmarks share: events, calls by turns, and what is told of them."""

from __future__ import annotations

import gc
import json
import random
import struct
import subprocess
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vevents import Event, Image, ObjectDetection, StreamStats, codec

APPEND_BENCH = Path(__file__).parents[1] / "build" / "c" / "csrc" / "bench" / "append_bench"

# Shares of the calls for which the curve of a figure is drawn: 8 points for each nine.
_CURVE = [1 - 10 ** (-k / 8) for k in range(41)]


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


def arrays_of(detections: int, count: int = 1000) -> list[tuple[Any, Any, Any]]:
    """What a detector leaves of `count` frames: xyxy, confidence, class_id of three classes."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(count):
        xyxy = rng.random((detections, 4), dtype=np.float32) * 500
        xyxy[:, 2:] += xyxy[:, :2]
        confidence = rng.random(detections, dtype=np.float32)
        made.append((xyxy, confidence, rng.integers(0, 3, detections)))
    return made


# ---- calls ----


def latencies_ns(call: Callable[[bytes], object], payloads: Iterable[bytes]) -> list[int]:
    """Call with each payload; return the sorted durations. The clock itself costs about 50 ns."""
    taken = array("q")
    _measure(call, [(payload,) for payload in payloads], taken)
    return sorted(taken)


def by_turns(
    calls: Mapping[str, Callable[..., object]],
    given: Mapping[str, Sequence[tuple[Any, ...]]],
    *,
    rounds: int,
    turn_s: float = 0.005,
) -> dict[str, list[int]]:
    """Call each for a few milliseconds, then the next, round after round.

    So a machine that slows down for a while does so for all of them, and each finds its caches as
    the others leave them, as it would in a program that does something else as well. The order is
    another one in every round. The first turn of each is not counted.

    Args:
        calls: By name.
        given: By the same names, the arguments of call after call; begun again at the end.
        rounds: How many turns each gets.
        turn_s: About how long a turn is, in seconds; a turn has at least 5 calls.

    Returns:
        By name, the sorted durations in nanoseconds.
    """
    order = list(calls)
    shuffle = random.Random(1).shuffle
    taken = {name: array("q") for name in order}
    share = dict.fromkeys(order, 50)
    position = dict.fromkeys(order, 0)
    gc.collect()
    gc.freeze()  # what is prepared is not looked through again and again
    for turn in range(-1, rounds):
        shuffle(order)
        for name in order:
            arguments = given[name]
            at, count = position[name], share[name]
            chosen = [arguments[(at + i) % len(arguments)] for i in range(count)]
            position[name] = (at + count) % len(arguments)
            before = len(taken[name])
            _measure(calls[name], chosen, taken[name])
            if turn < 0:
                typical_ns = sorted(taken[name][before:])[count // 2]
                share[name] = min(20_000, max(5, int(turn_s * 1e9 / max(1, typical_ns))))
                del taken[name][before:]
    gc.unfreeze()
    return {name: sorted(durations) for name, durations in taken.items()}


def _measure(call: Any, arguments: Iterable[tuple[Any, ...]], taken: array[int]) -> None:
    clock = time.perf_counter_ns
    note = taken.append
    for each in arguments:
        before = clock()
        call(*each)
        note(clock() - before)


def append_bench(directory: Path, *options: object) -> Any:
    """Run the benchmark in C; see `append_bench --help`. Returns what it told."""
    if not APPEND_BENCH.exists():
        pytest.skip("append_bench is not built; ./dev bench does it")
    done = subprocess.run(
        [APPEND_BENCH, *map(str, options), directory], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


# ---- what is told ----


def summary(sorted_ns: Sequence[int]) -> dict[str, float]:
    """Median and tails in microseconds."""
    count = len(sorted_ns)
    marks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    out = {f"{name}_us": sorted_ns[int(count * mark)] / 1000 for name, mark in marks.items()}
    out["max_us"] = sorted_ns[-1] / 1000
    return out


def told(sorted_ns: Sequence[int]) -> dict[str, Any]:
    """The summary with what a plot needs: the duration at each share of `curve_shares`."""
    count = len(sorted_ns)
    curve = [sorted_ns[int(count * share)] / 1000 for share in _CURVE if count * (1 - share) >= 1]
    return summary(sorted_ns) | {"calls": count, "curve_us": curve}


def told_of_histogram(histogram: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The same of `append_bench --histogram`, merged or not."""
    buckets = sorted(map(tuple, histogram))
    values = np.array([ns for ns, _ in buckets])
    ends = np.cumsum([count for _, count in buckets])
    total = int(ends[-1])

    def at(share: float) -> float:
        return float(values[np.searchsorted(ends, int(total * share), side="right")]) / 1000

    marks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
    return {f"{name}_us": at(mark) for name, mark in marks.items()} | {
        "calls": total,
        "curve_us": [at(share) for share in _CURVE if total * (1 - share) >= 1],
    }


def curve_shares(points: int) -> list[float]:
    """The shares at which `curve_us` has its first so many points."""
    return _CURVE[:points]


def disk_bytes(directory: Path) -> int:
    """Bytes on disk of all files in it."""
    return sum(p.stat().st_blocks * 512 for p in directory.rglob("*") if p.is_file())


def ring_bytes_per_event(stats: StreamStats) -> float:
    """Bytes on disk of an event in a ring, its share of all that is fixed included.

    The file is preallocated, so its size says nothing; but heads, dictionaries and state maps are
    shared out over what a full segment holds.
    """
    segments = stats.segment_count * stats.bytes_used / stats.bytes_on_disk
    fixed = stats.bytes_on_disk - stats.segment_count * stats.max_payload
    return (stats.bytes_used + segments * fixed / stats.segment_count) / stats.pending
