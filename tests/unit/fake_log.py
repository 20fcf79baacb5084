"""A log in memory with the interface of `vevents.log.EventLog`, and a server to flush it to.

Both call `Tripwire.step()` before and after whatever changes them, so that a test can let the
process die at every such point in turn and look at what is left.
"""

from __future__ import annotations

import io
import json
import tarfile
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from vevents import codec
from vevents._ffi import Moment
from vevents.errors import EventTooLargeError
from vevents.event import Event, FrameRef
from vevents.frames import digest
from vevents.log import READABLE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ProcessDiedError(BaseException):
    """Raised where a process would have died. Not an Exception, so that nothing catches it."""


class Tripwire:
    """Counts steps and dies at one of them; from then on no thread gets any further."""

    def __init__(self, die_at: int | None = None) -> None:
        self.die_at = die_at
        self.steps: list[str] = []
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise in a thread that lives on although the process has died."""
        with self._lock:
            if self.die_at is not None and len(self.steps) >= self.die_at:
                raise ProcessDiedError(f"after {self.steps[-1]}")

    def step(self, name: str) -> None:
        with self._lock:
            if self.die_at is not None and len(self.steps) >= self.die_at:
                raise ProcessDiedError(f"after {self.steps[-1]}")
            self.steps.append(name)
            if len(self.steps) == self.die_at:
                raise ProcessDiedError(name)


@dataclass
class FakeRecord:
    seq: int
    id: bytes
    wall_ns: int
    payload: bytes
    state: str = "pending"
    kind: int = 0
    time_given: bool = True  # so that no clock has a part in it

    @property
    def event_id(self) -> str:
        return str(uuid.UUID(bytes=self.id))

    @property
    def timestamp(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.wall_ns // 1_000)


@dataclass(frozen=True)
class FakeStats:
    appended: int
    delivered: int
    pending: int
    rejected: int
    evicted: int
    lost: int
    first_seq: int
    last_seq: int
    segment_size: int = 1 << 18
    segment_count: int = 15
    max_payload: int = 237_496
    bytes_used: int = 0


@dataclass
class FakeLog:
    directory: Path
    clock: Callable[[], float]
    tripwire: Tripwire = field(default_factory=Tripwire)
    note_size_max: int = 1 << 20
    stores_copies: bool = False  # of frames with the same bytes
    streams: dict[str, list[FakeRecord]] = field(
        default_factory=lambda: {"events": [], "media": []}
    )
    written_notes: list[dict[str, Any]] = field(default_factory=list)
    marked_notes: set[int] = field(default_factory=set)
    evicted: set[tuple[str, int]] = field(default_factory=set)
    window_sizes: list[int] = field(default_factory=list)
    sync_count: int = 0

    # --- the side of the producer ---

    def append(self, event: Event) -> FakeRecord:
        event.validate()
        images = tuple(
            replace(
                image, frame=self._stored(image.frame), input_frame=self._stored(image.input_frame)
            )
            for image in event.images
        )
        moment = event.timestamp
        wall_ns = (
            int(self.clock() * 1e9)
            if moment is None
            else (moment - _EPOCH) // timedelta(microseconds=1) * 1_000
        )
        record = self._append(
            "events", wall_ns, codec.encode(replace(event, images=images)), event.event_id
        )
        record.kind = codec.KIND_OF[event.event_type]
        return record

    def append_payload(self, payload: bytes) -> FakeRecord:
        return self._append("events", int(self.clock() * 1e9), payload, None)

    def append_frame(self, data: bytes) -> FrameRef:
        name = digest(data)
        for record in self.streams["media"]:
            if not self.stores_copies and digest(record.payload) == name:
                return FrameRef(record.seq, name, len(data))
        record = self._append("media", int(self.clock() * 1e9), data, None)
        return FrameRef(record.seq, name, len(data))

    def _stored(self, frame: Any) -> FrameRef | None:
        return self.append_frame(frame) if isinstance(frame, bytes) else frame

    def _append(
        self, stream: str, wall_ns: int, payload: bytes, event_id: str | None
    ) -> FakeRecord:
        seq = len(self.streams[stream]) + 1
        given = None if event_id is None else codec.header_id(event_id)
        number = uuid.uuid5(uuid.NAMESPACE_OID, f"{stream}-{seq}").bytes
        record = FakeRecord(seq, given or number, wall_ns, payload)
        self.streams[stream].append(record)
        return record

    def evict(self, stream: str, seq: int) -> None:
        self.evicted.add((stream, seq))

    # --- the side of the flusher ---

    def read_batch(
        self, stream: str, from_seq: int, states: Sequence[str], limit: int
    ) -> tuple[list[FakeRecord], int]:
        self.tripwire.step("read")
        found = [
            record
            for record in self.streams[stream]
            if record.seq >= from_seq
            and record.state in states
            and (stream, record.seq) not in self.evicted
        ][:limit]
        self.window_sizes.append(len(found))
        return [replace(record) for record in found], found[-1].seq + 1 if found else from_seq

    def read(
        self, stream: str = "events", *, from_seq: int = 0, states: Sequence[str] = ("pending",)
    ) -> Iterator[FakeRecord]:
        while True:
            records, from_seq = self.read_batch(stream, from_seq, states, 1)
            if not records:
                return
            yield from records

    def decode(self, record: FakeRecord) -> Event:
        return codec.decode(record.payload, event_id=record.event_id, timestamp=record.timestamp)

    def event_id(self, record: FakeRecord) -> str:
        return codec.payload_id(record.payload) or record.event_id

    def frame(self, ref: FrameRef) -> bytes | None:
        self.tripwire.step("frame")
        if ("media", ref.seq) in self.evicted:
            return None
        return self.streams["media"][ref.seq - 1].payload

    def frame_view(self, ref: FrameRef) -> memoryview | None:
        image = self.frame(ref)
        return None if image is None else memoryview(image)

    def mark(self, seqs: Sequence[int], state: str, stream: str = "events") -> int:
        self.tripwire.step(f"before mark {stream} {state}")
        changed = 0
        if stream == "delivery":
            self.marked_notes.update(seqs)
            return len(seqs)
        for seq in seqs:
            record = self.streams[stream][seq - 1]
            changed += record.state != state
            record.state = state
        self.tripwire.step(f"after mark {stream} {state}")
        return changed

    def ack(self, seqs: Sequence[int]) -> int:
        return self.mark(seqs, "delivered")

    def append_note(self, note: dict[str, Any]) -> int:
        self.tripwire.step(f"before note {note['kind']}")
        if len(note.get("payload") or b"") > self.note_size_max:
            raise EventTooLargeError("payload", "does not fit")
        if note["kind"] == "clock":
            return len(self.written_notes)  # what it is for is tested with a real log
        self.written_notes.append(note)
        self.tripwire.step(f"after note {note['kind']}")
        return len(self.written_notes)

    def now(self) -> Moment:
        return Moment(int(self.clock() * 1e9), 0, 1, synced=True)

    def notes(
        self, from_seq: int = 0, states: Sequence[str] = READABLE
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        self.tripwire.step("read notes")
        first = max(1, from_seq)
        for seq, note in enumerate(self.written_notes[first - 1 :], start=first):
            if ("delivered" if seq in self.marked_notes else "pending") in states:
                yield seq, note

    def stats(self, stream: str = "events") -> FakeStats:
        if stream == "delivery":
            count = len(self.written_notes)
            return FakeStats(count, 0, count, 0, 0, 0, 1, count)
        counts = Counter(
            "evicted" if (stream, record.seq) in self.evicted else record.state
            for record in self.streams.get(stream, [])
        )
        return FakeStats(
            appended=len(self.streams.get(stream, [])),
            delivered=counts["delivered"],
            pending=counts["pending"],
            rejected=counts["rejected"],
            evicted=counts["evicted"],
            lost=counts["lost"],
            first_seq=1,
            last_seq=len(self.streams.get(stream, [])),
        )

    def sync(self) -> int:
        self.tripwire.step("sync")
        self.sync_count += 1
        return len(self.streams["events"])

    # --- for the tests ---

    def states(self, stream: str = "events") -> list[str]:
        return [record.state for record in self.streams[stream]]

    def notes_of(self, kind: str) -> list[dict[str, Any]]:
        return [note for note in self.written_notes if note["kind"] == kind]

    def assert_conserved(self) -> None:
        for stream in self.streams:
            stats = self.stats(stream)
            assert stats.appended == (
                stats.delivered + stats.pending + stats.rejected + stats.evicted + stats.lost
            )


class FakeServer:
    """Speaks the API through `httpx.MockTransport`.

    Attributes:
        events: The stored events by id.
        stored_counts: How often each id was stored.
        images: The bytes of each image, by `sourceId`.
        use_cases: The ids of the active use cases. Events of others are stored all the same.
        requests: Method and path of every request, in order.
        batches: The event ids of every request that carries events.
        takes_bundles: Whether it has the endpoint for bundles.
        interfere: Called with each request before it is served; may return an answer of its own
            or raise a transport error.
        refuses: Called with each event; returns why it is refused, or None.
    """

    def __init__(self, tripwire: Tripwire | None = None) -> None:
        self.tripwire = tripwire or Tripwire()
        self.events: dict[str, dict[str, Any]] = {}
        self.stored_counts: Counter[str] = Counter()
        self.images: dict[str, bytes] = {}
        self.use_cases = ["uc-default"]
        self.requests: list[tuple[str, str]] = []
        self.batches: list[list[str]] = []
        self.interfere: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.takes_bundles = True
        self._lock = threading.Lock()
        self.refuses: Callable[[dict[str, Any]], str | None] = lambda _: None

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        body = request.read()
        self.tripwire.step(f"before {path}")
        self.requests.append((request.method, path))
        if path == "/vision-events":
            events = [json.loads(body)]
        elif path == "/vision-events/batch":
            events = json.loads(body)["events"]
            assert 1 <= len(events) <= 100
            assert len(body) <= 5_000_000 or len(events) == 1
        elif path == "/vision-events/bundle":
            bundle = _opened(body)
            events = [json.loads(bundle.pop("payload.json"))]
            assert events[0].pop("bundleFormatVersion") == 1
        else:
            events = []
        ids = [event["eventId"] for event in events]
        assert len(set(ids)) == len(ids)
        if ids:
            self.batches.append(ids)
        answer = self.interfere(request)
        if answer is None:
            with self._lock:
                self.tripwire.check()
                if path == "/vision-events/bundle":
                    answer = self._serve_bundle(bundle, events)
                else:
                    answer = self._serve(path, body, events)
        self.tripwire.step(f"after {path}")
        return answer

    def _serve_bundle(
        self, files: dict[str, bytes], events: list[dict[str, Any]]
    ) -> httpx.Response:
        if not self.takes_bundles:
            return httpx.Response(404, json={"error": "no such path"})
        before = dict(self.images)
        for image in events[0]["images"]:
            for file, key in (("file", "sourceId"), ("inputFile", "inputSourceId")):
                if file in image:
                    image[key] = f"ve-img-{len(self.images) + 1}"
                    self.images[image[key]] = files[image.pop(file)]
        answer = self._serve("/vision-events", b"", events)
        if answer.status_code != 201:
            self.images = before
        return answer

    def _serve(self, path: str, body: bytes, events: list[dict[str, Any]]) -> httpx.Response:
        if path == "/vision-events/use-cases":
            rows = [{"id": name, "name": name, "status": "active"} for name in self.use_cases]
            return httpx.Response(200, json={"useCases": rows, "lookbackDays": 14})
        if path == "/vision-events/upload":
            source_id = f"ve-img-{len(self.images) + 1}"
            # One part: boundary line, headers, empty line, the image, boundary line.
            boundary = body.partition(b"\r\n")[0]
            image = body.partition(b"\r\n\r\n")[2]
            self.images[source_id] = image[: image.rindex(b"\r\n" + boundary)]
            return httpx.Response(201, json={"success": True, "sourceId": source_id})
        for event in events:
            reason = self.refuses(event)
            if reason is not None:
                return httpx.Response(400, json={"error": reason})
            for image in event.get("images", []):
                named = {image[key] for key in ("sourceId", "inputSourceId") if key in image}
                assert named <= self.images.keys()
        for event in events:
            self.events[event["eventId"]] = event
            self.stored_counts[event["eventId"]] += 1
        if path == "/vision-events":
            return httpx.Response(201, json={"eventId": events[0]["eventId"], "created": True})
        ids = [event["eventId"] for event in events]
        return httpx.Response(201, json={"created": len(ids), "eventIds": ids})


def _opened(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
