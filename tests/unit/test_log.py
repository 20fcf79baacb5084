"""The event log through its Python face."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import random
import resource
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from vevents import (
    Event,
    EventLog,
    FrameRef,
    Image,
    InstanceSegmentation,
    ObjectDetection,
    _ffi,
)
from vevents.errors import (
    ConfigurationError,
    EventTooLargeError,
    EventValidationError,
    LogError,
    LogFullError,
    LogReadOnlyError,
)
from vevents.pressure import Filling, Step

JPEG = b"\xff\xd8\xff\xe0" + b"frame" * 100


def alert(text: str = "x") -> Event:
    return Event.safety_alert(alert_type="no_helmet", description=text, use_case_id="uc")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_round_trip(directory: Path) -> None:
    event = Event.quality_check(
        result="fail",
        use_case_id="uc",
        metadata={"line": "P3", "ok": True, "n": 0.1},
        images=[Image(JPEG, object_detections=[ObjectDetection("a", 1, 2, 3, 4, 0.913)])],
    )
    with EventLog(directory) as log:
        receipt = log.append(event)
        [record] = log.read()
        back = log.decode(record)
        assert (record.seq, record.event_id, record.state) == (1, receipt.event_id, "pending")
        assert back.event_id == receipt.event_id
        assert back.timestamp == receipt.timestamp == record.timestamp
        assert back.metadata == event.metadata
        assert back.images[0].object_detections == event.images[0].object_detections
        frame = back.images[0].frame
        assert isinstance(frame, FrameRef)
        assert log.frame(frame) == JPEG


def test_given_identity_is_kept(directory: Path) -> None:
    moment = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
    uuid4 = "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa"
    with EventLog(directory) as log:
        for event_id in (uuid4, "evt-001"):
            receipt = log.append(
                Event.custom(value="v", use_case_id="u", event_id=event_id, timestamp=moment)
            )
            assert (receipt.event_id, receipt.timestamp) == (event_id, moment)
        first, second = log.read()
        assert (first.event_id, first.timestamp, first.time_given) == (uuid4, moment, True)
        assert log.decode(second).event_id == "evt-001"


def test_made_identity(directory: Path) -> None:
    with EventLog(directory) as log:
        before = datetime.now(UTC)
        receipts = [log.append(alert()) for _ in range(1000)]
        assert len({r.event_id for r in receipts}) == 1000
        assert all(r.event_id[14] == "4" for r in receipts)
        assert before - timedelta(milliseconds=1) <= receipts[0].timestamp <= datetime.now(UTC)
        assert not next(log.read()).time_given


def test_invalid_event_writes_nothing(directory: Path) -> None:
    with EventLog(directory) as log:
        bad = Event.quality_check(
            result="fail",
            use_case_id="uc",
            images=[Image(JPEG, object_detections=[ObjectDetection("a", 1, 2, 3, 4, 1.5)])],
        )
        with pytest.raises(EventValidationError, match=r"confidence.*1") as caught:
            log.append(bad)
        assert caught.value.field == "images[0].objectDetections[0].confidence"
        assert isinstance(caught.value, ValueError)
        assert log.stats().appended == log.stats("media").appended == 0


def test_too_large(directory: Path) -> None:
    with EventLog(directory, media_size=1 << 20) as log:
        limit = log.stats("media").max_payload
        with pytest.raises(EventTooLargeError, match=str(limit)) as caught:
            log.append(Event.custom(value="v", images=[Image(JPEG + bytes(limit))]))
        assert caught.value.field == "images[0].frame"
        with pytest.raises(EventTooLargeError):
            log.append_encoded(bytes(log.stats().max_payload + 1))
        assert log.stats().appended == 0


def test_same_frame_is_stored_once(directory: Path) -> None:
    with EventLog(directory) as log:
        for _ in range(5):
            log.append(Event.custom(value="v", images=[Image(JPEG, input_frame=JPEG)]))
        assert log.stats("media").appended == 1


def test_evicted_frame_is_none_and_stored_again(directory: Path) -> None:
    with EventLog(directory, media_size=1 << 20) as log:
        ref = log.append_frame(JPEG)
        filler = os.urandom(30_000)
        for i in range(60):
            log.append_frame(JPEG + i.to_bytes(4, "little") + filler)
        assert log.stats("media").evicted > 0
        assert log.frame(ref) is None
        again = log.append_frame(JPEG)
        assert again.seq > ref.seq
        assert log.frame(again) == JPEG


def test_a_frame_that_is_stored_is_used_under_any_pressure(directory: Path) -> None:
    with EventLog(directory, pressure=[Step(0, "none")]) as log:
        kept = Event.safety_alert(alert_type="fire", images=[Image(JPEG)])
        assert log.append(kept).shed is None
        assert log.append(Event.custom(value="v", images=[Image(JPEG)])).shed is None
        other = Event.custom(value="v", images=[Image(JPEG + b"x", label="door")])
        assert log.append(other).shed == "none"
        *_, last = log.read()
        assert log.decode(last).images == (Image(label="door"),)
        assert log.stats("media").appended == 1


def test_pending_share_counts_a_ring_that_was_full_once_as_full(directory: Path) -> None:
    with EventLog(directory, media_size=1 << 20) as log:
        assert log.stats("media").pending_share == 0.0
        # One of these to a segment: nearly half of each stays empty.
        seqs = [log.append_frame(JPEG + os.urandom(30_000)).seq for _ in range(7)]
        assert 0.2 < log.stats("media").pending_share < 0.5
        seqs += [log.append_frame(JPEG + os.urandom(30_000)).seq for _ in range(20)]
        stats = log.stats("media")
        assert (stats.pending_share, stats.bytes_used < 0.6 * stats.capacity) == (1.0, True)
        log.mark(range(stats.first_seq, stats.first_seq + stats.pending // 2), "delivered", "media")
        assert log.stats("media").pending_share == pytest.approx(0.5, abs=0.05)
        log.mark(seqs, "delivered", "media")
        assert log.stats("media").pending_share == 0.0


def test_close_waits_for_the_measurement(directory: Path) -> None:
    started, closed, measured = threading.Event(), threading.Event(), []

    class SlowLog(EventLog):
        def _measure_media(self) -> Filling:
            started.set()
            closed.wait(0.2)
            measured.append(super()._measure_media())
            return measured[0]

    log = SlowLog(directory, pressure=[Step(0.5, "none")])
    assert log._shedder is not None
    log._shedder.gauge.refresh_beside()
    assert started.wait(30)
    log.close()
    closed.set()
    assert len(measured) == 1


def test_mark_and_stats(directory: Path) -> None:
    with EventLog(directory) as log:
        seqs = [log.append(alert()).seq for _ in range(100)]
        assert log.ack(seqs[:40]) == 40
        assert log.ack(seqs[:40]) == 0
        assert log.mark(seqs[40:45], "rejected") == 5
        stats = log.stats()
        assert (stats.delivered, stats.rejected, stats.pending) == (40, 5, 55)
        assert stats.conserved
        assert [r.seq for r in log.read()] == seqs[45:]
        assert [r.seq for r in log.read(states=("rejected",))] == seqs[40:45]
        assert [r.seq for r in log.read(from_seq=90, limit=3)] == [90, 91, 92]
    with EventLog(directory) as log:
        assert log.stats().delivered == 40


def test_eviction_is_counted_by_type(directory: Path) -> None:
    with EventLog(directory, events_size=1 << 20) as log:
        for i in range(20_000):
            log.append(alert(f"{i}") if i % 4 else Event.custom(value=f"{i}"))
        stats = log.stats()
        assert stats.conserved
        assert stats.evicted == sum(stats.evicted_by_kind) > 5_000
        assert stats.evicted_by_kind[3] == pytest.approx(3 * stats.evicted_by_kind[4], rel=0.01)


def test_refuse_when_full(directory: Path) -> None:
    with EventLog(directory, events_size=1 << 20, full="refuse") as log:
        payload = os.urandom(500)
        count = 0
        with pytest.raises(LogFullError):
            while True:
                log.append_encoded(payload)
                count += 1
        assert log.stats().pending == count
        log.ack(range(1, count + 1))
        log.append_encoded(payload)
        assert log.stats().evicted == 0


def test_what_a_full_log_refuses_pushes_out_no_frame_of_what_it_keeps(directory: Path) -> None:
    def seen(number: int, size: int = 2_000) -> Event:
        noise = random.Random(number).randbytes(size // 2).hex()
        jpeg = JPEG + number.to_bytes(4, "big") + bytes(30_000)
        return Event.custom(value=noise, images=[Image(jpeg)])

    with EventLog(directory, events_size=1 << 20, media_size=2 << 20, full="refuse") as log:
        for number in range(20):
            log.append(seen(number))
        with pytest.raises(LogFullError):
            for number in range(10_000):
                log.append(Event.custom(value=random.Random(number).randbytes(1_000).hex()))

        for number in range(100, 400):
            with pytest.raises(LogFullError):
                log.append(seen(number))
        refs = [event.images[0].frame for event in map(log.decode, log.read()) if event.images]
        assert len(refs) == 20
        assert all(log.frame(ref) is not None for ref in refs)  # type: ignore[arg-type]
        assert log.stats("media").appended == 20

        # A small one may still fit, and is tried; room that a flush makes is found at once.
        log.append(seen(1_000, size=2))
        log.ack([record.seq for record in log.read()])
        log.append(seen(1_001))
        assert (log.stats().pending, log.stats("media").appended) == (1, 22)
        assert all(log.stats(stream).conserved for stream in ("events", "media"))


def test_durability(directory: Path) -> None:
    with EventLog(directory, sync_interval_s=0) as log:
        log.append(alert())
        assert log.durable_seq == 0
        assert log.append(alert(), sync=True).seq == log.durable_seq == 2
        log.append(alert())
        assert log.durable_seq == 2
        assert log.sync() == 3


def test_background_sync(directory: Path) -> None:
    with EventLog(directory, sync_interval_s=0.05) as log:
        log.append(alert())
        for _ in range(200):
            if log.durable_seq == 1:
                break
            threading.Event().wait(0.05)
        assert log.durable_seq == 1


def test_threads(directory: Path) -> None:
    with EventLog(directory) as log:

        def work(name: str) -> None:
            for i in range(500):
                log.append(Event.custom(value=f"{name}-{i}"))

        threads = [threading.Thread(target=work, args=(str(t),)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values = [(log.decode(r).data or {})["value"] for r in log.read()]
        assert len(values) == len(set(values)) == 2000
        for t in range(4):  # each thread's events in its order
            mine = [v for v in values if v.startswith(f"{t}-")]
            assert mine == [f"{t}-{i}" for i in range(500)]


def test_fork(directory: Path) -> None:
    program = (
        "import os, sys\n"
        "from vevents import Event, EventLog\n"
        "log = EventLog(sys.argv[1])\n"
        "log.append(Event.custom(value='parent'))\n"
        "if os.fork() == 0:\n"
        "    log.append(Event.custom(value='child')); log.close(); os._exit(0)\n"
        "pid, status = os.wait()\n"
        "log.append(Event.custom(value='after'))\n"
        "log.close()\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, timeout=60)
    with EventLog(directory) as log:
        values = [(log.decode(r).data or {})["value"] for r in log.read()]
        assert values == ["parent", "child", "after"]


def test_read_only(directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        EventLog(directory, read_only=True)
    with EventLog(directory) as log:
        log.append(alert())
        with EventLog(directory, read_only=True) as reader:
            assert reader.stats().pending == 1
            with pytest.raises(LogReadOnlyError):
                reader.append(alert())
            with pytest.raises(LogReadOnlyError):
                reader.ack([1])
            log.append(alert())
            assert [r.seq for r in reader.read()] == [1, 2]


def test_permissions(directory: Path) -> None:
    with EventLog(directory):
        pass
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_notes(directory: Path) -> None:
    with EventLog(directory) as log:
        log.append_note({"kind": "upload", "media": 1, "sourceId": "abc"})
        log.append_note({"kind": "rejected", "payload": b"\x80"})
    with EventLog(directory) as log:
        assert [note["kind"] for _, note in log.notes()] == ["upload", "rejected"]


def test_damaged_ring_opens_and_says_what_is_lost(directory: Path) -> None:
    with EventLog(directory) as log:
        for i in range(300):
            log.append(alert(f"{i} {os.urandom(20).hex()}"))
        size, used = log.stats().segment_size, log.stats().bytes_used
    ring = directory / "events.ring"
    data = bytearray(ring.read_bytes())
    start = data.index(b"VEVSEGM\n")
    records = 65536 + size - (log_data_size(size))
    assert start == 65536
    middle = records + used // 2
    data[middle : middle + 700] = os.urandom(700)
    ring.write_bytes(data)
    with EventLog(directory) as log:
        stats = log.stats()
        good = list(log.read())
        assert stats.conserved
        assert 0 < stats.lost < 10
        assert len(good) == stats.pending == 300 - stats.lost
        assert log.append(alert()).seq == 301


def log_data_size(segment_size: int) -> int:
    """Bytes of records in a segment, by docs/format.md (dictionary 16 KiB, smallest record 64)."""
    count = segment_size // 64 // 16 * 16
    return segment_size - 4096 - 16384 - -(-count // 2 // 4096) * 4096


@pytest.mark.parametrize("content", [b"", b"junk" * 100, bytes(1 << 20)])
def test_a_file_that_is_no_ring_is_set_aside(directory: Path, content: bytes) -> None:
    directory.mkdir()
    (directory / "events.ring").write_bytes(content)
    with EventLog(directory) as log:
        assert log.stats().set_aside == 1
        log.append(alert())
    assert (directory / "events.ring.damaged-1").read_bytes() == content


def test_full_disk_at_creation(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs root and tmpfs to make a full disk")
    try:
        with pytest.raises(OSError, match=str(mount)) as caught:
            EventLog(mount / "log", events_size=1 << 20)  # fits, media.ring does not
        assert caught.value.errno == errno.ENOSPC
        assert list((mount / "log").iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_no_thread_can_be_made(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from vevents import EventLog\n"
        "try:\n"
        "    EventLog(sys.argv[1])\n"
        "except OSError as error:\n"
        "    sys.exit(str(error))\n"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard != resource.RLIM_INFINITY:
        pytest.skip("the limit on the stack cannot be raised")
    # Threads get a stack of what the limit says at the start: more than there are addresses.
    resource.setrlimit(resource.RLIMIT_STACK, (sys.maxsize // 2, hard))
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "log")],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    assert "no thread can be made" in done.stderr, done.stderr
    assert list((tmp_path / "log").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"events_size": 10}, "events_size"),
        ({"segment_size": 1000}, "segment_size"),
        ({"full": "explode"}, "full"),
        ({"level": 20}, "level"),
        ({"sync_interval_s": -1}, "sync_interval_s"),
        ({"jpeg_quality": 0}, "jpeg_quality"),
        ({"pressure": "0.5:none"}, "pressure"),
        ({"events_size": "64MiB"}, "events_size: '64MiB'"),
        ({"media_size": float("nan")}, "media_size: nan"),
        ({"delivery_size": 2e6}, "delivery_size: 2000000.0"),
        ({"segment_size": 65536.0}, "segment_size: 65536.0"),
        ({"full": ["refuse"]}, r"full: \['refuse'\]"),
        ({"sync_interval_s": None}, "sync_interval_s: None"),
        ({"level": 1.5}, "level: 1.5"),
        ({"level": "100"}, "level: '100'"),
        ({"jpeg_quality": "85"}, "jpeg_quality: '85'"),
        ({"pressure": 0.5}, "pressure"),
        ({"persist_dir": ""}, "persist_dir: an empty path"),
        ({"persist_dir": b"copy"}, "persist_dir: must be a str or a path, not bytes"),
        ({"persist_dir": "copy", "persist_interval_s": "10min"}, "persist_interval: '10min'"),
    ],
)
def test_bad_arguments_are_named(
    directory: Path, arguments: dict, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)  # where a copy would go
    with pytest.raises(ConfigurationError, match=named):
        EventLog(directory, **arguments)
    assert not directory.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "must be a str or a path, not NoneType"),
        (b"log", "must be a str or a path, not bytes"),
        ("log\0elsewhere", "has a NUL character"),
    ],
)
def test_a_directory_that_is_no_path(
    given: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=f"directory: {words}"):
        EventLog(given)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_no_event_is_not_appended(directory: Path) -> None:
    with EventLog(directory) as log:
        for given in ({"eventType": "custom"}, None, "x", Event):
            with pytest.raises(EventValidationError, match="event: must be an Event, not "):
                log.append(given)  # type: ignore[arg-type]
        with pytest.raises(EventValidationError, match="event: an argument is out of range"):
            log.append_encoded(b"\x80", 2**32)
        assert log.stats().appended == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda log: log.stats("frames"), "stream: 'frames'; one of 'events', 'media', 'deliv"),
        (lambda log: log.verify(None), "stream: None; one of "),
        (lambda log: list(log.read(b"events")), "stream: b'events'; one of "),
        (lambda log: list(log.read(states="pending")), r"states: 'pending' is one; .*'pending',"),
        (lambda log: list(log.read(states=("all",))), "state: 'all'; one of 'pending', "),
        (lambda log: list(log.read(from_seq=-1)), "from_seq: -1; a whole number, 0 or more"),
        (lambda log: list(log.read(from_seq=1.5)), "from_seq: 1.5; a whole number, 0 or more"),
        (lambda log: list(log.read(limit=-1)), "limit: -1; a whole number, 0 or more"),
        (lambda log: log.read_batch(limit=None), "limit: None; a whole number, 0 or more"),
        (lambda log: log.mark([1], "sent"), "state: 'sent'; one of 'pending', "),
        (lambda log: log.ack(1), "seqs: must be sequence numbers in a list"),
        (lambda log: log.ack([-1]), "seqs: must be sequence numbers in a list"),
        (lambda log: log.ack(["1"]), "seqs: must be sequence numbers in a list"),
        (lambda log: log.frame(None), "frame: must be a FrameRef or a sequence number, not None"),
        (lambda log: log.frame(-1), "frame: -1; a whole number, 0 or more"),
        (lambda log: log.frame_view(5), "frame: must be a FrameRef, not int"),
        (lambda log: log.frame_view(FrameRef(-1, bytes(16), 1)), "frame: -1; a whole number"),
        (lambda log: log.decode(None), "record: must be a Record, not NoneType"),
        (lambda log: log.event_id(1), "record: must be a Record, not int"),
        (lambda log: list(log.read(states=None)), "states: None; some of 'pending', "),
        (lambda log: log.append_note("x"), "note: must be a mapping, not str"),
        (lambda log: log.append_note({"at": object()}), "note: can not serialize 'object'"),
        (
            lambda log: log.append_encoded("x"),
            "payload: a bytes-like object is required, not 'str'",
        ),
        (lambda log: log.append_encoded(b"\x80", "1"), "kind: an integer is required"),
        (lambda log: log.append_encoded(b"\x80", -1), "kind: -1; a whole number, 0 to 7"),
    ],
)
def test_what_no_log_could_answer_is_named(directory: Path, call: Any, words: str) -> None:
    with EventLog(directory) as log:
        log.append(alert())
        with pytest.raises((ValueError, TypeError), match=words):
            call(log)
        assert log.ack(seq for seq in (1, 2)) == 1  # type: ignore[arg-type]


def test_an_event_that_is_too_large_is_told_the_limit(directory: Path) -> None:
    points = [(i + 0.1, i * 1.7) for i in range(100_000)]
    outline = InstanceSegmentation("a", 1, 2, 3, 4, 0.5, points)
    with EventLog(directory, events_size=1 << 20) as log:
        limit = log.stats().max_payload
        with pytest.raises(EventTooLargeError, match=rf"^event: \d+ bytes, .* at most {limit}$"):
            log.append(Event.custom(value="x", images=[Image(instance_segmentations=[outline])]))


def test_an_array_is_encoded_with_the_quality_of_the_log(directory: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    with EventLog(directory, jpeg_quality=10) as log:
        log.append(Event.custom(value="x", images=[Image(pixels)]))
        frame = log.decode(next(log.read())).images[0].frame
        assert log.append_frame(pixels) == frame


def test_a_log_shows_where_it_is_and_a_record_not_its_bytes(directory: Path) -> None:
    with EventLog(directory) as log:
        assert repr(log) == f"EventLog({str(directory)!r})"
        log.append_frame(JPEG)
        assert len(repr(next(log.read("media")))) < 300


def test_a_log_says_why_it_is_not_pickled(directory: Path) -> None:
    with EventLog(directory) as log:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="open the directory again in each process"):
                attempt(log)


def test_closed_log(directory: Path) -> None:
    log = EventLog(directory)
    log.close()
    log.close()
    for call in (lambda: log.append(alert()), lambda: log.append_encoded(b"\x80"), log.stats):
        with pytest.raises(LogError, match="closed"):
            call()


def test_what_is_printed_to_a_closed_stream_goes_into_no_ring(directory: Path) -> None:
    """A daemon may have closed its standard streams, and libraries print all the same."""
    program = """
