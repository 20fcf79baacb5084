"""A device with a log in memory, a server, and a flusher between them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fake_log import FakeLog, FakeRecord, FakeServer, Tripwire

from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
from vevents.delivery.report import FlushProgress, FlushReport
from vevents.delivery.sender import RetryPolicy, Time
from vevents.event import Event, Image

NOW_S = 1_790_000_000.0


@dataclass
class FakeTime:
    """A clock that moves only when somebody sleeps."""

    now_s: float = NOW_S
    slept: list[float] = field(default_factory=list)
    drawn: float = 1.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.slept.append(seconds)
            # However short, it takes some time: seconds since 1970 are coarse as floats.
            self.now_s = max(self.now_s + seconds, math.nextafter(self.now_s, math.inf))

    def as_time(self) -> Time:
        return Time(
            clock=lambda: self.now_s,
            monotonic=lambda: self.now_s - NOW_S,
            sleep=self.sleep,
            draw=lambda: self.drawn,
        )


class Site:
    """A device with a log, a server, and a flusher between them."""

    def __init__(self, directory: Path, tripwire: Tripwire | None = None) -> None:
        self.time = FakeTime()
        self.log = FakeLog(directory, lambda: self.time.now_s, tripwire or Tripwire())
        self.server = FakeServer(tripwire)
        self.steps: list[FlushProgress] = []

    def client(self) -> Client:
        return Client(
            "rf_key",
            api_url="https://api.test",
            transport=httpx.MockTransport(self.server.handle),
            clock=lambda: self.time.now_s,
            monotonic=self.time.as_time().monotonic,
        )

    def flush(
        self,
        *,
        use_case_id: str | None = "uc-default",
        retry: RetryPolicy | None = None,
        options: dict[str, Any] | None = None,
        **limits: Any,
    ) -> FlushReport:
        with self.client() as client:
            flusher = Flusher(
                self.log,  # type: ignore[arg-type]
                client,
                use_case_id=use_case_id,
                retry=retry,
                time=self.time.as_time(),
                **({"uploads": 1} | (options or {})),
            )
            report = flusher.flush(progress=self.steps.append, **limits)
        self.log.assert_conserved()
        assert report.pending_after == self.log.stats().pending
        return report

    def append(self, *frames: bytes, **fields: Any) -> FakeRecord:
        number = len(self.log.streams["events"]) + 1
        images = tuple(Image(frame) for frame in frames)
        return self.log.append(Event.custom(value=f"event {number}", images=images, **fields))

    def append_many(self, count: int) -> list[str]:
        return [self.append().event_id for _ in range(count)]

    def posted(self) -> list[list[int]]:
        """The events of every request that carried some, as numbers."""
        numbers = {record.event_id: record.seq for record in self.log.streams["events"]}
        return [[numbers[event_id] for event_id in batch] for batch in self.server.batches]


def jpeg(name: str, size: int = 20) -> bytes:
    return (b"\xff\xd8\xff\xe0" + name.encode()).ljust(size, b".")


def on(path: str, *answers: httpx.Response | Exception | None) -> Callable[[httpx.Request], Any]:
    """Give these answers to the first requests for `path`; None serves it as usual."""
    left = list(answers)

    def interfere(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != path or not left:
            return None
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return interfere


def always(path: str, status: int, **fields: Any) -> Callable[[httpx.Request], Any]:
    return lambda request: (
        httpx.Response(status, json={"error": "as scripted"}, **fields)
        if request.url.path == path
        else None
    )


EVENT = "/vision-events"
BATCH = "/vision-events/batch"
UPLOAD = "/vision-events/upload"
BUNDLE = "/vision-events/bundle"
USE_CASES = "/vision-events/use-cases"


def refuse(*values: str) -> Callable[[dict[str, Any]], str | None]:
    return lambda event: "no good" if event["eventData"]["value"] in values else None


def at(**ago: float) -> datetime:
    return datetime.fromtimestamp(NOW_S, UTC) - timedelta(**ago)
