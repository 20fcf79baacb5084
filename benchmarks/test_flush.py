"""How fast does a backlog leave, and at what cost, beside the official client sending the same?

    pytest benchmarks/test_flush.py              100,000 events; 2,000 with frames of 100 kB
    pytest benchmarks/test_flush.py --scale 0.01 in seconds

The emulator runs in a process of its own and stores everything in memory; each sender runs in
another, which measures itself. The official client (the `roboflow` package) has no store, so it
finds the events as finished JSON, one a line, and the frames as files. It sends them as its
documentation shows: images one by one, or by four threads; then batches of 100.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vevents import Event, EventLog, Image
from vevents.wire import event_to_json, required_frames
from workload import typical_event, typical_payloads

EVENT_COUNT = 100_000
FRAME_COUNT = 2_000
FRAME_SIZE = 100_000
USE_CASE = "uc7d21f0"

EMULATOR = """
import json, sys, time
from vevents.emulator import EmulatorConfig, RunningEmulator
config = EmulatorConfig(database=":memory:", use_cases=[(sys.argv[1], "Benchmark")])
with RunningEmulator(config) as emulator:
    print(json.dumps([emulator.url, emulator.api_key]), flush=True)
    sys.stdin.read()
    counts = emulator.counts()
    print(json.dumps({
        "events": counts["events"], "images": len(emulator.images()), "cpu_s": time.process_time(),
    }))