import os, sys
from vevents import Event, EventLog

for stream in range(3):
    os.close(stream)
log = EventLog(sys.argv[1])
log.append(Event.custom(value="before"))
printed = 0
for stream in range(3):
    try:
        printed += os.write(stream, bytes(64))
    except OSError:
        pass
log.append(Event.custom(value="after"))
log.close()
os._exit(1 if printed else 0)
"""
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, timeout=60)
    with EventLog(directory) as log:
        assert log.stats().pending == 2


def test_fork_amid_an_append_of_another_thread(directory: Path) -> None:
    """Amid the part that is Python: no lock may be left to the child that nobody opens there."""
    program = """
import os, sys, threading
from vevents import Event, EventLog, Image
from vevents.pressure import Ladder, Step

amid, go_on, parent = threading.Event(), threading.Event(), os.getpid()

class Slow(Ladder):
    def level(self, share, level=0):
        if os.getpid() == parent:
            amid.set()
            go_on.wait(60)
        return super().level(share, level)

def append(log, number):
    frame = b"\\xff\\xd8\\xff\\xe0" + os.urandom(2000)
    log.append(Event.custom(value=str(number), images=[Image(frame)]))

with EventLog(sys.argv[1], pressure=Slow([Step(0.9, "none")])) as log:
    thread = threading.Thread(target=append, args=(log, 1))
    thread.start()
    amid.wait(60)
    child = os.fork()
    if child == 0:
        append(log, 2)
        log.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    thread.join()
    assert log.stats().appended == log.stats("media").appended == 2
