"""What does compression make of different streams of events, and how small could it get?

    ./dev bench benchmarks/test_compression.py

Ours, record by record so that each can be read, kept and evicted alone: the shipped dictionary;
with the device's own events behind it, as every segment but a log's first has it; and a dictionary
trained on the device's events. Beside it what gives that up: blocks of 100, and MCAP with chunks
of 1 MiB, neither of which keeps the events of the open block through a SIGKILL.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard

from peers import mcap_writer
from streams import STREAMS, arbitrary_floor_bytes, rounded
from vevents import Event, EventLog, codec
from vevents.wire import event_to_json
from workload import typical_event

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

from train_dictionary import LEVEL, compressed_sizes  # noqa: E402

HEADER = 40  # bytes of a record's header, and records are multiples of 8: docs/format.md section 5
TRAINED_ON = 2_000
STEPS = ((1 / 8, 0.001), (1 / 2, 0.001), (1, 0.001), (1, 0.01))


@pytest.mark.parametrize("name", STREAMS)
def test_compression(benchmark: Any, tmp_path: Path, name: str, scale: float) -> None:
    count = TRAINED_ON + max(1_000, int(10_000 * scale))
    events = list(itertools.islice(STREAMS[name](random.Random(1)), count))
    payloads = [codec.encode(event) for event in events]
    first, rest = payloads[:TRAINED_ON], payloads[TRAINED_ON:]
    shipped = (ROOT / "csrc" / "dictionary" / "events.zdict").read_bytes()
    # What the ring does: of every 16th event the last 8, and of each at most 512 bytes.
    samples = [payload[:512] for payload in first[::16]][-8:]
    trained = zstandard.train_dictionary(8192, first, level=LEVEL)

    def alone(dictionary: bytes | None) -> tuple[float, float]:
        made = None if dictionary is None else zstandard.ZstdCompressionDict(dictionary)
        sizes = compressed_sizes(rest, made)
        return _mean(sizes), _mean([(HEADER + size + 7) // 8 * 8 for size in sizes])

    def measured() -> dict[str, dict[str, float]]:
        ways = {
            "no dictionary": alone(None),
            "shipped dictionary": alone(shipped),
            "shipped, device's events behind it": alone(shipped + b"".join(samples)),
            "trained on the device's events": alone(trained.as_bytes()),
            "blocks of 100": (_in_blocks(rest),) * 2,
            "MCAP, chunks of 1 MiB": (_in_mcap(rest, tmp_path / "log.mcap"),) * 2,
        }
        return {
            way: {"bytes": size, "on_disk": on_disk, "ratio": _mean_size(rest) / size}
            for way, (size, on_disk) in ways.items()
        }

    figures = benchmark.pedantic(measured)
    benchmark.extra_info |= {
        "payload_bytes": _mean_size(rest),
        **_in_the_log(payloads, tmp_path / "ring"),
        "figures": figures,
    }


def test_entropy(benchmark: Any, tmp_path: Path, scale: float) -> None:
    """How much of an event with arbitrary float32 boxes is information, and what rounding saves."""
    rng = random.Random(1)
    events = [typical_event(rng) for _ in range(max(2_000, int(10_000 * scale)))]

    def measured() -> dict[str, dict[str, float]]:
        figures = {"float32 as it is": _sizes(events, tmp_path / "as_it_is")}
        for number, (pixels, confidence) in enumerate(STEPS):
            name = f"to {pixels:g} px, confidence to {confidence:g}"
            coarse = [rounded(event, pixels, confidence) for event in events]
            figures[name] = _sizes(coarse, tmp_path / str(number))
        return figures

    figures = benchmark.pedantic(measured)
    floor = arbitrary_floor_bytes()
    benchmark.extra_info |= {
        "record_header_bytes": HEADER,
        "floor_bytes": sum(floor.values()),
        "floor": floor,
        "figures": figures,
    }


def _sizes(events: Sequence[Event], directory: Path) -> dict[str, float]:
    payloads = [codec.encode(event) for event in events]
    return {
        "payload_bytes": _mean_size(payloads),
        "write2_bytes": _mean_size(payloads) + 8,
        **_in_the_log(payloads, directory),
    }


def _in_the_log(payloads: Sequence[bytes], directory: Path) -> dict[str, float]:
    """Bytes of an event's record in a real log, header and padding included, and of its JSON.

    In small segments, so that nearly all of them have the device's events behind the dictionary.
    """
    with EventLog(directory, events_size=16 << 20, segment_size=65_536) as log:
        for payload in payloads:
            log.append_encoded(payload)
        records = list(log.read(from_seq=len(payloads) // 2))
        stored = _mean([record.stored_size for record in records])
        sent = [event_to_json(log.decode(record), source_ids={}) for record in records[:500]]
    lengths = [len(json.dumps(event, separators=(",", ":"))) for event in sent]
    return {"in_the_log": stored, "json_bytes": _mean(lengths)}


def _in_blocks(payloads: Sequence[bytes]) -> float:
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    blocks = (payloads[i : i + 100] for i in range(0, len(payloads), 100))
    sizes = (len(compressor.compress(b"".join(map(msgpack.packb, block)))) for block in blocks)
    return sum(sizes) / len(payloads)


def _in_mcap(payloads: Sequence[bytes], path: Path) -> float:
    pytest.importorskip("mcap")
    writer = mcap_writer(path)
    for payload in payloads:
        writer.append(payload)
    writer.close()
    return path.stat().st_size / len(payloads)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_size(payloads: Sequence[bytes]) -> float:
    return _mean([len(payload) for payload in payloads])
