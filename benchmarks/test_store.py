"""How fast does `vevents serve` take events, and how much memory does it hold meanwhile?

Each request is timed from its first byte to the end of its answer, on a connection that is kept
and on a new one each time, which is how the official Workflow block sends.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COUNT = 1_000
BOX = {"class": "burr", "x": 81.5, "y": 40.25, "width": 37.0, "height": 22.5, "confidence": 0.913}
HEADERS = {"Content-Type": "application/json"}


class Store:
    """The server as a process, in a directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        command = [sys.executable, "-m", "vevents", "serve", "--json", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--dir", str(directory), *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        url = json.loads(self.process.stdout.readline())["url"]
        self.port = int(url.rpartition(":")[2])

    def memory_mib(self, name: str) -> float:
        """Return a figure of the kernel, for example RssAnon: without the mapped files."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise KeyError(name)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    running = Store(tmp_path / "log", *getattr(request, "param", ()))
    yield running
    running.stop()


def bodies(frame_size: int) -> Iterator[bytes]:
    """Yield events with five detections, each with a frame of its own if any."""
    noise = os.urandom(max(frame_size, 1))
    number = 0
    while True:
        number += 1
        images: list[dict[str, Any]] = [{"label": "workflow", "objectDetections": [BOX] * 5}]
        if frame_size:
            frame = b"\xff\xd8\xff\xe0" + number.to_bytes(8, "big") + noise[:-12]
            images[0]["inputBase64Image"] = base64.b64encode(frame).decode()
        moment = f"2026-11-23T12:{number // 60 % 60:02}:{number % 60:02}.{number:06}+00:00"
        yield json.dumps(
            {
                "inference_timestamp": moment,
                "solution": "uc-bench",
                "event_schema": "quality_check",
                "event_data": {"result": "fail", "externalId": f"lot-{number}"},
                "images": images,
                "displayImagePosition": 0,
            }
        ).encode()


def send(port: int, prepared: list[bytes], *, kept: bool) -> list[float]:
    """Post one after the other. Returns how long each took, in milliseconds."""
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for raw in prepared:
        began = time.perf_counter()
        connection.request("POST", "/v2/events", raw, HEADERS)
        answer = connection.getresponse()
        answer.read()
        if not kept:
            connection.close()
        took.append((time.perf_counter() - began) * 1e3)
        assert answer.status == 201
    connection.close()
    return took


@pytest.mark.parametrize("store", [(), ("--sync",)], ids=["default", "sync"], indirect=True)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])
@pytest.mark.parametrize("frame_size", [0, 100_000], ids=["no frame", "100 kB frame"])
def test_post(benchmark: Any, store: Store, kept: bool, frame_size: int) -> None:
    source = bodies(frame_size)
    prepared = [next(source) for _ in range(COUNT + 50)]
    send(store.port, prepared[:50], kept=kept)

    took = benchmark.pedantic(send, args=(store.port, prepared[50:]), kwargs={"kept": kept})

    cuts = statistics.quantiles(took, n=100)
    benchmark.extra_info |= {
        "per_s": COUNT / sum(took) * 1e3,
        "p50_ms": statistics.median(took),
        "p99_ms": cuts[98],
        "max_ms": max(took),
    }


def test_a_hundred_connections(benchmark: Any, store: Store) -> None:
    source = bodies(100_000)
    shares = [[next(source) for _ in range(10)] for _ in range(100)]
    at_rest = store.memory_mib("RssAnon")
    took: list[float] = []

    def all_at_once() -> None:
        threads = [
            threading.Thread(target=lambda own=own: took.extend(send(store.port, own, kept=True)))
            for own in shares
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    benchmark.pedantic(all_at_once)

    benchmark.extra_info |= {
        "rest_mib": at_rest,
        "after_mib": store.memory_mib("RssAnon"),
        "peak_with_files_mib": store.memory_mib("VmHWM"),
        "p50_ms": statistics.median(took),
        "p99_ms": statistics.quantiles(took, n=100)[98],
    }