"""

MEASURE = """
import json, os, sys, time
def rss(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
def begin():
    return time.perf_counter(), time.process_time()
def report(begun, events, size):
    took_s, cpu_s = time.perf_counter() - begun[0], time.process_time() - begun[1]
    print(json.dumps({
        "events_per_s": events / took_s, "mb_per_s": size / took_s / 1e6,
        "cpu_us_per_event": cpu_s / events * 1e6, "peak_mib": rss("VmHWM"),
        "events": events, "seconds": took_s,
    }))
directory, url, key = sys.argv[1:4]
"""

VEVENTS = """
from vevents import EventLog
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
with EventLog(directory) as log, Client(key, api_url=url) as client:
    begun = begin()
    done = Flusher(log, client, uploads=int(sys.argv[4])).flush()
    assert done.stopped_reason is None and log.stats().pending == 0, done
    report(begun, done.delivered, done.bytes_sent)
"""

OFFICIAL = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from roboflow.adapters import vision_events_api as api
def upload(path):
    return api.upload_image(key, path)["sourceId"]
def batches(lines):
    batch = []
    for line in lines:
        batch.append(json.loads(line))
        if len(batch) == 100:
            yield batch
            batch = []
    if batch:
        yield batch
events = size = 0
threads = int(sys.argv[4])
begun = begin()
with open(Path(directory, "events.jsonl"), "rb") as lines, ThreadPoolExecutor(threads) as pool:
    for batch in batches(lines):
        paths = [path for event in batch if (path := event.pop("frame", None))]
        sent = iter(pool.map(upload, paths) if threads > 1 else map(upload, paths))
        for event in batch:
            if paths:
                event["images"] = [{"sourceId": next(sent)}]
        api.write_batch(key, batch)
        events += len(batch)
        size += sum(os.path.getsize(path) for path in paths)
    report(begun, events, size or os.path.getsize(Path(directory, "events.jsonl")))
"""


@contextmanager
def emulator_process() -> Iterator[tuple[str, str, list[Any]]]:
    """Run the emulator elsewhere; what it counted is in the list afterwards."""
    counted: list[Any] = []
    with subprocess.Popen(
        [sys.executable, "-c", EMULATOR, USE_CASE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url, key = json.loads(process.stdout.readline())
        yield url, key, counted
        out, _ = process.communicate("")
        counted.append(json.loads(out))


def frame(number: int) -> bytes:
    return b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(FRAME_SIZE - 4)


def fill_log(directory: Path, events: int, frames: int) -> None:
    rng = random.Random(1)
    sizes = {"events_size": 256 << 20, "media_size": max(4 << 20, 2 * frames * FRAME_SIZE)}
    with EventLog(directory, **sizes) as log:  # type: ignore[arg-type]
        for _ in range(events):
            log.append(typical_event(rng))
        for number in range(frames):
            image = Image(frame(number))
            log.append(Event.custom(value=str(number), use_case_id=USE_CASE, images=[image]))


def fill_folder(directory: Path, log: Path) -> None:
    """Write the events of the log as the official client wants them."""
    directory.mkdir()
    with EventLog(log, read_only=True) as source, (directory / "events.jsonl").open("w") as lines:
        for record in source.read():
            event = source.decode(record)
            obj = event_to_json(event, source_ids={})
            for ref in required_frames(event):
                path = directory / f"{ref.seq}.jpg"
                path.write_bytes(source.frame(ref) or b"")
                obj["frame"] = str(path)
                obj.pop("customMetadata", None)
            lines.write(json.dumps(obj) + "\n")


WAYS = {
    "vevents": (VEVENTS, 4),
    "vevents, one request at a time": (VEVENTS, 1),
    "official client": (OFFICIAL, 1),
    "official client, 4 threads": (OFFICIAL, 4),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("events", "frames"), [(EVENT_COUNT, 0), (0, FRAME_COUNT)], ids=["events", "frames"]
)
def test_drain(
    benchmark: Any, tmp_path: Path, pytestconfig: Any, way: str, events: int, frames: int
) -> None:
    program, threads = WAYS[way]
    if program is OFFICIAL:
        pytest.importorskip("roboflow")
        if threads > 1 and not frames:
            pytest.skip("there is nothing for four threads to upload")
    scale = pytestconfig.getoption("--scale")
    events, frames = round(events * scale), round(frames * scale)
    fill_log(tmp_path / "source", events, frames)
    if program is OFFICIAL:
        fill_folder(tmp_path / "folder", tmp_path / "source")

    with emulator_process() as (url, key, counted):
        directory = tmp_path / ("folder" if program is OFFICIAL else "source")
        command = [sys.executable, "-c", MEASURE + program, directory, url, key, threads]
        done = benchmark.pedantic(
            subprocess.run,
            args=(list(map(str, command)),),
            kwargs={
                "capture_output": True,
                "text": True,
                "check": True,
                "env": os.environ | {"API_URL": url, "NO_PROXY": "*", "HOME": str(tmp_path)},
            },
            rounds=1,
        )
    assert (counted[0]["events"], counted[0]["images"]) == (events + frames, frames)
    figures = json.loads(done.stdout.splitlines()[-1])
    benchmark.extra_info |= figures | {"server_cpu_s": counted[0]["cpu_s"]}


IDLE = """
import json, sys, time
from vevents import Event, EventLog
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
with EventLog(sys.argv[1]) as log, Client("key", api_url="http://127.0.0.1:9") as client:
    flusher = Flusher(log, client, order="priority", live_first=True)
    flusher.flush()
    taken = []
    for _ in range(200):
        begun = time.perf_counter()
        flusher.flush()
        taken.append(time.perf_counter() - begun)
    assert log.stats().pending == 0
    print(json.dumps({"idle_pass_us": sorted(taken)[100] * 1e6}))
"""


def test_idle_pass(benchmark: Any, tmp_path: Path) -> None:
    """What does a pass with nothing to do cost, on a log full of what was done before?"""
    with EventLog(tmp_path / "log") as log:
        payloads = typical_payloads(20_000)
        seqs = [log.append_encoded(payload) for payload in payloads]
        log.ack(seqs)
        for number in range(20_000):
            log.append_note(
                {"kind": "upload", "media": number, "digest": bytes(16), "sourceId": "i"}
            )
    command = [sys.executable, "-c", IDLE, str(tmp_path / "log")]
    kwargs = {"capture_output": True, "text": True, "check": True}
    done = benchmark.pedantic(subprocess.run, args=(command,), kwargs=kwargs, rounds=1)
    benchmark.extra_info |= json.loads(done.stdout)
