"""What the interoperability tests share: a store that can be killed, a way to it, a comparison."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from vevents import EventLog
from vevents.emulator import RunningEmulator
from vevents.event import parse_timestamp

RECORDED = Path(__file__).with_name("recorded")
USE_CASE = "uc-interop"
HEADERS = {"Content-Type": "application/json"}
ANNOTATIONS = ("objectDetections", "classifications", "instanceSegmentations", "keypoints")


class StoreProcess:
    """`vevents serve` as a process."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self._port = 0
        self.start()

    def start(self) -> None:
        """Start, or start again at the same port, and wait until it listens."""
        command = [sys.executable, "-m", "vevents", "serve", "--json"]
        place = ["--dir", str(self._directory), "--port", str(self._port)]
        self._process = subprocess.Popen(
            [*command, *place, *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        self._port = int(self.url.rpartition(":")[2])

    def stop(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it, by default as the kernel does when memory runs out. Returns the exit code."""
        self._process.send_signal(number)
        code = self._process.wait(timeout=30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


class Middleman:
    """A way to the store on which answers can be lost.

    Attributes:
        url: Where a client sends what is meant for the store.
        taken: The bodies that the store answered with 201, by the id in the answer.
        kill_before_answer: Kill the store when it has answered, and let the client know nothing.
    """

    def __init__(self, store: StoreProcess) -> None:
        self.taken: dict[str, bytes] = {}
        self.kill_before_answer = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                # As it came, but for the headers of this one connection.
                passed = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("host", "connection", "content-length")
                }
                answer = httpx.post(
                    store.url + self.path, content=body, headers=passed, trust_env=False
                )
                if owner.kill_before_answer:
                    owner.kill_before_answer = False
                    store.stop()
                    self.close_connection = True
                    return
                if answer.status_code == 201:
                    owner.taken[answer.json()["id"]] = body
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def store_and_middleman(directory: Path, *options: str) -> Iterator[tuple[StoreProcess, Middleman]]:
    """Run both; the store ends with SIGTERM and has to end well."""
    store = StoreProcess(directory, *options)
    middleman = Middleman(store)
    try:
        yield store, middleman
    except BaseException:
        store.stop()
        raise
    finally:
        middleman.close()
    assert store.stop(signal.SIGTERM) == 0


def assert_all_arrived(directory: Path, emulator: RunningEmulator, taken: dict[str, bytes]) -> None:
    """Every body that was answered with 201 is in the cloud once, with all that was in it."""
    with EventLog(directory, read_only=True) as log:
        for stream in ("events", "media"):
            stats = log.stats(stream)  # type: ignore[arg-type]
            assert stats.conserved
            assert (stats.pending, stats.rejected, stats.evicted, stats.lost) == (0, 0, 0, 0)
        assert log.stats().appended == len(taken)
    rows = {row["event"]["eventId"]: row for row in emulator.events()}
    assert rows.keys() == taken.keys()
    digests = {row["source_id"]: row["sha256"] for row in emulator.images()}
    for event_id, raw in taken.items():
        assert rows[event_id]["posts"] == 1
        assert rows[event_id]["warnings"] == []
        body, event = json.loads(raw), rows[event_id]["event"]
        assert parse_timestamp(event["timestamp"]) == parse_timestamp(body["inference_timestamp"])
        assert event.get("customMetadata", {}) == body.get("custom_metadata", {})
        compare(body, event, digests)


def compare(body: dict[str, Any], event: dict[str, Any], digests: dict[str, str]) -> None:
    """Compare all but time and metadata of what the official block sent with what arrived."""
    assert event["eventType"] == body["event_schema"]
    assert event["useCaseId"] == body["solution"] == USE_CASE
    assert event["eventData"] == body["event_data"]
    assert event.get("displayImagePosition") == body.get("displayImagePosition")
    assert len(event.get("images", [])) == len(body["images"])
    for arrived, sent in zip(event.get("images", []), body["images"], strict=True):
        for id_key, key in (("sourceId", "base64Image"), ("inputSourceId", "inputBase64Image")):
            assert (id_key in arrived) == (key in sent)
            if key in sent:
                digest = hashlib.sha256(base64.b64decode(sent[key])).hexdigest()
                assert digests[arrived[id_key]] == digest
        assert arrived.get("label") == sent.get("label")
        for key in ANNOTATIONS:
            assert _close(arrived.get(key, []), sent.get(key, [])), key


def _close(ours: Any, theirs: Any) -> bool:
    """Compare JSON; numbers are stored as float32."""
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_close(ours[k], theirs[k]) for k in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_close, ours, theirs))
    if isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return bool(ours == theirs)
