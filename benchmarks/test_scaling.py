"""What does a larger log cost, and a larger event?

    ./dev bench benchmarks/test_scaling.py      needs 30 GiB of free disk for the largest log

Logs are full before they are measured: every append goes into a ring that is reclaiming. Opening is
measured in a new process after SIGKILL of the one before, with a cold cache where that can be had;
status as well as the first process in a boot finds it.
A size for which the disk has no room (20 GiB are to stay free) is left out and named.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vevents import DetectionWriter, Event, EventLog
from workload import arrays_of, by_turns, told, typical_payloads

MIB = 1 << 20
SIZES_MIB = (1, 16, 256, 1024, 8192)
KEEP_FREE = 20 << 30
DETECTIONS = (1, 10, 100, 1000)
TURNS = 5

# Random bytes in records of 2,000, which take no time to compress: the ring is to be full, soon.
FILL = """
import os, sys
from vevents import EventLog
log = EventLog(sys.argv[1], events_size=int(sys.argv[2]), level=100)
payloads = [os.urandom(2000) for _ in range(100)]
while log.stats().evicted == 0:
    for i in range(500):
        log.append_encoded(payloads[i % 100])
os.kill(os.getpid(), 9)
"""

OPEN = """
import json, os, sys, time
from vevents import EventLog
times = [time.perf_counter()]
log = EventLog(sys.argv[1])
times.append(time.perf_counter())
next(log.read())
times.append(time.perf_counter())
for _ in range(2):
    stats = log.stats()
    times.append(time.perf_counter())
assert stats.conserved and stats.pending, stats
names = ("open_ms", "first_read_ms", "status_ms", "status_again_ms")
print(json.dumps({n: (b - a) * 1e3 for n, a, b in zip(names, times, times[1:])}), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def full_logs(tmp_path_factory: Any, request: Any) -> Iterator[dict[int, Path]]:
    """Full logs by size in MiB; their processes were killed."""
    base = tmp_path_factory.mktemp("full")
    largest = max(SIZES_MIB) * min(1, 2 * request.config.getoption("--scale"))
    logs = {}
    for size in SIZES_MIB:
        if size <= largest and shutil.disk_usage(base).free > KEEP_FREE + size * MIB:
            logs[size] = base / str(size)
            killed = _python(FILL, logs[size], size * MIB)
            assert killed.returncode == -9, killed.stderr
    os.sync()
    yield logs
    shutil.rmtree(base)


def test_open_by_size_of_the_log(benchmark: Any, full_logs: dict[int, Path]) -> None:
    ran: dict[int, list[dict[str, float]]] = {size: [] for size in full_logs}

    def turns() -> bool:
        cold = True
        for _ in range(TURNS):
            for size, log in full_logs.items():
                _be_of_another_boot(log)
                cold &= _drop_caches()
                after_boot = _open(log)["status_ms"]
                cold &= _drop_caches()
                ran[size].append(_open(log) | {"status_after_boot_ms": after_boot})
        return cold

    cold = benchmark.pedantic(turns)

    benchmark.extra_info |= _left_out(full_logs) | {
        "cold_cache": cold,
        "figures": {
            f"{size} MiB": {name: sorted(t[name] for t in turns)[TURNS // 2] for name in turns[0]}
            for size, turns in ran.items()
        },
    }


def test_append_by_size_of_the_log(
    benchmark: Any, full_logs: dict[int, Path], scale: float
) -> None:
    payloads = [(payload,) for payload in typical_payloads(20_000)]
    logs = {f"{size} MiB": EventLog(path) for size, path in full_logs.items()}

    taken = benchmark.pedantic(
        by_turns,
        args=({size: log.append_encoded for size, log in logs.items()},),
        kwargs={"given": dict.fromkeys(logs, payloads), "rounds": max(2, int(400 * scale))},
    )

    for log in logs.values():
        assert log.stats().conserved
        log.close()
    benchmark.extra_info |= _left_out(full_logs) | {
        "figures": {size: told(durations) for size, durations in taken.items()}
    }


@pytest.mark.parametrize("way", ["encoded", "arrays"])
def test_append_by_detections(benchmark: Any, tmp_path: Path, way: str, scale: float) -> None:
    names = ["person", "forklift", "pallet"]
    common = Event.quality_check(result="fail", use_case_id="press-line")
    logs = {str(count): EventLog(tmp_path / str(count)) for count in DETECTIONS}
    calls: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for count, log in logs.items():
        if way == "arrays":
            calls[count] = DetectionWriter(log, common, names).append
            given[count] = arrays_of(int(count), 200)
        else:
            calls[count] = log.append_encoded
            payloads = typical_payloads(200, detections=int(count))
            given[count] = [(payload,) for payload in payloads]

    taken = benchmark.pedantic(
        by_turns, args=(calls, given), kwargs={"rounds": max(2, int(200 * scale))}
    )

    figures = {}
    for count, log in logs.items():
        stats = log.stats()
        assert stats.conserved
        figures[count] = told(taken[count]) | {"bytes_per_event": stats.bytes_used / stats.pending}
        log.close()
    benchmark.extra_info["figures"] = figures


def _left_out(full_logs: dict[int, Path]) -> dict[str, Any]:
    return {"left_out": [f"{size} MiB" for size in SIZES_MIB if size not in full_logs]}


def _open(log: Path) -> dict[str, float]:
    killed = _python(OPEN, log)
    assert killed.returncode == -9, killed.stderr
    told: dict[str, float] = json.loads(killed.stdout)
    return told


def _be_of_another_boot(log: Path) -> None:
    """Take from the rings what the processes of this boot have left to each other."""
    for path in log.glob("*.ring"):
        with path.open("r+b") as ring:
            ring.seek(16 << 10)
            ring.write(bytes(8))


def _python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def _drop_caches() -> bool:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    except OSError:
        return False
    return True