"""
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, timeout=60)


def test_signal_amid_an_append_and_its_handler_appends(directory: Path) -> None:
    """As a handler of SIGTERM may, to tell why the camera stopped."""
    program = """
import os, signal, sys
from vevents import Event, EventLog, Image
from vevents.pressure import Ladder, Step

class Interrupted(Ladder):
    left = 20

    def level(self, share, level=0):
        if Interrupted.left > 0:
            Interrupted.left -= 1
            os.kill(os.getpid(), signal.SIGTERM)
        return super().level(share, level)

def append(value):
    frame = b"\\xff\\xd8\\xff\\xe0" + os.urandom(2000)
    log.append(Event.custom(value=value, images=[Image(frame)]))

with EventLog(sys.argv[1], pressure=Interrupted([Step(0.9, "none")])) as log:
    signal.signal(signal.SIGTERM, lambda *_: append("handler"))
    for _ in range(3):
        append("loop")
    assert Interrupted.left == 0
    assert log.stats().appended == log.stats("media").appended == 23
"""
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, timeout=60)


def test_signals_amid_reads_and_their_handler_reads(directory: Path) -> None:
    with EventLog(directory) as log:
        for number in range(2000):
            log.append(Event.custom(value=str(number)))
    program = """
import signal, sys
from vevents import EventLog

