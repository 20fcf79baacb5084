"""The ring's bytes, read by a second reader made of `zstandard`, `msgpack` and docs/format.md."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import pytest
from reader import RingFile

from vevents import Event, EventLog, Image, ObjectDetection

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8


def event(i: int) -> Event:
    box = ObjectDetection("burr", 100.5 + i, 60, 30.25, 22, 0.913)
    return Event.quality_check(
        result="fail",
        external_id=f"lot-{i}",
        use_case_id="uc-1",
        images=[Image(JPEG + bytes([i % 7]), object_detections=[box])],
    )


@pytest.mark.parametrize("level", [1, -3, 100])
def test_second_reader_agrees(tmp_path: Path, level: int) -> None:
    with EventLog(tmp_path / "log", level=level) as log:
        receipts = [log.append(event(i)) for i in range(50)]
        log.ack([r.seq for r in receipts[:20]])
        log.mark([31], "rejected")
        expected = list(log.read(states=("pending", "delivered", "rejected")))
        images = list(log.read("media"))
    records = list(RingFile(tmp_path / "log" / "events.ring").records())
    assert len(records) == 50
    for record, ours, receipt in zip(records, expected, receipts, strict=True):
        assert (record.seq, record.payload, record.state) == (ours.seq, ours.payload, ours.state)
        assert (record.wall_ns, record.mono_ns, record.boot) == (
            ours.wall_ns,
            ours.mono_ns,
            ours.boot,
        )
        assert str(uuid.UUID(bytes=record.id)) == receipt.event_id
        assert record.kind == 1
        payload = msgpack.unpackb(record.payload)
        assert payload["eventData"]["result"] == "fail"
        [[class_name, x, y, width, _, confidence]] = payload["images"][0]["objectDetections"]
        assert (class_name, y, width) == ("burr", 60, 30.25)
        assert x == 100.5 + record.seq - 1
        assert confidence == pytest.approx(0.913, abs=1e-7)
    stored = list(RingFile(tmp_path / "log" / "media.ring").records())
    assert [r.payload for r in stored] == [r.payload for r in images]
    assert len(stored) == 7  # the same frame twice is stored once


@pytest.mark.parametrize("payload", [bytes(700_000), bytes(range(256)) * 2_000])
def test_second_reader_takes_long_records(tmp_path: Path, payload: bytes) -> None:
    """It reads as a stream, and so holds a frame to the sizes of blocks that the format allows."""
    with EventLog(tmp_path / "log", events_size=8 << 20, segment_size=1 << 20) as log:
        log.append_encoded(msgpack.packb({"payload": payload}))
    [record] = RingFile(tmp_path / "log" / "events.ring").records()
    assert msgpack.unpackb(record.payload) == {"payload": payload}


def test_second_reader_after_many_laps(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", events_size=1 << 20, segment_size=1 << 16) as log:
        moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
        for number in range(12_000):
            appended = Event.custom(value=os.urandom(40).hex(), timestamp=moment)
            if 11_000 < number < 11_100:
                appended = Event.operator_feedback(
                    related_event_id=str(uuid.uuid4()), feedback="correct", timestamp=moment
                )
            log.append(appended)
    with EventLog(tmp_path / "log", read_only=True) as log:
        stats = log.stats()
        ours = [(r.seq, r.payload) for r in log.read()]
    ring = RingFile(tmp_path / "log" / "events.ring")
    records = list(ring.records())
    assert stats.evicted > 0
    assert ring.evicted == stats.evicted
    assert ring.floor_seq == stats.first_seq == ours[0][0]
    assert [(r.seq, r.payload) for r in records] == ours
    laps = ring.laps()
    assert ring.past(laps[-1][2]) == laps[-2::-1]
    named, complete = zip(*(ring.kinds(segment) for _, _, segment in laps), strict=True)
    assert all(complete[:-1]) and not complete[-1]
    kinds = [{record.kind for record in ring.lap(*lap)} for lap in laps]
    # A kind that is named may have found no room in that lap.
    assert all(found <= given for found, given in zip(kinds, named, strict=True))
    assert {4} in named and {4, 5} in named
    assert all(r.flags == 2 and r.wall_ns == 1767323045678901000 for r in records)
