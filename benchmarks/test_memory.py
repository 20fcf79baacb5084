"""How much memory does a process hold that appends for ever, or that flushes a large backlog?

    pytest benchmarks/test_memory.py -k large_frames    a minute

A flush holds each frame that is being uploaded once, and the largest one once more to read it:
`peak_mib` grows by `(uploads + 1) * frame size`. `files_mib` of it are programs and files of the
log, which the system can take back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workload import append_bench

APPEND = """
import json, os, sys
from vevents import EventLog
def rss(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
before = rss("VmRSS")
log = EventLog(sys.argv[1], events_size=1 << 30, media_size=1 << 30)
frame = b"\\xff\\xd8\\xff" + os.urandom(100_000)
for i in range(3_000_000):
    log.append_encoded(os.urandom(400))
    if i % 150 == 0:
        log.append_frame(frame[:-8] + i.to_bytes(8, "little"))
stats, media = log.stats(), log.stats("media")
assert stats.evicted and media.evicted
print(json.dumps({"before_mib": before, "end_mib": rss("VmRSS"), "peak_mib": rss("VmHWM")}))
"""

BACKLOG = """
import os, sys
from vevents import Event, EventLog, Image
log = EventLog(sys.argv[1], events_size=64 << 20, media_size=1 << 30)
frame = b"\\xff\\xd8\\xff" + os.urandom(100_000)
i = 0
while not log.stats("media").evicted:
    for _ in range(200):
        i += 1
        image = Image(frame[:-8] + i.to_bytes(8, "little"))
        log.append(Event.custom(value=str(i), use_case_id="uc", images=[image]))
"""

FLUSH = """
import json, sys, time
from vevents import EventLog
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
def rss(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
with EventLog(sys.argv[1]) as log, Client(sys.argv[3], api_url=sys.argv[2]) as client:
    before = time.perf_counter()
    uploads = int(sys.argv[4]) if len(sys.argv) > 4 else 4
    report = Flusher(log, client, uploads=uploads).flush()
    took = time.perf_counter() - before
    assert report.stopped_reason is None, report
    assert log.stats().pending == 0
    print(json.dumps({
        "peak_mib": rss("VmHWM"), "end_mib": rss("VmRSS"), "files_mib": rss("RssFile"),
        "events": report.delivered, "images": report.images_delivered,
        "mb_per_s": report.bytes_sent / took / 1e6, "seconds": took,
    }))
"""


def test_memory_of_the_encoder(benchmark: Any, tmp_path: Path) -> None:
    """What malloc hands out for opening a log, and for the first thread that appends.

    Few events of one size: with more, the helper thread digests the dictionary of the next segment,
    which is no thread's. A thread that appends several sizes holds a part for each class of sizes
    (up to 2 KiB, and larger).
    """
    kinds = {
        f"level {level}, {count} detections": ("--level", level, "--detections", count)
        for level in (-2, 1)
        for count in (5, 50, 500)
    }

    def measured() -> dict[str, dict[str, float]]:
        figures = {}
        for number, (kind, options) in enumerate(kinds.items()):
            short = ("--events", 20, "--sync-ms", 0, "--megabytes", 64)
            told = append_bench(tmp_path / str(number), *options, *short)
            figures[kind] = {
                "payload_bytes": told["payload_bytes"],
                "thread_kib": told["append_memory_bytes"] / 1024,
                "log_kib": told["log_memory_bytes"] / 1024,
            }
        return figures

    benchmark.extra_info["figures"] = benchmark.pedantic(measured)


def test_append_for_ever(benchmark: Any, tmp_path: Path) -> None:
    figures = benchmark.pedantic(_run, args=(APPEND, tmp_path / "log"), rounds=1)
    benchmark.extra_info |= figures


LARGE_FRAMES = """
import os, sys
from vevents import Event, EventLog, Image
size, count = map(int, sys.argv[2:])
log = EventLog(sys.argv[1], media_size=max(256 << 20, 3 * size * count))
frame = b"\\xff\\xd8\\xff" + os.urandom(size - 3)
for i in range(count):
    image = Image(frame[:-8] + i.to_bytes(8, "little"))
    log.append(Event.custom(value=str(i), use_case_id="uc", images=[image]))
"""


@pytest.mark.parametrize("uploads", [1, 4])
@pytest.mark.parametrize("size", [2_000_000, 10_000_000])
def test_flush_large_frames(benchmark: Any, tmp_path: Path, size: int, uploads: int) -> None:
    from vevents.emulator import EmulatorConfig, RunningEmulator

    log, count = tmp_path / "log", 60_000_000 // size + 10
    subprocess.run(
        [sys.executable, "-c", LARGE_FRAMES, str(log), str(size), str(count)], check=True
    )
    config = EmulatorConfig(use_cases=[("uc", "Benchmark")])
    with RunningEmulator(config) as emulator:
        arguments = (FLUSH, log, emulator.url, emulator.api_key, uploads)
        figures = benchmark.pedantic(_run, args=arguments, rounds=1)
    benchmark.extra_info |= figures
    assert figures["images"] == count


def test_flush_a_gibibyte(benchmark: Any, tmp_path: Path) -> None:
    from vevents.emulator import EmulatorConfig, RunningEmulator

    subprocess.run([sys.executable, "-c", BACKLOG, str(tmp_path / "log")], check=True)
    config = EmulatorConfig(use_cases=[("uc", "Benchmark")])
    with RunningEmulator(config) as emulator:
        figures = benchmark.pedantic(
            _run, args=(FLUSH, tmp_path / "log", emulator.url, emulator.api_key), rounds=1
        )
    benchmark.extra_info |= figures


def _run(program: str, *arguments: object) -> Any:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)