with EventLog(sys.argv[1]) as log:
    handled = []

    def handle(*_):
        handled.append([record.seq for record in log.read_batch(from_seq=1500, limit=20)[0]])

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.003)
    while len(handled) < 300:
        assert [record.seq for record in log.read()] == list(range(1, 2001))
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert all(seqs == list(range(1500, 1520)) for seqs in handled)
"""
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, timeout=60)


def test_close_amid_calls_of_other_threads(directory: Path) -> None:
    """As when Ctrl-C ends the program's `with` while its cameras' threads append."""
    program = """
import os, sys, threading
from vevents import Event, EventLog, errors

frame = b"\\xff\\xd8\\xff\\xe0" + os.urandom(4_000_000)
for turn in range(20):
    log = EventLog(f"{sys.argv[1]}/{turn}", media_size=64 << 20, events_size=4 << 20)
    began, ended, returned = threading.Semaphore(0), [], []

    def again_and_again(number, call):
        try:
            while True:
                call()
                returned.append(number)
                began.release()
        except errors.LogError as error:
            ended.append(error)

    calls = [
        lambda: log.append_frame(frame + os.urandom(8)),
        lambda: log.append(Event.custom(value="door open", use_case_id="dock"), sync=True),
        lambda: list(log.read("media")),
        lambda: log.verify("media"),
        lambda: log.stats("media"),
        log.sync,
    ]
    threads = [threading.Thread(target=again_and_again, args=one) for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for _ in range(12 + turn):
        began.acquire()
    log.close()
    for thread in threads:
        thread.join()
    assert len(ended) == len(calls) and all("closed" in str(error) for error in ended), ended
    with EventLog(f"{sys.argv[1]}/{turn}") as again:
        media, events = again.stats("media"), again.stats()
        assert media.conserved and events.conserved
        # What raised has not appended.
        assert (media.appended, events.appended) == (returned.count(0), returned.count(1))
"""
    directory.mkdir()
    command = [sys.executable, "-X", "faulthandler", "-c", program, str(directory)]
    spoilt = os.environ | {"MALLOC_PERTURB_": "165"}  # glibc: what is freed is overwritten
    subprocess.run(command, check=True, timeout=120, env=spoilt)


def test_a_kept_error_keeps_no_log_open(directory: Path) -> None:
    log = EventLog(directory)
    with pytest.raises(LogError, match="no copy") as kept:
        log.persist()
    log.close()
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert kept.value.__traceback__
    assert not [link for link in links if directory in link.readlink().parents]


def test_every_status_has_an_exception_and_a_sentence() -> None:
    codes = {name: getattr(_ffi.lib, name) for name in dir(_ffi.lib) if name.startswith("VEV_E_")}
    assert len(codes) >= 10
    for name, code in codes.items():
        with pytest.raises(_ffi.ERROR_OF[code]) as caught:
            _ffi.check(code, "here")
        assert "here" in str(caught.value), name
        assert "unknown" not in str(caught.value), name
    with pytest.raises(OSError, match="here"):
        _ffi.check(errno.EIO, "here")


def test_opening_a_full_log_drops_nothing(directory: Path) -> None:
    with EventLog(directory, events_size=1 << 20) as log:
        while not log.stats().evicted:
            for _ in range(100):
                log.append(alert(os.urandom(50).hex()))
    # Not earlier: the helper thread may have prepared one segment more in the meantime.
    with EventLog(directory, read_only=True) as log:
        before = log.stats()
    for _ in range(5):
        with EventLog(directory, sync_interval_s=0.01) as log:
            assert len(list(log.read())) == log.stats().pending
            log.mark([before.last_seq], "delivered")
            threading.Event().wait(0.05)
            assert log.stats().evicted == before.evicted


def test_a_ring_at_rest_is_not_written(tmp_path: Path) -> None:
    """Each look of the helper thread at it would cost a page of flash, half a minute later."""
    with EventLog(tmp_path / "log", sync_interval_s=0.05, events_size=1 << 20) as log:
        log.append(Event.custom(value="x", use_case_id="uc"))
        log.sync()
        path = tmp_path / "log" / "media.ring"
        deadline = time.monotonic() + 30
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            # A page that was synced is written to by its next change, which sets the file's time.
            with path.open("rb") as file:
                os.fsync(file.fileno())
            before = path.stat().st_mtime_ns
            seq = log.append(Event.custom(value="x", use_case_id="uc")).seq
            while log.durable_seq < seq and time.monotonic() < deadline:
                time.sleep(0.05)
            quiet = quiet + 1 if path.stat().st_mtime_ns == before else 0
        assert quiet == 3


@pytest.mark.parametrize("count", [3, 20], ids=["short", "long"])
def test_a_later_segment_knows_the_words_of_the_device(tmp_path: Path, count: int) -> None:
    """Its dictionary ends with samples of what was appended lately; of long ones the beginning."""
    words = [f"Frachtpalette-{n * 7919 % 9973:04d}-{n * 104729 % 9973:04d}" for n in range(count)]
    with EventLog(tmp_path / "log", events_size=1 << 20, segment_size=65_536) as log:
        for n in range(2000):
            rows = [[word, n % 1000, n % 777, n % 55, n % 33, n % 2] for word in words]
            fields = {"eventType": "custom", "images": [{"objectDetections": rows}]}
            payload = msgpack.packb(fields)
            assert (len(payload) > 512) == (count == 20)
            log.append_encoded(payload)
        sizes = [record.stored_size for record in log.read()]
    assert sum(sizes[-100:]) < 0.9 * sum(sizes[:100])


def test_opening_keeps_no_segment_in_memory(directory: Path) -> None:
    # Those of a media ring are 16 MiB and more, and opening looks through the newest one.
    with EventLog(directory) as log:
        for number in range(40):
            log.append_frame(JPEG + number.to_bytes(100_000, "little"))
    with EventLog(directory) as log:
        resident_kib, is_ring = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if not line[0].isupper():
                is_ring = line.endswith(f"{directory}/media.ring")
            elif is_ring and line.startswith("Rss:"):
                resident_kib += int(line.split()[1])
        stats = log.stats("media")
        assert stats.conserved
        assert stats.pending == 40
    assert resident_kib < 1_000


def test_an_empty_path_is_no_directory() -> None:
    with pytest.raises(ConfigurationError, match="directory: an empty path"):
        EventLog("")
