"""How long does an append take, and how many bytes does it leave, beside other ways to keep it?

    pytest benchmarks/test_append.py

All in one process run, on the same events. Slow peers get fewer events; figures are per event.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peers import PEERS, disk_bytes
from vevents import EventLog
from workload import latencies_ns, summary, typical_payloads

FAST = {"vevents": 100_000, "write(2) append, length + CRC": 100_000, "SQLite WAL, NORMAL": 20_000}


@pytest.mark.parametrize("name", PEERS)
def test_append_beside_peers(benchmark: Any, tmp_path: Path, name: str) -> None:
    payloads = typical_payloads(FAST.get(name, 5_000))
    try:
        peer = PEERS[name](tmp_path)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    taken = benchmark.pedantic(latencies_ns, args=(peer.append, payloads), rounds=1)
    benchmark.extra_info |= summary(taken) | {
        "payload_bytes": sum(map(len, payloads)) / len(payloads)
    }
    if name != "vevents":  # its file is preallocated: see test_bytes_per_event
        benchmark.extra_info["bytes_per_event"] = disk_bytes(tmp_path) / len(payloads)
    peer.close()


@pytest.mark.parametrize("level", [1, -1, -3, 100])
def test_append_by_level(benchmark: Any, tmp_path: Path, level: int) -> None:
    payloads = typical_payloads(100_000)
    with EventLog(tmp_path / "log", level=level) as log:
        taken = benchmark.pedantic(latencies_ns, args=(log.append_encoded, payloads), rounds=1)
        stats = log.stats()
        # Fixed parts (heads, dictionaries, state maps) are shared out over the events.
        segments = stats.segment_count * stats.bytes_used / stats.bytes_on_disk
        fixed = stats.bytes_on_disk - stats.segment_count * stats.max_payload
        per_segment = fixed / stats.segment_count
        benchmark.extra_info |= summary(taken) | {
            "bytes_per_event": (stats.bytes_used + segments * per_segment) / stats.pending
        }


@pytest.mark.parametrize("detections", [1, 5, 20, 100])
def test_append_by_detections(benchmark: Any, tmp_path: Path, detections: int) -> None:
    payloads = typical_payloads(5_000, detections=detections)
    with EventLog(tmp_path / "log") as log:
        taken = benchmark.pedantic(latencies_ns, args=(log.append_encoded, payloads), rounds=1)
        stats = log.stats()
        benchmark.extra_info |= summary(taken) | {
            "bytes_per_event": stats.bytes_used / stats.pending
        }
